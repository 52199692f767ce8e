"""The upsamplers, one record each. This file loads without torch.

An upsampler maps (N, Cin, h, w) to (N, Cout, 2h, 2w); `autoseg.ops.upsample` says how it is called. To add one, write
its record here, with a builder that puts torch layers together or imports a class, or in a file of your own
(`docs/extending.md`). The costs are products for one pixel of low resolution; interpolation is not counted, since it is
no convolution and no product of matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from typing import TYPE_CHECKING

from autoseg.registry import Upsampler, register

if TYPE_CHECKING:
    from torch import nn


# --- interpolation behind a 1x1 convolution ---------------------------------------------------------------------------


def _square(channels: int, guide_channels: int) -> int:
    return channels**2


def _nearest(in_channels: int, out_channels: int) -> nn.Module:
    from autoseg.ops.upsample import Nearest

    return Nearest(in_channels, out_channels)


def _bilinear(in_channels: int, out_channels: int) -> nn.Module:
    from autoseg.ops.upsample import Bilinear

    return Bilinear(in_channels, out_channels)


register(Upsampler("nearest", "nearest", _square, _nearest))
register(Upsampler("bilinear", "bilinear", _square, _bilinear))


# --- one convolution --------------------------------------------------------------------------------------------------


def _transposed_conv(in_channels: int, out_channels: int) -> nn.Module:
    from autoseg.ops.upsample import TransposedConv

    return TransposedConv(in_channels, out_channels)


def _transposed_conv_bilinear(in_channels: int, out_channels: int) -> nn.Module:
    from autoseg.ops.upsample import TransposedConv

    return TransposedConv(in_channels, out_channels, init="bilinear")


def _pixel_shuffle(in_channels: int, out_channels: int) -> nn.Module:
    from autoseg.ops.upsample import PixelShuffle

    return PixelShuffle(in_channels, out_channels)


def _pixel_shuffle_icnr(in_channels: int, out_channels: int) -> nn.Module:
    from autoseg.ops.upsample import PixelShuffle

    return PixelShuffle(in_channels, out_channels, init="icnr")


register(Upsampler("transposed_conv", "t-conv", lambda c, guide: 16 * c**2, _transposed_conv))
register(
    Upsampler("transposed_conv_bilinear", "t-conv bilinear", lambda c, guide: 16 * c**2, _transposed_conv_bilinear)
)
register(Upsampler("pixel_shuffle", "shuffle", lambda c, guide: 36 * c**2, _pixel_shuffle))
register(Upsampler("pixel_shuffle_icnr", "shuffle ICNR", lambda c, guide: 36 * c**2, _pixel_shuffle_icnr))


# --- pixel deconvolutions ---------------------------------------------------------------------------------------------


def _pixel_dcl(suffix: str, taps: Callable[[int], int], reads_input: bool = False, **options: str) -> Upsampler:
    """taps: from the kernel size to the taps of all convolutions; reads_input: iPixelDCL; options: of the class."""

    def multiply_adds(channels: int, guide_channels: int, kernel_size: int = 3) -> int:
        return taps(kernel_size) * channels**2

    def build(in_channels: int, out_channels: int, kernel_size: int = 3) -> nn.Module:
        from autoseg.ops.pixel_dcl import IPixelDCL, PixelDCL

        deconvolution = IPixelDCL if reads_input else PixelDCL
        return deconvolution(in_channels, out_channels, kernel_size, **options)  # type: ignore[arg-type]

    i = "i" if reads_input else ""
    label = f"{i}PixelDCL{suffix}".replace("_", " ")
    return Upsampler(f"{i}pixel_dcl{suffix}", label, multiply_adds, build, takes_kernel_size=True)


def _half_filled(kernel_size: int) -> int:
    return 2 * (kernel_size**2 + kernel_size**2 // 2)


register(_pixel_dcl("", _half_filled))
register(_pixel_dcl("_equations", lambda k: 7 * k**2, variant="equations"))
register(_pixel_dcl("_average", _half_filled, init="average"))
register(_pixel_dcl("", lambda k: 9 * k**2, reads_input=True))
register(_pixel_dcl("_equations", lambda k: 10 * k**2, reads_input=True, variant="equations"))


# --- unpooling, and resampling that is predicted ----------------------------------------------------------------------


def _max_unpool_cost(channels: int, guide_channels: int) -> int:
    of_guide = 4 * guide_channels * channels if guide_channels != channels else 0
    return channels**2 + of_guide


def _max_unpool(in_channels: int, out_channels: int) -> nn.Module:
    from autoseg.ops.upsample import MaxUnpool

    return MaxUnpool(in_channels, out_channels)


def _carafe(in_channels: int, out_channels: int) -> nn.Module:
    from autoseg.ops.resampling import Carafe

    return Carafe(in_channels, out_channels)


def _dysample(in_channels: int, out_channels: int) -> nn.Module:
    from autoseg.ops.resampling import DySample

    return DySample(in_channels, out_channels)


register(Upsampler("max_unpool", "unpool", _max_unpool_cost, _max_unpool))
register(Upsampler("carafe", "CARAFE", lambda c, guide: c**2 + 64 * c + 9 * 64 * 100 + 100 * c, _carafe))
register(Upsampler("dysample", "DySample", lambda c, guide: c**2 + 8 * gcd(c, 4) * c, _dysample))
