# mypy: disable-error-code="untyped-decorator,no-untyped-def"
"""Depthwise convolutions as Triton kernels, for both ways in which features lie in memory.

A program computes a tile of pixels of one image times channels. In channels_last memory its threads run along the
channels, in channels_first along the pixels, so that neighbours read neighbours. The pixels around a pixel are read
again for every tap, from the cache; weights are read fastest if those of a tap are adjacent (`weights.tap_by_tap`).
Sums are in float32, or in float64 for float64; their order is fixed.

Block sizes follow from the shape only: an autotuner could not run while a CUDA graph is recorded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 1024
"""Pixels times channels of a program; twice as many do not fit the registers of sm_90 at k = 5."""
WEIGHT_TILE = 4096
"""Pixels times channels times taps that a program for the gradient of a weight holds at once, in registers."""
CHUNK = 256
"""Pixels of an image that such a program sums; the sums of all programs are added afterwards."""
SIDE = 64
"""Most elements of a tile along the contiguous axis; half of it for a weight's gradient."""


# --- the kernels ------------------------------------------------------------------------------------------------------
#
# The channels are `parts` of `part` each. `wide` has a bit for each part: whether its kernels are k x k. Other kernels
# are 3x3, and the taps around them are skipped. A program has channels of one part only. `unit` divides `part` and the
# strides, so Triton can read several channels by one instruction. Its own specialisation would look at each argument
# and compile a kernel for each outcome.

_SIZES = ("height", "width", "part", "wide", "all_channels")
_STEPS = tuple(
    f"{kind}_{of}" for kind in ("image", "pixel", "channel", "tap") for of in ("in", "out", "grad", "weight")
)


@triton.jit(do_not_specialize=_SIZES, do_not_specialize_on_alignment=_STEPS)
def _convolve(features, weight, result, height, width, part, wide, channel_weight, tap_weight, image_in, pixel_in,
              channel_in, image_out, pixel_out, channel_out, k: tl.constexpr, rate: tl.constexpr, turned: tl.constexpr,
              unit: tl.constexpr, pixels: tl.constexpr, channels: tl.constexpr):  # fmt: skip
    """Grid: blocks of pixels, of channels, images."""
    part, tap_weight = part // unit * unit, tap_weight // unit * unit
    image_in, pixel_in = image_in // unit * unit, pixel_in // unit * unit
    image_out, pixel_out = image_out // unit * unit, pixel_out // unit * unit
    blocks = tl.cdiv(part, channels)
    number = tl.program_id(1) // blocks
    within = tl.program_id(1) % blocks * channels + tl.arange(0, channels)
    channel, exists = number * part + within, within < part
    filled = ((wide >> number) & 1) == 1
    pixel = tl.program_id(0) * pixels + tl.arange(0, pixels)
    row, column = pixel // width, pixel % width
    image = tl.program_id(2).to(tl.int64)
    total = tl.zeros((pixels, channels), tl.float64 if features.dtype.element_ty == tl.float64 else tl.float32)
    for tap in tl.static_range(k * k):
        down, right = (tap // k - k // 2) * rate, (tap % k - k // 2) * rate
        y, x = row + down, column + right
        seen = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        if (tap // k - k // 2) ** 2 > 1 or (tap % k - k // 2) ** 2 > 1:
            seen = seen & filled
        place = image * image_in + (pixel + down * width + right) * pixel_in
        address = features + place[:, None] + (channel * channel_in)[None, :]
        values = tl.load(address, mask=seen[:, None] & exists[None, :], other=0.0)
        address = weight + channel * channel_weight + (k * k - 1 - tap if turned else tap) * tap_weight
        factors = tl.load(address, mask=exists, other=0.0)
        total += values.to(total.dtype) * factors.to(total.dtype)[None, :]
    place = image * image_out + pixel * pixel_out
    address = result + place[:, None] + (channel * channel_out)[None, :]
    tl.store(address, total.to(result.dtype.element_ty), mask=(pixel < height * width)[:, None] & exists[None, :])


@triton.jit(do_not_specialize=_SIZES, do_not_specialize_on_alignment=_STEPS)
def _correlate(grad, features, sums, height, width, all_channels, part, wide, image_grad, pixel_grad, channel_grad,
               image_in, pixel_in, channel_in, k: tl.constexpr, rate: tl.constexpr, unit: tl.constexpr,
               chunk: tl.constexpr, pixels: tl.constexpr, channels: tl.constexpr, taps: tl.constexpr):  # fmt: skip
    """Grid: chunks of pixels, blocks of channels, images. sums: (N * chunks, k * k, M)."""
    part, all_channels = part // unit * unit, all_channels // unit * unit
    image_in, pixel_in = image_in // unit * unit, pixel_in // unit * unit
    image_grad, pixel_grad = image_grad // unit * unit, pixel_grad // unit * unit
    blocks = tl.cdiv(part, channels)
    number = tl.program_id(1) // blocks
    within = (tl.program_id(1) % blocks * channels + tl.arange(0, channels))[None, None, :]
    channel, exists = number * part + within, within < part
    filled = ((wide >> number) & 1) == 1
    tap = tl.arange(0, taps)[:, None, None]
    down, right = tap // k - k // 2, tap % k - k // 2
    used = (tap < k * k) & (filled | ((down * down <= 1) & (right * right <= 1)))
    image = tl.program_id(2).to(tl.int64)
    total = tl.zeros((taps, pixels, channels), sums.dtype.element_ty)
    for start in range(0, chunk, pixels):
        pixel = (tl.program_id(0) * chunk + start + tl.arange(0, pixels))[None, :, None]
        address = grad + image * image_grad + pixel * pixel_grad + channel * channel_grad
        of_pixel = tl.load(address, mask=(pixel < height * width) & exists, other=0.0)
        y, x = pixel // width + down * rate, pixel % width + right * rate
        seen = used & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        place = pixel + (down * width + right) * rate
        address = features + image * image_in + place * pixel_in + channel * channel_in
        values = tl.load(address, mask=seen & exists, other=0.0)
        total += of_pixel.to(total.dtype) * values.to(total.dtype)
    summed = tl.sum(total, 1)
    place = (image * tl.num_programs(0) + tl.program_id(0)) * all_channels * (k * k)
    of_channel = number * part + tl.program_id(1) % blocks * channels + tl.arange(0, channels)
    of_tap = tl.arange(0, taps)
    there = (of_tap < k * k)[:, None] & (of_channel < number * part + part)[None, :]
    tl.store(sums + place + (of_tap * all_channels)[:, None] + of_channel[None, :], summed, mask=there)


# --- the operations ---------------------------------------------------------------------------------------------------


class _Memory(NamedTuple):
    """Strides of (N, M, H, W) in elements; the rows of an image follow each other."""

    image: int
    pixel: int
    channel: int

    @property
    def by_channel(self) -> bool:
        """Whether channels, not pixels, are contiguous."""
        return self.channel == 1 and self.pixel != 1


def _regular(features: Tensor) -> Tensor:
    """The tensor itself if its rows follow each other (it may be some channels of a larger tensor), else a copy."""
    height, width = features.shape[2:]
    regular = height == 1 or width == 1 or features.stride(2) == width * features.stride(3)
    return features if regular else features.clone()


def _memory_of(features: Tensor) -> _Memory:
    image, channel, row, column = features.stride()
    return _Memory(image, column if features.shape[3] > 1 else row, channel)


def _blocks(memory: _Memory, pixels: int, channels: int, elements: int, side: int) -> tuple[int, int]:
    """Pixels and channels of a tile, powers of two: at most `side` along contiguous channels, 4 `side` along pixels."""
    if memory.by_channel:
        across = min(side, triton.next_power_of_2(channels))
        return min(elements // across, triton.next_power_of_2(pixels)), across
    along = min(4 * side, triton.next_power_of_2(pixels))
    return along, min(max(elements // along, 1), triton.next_power_of_2(channels))


def _unit(part: int, *memories: _Memory) -> int:
    """The greatest power of two up to 8 that divides a part and all strides of images and pixels."""
    return math.gcd(8, part, *(step for memory in memories for step in (memory.image, memory.pixel)))


def _bits(wide: Sequence[bool]) -> int:
    return sum(1 << number for number, flag in enumerate(wide) if flag)


@torch.library.custom_op("autoseg::depthwise", mutates_args=())
def depthwise(features: Tensor, weight: Tensor, wide: list[bool], rate: int, turned: bool) -> Tensor:
    """A depthwise convolution that keeps the size: features (N, M, H, W), weight (M, 1, k, k) with k 3 or 5.

    wide: for each equal part of the channels, whether its kernels are k x k; other kernels are 3x3, padded to k x k.
    turned: flip the kernel, which maps the gradient of the result to that of the features.
    """
    features = _regular(features)
    images, channels, height, width = features.shape
    result = torch.empty_like(features)
    size, part = weight.shape[-1], channels // len(wide)
    weight = weight if weight.stride(2) == size * weight.stride(3) else weight.contiguous()
    into, out, taps = _memory_of(features), _memory_of(result), _Memory(0, weight.stride(3), weight.stride(0))
    pixels, across = _blocks(into, height * width, part, TILE, SIDE)
    grid = (triton.cdiv(height * width, pixels), len(wide) * triton.cdiv(part, across), images)
    _launch(_convolve, grid, features, weight, result, height, width, part, _bits(wide), taps.channel, taps.pixel,
            *into, *out, size, rate, turned, _unit(part, into, out, taps), pixels, across)  # fmt: skip
    return result


@depthwise.register_fake
def _(features: Tensor, weight: Tensor, wide: list[bool], rate: int, turned: bool) -> Tensor:
    return torch.empty_like(features)


@torch.library.custom_op("autoseg::depthwise_weight", mutates_args=())
def depthwise_weight(grad: Tensor, features: Tensor, wide: list[bool], rate: int, size: int) -> Tensor:
    """The gradient of the weight of `depthwise`, (M, 1, size, size), from that of its result; 0 around 3x3 kernels."""
    grad, features = _regular(grad), _regular(features)
    images, channels, height, width = features.shape
    into, part, taps = _memory_of(features), channels // len(wide), triton.next_power_of_2(size**2)
    chunk = min(CHUNK, triton.next_power_of_2(height * width))
    pixels, across = _blocks(into, chunk, part, WEIGHT_TILE // taps, SIDE // 2)
    chunks = triton.cdiv(height * width, chunk)
    exact = torch.promote_types(features.dtype, torch.float32)
    sums = features.new_empty(images * chunks, size * size, channels, dtype=exact)
    grid = (chunks, len(wide) * triton.cdiv(part, across), images)
    of_grad = _memory_of(grad)
    _launch(_correlate, grid, grad, features, sums, height, width, channels, part, _bits(wide), *of_grad, *into, size,
            rate, _unit(part, of_grad, into), chunk, pixels, across, taps)  # fmt: skip
    return _by_channel(sums.sum(0).to(features.dtype), size)


@depthwise_weight.register_fake
def _(grad: Tensor, features: Tensor, wide: list[bool], rate: int, size: int) -> Tensor:
    return _by_channel(features.new_empty(size * size, features.shape[1]), size)


def _by_channel(taps: Tensor, size: int) -> Tensor:
    """(size * size, M) -> a view (M, 1, size, size)."""
    return torch.unflatten(taps.T, 1, (1, size, size))


def _launch(kernel: Any, grid: tuple[int, ...], *arguments: Any) -> None:
    """Run a kernel on the device of its first argument."""
    device = arguments[0].device
    if device.type == "cpu":  # Triton's interpreter
        kernel[grid](*arguments)
        return
    with torch.cuda.device(device):
        kernel[grid](*arguments, num_warps=4)
