"""The supernet on a GPU, where it takes other kernels, against the CPU."""

from __future__ import annotations

import copy
from importlib.util import find_spec

import pytest
import torch
from helpers.oracle_supernet import largest_difference
from helpers.spaces import small_space
from helpers.supernets import loss_of, supernet_of
from torch import Tensor
from torch.nn import functional as F

from autoseg.space.groups import PAPER_OPERATIONS
from autoseg.supernet import KernelChoice, Supernet
from autoseg.supernet.fast.channel_groups import LAYOUTS
from autoseg.supernet.fast.convolutions import Depthwise

pytestmark = pytest.mark.gpu

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="needs the package triton")
VARIANTS = [
    KernelChoice("channels_first", "product"),
    KernelChoice("channels_last", "product"),
    pytest.param(KernelChoice("channels_last", "product", "triton"), marks=needs_triton),
    pytest.param(KernelChoice("channels_first", "product", "triton"), marks=needs_triton),
    KernelChoice("channels_first", "convolution"),
    pytest.param(KernelChoice("channels_last", "convolution", "triton"), marks=needs_triton),
    KernelChoice("channels_last", "product", compile=True),
    KernelChoice("channels_first", "product", compile=True),
]


def label(choice: KernelChoice) -> str:
    return "-".join((*choice[:3], "compiled" if choice.compile else "plain"))


def gradients_of(supernet: Supernet, images: Tensor, precision: torch.dtype | None = None) -> dict[str, Tensor]:
    """Logits (as "logits") and every gradient, on the CPU."""
    supernet.zero_grad(set_to_none=True)
    with torch.autocast(images.device.type, precision, enabled=precision is not None):
        logits = supernet(images)
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (logits * direction.to(logits)).sum().backward()
    found = {name: parameter.grad for name, parameter in supernet.named_parameters() if parameter.grad is not None}
    return {name: value.detach().cpu() for name, value in {"logits": logits, **found}.items()}


@pytest.mark.parametrize("size", [(64, 64), (65, 97)])
def test_logits_and_gradients_on_the_gpu_are_those_of_the_cpu(size: tuple[int, int]) -> None:
    on_cpu = supernet_of(small_space(layers=4, blocks=3, filters=4))
    on_gpu = copy.deepcopy(on_cpu).cuda()
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    expected, result = on_cpu(images), on_gpu(images.cuda())
    assert largest_difference(result.cpu(), expected) < 1e-8
    direction = torch.randn_like(expected)
    (expected * direction).sum().backward()
    (result * direction.cuda()).sum().backward()
    gradients = dict(on_gpu.named_parameters())
    for name, parameter in on_cpu.named_parameters():
        assert largest_difference(gradients[name].grad.cpu(), parameter.grad) < 1e-7, name


@pytest.mark.parametrize("half", ["weights", "architecture"])
def test_bfloat16_steps_are_finite(half: str) -> None:
    supernet = supernet_of(small_space(layers=4, blocks=3, filters=8)).float().cuda()
    supernet.train_weights() if half == "weights" else supernet.train_architecture()
    with torch.autocast("cuda", torch.bfloat16):
        loss = loss_of(supernet, torch.randn(2, 3, 97, 97, device="cuda"))
    loss.backward()
    assert bool(loss.isfinite())
    trained = [parameter for parameter in supernet.parameters() if parameter.requires_grad]
    assert trained
    assert all(bool(parameter.grad.isfinite().all()) for parameter in trained)


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("half", ["weights", "architecture"])
def test_levels_on_streams_of_their_own_give_the_same(half: str, checkpoint: bool) -> None:
    plain = supernet_of(small_space(layers=6, blocks=3, filters=4)).cuda()
    parallel = copy.deepcopy(plain)
    parallel.checkpoint_cells = checkpoint
    streams = [torch.cuda.Stream() for _ in range(4)]
    for number in range(5):  # memory that one stream gives back while another still reads it would show in the end
        generator = torch.Generator().manual_seed(number)
        images = torch.randn(2, 3, 129, 97, dtype=torch.float64, generator=generator).cuda()
        for supernet, used in ((plain, []), (parallel, streams)):
            supernet.train_weights() if half == "weights" else supernet.train_architecture()
            supernet.zero_grad()
            with supernet.on_streams(used):
                loss_of(supernet, images).backward()
        gradients = dict(parallel.named_parameters())
        for name, parameter in plain.named_parameters():
            if parameter.requires_grad:
                assert largest_difference(gradients[name].grad, parameter.grad) < 1e-6, name
    for one, other in zip(plain.buffers(), parallel.buffers(), strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-6)


# --- with other kernels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", VARIANTS, ids=label)
def test_other_kernels_give_the_logits_and_gradients_of_the_cpu(choice: KernelChoice) -> None:
    """In float64, at an odd and an even side."""
    on_cpu = supernet_of(small_space(layers=3, blocks=3, filters=4))
    on_gpu = copy.deepcopy(on_cpu).cuda()
    on_gpu.use_kernels(choice)
    images = torch.randn(2, 3, 65, 96, dtype=torch.float64)
    expected, found = gradients_of(on_cpu, images), gradients_of(on_gpu, images.cuda())
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert largest_difference(found[name], value) < 1e-7, name


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("sizes", "rate"), [((3, 5), 1), ((5, 3), 2), ((3,), 2), ((5,), 1)], ids=str)
def test_depthwise_kernels_are_those_of_pytorch(
    sizes: tuple[int, ...], rate: int, layout: str, dtype: torch.dtype
) -> None:
    """All channels and some channels of a feature of realistic size, against float64 on the CPU."""
    part, largest = 40, max(sizes)
    channels = part * len(sizes)
    parts = [torch.randn(part, 1, size, size) for size in sizes]
    weight = torch.cat([F.pad(each, ((largest - each.shape[-1]) // 2,) * 4) for each in parts]).to(dtype)
    conv = Depthwise(sizes, rate, "triton", LAYOUTS[layout])
    for images, height, width, first in ((2, 81, 81, 0), (3, 11, 20, 8)):
        whole = LAYOUTS[layout].arrange(torch.randn(images, channels + first, height, width).to(dtype))
        features, grad = whole[:, first:], LAYOUTS[layout].arrange(torch.randn(images, channels, height, width))
        one, other = (tensor.double().requires_grad_() for tensor in (features, weight))
        expected = F.conv2d(one, other, None, 1, rate * (largest // 2), rate, channels)
        expected.backward(grad.to(dtype).double())
        arguments = [tensor.cuda() for tensor in (whole, weight, grad.to(dtype))]
        on_gpu = arguments[0][:, first:]
        found = conv(on_gpu, arguments[1])
        of_features, of_weight = conv.backward(arguments[2], on_gpu, arguments[1], True)
        again = conv.backward(arguments[2], on_gpu, arguments[1], True)[1]
        inside = other.grad * (weight != 0)
        bound = 1e-4 if dtype == torch.float32 else 2e-2
        for result, truth in ((found, expected), (of_features, one.grad), (of_weight * (arguments[1] != 0), inside)):
            assert result.dtype == dtype
            assert largest_difference(result.cpu().double(), truth) < bound
        assert torch.equal(of_weight, again)


@pytest.mark.parametrize("choice", VARIANTS, ids=label)
def test_bfloat16_with_other_kernels_is_within_its_bound(choice: KernelChoice) -> None:
    """The error of the logits has under a tenth of their standard deviation, as on a CPU."""
    supernet = supernet_of(small_space(layers=3, blocks=3, filters=8, operations=PAPER_OPERATIONS)).float().cuda()
    images = torch.randn(4, 3, 65, 64, generator=torch.Generator().manual_seed(0)).cuda()
    exact = gradients_of(supernet, images)
    supernet.use_kernels(choice)
    rounded = gradients_of(supernet, images, torch.bfloat16)
    assert float((rounded["logits"] - exact["logits"]).std()) < 0.1 * float(exact["logits"].std())
    assert all(bool(value.isfinite().all()) for value in rounded.values())


@pytest.mark.parametrize("choice", VARIANTS, ids=label)
def test_other_kernels_can_be_recorded(choice: KernelChoice) -> None:
    """A CUDA graph of forward and backward pass, replayed for other images, gives what the eager pass gives."""
    supernet = supernet_of(small_space(layers=2, blocks=2, strides=(4, 8), filters=8)).float().cuda()
    supernet.use_kernels(choice)
    supernet.train_weights()
    images, *others = (torch.randn(2, 3, 64, 65, device="cuda") for _ in range(3))
    direction = torch.randn(2, 3, 64, 65, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # kernels are compiled here, which a graph could not record
            (supernet(images) * direction).sum().backward()
            supernet.zero_grad(set_to_none=True)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = supernet(images)
        (logits * direction).sum().backward()
    for batch in others:
        images.copy_(batch)
        graph.replay()
        found = {name: p.grad.cpu() for name, p in supernet.named_parameters() if p.grad is not None}
        eager = copy.deepcopy(supernet)
        eager.zero_grad(set_to_none=True)
        expected = eager(batch)
        (expected * direction).sum().backward()
        assert largest_difference(logits, expected) < 1e-3
        for name, parameter in eager.named_parameters():
            if parameter.grad is not None:
                assert largest_difference(found[name], parameter.grad.cpu()) < 1e-2, name
