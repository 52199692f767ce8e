"""The loss against its formula in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autoseg.objectives.losses import segmentation_loss

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
    loss = segmentation_loss(logits, masks, ignore_label, class_weights)
    assert loss.item() == pytest.approx(formula(logits, masks, ignore_label, weights or (1.0,) * 4), rel=1e-5)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("ignore_label", [255, 1])
def test_a_batch_of_ignored_pixels_has_no_loss_and_no_gradient(
    weights: tuple[float, ...] | None, ignore_label: int
) -> None:
    logits = torch.randn(2, 4, 3, 3, requires_grad=True)
    masks = torch.full((2, 3, 3), ignore_label)
    loss = segmentation_loss(logits, masks, ignore_label, None if weights is None else torch.tensor(weights))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_pixels_of_classes_without_weight_have_no_loss() -> None:
    logits = torch.randn(1, 4, 2, 2, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((1, 2, 2), 2), 255, torch.tensor(WEIGHTS))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_ignored_pixels_have_no_gradient_and_counted_ones_have() -> None:
    logits, masks = batch(255)
    logits.requires_grad_()
    segmentation_loss(logits, masks, 255).backward()
    assert torch.equal(logits.grad.abs().sum(1) > 0, masks != 255)


def test_the_loss_of_bfloat16_logits_is_computed_in_float32() -> None:
    logits, masks = batch(255, torch.bfloat16)
    logits.requires_grad_()
    loss = segmentation_loss(logits, masks, 255)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(formula(logits.detach(), masks, 255, (1.0,) * 4), rel=1e-5)
    assert logits.grad.dtype == torch.bfloat16
    assert bool(logits.grad.isfinite().all())
