"""The supernet on a GPU, where it takes other kernels, against the CPU."""

from __future__ import annotations

import copy

import pytest
import torch
from oracles import largest_difference

from supernet.spaces import small_space, supernet_of
from supernet.test_training import loss_of

pytestmark = pytest.mark.gpu


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
