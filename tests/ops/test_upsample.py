"""One contract for every upsampler, and what each one is beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.errors import raises_code
from helpers.oracle_upsamplers import carafe, dysample
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.errors import SearchSpaceError
from autoseg.export.formats import load_onnx, save_onnx, trace
from autoseg.ops.pixel_dcl import PixelDCL
from autoseg.ops.resampling import DySample
from autoseg.ops.upsample import build_upsampler, upsample_by
from autoseg.registry import UPSAMPLERS

NAMES = list(UPSAMPLERS)
LINEAR = [name for name in NAMES if name not in ("carafe", "dysample", "max_unpool")]
SIZES = [(1, 1), (2, 3), (5, 4)]


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def build(name: str, in_channels: int = 3, out_channels: int = 8, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return UPSAMPLERS[name].build(in_channels, out_channels).double()


def inputs(height: int, width: int, size: tuple[int, int] | None = None, images: int = 2) -> tuple[Tensor, Tensor]:
    """Features of 3 channels, and a guide of 5 at the result's size."""
    return noise(images, 3, height, width), noise(images, 5, *(size or (2 * height, 2 * width)))


def targets(height: int, width: int) -> list[tuple[int, int]]:
    return [(2 * height - row, 2 * width - column) for row in (0, 1) for column in (0, 1)]


# --- the contract -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_doubles_or_fills_the_size(name: str) -> None:
    module = build(name)
    for height, width in SIZES:
        features, guide = inputs(height, width)
        doubled = module(features, None, guide)
        assert doubled.shape == (2, 8, 2 * height, 2 * width)
        for size in targets(height, width):
            features, guide = inputs(height, width, size)
            result = module(features, size, guide)
            assert result.shape == (2, 8, *size)
            if name not in ("bilinear", "max_unpool"):
                assert torch.equal(result, doubled[..., : size[0], : size[1]])
            elif size == (2 * height, 2 * width):
                assert torch.equal(result, doubled)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter_and_the_features(name: str) -> None:
    module = build(name)
    features, guide = inputs(5, 4, (9, 7))
    features.requires_grad_(), guide.requires_grad_()
    module(features, (9, 7), guide).square().sum().backward()
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 0, key
        assert parameter.grad.isfinite().all(), key
    assert features.grad is not None
    assert features.grad.abs().min() > 0
    assert guide.grad is None


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_right(name: str) -> None:
    module = build(name, 2, 2)
    features, guide = noise(1, 2, 2, 3).requires_grad_(), noise(1, 3, 3, 6)
    names, values = zip(*module.named_parameters(), strict=True)
    if name == "carafe":  # a bias: of the weights there are too many
        names, values = names[-1:], values[-1:]

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        called = torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (x, (3, 6), guide))
        return called  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(run, (features, *values), fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
def test_same_in_channels_last(name: str) -> None:
    module = build(name)
    features, guide = inputs(5, 4)
    expected = module(features, None, guide)
    module.to(memory_format=torch.channels_last)
    features, guide = (each.contiguous(memory_format=torch.channels_last) for each in (features, guide))
    last = module(features, None, guide)
    torch.testing.assert_close(last, expected, rtol=1e-12, atol=1e-12)
    assert last.is_contiguous(memory_format=torch.channels_last), "the next layer would have to copy"


@pytest.mark.parametrize("name", NAMES)
def test_images_do_not_see_each_other_and_results_repeat(name: str) -> None:
    module = build(name)
    features, guide = inputs(4, 3, images=3)
    together = module(features, None, guide)
    assert torch.equal(together, module(features, None, guide))
    for image in range(3):
        alone = module(features[image : image + 1], None, guide[image : image + 1])
        torch.testing.assert_close(together[image : image + 1], alone, rtol=1e-12, atol=1e-12)
    before = features.clone()
    module(features, None, guide)
    assert torch.equal(features, before)


@pytest.mark.parametrize("name", LINEAR)
def test_linear_without_bias(name: str) -> None:
    module = build(name)
    a, b = noise(1, 3, 4, 3), noise(2, 3, 4, 3)[1:]
    torch.testing.assert_close(module(2 * a - b), 2 * module(a) - module(b), rtol=1e-11, atol=1e-11)
    assert not module(torch.zeros_like(a)).any()


@pytest.mark.parametrize("name", NAMES)
def test_bf16_autocast_and_bf16_weights(name: str) -> None:
    module = build(name).float()
    features, guide = (each.float() for each in inputs(20, 18))
    expected = module(features, None, guide)
    with torch.autocast("cpu", torch.bfloat16):
        result = module(features, None, guide.bfloat16().float())
        result.float().sum().backward()
    assert result.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters() if parameter.grad is not None)
    whole = module.bfloat16()(features.bfloat16(), None, guide.bfloat16())
    assert whole.dtype == torch.bfloat16
    if name != "max_unpool":  # whose rounded guide may have other maxima
        scale = expected.abs().max()
        assert (result.float() - expected).abs().max() < 0.03 * scale
        assert (whole.float() - expected).abs().max() < 0.03 * scale


class Growing(nn.Module):
    """A feature at some stride, made smaller and brought back to the size it had."""

    def __init__(self, name: str, factor: int = 2, stride: int = 1) -> None:
        super().__init__()
        self.upsampler = upsample_by(name, factor, 3, 8)
        self.factor, self.stride = factor, stride

    def forward(self, images: Tensor) -> Tensor:
        features = small = F.conv2d(images, torch.ones(3, 1, 1, 1), stride=self.stride, groups=3)
        for _ in range(self.factor.bit_length() - 1):
            small = F.conv2d(small, torch.ones(3, 1, 3, 3), stride=2, padding=1, groups=3)
        result: Tensor = self.upsampler(small, (features.shape[2], features.shape[3]), features)
        return result + features.mean(1, keepdim=True)  # its size is known to be the features'


SHAPES = [(1, 3, 32, 32), (1, 3, 33, 32), (3, 3, 40, 35), (2, 3, 64, 96)]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_exports_for_every_size(name: str) -> None:
    torch.manual_seed(0)
    networks = [Growing(name, 2, stride=16)]  # from a single pixel at the least size
    if name in ("pixel_dcl", "max_unpool", "nearest"):
        networks.append(Growing(name, 4))
    for network in networks:
        program = trace(network.eval()).module()
        for shape in SHAPES:
            images = noise(*shape).float()
            torch.testing.assert_close(program(images), network(images), rtol=1e-4, atol=1e-5)


class Sum(nn.Module):
    """The sum of what some networks make."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, features: Tensor) -> Tensor:
        return torch.stack([network(features) for network in self.networks]).sum(0)


@pytest.mark.slow
def test_onnx_runs_at_every_size(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    names = ("pixel_dcl", "ipixel_dcl", "max_unpool", "carafe", "dysample")  # the rest is plain layers
    network = Sum([Growing(name) for name in names]).eval()
    save_onnx(network, tmp_path / "net.onnx", {})
    run = load_onnx(tmp_path / "net.onnx")
    for shape in SHAPES:
        images = noise(*shape).float()
        torch.testing.assert_close(run(images), network(images), rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_same_on_a_gpu(name: str) -> None:
    module = build(name)
    features, guide = inputs(5, 4)
    expected = module(features, None, guide)
    module.cuda()
    found = module(features.cuda(), None, guide.cuda())
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-9, atol=1e-9)
    with torch.autocast("cuda", torch.bfloat16):
        last = module.float()(features.float().cuda(), None, guide.float().cuda())
    assert last.isfinite().all()


# --- what each one is -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nearest", 15),
        ("bilinear", 15),
        ("transposed_conv", 16 * 15),
        ("transposed_conv_bilinear", 16 * 15),
        ("pixel_shuffle", 36 * 15),
        ("pixel_shuffle_icnr", 36 * 15),
        ("pixel_dcl", 9 * 5 * (3 + 10)),
        ("pixel_dcl_equations", 9 * 5 * (3 + 30)),
        ("pixel_dcl_average", 9 * 5 * (3 + 10)),
        ("ipixel_dcl", 9 * 5 * (12 + 25)),
        ("ipixel_dcl_equations", 9 * 5 * (12 + 30)),
        ("max_unpool", 15),
        ("carafe", 15 + 5 * 64 + 64 + 9 * 64 * 100 + 100),
        ("dysample", 15 + 5 * 8 + 8),  # one group, as 5 channels have no other
    ],
)
def test_parameters_from_3_to_5_channels(name: str, expected: int) -> None:
    assert sum(parameter.numel() for parameter in UPSAMPLERS[name].build(3, 5).parameters()) == expected


def test_nearest_repeats_and_bilinear_interpolates() -> None:
    x = noise(2, 3, 4, 5)
    module = build("nearest")
    projected = module.project(x)
    assert torch.equal(module(x), projected.repeat_interleave(2, 2).repeat_interleave(2, 3))
    module = build("bilinear")
    expected = F.interpolate(module.project(x), (7, 10), mode="bilinear", align_corners=True)
    torch.testing.assert_close(module(x, (7, 10)), expected)


def test_transposed_convolution_begins_as_bilinear_interpolation() -> None:
    x = noise(1, 3, 5, 6)
    inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))  # zeros are outside
    expected = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(build("transposed_conv_bilinear", 3, 3)(x)[inside], expected[inside])
    module = build("transposed_conv_bilinear", 3, 5)
    mixture = module.conv.weight[:, :, 1, 1] / (9 / 16)
    torch.testing.assert_close(module(x)[inside], torch.einsum("nihw,io->nohw", expected, mixture)[inside])
    assert torch.linalg.matrix_rank(mixture) == 3


def test_icnr_begins_as_a_convolution_and_nearest_neighbours() -> None:
    x, module = noise(2, 3, 4, 5), build("pixel_shuffle_icnr")
    result = module(x)
    assert torch.equal(result, result[..., ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert result[:, 0].std() > 0
    assert not torch.equal(result[:, 0], result[:, 1])
    assert not torch.equal(build("pixel_shuffle")(x)[..., ::2, ::2], build("pixel_shuffle")(x)[..., 1::2, ::2])


@pytest.mark.parametrize("size", [(2, 2), (4, 6), (5, 7), (1, 3)])
def test_max_unpool_puts_back_where_the_maxima_were(size: tuple[int, int]) -> None:
    module = build("max_unpool", 3, 4)
    guide = noise(2, 4, *size).round()  # with ties
    pooled, places = F.max_pool2d(guide, 2, ceil_mode=True, return_indices=True)
    features = noise(2, 3, *pooled.shape[2:])
    expected = F.max_unpool2d(module.project(features), places, 2, output_size=size)
    assert torch.equal(module(features, size, guide), expected)


def test_max_unpool_averages_the_guides_channels() -> None:
    features = noise(1, 3, 2, 2)
    module = build("max_unpool", 3, 4)
    wide = noise(1, 8, 4, 4)
    assert torch.equal(module(features, None, wide), module(features, None, wide.unflatten(1, (4, 2)).mean(2)))
    narrow = noise(1, 2, 4, 4)
    assert torch.equal(module(features, None, narrow), module(features, None, narrow.repeat_interleave(2, 1)))


def test_max_unpool_without_a_guide_is_refused() -> None:
    with raises_code(SearchSpaceError, "unpooling-without-pooling"):
        build("max_unpool")(noise(1, 3, 2, 2))


@pytest.mark.parametrize("name", ["carafe", "dysample"])
def test_resampling_equals_its_definition(name: str) -> None:
    module = build(name)
    with torch.no_grad():  # away from the start, where all weights are equal and all offsets zero
        for parameter in module.parameters():
            parameter.copy_(noise(*parameter.shape) * 0.3)
    x = noise(2, 3, 3, 4)
    expected = {"carafe": carafe, "dysample": dysample}[name](x, module)
    torch.testing.assert_close(module(x), expected, rtol=1e-10, atol=1e-10)


def test_dysample_begins_as_bilinear_interpolation_and_takes_groups_that_divide() -> None:
    x, module = noise(2, 3, 4, 5), build("dysample")
    expected = F.interpolate(module.project(x), scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(module(x), expected, rtol=0, atol=0.01)
    assert [DySample(3, channels).groups for channels in (8, 6, 5, 1)] == [4, 2, 1, 1]


# --- by name and factor -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_factors_by_repetition(name: str) -> None:
    torch.manual_seed(0)
    module = upsample_by(name, 8, 3, 4).double()
    features = noise(1, 3, 2, 3)
    for size in (None, (16, 24), (9, 17), (12, 20)):
        guide = noise(1, 5, *(size or (16, 24)))
        assert module(features, size, guide).shape == (1, 4, *(size or (16, 24)))
    widths = [stage.project.in_channels for stage in module.stages if hasattr(stage, "project")]
    assert widths in ([], [3, 4, 4])


def test_repetition_is_what_it_says() -> None:
    torch.manual_seed(0)
    module, features, guide = upsample_by("max_unpool", 4, 3, 4).double(), noise(1, 3, 2, 2), noise(1, 4, 7, 6)
    first, second = module.stages
    pooled = F.max_pool2d(guide, 2, ceil_mode=True)
    assert torch.equal(module(features, (7, 6), guide), second(first(features, (4, 3), pooled), (7, 6), guide))
    assert isinstance(upsample_by("pixel_dcl", 2, 3, 4), PixelDCL)


@pytest.mark.parametrize("factor", [0, 1, 3, 6, -2])
def test_other_factors_are_refused(factor: int) -> None:
    with raises_code(SearchSpaceError, "upsampling-factor-invalid", "2, 4, 8", f"not {factor}"):
        upsample_by("bilinear", factor, 3, 4)


def test_names_may_give_a_kernel() -> None:
    module = build_upsampler("ipixel_dcl_5x5", 3, 4)
    assert sum(parameter.numel() for parameter in module.parameters()) == 25 * 4 * (12 + 20)
    assert sum(each.numel() for each in build_upsampler("pixel_dcl_average_5x5", 3, 4).parameters()) == 25 * 4 * 11


@pytest.mark.parametrize(
    ("name", "hint"), [("pixel_dlc", "did you mean 'pixel_dcl'?"), ("pixel_dcl_4x4", "even kernel")]
)
def test_unknown_names_and_even_kernels_are_refused(name: str, hint: str) -> None:
    with raises_code(SearchSpaceError, "upsampler-invalid", f"'{name}'", hint):
        upsample_by(name, 2, 3, 4)
