"""Name -> operation of a discrete cell, a plain dictionary."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from autoseg.ops.operations import AtrousConv, AvgPool, DilConv, MaxPool, SepConv, SkipConnect

PRIMITIVES: dict[str, Callable[..., nn.Module]] = {
    "skip_connect": SkipConnect,
    "avg_pool_3x3": partial(AvgPool, kernel_size=3),
    "max_pool_3x3": partial(MaxPool, kernel_size=3),
    "sep_conv_3x3": partial(SepConv, kernel_size=3),
    "sep_conv_5x5": partial(SepConv, kernel_size=5),
    "atrous_conv_3x3": partial(AtrousConv, kernel_size=3),
    "atrous_conv_5x5": partial(AtrousConv, kernel_size=5),
    "dil_conv_3x3": partial(DilConv, kernel_size=3),
    "dil_conv_5x5": partial(DilConv, kernel_size=5),
}
"""Called with `channels`, `stride` and `norm`."""
