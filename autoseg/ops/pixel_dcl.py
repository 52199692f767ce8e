"""Pixel deconvolution (Gao et al. 2017, arXiv 1705.06820) by a factor of two.

A result has a map for each place of its 2x2 grids: F1 at (0, 0), F2 at (1, 1), F3 at (1, 0), F4 at (0, 1). A transposed
convolution makes them independently; PixelDCL makes later maps from earlier ones, iPixelDCL from the input as well.
The published code and the paper's equations differ, and both are here:

            PixelDCL, code            PixelDCL, equations    iPixelDCL, code           iPixelDCL, equations
    F1      of x                      of x                   of x                      of x
    F2      of F1                     of F1                  of x, F1                  of x, F1
    F3, F4  one kernel over the       F3 of F1, F2;          both of x, F1, F2         F3 of x, F1, F2;
            half-filled result        F4 of F1, F2, F3                                 F4 of x, F1, F2, F3

All are linear, without bias. D is the depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.errors import SearchSpaceError
from autoseg.ops.interleave import Place, cut, interleave

Variant = Literal["code", "equations"]
Init = Literal["default", "average"]


class Step(NamedTuple):
    """A convolution that makes some maps of a result."""

    maps: int
    reads: tuple[int, ...]  # its inputs: 0 is the input of all, n the maps of the n-th step


Steps = tuple[Step, ...]

PLACES: tuple[Place, ...] = ((0, 0), (1, 1), (1, 0), (0, 1))
EQUATIONS: Steps = (Step(1, (0,)), Step(1, (1,)), Step(1, (1, 2)), Step(1, (1, 2, 3)))
INPUT_CODE: Steps = (Step(1, (0,)), Step(1, (0, 1)), Step(2, (0, 1, 2)))
INPUT_EQUATIONS: Steps = (Step(1, (0,)), Step(1, (0, 1)), Step(1, (0, 1, 2)), Step(1, (0, 1, 2, 3)))
PLACES_3D: tuple[Place, ...] = (
    (0, 0, 0), (1, 1, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 0, 0), (0, 0, 1), (0, 1, 0),
)  # fmt: skip
STEPS_3D: Steps = (Step(1, (0,)), Step(1, (1,)), Step(3, (1, 2)), Step(3, (1, 3)))
INPUT_STEPS_3D: Steps = (Step(1, (0,)), Step(1, (0, 1)), Step(3, (0, 1, 2)), Step(3, (0, 1, 2, 3)))
AVERAGED = {(0, 2): ((0, 0), (1, 0)), (1, 2): ((0, 0), (0, -1)), (0, 3): ((0, 0), (0, 1)), (1, 3): ((0, 0), (-1, 0))}
"""(F1 or F2, F3 or F4) -> offsets of the first one's pixels that touch a pixel of the second in the result."""


def convolve(features: Tensor, weight: Tensor, padding: Sequence[int] | None = None) -> Tensor:
    """A convolution in two or three dimensions with zero padding; keeps the size unless `padding` is given."""
    padding = [length // 2 for length in weight.shape[2:]] if padding is None else list(padding)
    return (F.conv3d if weight.dim() == 5 else F.conv2d)(features, weight, None, 1, padding)


def _uniform(weight: Tensor, fan_in: int) -> None:
    """Initialise as PyTorch's convolutions do."""
    nn.init.uniform_(weight, -(fan_in**-0.5), fan_in**-0.5)


class Cascade(nn.Module):
    """Steps over concatenated inputs, computed without concatenation: (N, Cin, ...) -> maps of (N, Cout, ...).

    Every source, which is the input or a step's maps, is convolved once for all steps that read it, and the parts are
    summed. The products are the same, in fewer and wider convolutions; the backward pass keeps the sources alone.
    `weights[n]` is the kernel over source n; its output channels are those of the steps that read n, in their order.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, steps: Steps, axes: int = 2) -> None:
        super().__init__()
        self.steps, self.out_channels = steps, out_channels
        self._widths = [in_channels, *(step.maps * out_channels for step in steps)]
        sources, kernel = range(len(steps)), (kernel_size,) * axes
        self._readers = [[number for number, step in enumerate(steps) if source in step.reads] for source in sources]
        weights = (torch.empty(sum(self._parts(source)), self._widths[source], *kernel) for source in sources)
        self.weights = nn.ParameterList(weights)
        self.reset_parameters()

    def _parts(self, source: int) -> list[int]:
        """Output channels of `weights[source]`, by step."""
        return [self._widths[step + 1] for step in self._readers[source]]

    def block(self, source: int, step: int) -> Tensor:
        """The view of `weights[source]` that makes a step (from 0): (maps * Cout, Csource, k, k)."""
        weight: Tensor = self.weights[source]
        return torch.split(weight, self._parts(source))[self._readers[source].index(step)]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise every step as a convolution over its concatenated inputs."""
        taps = self.weights[0][0, 0].numel()
        for number, step in enumerate(self.steps):
            fan_in = taps * sum(self._widths[source] for source in step.reads)
            for source in step.reads:
                _uniform(self.block(source, number), fan_in)

    @torch.no_grad()
    def average_(self) -> None:
        """Make F2 a copy of F1, and F3 and F4 the means of their four neighbours, all of F1 and F2 (2-D)."""
        centre = self.weights[0].shape[-1] // 2
        identity = torch.eye(self.out_channels)
        for number, step in enumerate(self.steps[1:], start=1):
            for source in step.reads:
                self.block(source, number).zero_()
        self.block(1, 1)[:, :, centre, centre] = identity
        for (source, target), offsets in AVERAGED.items():
            last = min(target, len(self.steps) - 1)  # the published code makes F3 and F4 in one step
            block = torch.split(self.block(source + 1, last), self.out_channels)[target - last]
            for row, column in offsets:
                block[:, :, centre + row, centre + column] = identity / 4

    def forward(self, features: Tensor) -> list[Tensor]:
        """The maps of all steps, in order."""
        sums: dict[int, Tensor] = {}
        value = features
        for source, weight in enumerate(self.weights):
            readers = self._readers[source]
            for step, part in zip(readers, torch.split(convolve(value, weight), self._parts(source), 1), strict=True):
                if step in sums:
                    sums[step] = sums[step] + part
                else:  # copied if nothing will be added: a part alone would keep the whole alive
                    sums[step] = part.clone() if len(self.steps[step].reads) == 1 < len(readers) else part
            value = sums[source]  # complete: it reads earlier sources alone
        return [each for step in sorted(sums) for each in torch.split(sums[step], self.out_channels, 1)]


class HalfFilled(nn.Module):
    """F1 to F4 of the published PixelDCL: one kernel makes F3 and F4 from the map that F1 and F2 half fill.

    The kernel's taps of even offset sum read zeros (they are kept, as published: k x k). Taps at an odd number of rows
    and an even number of columns see F1 from F3 and F2 from F4; the others see F2 from F3 and F1 from F4. Each kind is
    a convolution at low resolution over F1 and one over F2. For k = 3 that is two taps each, so F3 and F4 take four
    products of C^2 a pixel each, and all four maps 9 + 9 + 4 + 4.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.first = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=False)
        self.second = nn.Conv2d(out_channels, out_channels, kernel_size, padding=padding, bias=False)
        self.third = nn.Parameter(torch.empty(out_channels, out_channels, kernel_size, kernel_size))
        _uniform(self.third, max(1, kernel_size**2 // 2) * out_channels)  # without the taps that read zeros

    @torch.no_grad()
    def average_(self) -> None:
        """Make F2 a copy of F1, and F3 and F4 the means of their four neighbours."""
        centre, identity = self.third.shape[-1] // 2, torch.eye(self.third.shape[0])
        self.second.weight.zero_()[:, :, centre, centre] = identity
        self.third.zero_()
        for row, column in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            self.third[:, :, centre + row, centre + column] = identity / 4

    def forward(self, features: Tensor) -> list[Tensor]:
        """(N, Cin, H, W) -> F1 to F4, each (N, Cout, H, W)."""
        first = self.first(features)
        second = self.second(first)
        half = self.third.shape[-1] // 2
        if half == 0:  # the only tap has an even offset sum
            nothing = torch.zeros_like(first)
            return [first, second, nothing, nothing]
        even, odd = slice(half % 2, None, 2), slice((half + 1) % 2, None, 2)  # places of even and odd offsets
        rows, columns = self.third[:, :, odd, even], self.third[:, :, even, odd]
        along_rows, along_columns = (0, half // 2), (half // 2, 0)
        # F3 and F4 lie between the pixels of F1 and F2, so F1 is padded more on one side and F2 on the other, once for
        # both kernels
        far, (height, width) = (half + 1) // 2, first.shape[2:]
        wide = F.pad(first, (far - 1, far) * 2), F.pad(second, (far, far - 1) * 2)
        tall = wide[0].narrow(3, far - 1, width), wide[1].narrow(3, far, width)
        flat = wide[0].narrow(2, far - 1, height), wide[1].narrow(2, far, height)
        third = convolve(tall[0], rows, along_rows) + convolve(flat[1], columns, along_columns)
        fourth = convolve(tall[1], rows, along_rows) + convolve(flat[0], columns, along_columns)
        return [first, second, third, fourth]


class PixelDCL(nn.Module):
    """Pixel deconvolution that reads its input for F1 alone: (N, Cin, H, W) -> (N, Cout, 2H, 2W).

    variant: "code" as the authors published it, "equations" as they wrote it. init: "average" begins as the mean of
    neighbours, without a checkerboard. Parameters: k^2 Cout (Cin + 2 Cout), equations k^2 Cout (Cin + 6 Cout).
    Raises: SearchSpaceError: an even kernel, or a 1x1 kernel with init "average".
    """

    steps: ClassVar[dict[Variant, Steps | None]] = {"code": None, "equations": EQUATIONS}

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, variant: Variant = "code",
        init: Init = "default",
    ) -> None:  # fmt: skip
        super().__init__()
        _check(kernel_size, init)
        steps = self.steps[variant]
        self.maps: HalfFilled | Cascade = (
            Cascade(in_channels, out_channels, kernel_size, steps)
            if steps
            else HalfFilled(in_channels, out_channels, kernel_size)
        )
        if init == "average":
            self.maps.average_()

    def forward(self, features: Tensor, size: Sequence[int] | None = None, guide: Tensor | None = None) -> Tensor:
        """See the class; `size` is (2H, 2W) or one less in either."""
        return cut(interleave(self.maps(features), PLACES), size)


class IPixelDCL(PixelDCL):
    """Pixel deconvolution that reads its input for every map: (N, Cin, H, W) -> (N, Cout, 2H, 2W).

    Options and errors as PixelDCL's. Without its cross terms it is a transposed convolution with a 2k x 2k kernel.
    Parameters: k^2 Cout (4 Cin + 5 Cout), equations k^2 Cout (4 Cin + 6 Cout).
    """

    steps: ClassVar[dict[Variant, Steps | None]] = {"code": INPUT_CODE, "equations": INPUT_EQUATIONS}


class PixelDCL3d(nn.Module):
    """PixelDCL in 3-D, as the published code: (N, Cin, D, H, W) -> (N, Cout, 2D, 2H, 2W).

    Parameters: k^3 Cout (Cin + 19 Cout). Raises: SearchSpaceError: an even kernel.
    """

    steps = STEPS_3D

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        _check(kernel_size, "default")
        self.maps = Cascade(in_channels, out_channels, kernel_size, self.steps, axes=3)

    def forward(self, features: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """See the class; `size` is (2D, 2H, 2W) or one less in each."""
        return cut(interleave(self.maps(features), PLACES_3D), size)


class IPixelDCL3d(PixelDCL3d):
    """iPixelDCL in 3-D, as the published code: every step reads the input and all maps before it."""

    steps = INPUT_STEPS_3D


def _check(kernel_size: int, init: Init) -> None:
    if kernel_size % 2 == 0 or kernel_size < 1:
        raise SearchSpaceError(
            f"a pixel deconvolution needs an odd kernel, not {kernel_size}x{kernel_size}: an even one has no centre,"
            f" and what it may read of the half-filled map would be no checkerboard; take {max(kernel_size, 0) + 1}",
            code="kernel-not-odd",
        )
    if init == "average" and kernel_size == 1:
        message = "a 1x1 kernel sees no neighbours to begin with the average of; take 3x3 or init 'default'"
        raise SearchSpaceError(message, code="kernel-too-small")
