"""Pixel deconvolutions written from their published descriptions: whole maps, zeros inserted, masks multiplied.

Letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.ops.pixel_dcl import Cascade, HalfFilled, IPixelDCL, IPixelDCL3d, PixelDCL, PixelDCL3d


def same(x: Tensor, weight: Tensor) -> Tensor:
    """A convolution that keeps the size."""
    return (F.conv3d if x.dim() == 5 else F.conv2d)(x, weight, padding=weight.shape[-1] // 2)


def spread(x: Tensor, place: tuple[int, ...]) -> Tensor:
    """`x` at one place of every 2x2 (2x2x2) grid, zeros elsewhere."""
    result = x.new_zeros(*x.shape[:2], *(2 * length for length in x.shape[2:]))
    result[(..., *(slice(start, None, 2) for start in place))] = x
    return result


def checkerboard(kernel: int) -> Tensor:
    """1 where the offsets from the centre sum to an odd number."""
    rows, columns = torch.meshgrid(torch.arange(kernel), torch.arange(kernel), indexing="ij")
    return (rows + columns - 2 * (kernel // 2)) % 2


def kernels(maps: Cascade) -> list[Tensor]:
    """One kernel for each step, over its concatenated inputs."""
    return [
        torch.cat([maps.block(source, number) for source in step.reads], 1) for number, step in enumerate(maps.steps)
    ]


def pixel_dcl_code(x: Tensor, maps: HalfFilled) -> Tensor:
    first = same(x, maps.first.weight)
    second = same(first, maps.second.weight)
    half = spread(first, (0, 0)) + spread(second, (1, 1))
    return half + same(half, maps.third * checkerboard(maps.third.shape[-1]))


def pixel_dcl_equations(x: Tensor, maps: Cascade) -> Tensor:
    k1, k2, k3, k4 = kernels(maps)
    first = same(x, k1)
    second = same(first, k2)
    third = same(torch.cat([first, second], 1), k3)
    fourth = same(torch.cat([first, second, third], 1), k4)
    return spread(first, (0, 0)) + spread(second, (1, 1)) + spread(third, (1, 0)) + spread(fourth, (0, 1))


def ipixel_dcl_code(x: Tensor, maps: Cascade) -> Tensor:
    k1, k2, k3 = kernels(maps)
    first = same(x, k1)
    second = same(torch.cat([x, first], 1), k2)
    third, fourth = same(torch.cat([x, first, second], 1), k3).chunk(2, 1)
    return spread(first, (0, 0)) + spread(second, (1, 1)) + spread(third, (1, 0)) + spread(fourth, (0, 1))


def ipixel_dcl_equations(x: Tensor, maps: Cascade) -> Tensor:
    k1, k2, k3, k4 = kernels(maps)
    first = same(x, k1)
    second = same(torch.cat([x, first], 1), k2)
    third = same(torch.cat([x, first, second], 1), k3)
    fourth = same(torch.cat([x, first, second, third], 1), k4)
    return spread(first, (0, 0)) + spread(second, (1, 1)) + spread(third, (1, 0)) + spread(fourth, (0, 1))


def planar(x: Tensor, module: PixelDCL | IPixelDCL, variant: str) -> Tensor:
    """What a 2-D module should compute."""
    formulas = {
        (PixelDCL, "code"): pixel_dcl_code,
        (PixelDCL, "equations"): pixel_dcl_equations,
        (IPixelDCL, "code"): ipixel_dcl_code,
        (IPixelDCL, "equations"): ipixel_dcl_equations,
    }
    return formulas[type(module), variant](x, module.maps)


def solid(x: Tensor, module: PixelDCL3d | IPixelDCL3d) -> Tensor:
    """What a 3-D module should compute."""
    k0, k1, k2, k3 = kernels(module.maps)

    def combine(*parts: Tensor) -> Tensor:
        return torch.cat(parts, 1)

    before = (x,) if isinstance(module, IPixelDCL3d) else ()
    conv0 = same(x, k0)
    conv1 = same(combine(*before, conv0), k1)
    conv2 = same(combine(*before, conv0, conv1), k2).chunk(3, 1)
    # PixelDCL's last step reads conv0 and the three of conv2, iPixelDCL's everything
    conv3 = same(combine(*before, conv0, *(before and (conv1,)), *conv2), k3).chunk(3, 1)
    result = spread(conv0, (0, 0, 0)) + spread(conv1, (1, 1, 1))
    for part, place in zip(conv2, ((1, 1, 0), (1, 0, 1), (0, 1, 1)), strict=True):
        result = result + spread(part, place)
    for part, place in zip(conv3, ((1, 0, 0), (0, 0, 1), (0, 1, 0)), strict=True):
        result = result + spread(part, place)
    return result


def carafe(x: Tensor, module: torch.nn.Module) -> Tensor:
    """Pixel by pixel (Wang et al. 2019, eq. 1 to 4)."""
    x = module.project(x)
    weights = F.pixel_shuffle(module.encode(module.compress(x)), 2).softmax(1)
    images, channels, height, width = x.shape
    padded = F.pad(x, (2, 2, 2, 2))
    result = x.new_zeros(images, channels, 2 * height, 2 * width)
    for row in range(2 * height):
        for column in range(2 * width):
            around = padded[:, :, row // 2 : row // 2 + 5, column // 2 : column // 2 + 5].flatten(2)
            result[:, :, row, column] = torch.einsum("nct,nt->nc", around, weights[:, :, row, column])
    return result


def dysample(x: Tensor, module: torch.nn.Module) -> Tensor:
    """Pixel by pixel (Liu et al. 2023, section 3): bilinear interpolation at a pixel's place and its group's offset."""
    x = module.project(x)
    images, channels, height, width = x.shape
    # (N, x and y, group, the pixel's place in its 2x2, H, W)
    offsets = 0.25 * module.offset(x).unflatten(1, (2, module.groups, 4))
    result = x.new_zeros(images, channels, 2 * height, 2 * width)
    share = channels // module.groups
    for image in range(images):
        for group in range(module.groups):
            for row in range(2 * height):
                for column in range(2 * width):
                    move = offsets[image, :, group, row % 2 * 2 + column % 2, row // 2, column // 2]
                    place_x = ((column + 0.5) / 2 - 0.5 + move[0]).clamp(0, width - 1)
                    place_y = ((row + 0.5) / 2 - 0.5 + move[1]).clamp(0, height - 1)
                    of_x = (1 - (torch.arange(width) - place_x).abs()).clamp(min=0)
                    of_y = (1 - (torch.arange(height) - place_y).abs()).clamp(min=0)
                    of = slice(group * share, (group + 1) * share)
                    result[image, of, row, column] = torch.einsum("chw,h,w->c", x[image, of], of_y, of_x)
    return result
