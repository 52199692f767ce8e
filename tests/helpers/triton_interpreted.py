"""Run by `supernet/test_triton.py` in a process of its own, whose kernels Triton's interpreter runs on the CPU.

    TRITON_INTERPRET=1 python -m helpers.triton_interpreted kernels | operations | supernet

Says nothing, and ends with an error where something is wrong.
"""

from __future__ import annotations

import itertools
import sys

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.supernet import KernelChoice
from autoseg.supernet.fast.channel_groups import LAYOUTS
from autoseg.supernet.fast.triton_depthwise import depthwise, depthwise_weight
from autoseg.supernet.fast.weights import tap_by_tap
from helpers.oracle_supernet import largest_difference

SHAPES = [(1, 3, 7, 9), (3, 2, 8, 6), (1, 70, 2, 3), (2, 1, 19, 17), (1, 2, 1, 1), (2, 3, 1, 5), (2, 3, 5, 1)]
"""(N, channels of a part, H, W): odd and even, no multiples of a block, more pixels than one program sums, edges."""
SIZES: list[tuple[int, ...]] = [(3,), (5,), (3, 5), (5, 3)]
BOUNDS = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 2e-2}


def framed(part: int, sizes: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Random kernels (M, 1, k, k), framed by zeros, and where they are not zero."""
    frames = [((max(sizes) - size) // 2,) * 4 for size in sizes]
    kernels = [torch.randn(part, 1, size, size, dtype=dtype) for size in sizes]
    weight = torch.cat([F.pad(kernel, frame) for kernel, frame in zip(kernels, frames, strict=True)])
    ones = [F.pad(torch.ones_like(kernel), frame) for kernel, frame in zip(kernels, frames, strict=True)]
    return weight, torch.cat(ones)


def check_kernel(shape: tuple[int, ...], sizes: tuple[int, ...], rate: int, layout: str, dtype: torch.dtype) -> None:
    """Result and both gradients against PyTorch's own, of a whole feature and of some channels of one."""
    (images, part, height, width), largest, memory = shape, max(sizes), LAYOUTS[layout].memory
    channels = part * len(sizes)
    weight, inside = framed(part, sizes, dtype)
    whole, direction = (
        torch.randn(images, channels + more, height, width, dtype=dtype).contiguous(memory_format=memory)
        for more in (3, 0)
    )
    wide, padding = [size == largest for size in sizes], rate * (largest // 2)
    for features in (whole[:, 2 : 2 + channels], whole[:, :channels].clone()):
        one, other = (tensor.detach().double().requires_grad_() for tensor in (features, weight))
        expected = F.conv2d(one, other, None, 1, padding, rate, channels)
        expected.backward(direction.double())
        found = depthwise(features, weight, wide, rate, False)
        turned = depthwise(direction, tap_by_tap(weight), wide, rate, True)
        of_weight = depthwise_weight(direction, features, wide, rate, largest)
        case = f"{shape} {sizes} rate {rate} {layout} {dtype}"
        for result, truth in ((found, expected), (turned, one.grad), (of_weight, other.grad * inside)):
            assert result.dtype == dtype, case
            assert largest_difference(result.double(), truth) < BOUNDS[dtype], case
        assert torch.equal(of_weight, depthwise_weight(direction, features, wide, rate, largest)), case
        assert found.shape[1] == 1 or found.is_contiguous(memory_format=memory), case


def check_kernels() -> None:
    """Every kernel size, rate, memory format and precision, the shapes in turn: each meets every other setting."""
    torch.manual_seed(0)
    shapes = itertools.cycle(SHAPES)  # as many as share no divisor with the number of any setting
    for sizes, rate, layout, dtype in itertools.product(SIZES, (1, 2), LAYOUTS, BOUNDS):
        check_kernel(next(shapes), sizes, rate, layout, dtype)


def check_operations() -> None:
    """PyTorch's checks of an operation: its schema, and shapes and strides of fake tensors as of real ones."""
    weight, _ = framed(3, (3, 5), torch.float32)
    for layout in LAYOUTS.values():
        features = layout.arrange(torch.randn(2, 6, 5, 7))
        for given in (features, layout.arrange(torch.randn(2, 9, 5, 7))[:, 1:7]):
            torch.library.opcheck(depthwise, (given, weight, [False, True], 2, True))
            torch.library.opcheck(depthwise_weight, (features, given, [False, True], 1, 5))


def check_supernet() -> None:
    """A whole supernet against the textbook one, in one memory format checkpointed."""
    from helpers.oracle_supernet import parameter_pairs, textbook_of
    from helpers.spaces import small_space
    from helpers.supernets import results, supernet_of

    torch.set_num_threads(1)
    operations = ["none", "skip_connect", "sep_conv_3x3", "dil_conv_5x5", "sep_conv_5x5", "dil_conv_3x3"]
    space = small_space(layers=2, blocks=1, strides=(16, 32), operations=operations)
    images = torch.randn(2, 3, 65, 96, dtype=torch.float64)
    supernet = supernet_of(space)
    textbook = textbook_of(supernet, 3)
    expected, _ = results(textbook, images)
    for layout in LAYOUTS:
        supernet.checkpoint_cells = layout == "channels_first"
        supernet.use_kernels(KernelChoice(layout, "product", "triton"))
        logits, gradients = results(supernet, images)
        assert largest_difference(logits, expected) < 1e-10, layout
        names = {parameter: name for name, parameter in supernet.named_parameters()}
        for parameter, index, other in parameter_pairs(supernet, textbook):
            name = names[parameter]
            assert largest_difference(gradients[name][index], other.grad) < 1e-10, (layout, name)


CHECKS = {"kernels": check_kernels, "operations": check_operations, "supernet": check_supernet}

if __name__ == "__main__":
    CHECKS[sys.argv[1]]()
