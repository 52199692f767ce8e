"""Spaces in which upsamplers and skip connections compete."""

from __future__ import annotations

from typing import Any

import torch

from autoseg.space.schema import SearchSpace
from helpers.spaces import small_space

UPSAMPLERS = ["bilinear", "transposed_conv", "max_unpool"]
OPERATIONS = ["none", "skip_connect", "sep_conv_3x3", "atrous_conv_3x3"]
HOURGLASS: dict[str, Any] = {"layers": 5, "down_layers": 3, "strides": (2, 4, 8)}
SKIPS: dict[str, Any] = {"skips": ["none", "add", "concat"]}


def space_of(network: dict[str, Any] | None = None, blocks: int = 2, **groups: Any) -> SearchSpace:
    settings = {"layers": 3, "strides": (4, 8, 16), **(network or {})}
    plain = {key: settings.pop(key) for key in ("layers", "strides")}
    data = small_space(blocks=blocks, operations=OPERATIONS, **plain).to_dict()
    data["network"] |= settings
    if "down_layers" in settings:
        data["decoder"]["name"] = "classifier"
    for group, values in groups.items():
        data[group] = {**data.get(group, {}), **values}
    return SearchSpace.parse(data)


SPACES = {
    "by level": space_of(resolution={"upsamplers": UPSAMPLERS}),
    "by arrow": space_of({"layers": 4}, resolution={"upsamplers": UPSAMPLERS, "shared_by": "arrow"}),
    "one alone": space_of(resolution={"upsamplers": ["pixel_dcl"]}),
    "decoder": space_of(decoder={"upsamplers": ["pixel_shuffle", "max_unpool"]}),
    "both": space_of(resolution={"upsamplers": UPSAMPLERS}, decoder={"upsamplers": ["nearest", "transposed_conv"]}),
    "hourglass": space_of(HOURGLASS),
    "hourglass without skips": space_of(HOURGLASS, resolution={"upsamplers": UPSAMPLERS}),
    "skips": space_of(HOURGLASS, resolution={"upsamplers": UPSAMPLERS, **SKIPS}, cell={"up_cell": True}),
    "skips alone": space_of(HOURGLASS, resolution=SKIPS, head={"name": "classifier"}),
    "add alone": space_of(HOURGLASS, resolution={"skips": ["add"]}),
    "multi": space_of({"paths": "multi"}),
    "multi hourglass": space_of({**HOURGLASS, "paths": "multi"}, resolution={"upsamplers": UPSAMPLERS, **SKIPS}),
}


def images_of(*size: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(2, 3, *size, dtype=dtype, generator=torch.Generator().manual_seed(3))
