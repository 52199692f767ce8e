"""The loss against its formula in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from autoseg.losses.losses import SegmentationLoss, sample_pixels

WEIGHTS = (0.5, 2.0, 0.0, 1.25)


def batch(ignore_label: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, 4, 5, 6) and masks of which about a third is ignored."""
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(2, 4, 5, 6, generator=generator)
    masks = torch.randint(0, 4, (2, 5, 6), generator=generator)
    masks[torch.rand(2, 5, 6, generator=generator) < 0.3] = ignore_label
    return logits.to(dtype), masks


def formula(logits: torch.Tensor, masks: torch.Tensor, ignore_label: int, weights: tuple[float, ...]) -> float:
    """Pixel by pixel."""
    values, total, weight = logits.double().numpy(), 0.0, 0.0
    for (image, row, column), label in np.ndenumerate(masks.numpy()):
        if label != ignore_label:
            scores = values[image, :, row, column]
            total += weights[label] * (np.log(np.exp(scores).sum()) - scores[label])
            weight += weights[label]
    return total / weight


@pytest.mark.parametrize("ignore_label", [255, -1, -100, 0, 3])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_loss_equals_its_formula(ignore_label: int, weights: tuple[float, ...] | None) -> None:
    logits, masks = batch(ignore_label)
    class_weights = None if weights is None else torch.tensor(weights)
    loss = SegmentationLoss(ignore_label, class_weights)(logits, masks)
    assert loss.item() == pytest.approx(formula(logits, masks, ignore_label, weights or (1.0,) * 4), rel=1e-5)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("ignore_label", [255, 1])
def test_a_batch_of_ignored_pixels_has_no_loss_and_no_gradient(
    weights: tuple[float, ...] | None, ignore_label: int
) -> None:
    logits = torch.randn(2, 4, 3, 3, requires_grad=True)
    masks = torch.full((2, 3, 3), ignore_label)
    loss = SegmentationLoss(ignore_label, None if weights is None else torch.tensor(weights))(logits, masks)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_pixels_of_classes_without_weight_have_no_loss() -> None:
    logits = torch.randn(1, 4, 2, 2, requires_grad=True)
    loss = SegmentationLoss(255, torch.tensor(WEIGHTS))(logits, torch.full((1, 2, 2), 2))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_ignored_pixels_have_no_gradient_and_counted_ones_have() -> None:
    logits, masks = batch(255)
    logits.requires_grad_()
    SegmentationLoss(255)(logits, masks).backward()
    assert torch.equal(logits.grad.abs().sum(1) > 0, masks != 255)


def test_the_loss_of_bfloat16_logits_is_computed_in_float32() -> None:
    logits, masks = batch(255, torch.bfloat16)
    logits.requires_grad_()
    loss = SegmentationLoss(255)(logits, masks)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(formula(logits.detach(), masks, 255, (1.0,) * 4), rel=1e-5)
    assert logits.grad.dtype == torch.bfloat16
    assert bool(logits.grad.isfinite().all())


# --- on a random subset of the pixels ---------------------------------------------------------------------------------


def test_each_pixel_is_kept_by_itself_and_ignored_ones_stay_so() -> None:
    masks = torch.randint(0, 4, (8, 100, 100), generator=torch.Generator().manual_seed(0))
    masks[:, :20] = 255
    torch.manual_seed(1)
    kept = [sample_pixels(masks, 0.3, 255) for _ in range(2)]
    for one in kept:
        chosen = one != 255
        assert torch.equal(one[chosen], masks[chosen])
        assert not chosen[:, :20].any()
        shares = chosen[:, 20:].double().mean((1, 2))  # 8,000 draws each: 0.3 within five standard deviations
        assert (shares - 0.3).abs().max() < 5 * (0.3 * 0.7 / 8000) ** 0.5
    both = ((kept[0] != 255) & (kept[1] != 255))[:, 20:].double().mean()
    assert both == pytest.approx(0.09, abs=0.006)  # drawn anew, so 0.3 of 0.3
    neighbours = (kept[0][:, 20:, 1:] != 255) & (kept[0][:, 20:, :-1] != 255)
    assert neighbours.double().mean() == pytest.approx(0.09, abs=0.006)
    before = torch.get_rng_state()
    assert sample_pixels(masks, 1.0, 255) is masks
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_loss_sampling_is_training_on_patches(share: float) -> None:
    """Long et al. 2015, section 3.4: the gradient is the mean over the patches that the chosen outputs see.

    Valid convolutions with a stride of 2 in all, so that an output sees 8x8 pixels from twice its place on.
    """
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 6, 3), nn.Tanh())
    network = nn.Sequential(features, nn.Conv2d(6, 4, 1)).double()
    images = torch.randn(2, 3, 26, 30, dtype=torch.float64)
    masks = torch.randint(0, 4, (2, 10, 12))
    masks[0, :3] = 255
    chosen = sample_pixels(masks, share, 255)
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(SegmentationLoss(255)(network(images), chosen), parameters)

    cells = [(int(image), int(row), int(column)) for image, row, column in (chosen != 255).nonzero()]
    assert 40 < len(cells) <= 2 * 10 * 12 - 36
    patches = torch.stack([images[i, :, 2 * r : 2 * r + 8, 2 * c : 2 * c + 8] for i, r, c in cells])
    labels = torch.stack([masks[cell] for cell in cells])
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    for patch, label in zip(patches, labels, strict=True):  # each patch a training image of its own
        logits = network(patch[None])
        assert logits.shape == (1, 4, 1, 1)
        loss = -logits.log_softmax(1)[0, label, 0, 0]
        for total, part in zip(sums, torch.autograd.grad(loss, parameters), strict=True):
            total += part
    for gradient, total in zip(gradients, sums, strict=True):
        assert gradient.abs().max() > 1e-4
        assert torch.allclose(gradient, total / len(cells), rtol=0, atol=1e-12)
