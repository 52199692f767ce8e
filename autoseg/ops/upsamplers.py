"""The upsamplers, one record each. This file loads without torch.

An upsampler maps (N, Cin, h, w) to (N, Cout, 2h, 2w); `autoseg.ops.upsample` says how it is called. To add one, write
its record here, with the module that implements it, or in a file of your own (`docs/extending.md`). Costs are products
of convolutions and matrices for one pixel of low resolution; interpolation has none.
"""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from typing import Any

from autoseg.registry import Upsampler, lazy, register

UPSAMPLE, RESAMPLING, PIXEL_DCL = (f"autoseg.ops.{name}" for name in ("upsample", "resampling", "pixel_dcl"))


def _pixel_dcl(suffix: str, taps: Callable[[int], int], reads_input: bool = False, **options: Any) -> Upsampler:
    """taps: from the kernel size to the taps of all convolutions; reads_input: iPixelDCL; options: of the class."""

    def multiply_adds(channels: int, guide_channels: int, kernel_size: int = 3) -> int:
        return taps(kernel_size) * channels**2

    i = "i" if reads_input else ""
    label = f"{i}PixelDCL{suffix}".replace("_", " ")
    build = lazy(PIXEL_DCL, f"{i.upper()}PixelDCL", **options)
    return Upsampler(f"{i}pixel_dcl{suffix}", label, multiply_adds, build, takes_kernel_size=True)


def _half_filled(kernel_size: int) -> int:
    return 2 * (kernel_size**2 + kernel_size**2 // 2)


def _max_unpool(channels: int, guide: int) -> int:
    return channels**2 + (4 * guide * channels if guide != channels else 0)


for _record in (
    # interpolation behind a 1x1 convolution
    Upsampler("nearest", "nearest", lambda c, guide: c**2, lazy(UPSAMPLE, "Nearest")),
    Upsampler("bilinear", "bilinear", lambda c, guide: c**2, lazy(UPSAMPLE, "Bilinear")),
    # one convolution
    Upsampler("transposed_conv", "t-conv", lambda c, guide: 16 * c**2, lazy(UPSAMPLE, "TransposedConv")),
    Upsampler(
        "transposed_conv_bilinear", "t-conv bilinear", lambda c, guide: 16 * c**2,
        lazy(UPSAMPLE, "TransposedConv", init="bilinear"),
    ),
    Upsampler("pixel_shuffle", "shuffle", lambda c, guide: 36 * c**2, lazy(UPSAMPLE, "PixelShuffle")),
    Upsampler(
        "pixel_shuffle_icnr", "shuffle ICNR", lambda c, guide: 36 * c**2, lazy(UPSAMPLE, "PixelShuffle", init="icnr")
    ),
    # pixel deconvolutions
    _pixel_dcl("", _half_filled),
    _pixel_dcl("_equations", lambda k: 7 * k**2, variant="equations"),
    _pixel_dcl("_average", _half_filled, init="average"),
    _pixel_dcl("", lambda k: 9 * k**2, reads_input=True),
    _pixel_dcl("_equations", lambda k: 10 * k**2, reads_input=True, variant="equations"),
    # unpooling, and resampling that is predicted
    Upsampler("max_unpool", "unpool", _max_unpool, lazy(UPSAMPLE, "MaxUnpool")),
    Upsampler(
        "carafe", "CARAFE", lambda c, guide: c**2 + 64 * c + 9 * 64 * 100 + 100 * c, lazy(RESAMPLING, "Carafe")
    ),
    Upsampler("dysample", "DySample", lambda c, guide: c**2 + 8 * gcd(c, 4) * c, lazy(RESAMPLING, "DySample")),
):  # fmt: skip
    register(_record)
