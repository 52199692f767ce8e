"""The supernet as a network to train: sizes, batches, states, precision, initial weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.spaces import small_space
from helpers.supernets import loss_of, supernet_of
from torch import nn

from autoseg.losses.losses import SegmentationLoss
from autoseg.supernet import build_supernet
from autoseg.supernet.fast.mixed_op import StackedNorm


@pytest.mark.slow
@pytest.mark.parametrize("size", [(32, 32), (33, 32), (32, 63)])
def test_the_smallest_images_train(size: tuple[int, int]) -> None:
    """At 32x32 a feature of stride 32 is one pixel, of which BatchNorm sees one an image."""
    torch.manual_seed(0)
    supernet = build_supernet(small_space(layers=4, filters=4), 3)
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.05)
    images, masks = torch.randn(2, 3, *size), torch.ones((2, *size), dtype=torch.int64)
    losses = []
    for _ in range(6):
        loss = SegmentationLoss(255)(supernet(images), masks)
        optimizer.zero_grad()
        loss.backward()
        assert all(bool(parameter.grad.isfinite().all()) for parameter in supernet.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_in_evaluation_an_image_does_not_depend_on_its_batch(batch: int) -> None:
    supernet = supernet_of(small_space(layers=3))
    with torch.no_grad():
        supernet(torch.randn(3, 3, 40, 40, dtype=torch.float64))
    supernet.eval()
    images = torch.randn(batch, 3, 45, 38, dtype=torch.float64)
    together = supernet(images)
    assert together.shape == (batch, 3, 45, 38)
    for number in range(batch):
        torch.testing.assert_close(together[number], supernet(images[number : number + 1])[0], rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_gradients_reach_every_parameter() -> None:
    supernet = supernet_of(small_space(layers=4))
    loss_of(supernet, torch.randn(3, 3, 64, 64, dtype=torch.float64)).backward()
    for name, parameter in supernet.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
def test_a_loaded_state_gives_the_same_logits(training: bool, tmp_path: Path) -> None:
    space = small_space(layers=3)
    saved, loaded = supernet_of(space, seed=0), supernet_of(space, seed=1)
    images = torch.randn(2, 3, 40, 37, dtype=torch.float64)
    saved(images)  # moves the running statistics
    torch.save(saved.state_dict(), tmp_path / "state.pt")
    assert not torch.equal(saved.eval()(images), loaded.eval()(images))
    loaded.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(saved.train(training)(images), loaded.train(training)(images))
    found = loaded.state_dict()
    for name, value in saved.state_dict().items():
        assert torch.equal(value, found[name]), name


def test_the_state_holds_weights_logits_and_statistics_only() -> None:
    supernet = supernet_of(small_space(layers=2))
    parameters = {name for name, _ in supernet.named_parameters()}
    others = set(supernet.state_dict()) - parameters
    assert {name.rsplit(".", 1)[1] for name in others} == {"running_mean", "running_var"}


def test_batch_norm_has_no_affine_parameters() -> None:
    supernet = supernet_of(small_space(layers=2))
    norms = [module for module in supernet.modules() if isinstance(module, StackedNorm)]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in supernet.modules())
    assert len(norms) > 20
    assert not any(True for norm in norms for _ in norm.parameters())


def test_initial_weights_have_the_spread_of_he() -> None:
    """Standard deviation sqrt(2 / inputs of one output), so that a feature's scale survives each convolution."""
    torch.manual_seed(0)
    weights = build_supernet(small_space(layers=2, blocks=3, filters=16), 3).cells["layer2_level1"].weights
    channels = 32
    for tensors, inputs in (
        (weights.depthwise1, (9, 25)),
        (weights.depthwise2, (9, 25)),
        ((weights.pointwise1, weights.pointwise2), (channels, channels)),
        (weights.atrous, (9 * channels, 25 * channels)),
    ):
        for tensor, fan in zip(tensors, inputs, strict=True):
            assert float(tensor.detach().std()) == pytest.approx((2 / fan) ** 0.5, rel=0.05)


def test_the_seed_decides_the_weights() -> None:
    space = small_space(layers=2)
    one, same, other = (nn.utils.parameters_to_vector(supernet_of(space, seed=s).parameters()) for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.slow
def test_bfloat16_forward_and_backward_are_near_float32() -> None:
    torch.manual_seed(0)
    supernet = build_supernet(small_space(layers=3, filters=4), 3)
    images = torch.randn(2, 3, 64, 64)
    exact = loss_of(supernet, images)
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(supernet, images)
    loss.backward()
    assert loss.item() == pytest.approx(exact.item(), rel=0.02)
    assert all(bool(parameter.grad.isfinite().all()) for parameter in supernet.parameters())
