"""Pixel deconvolutions against explicit zero insertion, and the identities that follow from their definition."""

from __future__ import annotations

import itertools

import pytest
import torch
from helpers.errors import raises_code
from helpers.oracle_upsamplers import planar, solid
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from autoseg.analysis.memory_tracker import SavedStorages
from autoseg.errors import SearchSpaceError
from autoseg.ops.pixel_dcl import Cascade, HalfFilled, IPixelDCL, IPixelDCL3d, PixelDCL, PixelDCL3d

KINDS = [*itertools.product((PixelDCL, IPixelDCL), ("code", "equations"))]
SIZES = [(1, 1), (2, 1), (1, 2), (2, 2), (5, 7), (6, 4)]


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def assert_same(result: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


def assert_equal_with_gradients(result: Tensor, expected: Tensor, of: list[Tensor]) -> None:
    assert_same(result, expected)
    found = torch.autograd.grad(result, of, (way := noise(*result.shape)), allow_unused=True)
    wanted = torch.autograd.grad(expected, of, way, allow_unused=True)
    for one, other in zip(found, wanted, strict=True):
        if one is None:
            assert other is None or not other.any()
        else:
            assert_same(one, other)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize(("kind", "variant"), KINDS)
def test_equals_zero_insertion(kind: type[PixelDCL], variant: str, kernel: int) -> None:
    torch.manual_seed(kernel)
    module = kind(2, 3, kernel, variant).double()
    for size in SIZES:
        x = noise(2, 2, *size).requires_grad_()
        assert_equal_with_gradients(module(x), planar(x, module, variant), [x, *module.parameters()])


@pytest.mark.parametrize("kind", [PixelDCL3d, IPixelDCL3d])
def test_equals_zero_insertion_in_3d(kind: type[PixelDCL3d]) -> None:
    torch.manual_seed(0)
    for kernel, size in ((1, (2, 1, 3)), (3, (3, 2, 4)), (3, (1, 1, 1))):
        module = kind(2, 2, kernel).double()
        x = noise(2, 2, *size).requires_grad_()
        assert_equal_with_gradients(module(x), solid(x, module), [x, *module.parameters()])
        odd = tuple(2 * length - 1 for length in size)
        assert torch.equal(module(x, odd), module(x)[..., : odd[0], : odd[1], : odd[2]])


@pytest.mark.parametrize("variant", ["code", "equations"])
def test_ipixel_dcl_without_cross_terms_is_a_transposed_convolution(variant: str) -> None:
    torch.manual_seed(0)
    for kernel, size in itertools.product((1, 3, 5), SIZES):
        module = IPixelDCL(2, 3, kernel, variant).double()
        maps = module.maps
        assert isinstance(maps, Cascade)
        with torch.no_grad():
            for weight in maps.weights[1:]:
                weight.zero_()
        whole = torch.zeros(2, 3, 2 * kernel, 2 * kernel, dtype=torch.float64)
        for kernel_of, (row, column) in zip(maps.weights[0].chunk(4), ((0, 0), (1, 1), (1, 0), (0, 1)), strict=True):
            whole[:, :, row::2, column::2] = kernel_of.transpose(0, 1).flip(2, 3)
        x = noise(2, 2, *size)
        assert_same(module(x), F.conv_transpose2d(x, whole, stride=2, padding=kernel - 1))


def test_pixel_dcl_without_cross_terms_leaves_the_first_map() -> None:
    torch.manual_seed(0)
    for variant in ("code", "equations"):
        module = PixelDCL(2, 3, 3, variant).double()
        maps = module.maps
        crossing = [maps.second.weight, maps.third] if isinstance(maps, HalfFilled) else [*maps.weights[1:]]
        first = maps.first.weight if isinstance(maps, HalfFilled) else maps.weights[0]
        with torch.no_grad():
            for weight in crossing:
                weight.zero_()
        x = noise(1, 2, 5, 6)
        result = module(x)
        assert_same(result[..., ::2, ::2], F.conv2d(x, first, padding=1))
        result[..., ::2, ::2] = 0
        assert not result.any()


@pytest.mark.parametrize(("kind", "variant"), KINDS)
def test_linear(kind: type[PixelDCL], variant: str) -> None:
    torch.manual_seed(0)
    module = kind(3, 2, 3, variant).double()
    a, b = noise(1, 3, 5, 4), noise(2, 3, 5, 4)[:1]
    assert_same(module(2 * a - 3 * b), 2 * module(a) - 3 * module(b))
    assert not module(torch.zeros_like(a)).any()


def test_parameters_as_published() -> None:
    for before, after, kernel in ((3, 3, 3), (2, 5, 3), (4, 1, 5), (1, 2, 1)):
        square, cube = kernel**2 * after, kernel**3 * after
        assert parameters(PixelDCL(before, after, kernel)) == square * (before + 2 * after)
        assert parameters(PixelDCL(before, after, kernel, "equations")) == square * (before + 6 * after)
        assert parameters(IPixelDCL(before, after, kernel)) == square * (4 * before + 5 * after)
        assert parameters(IPixelDCL(before, after, kernel, "equations")) == square * (4 * before + 6 * after)
        assert parameters(PixelDCL3d(before, after, kernel)) == cube * (before + 19 * after)


@pytest.mark.parametrize(
    ("kind", "variant", "kernel", "expected"),
    [
        (PixelDCL, "code", 3, 26),
        (PixelDCL, "code", 5, 2 * 25 + 24),
        (PixelDCL, "equations", 3, 63),
        (IPixelDCL, "code", 3, 81),
        (IPixelDCL, "equations", 3, 90),
    ],
)
def test_products_of_a_low_resolution_pixel(kind: type[PixelDCL], variant: str, kernel: int, expected: int) -> None:
    """In C^2; borders included."""
    module, x = kind(4, 4, kernel, variant), torch.randn(2, 4, 6, 5)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(x)
    assert counter.get_total_flops() / 2 == expected * 4**2 * 2 * 6 * 5


@pytest.mark.parametrize(("kind", "variant"), KINDS)
def test_average_begins_without_a_checkerboard(kind: type[PixelDCL], variant: str) -> None:
    """F2 is F1, F3 and F4 the means of their neighbours: of constants a constant, away from the border."""
    torch.manual_seed(0)
    for kernel in (3, 5):
        module = kind(2, 3, kernel, variant, "average").double()
        x = noise(1, 2, 6, 7)
        result = module(x)
        first = result[..., ::2, ::2]
        assert first.abs().min() > 0
        assert_same(result[..., 1::2, 1::2], first)
        # F3 at (2i + 1, 2j), from j = 1: F1 above and below, F2 to the left and right
        above, below, left, right = first[..., :-1, 1:], first[..., 1:, 1:], first[..., :-1, :-1], first[..., :-1, 1:]
        assert_same(result[..., 1:-1:2, 2::2], (above + below + left + right) / 4)
        # F4 at (2i, 2j + 1), from i = 1: F1 to the left and right, F2 above and below
        left, right, above, below = first[..., 1:, :-1], first[..., 1:, 1:], first[..., :-1, :-1], first[..., 1:, :-1]
        assert_same(result[..., 2::2, 1:-1:2], (left + right + above + below) / 4)


@pytest.mark.parametrize("kind", [PixelDCL, IPixelDCL])
@pytest.mark.parametrize("kernel", [2, 4, 0, -1])
def test_even_kernels_are_refused(kind: type[PixelDCL], kernel: int) -> None:
    with raises_code(SearchSpaceError, "kernel-not-odd", f"not {kernel}x{kernel}", f"take {max(kernel, 0) + 1}"):
        kind(2, 2, kernel)


def test_other_impossible_wishes_are_refused() -> None:
    with raises_code(SearchSpaceError, "kernel-not-odd", "4x4", "take 5"):
        PixelDCL3d(2, 2, 4)
    with raises_code(SearchSpaceError, "kernel-too-small", "1x1", "3x3"):
        PixelDCL(2, 2, 1, init="average")


def test_nothing_but_the_sources_is_kept_for_the_way_back() -> None:
    """iPixelDCL saves x, F1 and F2; concatenation would save six maps."""
    module, x = IPixelDCL(8, 8), torch.randn(2, 8, 6, 6, requires_grad=True)
    saved = SavedStorages(module.parameters())
    with saved:
        module(x)
    assert saved.total_bytes == 3 * x.numel() * 4
