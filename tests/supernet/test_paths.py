"""Every way in which a supernet can be evaluated gives the same: checkpointed, frozen halves, layouts, precisions."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from helpers.oracle_supernet import largest_difference, parameter_pairs, textbook_of
from helpers.spaces import small_space
from helpers.supernets import results, supernet_of
from torch.utils._python_dispatch import TorchDispatchMode

from autoseg.registry import OPERATIONS
from autoseg.space.groups import PAPER_OPERATIONS
from autoseg.supernet import build_supernet

SPACES = {
    "every operation": small_space(layers=3, blocks=2),
    "of the paper": small_space(layers=3, blocks=3, operations=PAPER_OPERATIONS),
    "dilated alone": small_space(layers=3, blocks=2, operations=["none", "dil_conv_5x5", "dil_conv_3x3"]),
    "free alone": small_space(layers=3, blocks=2, operations=["max_pool_3x3", "skip_connect", "avg_pool_3x3"]),
    "any order": small_space(layers=3, blocks=2, operations=list(OPERATIONS)[::-1]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("size", [(40, 51), (64, 64)])
def test_checkpointed_cells_equal_the_textbook_and_count_statistics_once(name: str, size: tuple[int, int]) -> None:
    plain = supernet_of(SPACES[name])
    checkpointed, textbook = copy.deepcopy(plain), textbook_of(plain, 3)
    checkpointed.checkpoint_cells = True
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    direction = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = textbook(images)
    (expected * direction).sum().backward()
    for supernet in (plain, checkpointed):
        logits, _ = results(supernet, images)
        assert largest_difference(logits, expected) < 1e-10
        for parameter, index, other in parameter_pairs(supernet, textbook):
            theirs = torch.zeros_like(other) if other.grad is None else other.grad
            assert largest_difference(parameter.grad[index], theirs) < 1e-10
    found = checkpointed.state_dict()
    for key, value in plain.state_dict().items():
        assert torch.equal(value, found[key]), key


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_frozen_half_changes_nothing_of_the_other(checkpoint: bool) -> None:
    supernet = supernet_of(SPACES["every operation"])
    supernet.checkpoint_cells = checkpoint
    images = torch.randn(2, 3, 48, 40, dtype=torch.float64)
    logits, everything = results(supernet, images)
    found = {}
    for freeze in (supernet.train_weights, supernet.train_architecture):
        freeze()
        frozen_logits, gradients = results(supernet, images)
        assert torch.equal(frozen_logits, logits)
        assert not found.keys() & gradients.keys()
        found |= gradients
    assert found.keys() == everything.keys()
    for name, gradient in found.items():
        assert largest_difference(gradient, everything[name]) < 1e-12, name


class WeightGradients(TorchDispatchMode):
    """Counts the convolutions whose backward pass computes a weight gradient, and those without."""

    def __init__(self) -> None:
        super().__init__()
        self.made = self.left = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution_backward.default:
            self.made += bool(args[-1][1])
            self.left += not args[-1][1]
        return func(*args, **(kwargs or {}))


@pytest.mark.slow
def test_an_architecture_step_computes_no_gradient_of_a_weight() -> None:
    supernet = supernet_of(SPACES["every operation"])
    images = torch.randn(2, 3, 40, 48, dtype=torch.float64)
    counted = {}
    for half in ("train_weights", "train_architecture"):
        getattr(supernet, half)()
        with WeightGradients() as counted[half]:
            results(supernet, images)
    assert counted["train_architecture"].made == 0
    assert counted["train_architecture"].left > 50
    assert counted["train_weights"].made > 100


@pytest.mark.slow
def test_one_thread_and_two_give_the_same() -> None:
    """With one, 1x1 convolutions are called otherwise."""
    supernet = supernet_of(small_space(layers=2, blocks=1))
    images = torch.randn(2, 3, 40, 48, dtype=torch.float64)
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append(results(supernet, images))
    finally:
        torch.set_num_threads(threads)
    assert largest_difference(found[0][0], found[1][0]) < 1e-10
    for name, gradient in found[0][1].items():
        assert largest_difference(gradient, found[1][1][name]) < 1e-10, name


@pytest.mark.slow
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_the_layout_of_the_images_does_not_matter(memory: torch.memory_format) -> None:
    supernet = supernet_of(SPACES["every operation"])
    images = torch.randn(2, 3, 40, 48, dtype=torch.float64)
    expected, _ = results(supernet, images.clone())
    assert torch.equal(results(supernet, images.contiguous(memory_format=memory))[0], expected)


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", [False, True])
def test_bfloat16_is_within_its_bound(checkpoint: bool) -> None:
    """Stated bound at three layers: the error of the logits has under a tenth of their standard deviation."""
    torch.manual_seed(0)
    supernet = build_supernet(small_space(layers=3, blocks=3, filters=8), 5)
    supernet.checkpoint_cells = checkpoint
    images = torch.randn(4, 3, 65, 64)
    exact, _ = results(supernet, images)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, gradients = results(supernet, images)
    assert rounded.dtype == torch.float32  # from the sum over the levels on
    assert float((rounded - exact).std()) < 0.1 * float(exact.std())
    assert all(bool(gradient.isfinite().all()) for gradient in gradients.values())
    assert {gradient.dtype for gradient in gradients.values()} == {torch.float32}
