"""The operations of a cell, one record each. This file loads without torch.

An operation maps (N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride)). The stride is 1 in a search and 2 in the
down moves of a decoded path. To add one, write its record here, or in a file of your own (`docs/extending.md`).
"""

from __future__ import annotations

from typing import Any

from autoseg.registry import FusedForm, Operation, lazy, register

LAYERS, TORCH = "autoseg.ops.layers", "torch.nn"

# --- without weights --------------------------------------------------------------------------------------------------


def _free(name: str, label: str, fused: FusedForm, module: str, layer: str, **options: Any) -> Operation:
    """The layer of a module, called with `options` and the stride."""
    build = lazy(module, layer, **options)
    return Operation(name, label, lambda c: 0, lambda channels, stride, norm: build(stride=stride), fused)


POOL = {"kernel_size": 3, "padding": 1}
register(_free("none", "none", FusedForm("none"), LAYERS, "Zero"))
# at stride 2 bilinear halving, which needs no parameters (the paper leaves this open)
register(_free("skip_connect", "skip", FusedForm("skip"), LAYERS, "Strided"))
# the mean is over the pixels inside the image
MEAN = {**POOL, "count_include_pad": False}
register(_free("avg_pool_3x3", "avg pool 3x3", FusedForm("avg_pool", 3), TORCH, "AvgPool2d", **MEAN))
register(_free("max_pool_3x3", "max pool 3x3", FusedForm("max_pool", 3), TORCH, "MaxPool2d", **POOL))


# --- convolutions -----------------------------------------------------------------------------------------------------


def _separable(name: str, fused: FusedForm, suffixes: tuple[str, ...], rate: int = 1) -> Operation:
    kernel_size, times = fused.kernel_size, len(suffixes)
    size = f"{kernel_size}x{kernel_size}"
    build = lazy(LAYERS, "separable", kernel_size=kernel_size, suffixes=suffixes, rate=rate)
    return Operation(
        f"{name}_conv_{size}", f"{name} {size}", lambda c: times * (kernel_size**2 * c + c**2), build, fused
    )


def _atrous(kernel_size: int) -> Operation:
    size, fused = f"{kernel_size}x{kernel_size}", FusedForm("atrous", kernel_size)
    build = lazy(LAYERS, "atrous", kernel_size=kernel_size)
    return Operation(f"atrous_conv_{size}", f"atrous {size}", lambda c: kernel_size**2 * c**2, build, fused)


# depthwise-separable convolutions; dense ones at rate 2; DARTS's separable ones at rate 2 (Liu et al. 2019)
register(_separable("sep", FusedForm("separable", 3), ("1", "2")))
register(_separable("sep", FusedForm("separable", 5), ("1", "2")))
register(_atrous(3))
register(_atrous(5))
register(_separable("dil", FusedForm("dilated", 3), ("",), rate=2))
register(_separable("dil", FusedForm("dilated", 5), ("",), rate=2))
