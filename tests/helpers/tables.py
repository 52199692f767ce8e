"""A table of eight networks with planted scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from autoseg.genotype.design import enumerate_genes, genotype_of
from autoseg.genotype.scale import channels_of
from autoseg.space.schema import SearchSpace
from autoseg.tabular.table import Table

SPACE: dict[str, Any] = {
    "name": "eight",
    "network": {"layers": 2, "strides": [2, 4, 8], "filter_multiplier": 4},
    "stem": {"channels": [4], "strides": [2]},
    "decoder": {"name": "classifier"},
    "macro": {
        "networks": [{"name": "down", "strides": [4, 8]}, {"name": "fine", "strides": [2, 4]}],
        "profiles": [{"name": "even", "widths": [1, 1, 1]}],
        "blocks": ["conv_3x3", "separable"],
        "shared_by": "network",
        "upsamplers": ["bilinear", "pixel_dcl"],
    },
}
IMAGES, CLASSES, STOPS = 5, 3, (1, 3, 9)


def planted(miou: np.ndarray, space: SearchSpace | None = None, **changes: Any) -> Table:
    """A table of these scores (S, M) at the end, half of them a third of the way, and noise in all the rest."""
    space, rng = space or SearchSpace.parse(SPACE), np.random.default_rng(0)
    members = [channels_of(genotype_of(space, genes)) for genes in enumerate_genes(space)]
    seeds, count = miou.shape
    assert count == len(members)
    counts = rng.integers(0, 90, (seeds, count, IMAGES, 2, CLASSES)).astype(np.uint16)
    counts[..., 0, :] = counts.min(-2)  # no more correct pixels than predicted ones
    given: dict[str, Any] = {
        "space": space,
        "recipe": {"data": {}, "retrain": {"epochs": 9}, "num_classes": CLASSES},
        "stops": STOPS,
        "channels": members,
        "miou": np.stack([rng.random(miou.shape) / 9, miou / 2, miou], 1),
        "loss": rng.random((seeds, len(STOPS), count)),
        "counts": counts,
        "true": rng.integers(90, 200, (IMAGES, CLASSES)).astype(np.uint16),
        "parameters": rng.integers(100, 900, count),
        "multiply_adds": np.full(count, 1000),
        "seconds": rng.random((seeds, count)),
    }
    return Table(**{**given, **changes})
