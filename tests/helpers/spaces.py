"""Small search spaces of every kind, random probabilities in them, and those that stand for a genotype."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import networkx as nx
import numpy as np

from autoseg.config.base import merge
from autoseg.genotype.schema import Cell, Genotype
from autoseg.registry import OPERATIONS
from autoseg.space.schema import SearchSpace
from autoseg.space.snapshot import ArchProbs, logits_shapes
from autoseg.space.trellis import STEM_NODE, Trellis

PLAIN: dict[str, Any] = {
    "name": "plain",
    "cell": {"blocks": 2, "operations": ["none", "skip_connect", "sep_conv_3x3", "atrous_conv_3x3"]},
    "network": {"layers": 4, "strides": [4, 8, 16], "filter_multiplier": 2},
    "stem": {"channels": [4, 6], "strides": [2, 2]},
}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "gamma": {"resolution": {"upsamplers": ["bilinear", "pixel_dcl_5x5", "carafe"]}},
    "by arrow": {"resolution": {"upsamplers": ["nearest", "dysample"], "shared_by": "arrow"}},
    "decoder": {"decoder": {"name": "aspp", "upsamplers": ["bilinear", "transposed_conv"]}},
    "unet decoder": {
        "resolution": {"upsamplers": ["pixel_dcl"]},
        "decoder": {"name": "unet", "upsamplers": ["pixel_dcl", "max_unpool"]},
    },
    "deeplabv3plus": {"decoder": {"upsamplers": ["pixel_shuffle", "bilinear"], "low_level_stride": 8}},
    "hourglass": {
        "network": {"layers": 6, "down_layers": 3},
        "cell": {"up_cell": True},
        "resolution": {"upsamplers": ["bilinear", "max_unpool"], "skips": ["none", "add", "concat"]},
        "decoder": {"name": "classifier"},
    },
    "joined hourglass": {
        "network": {"layers": 5, "down_layers": 2},
        "resolution": {"skips": ["concat"]},
        "decoder": {"name": "aspp"},
    },
    "multi": {"network": {"paths": "multi"}},
    "multi hourglass": {
        "network": {"layers": 5, "down_layers": 2, "paths": "multi"},
        "cell": {"up_cell": True},
        "resolution": {"upsamplers": ["bilinear", "ipixel_dcl"], "shared_by": "arrow", "skips": ["add", "none"]},
        "decoder": {"name": "classifier"},
    },
}


def space_of(kind: str, **changes: Any) -> SearchSpace:
    return SearchSpace.parse(merge(merge(PLAIN, KINDS[kind]), {"name": kind, **changes}))


def random_probs(space: SearchSpace, rng: np.random.Generator | int = 0, scale: float = 2.0) -> ArchProbs:
    """Logits drawn from a normal distribution. `rng`: a generator or a seed."""
    rng = np.random.default_rng(rng)
    return ArchProbs.of(space, {name: scale * rng.standard_normal(of) for name, of in logits_shapes(space).items()})


def one_hot(genotype: Genotype, space: SearchSpace, height: float = 60.0) -> ArchProbs:
    """Probabilities of 1 for what a genotype of the space chose, as nearly as logits can say it."""
    logits = {f"{name}_logits": np.full(shape, -height) for name, shape in logits_shapes(space).items()}
    edges = len(space.topology.edges)
    for number, cell in enumerate([genotype.cell, genotype.up_cell or genotype.cell][: space.cells]):
        _put_cell(logits["alpha_logits"][number * edges : (number + 1) * edges], cell, space, height)
    for arrow in genotype.arrows:
        logits["beta_logits"][arrow.source.layer, arrow.source.level, arrow.move] = height
    for arrow in genotype.up_arrows:
        row = space.gamma_row(arrow)
        if row is not None:
            logits["gamma_logits"][row, space.upsamplers.index(genotype.upsampler(arrow))] = height
        if "skip_logits" in logits:
            column = space.resolution.skips.index(genotype.skip(arrow))
            logits["skip_logits"][arrow.target.level, column] = height
    for level, name in zip(genotype.decoder_levels, genotype.decoder.upsamplers, strict=False):
        logits["gamma_logits"][space.decoder_row(level), space.upsamplers.index(name)] = height
    return ArchProbs(space, **logits)


def _put_cell(alpha: np.ndarray, cell: Cell, space: SearchSpace, height: float) -> None:
    alpha[:, space.cell.operations.index("none")] = 0.0  # what is not chosen is nothing
    for block, edges in enumerate(cell):
        rows = {space.topology.edges[row][1]: row for row in space.topology.edges_into(block)}
        for edge in edges:
            alpha[rows[edge.state], space.cell.operations.index(edge.operation)] = height


def paths_of(trellis: Trellis) -> list[tuple[int, ...]]:
    """Every path as the levels of layers 1..L, in lexicographic order."""
    ends = trellis.nodes_at(trellis.layers)
    return sorted(
        tuple(node.level for node in path[1:]) for path in nx.all_simple_paths(trellis.graph, STEM_NODE, ends)
    )


def small_space(
    layers: int = 4,
    blocks: int = 2,
    strides: Sequence[int] = (4, 8, 16, 32),
    operations: Sequence[str] = tuple(OPERATIONS),
    filters: int = 2,
    stem: tuple[list[int], list[int]] | None = None,
    **network: Any,
) -> SearchSpace:
    """`stem`: channels and strides; left out, one convolution a halving."""
    halvings = strides[0].bit_length() - 1
    channels, stem_strides = stem or ([4] * max(halvings, 1), [2] * halvings or [1])
    return SearchSpace.parse(
        {
            "name": "small",
            "cell": {"blocks": blocks, "operations": list(operations)},
            "network": {"layers": layers, "strides": list(strides), "filter_multiplier": filters, **network},
            "stem": {"channels": channels, "strides": stem_strides},
        }
    )


def hourglass_space(**groups: Any) -> SearchSpace:
    """Strides 2, 4, 8 and 5 layers, 3 of them on the way down: upsamplers, skips and two cells compete."""
    return SearchSpace.parse(
        {
            "name": "hourglass",
            "cell": {"blocks": 2, "up_cell": True},
            "network": {"layers": 5, "strides": [2, 4, 8], "down_layers": 3},
            "stem": {"channels": [8], "strides": [2]},
            "resolution": {"upsamplers": ["bilinear", "pixel_dcl_5x5", "carafe"], "skips": ["none", "add", "concat"]},
            "decoder": {"name": "classifier"},
            **groups,
        }
    )


def open_space(paths: str = "single", **groups: Any) -> SearchSpace:
    """Strides 2, 4, 8 and 4 layers in any order; two upsamplers compete on up moves, two in the decoder."""
    return SearchSpace.parse(
        {
            "name": "open",
            "cell": {"blocks": 1},
            "network": {"layers": 4, "strides": [2, 4, 8], "paths": paths},
            "stem": {"channels": [8], "strides": [2]},
            "resolution": {"upsamplers": ["bilinear", "carafe"]},
            "decoder": {"name": "aspp", "upsamplers": ["bilinear", "dysample"]},
            **groups,
        }
    )


TEMPERATURES = [4.0, 0.5]
"""Of GDAS, first and last."""


def space_with(relaxation: dict[str, Any], **settings: Any) -> SearchSpace:
    """A small space with options of PC-DARTS, GDAS and mixing before the cell."""
    return SearchSpace.parse({**small_space(**settings).to_dict(), "relaxation": relaxation})
