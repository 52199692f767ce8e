"""Gradient accumulation. A reader of the algorithm may take `accumulated` for the gradients of one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from autoseg.config.training import TrainingConfig
from autoseg.engine.cuda_graphs import Inputs
from autoseg.errors import ConfigError
from autoseg.losses.losses import SegmentationLoss


def accumulated(
    parameters: Sequence[torch.nn.Parameter],
    loss: SegmentationLoss,
    batches: Sequence[Inputs],
    gradients: Callable[[Inputs], Tensor],
) -> Tensor:
    """The loss of several batches as of one large batch; its gradients are in `.grad`.

    batches: images (N, C, H, W), masks (N, H, W) and, if pixels were sampled, the complete masks. gradients: returns
    the loss of one batch and leaves its gradients in `.grad`. It takes the batch and, if there are several, the batch's
    share of each term of the loss (`SegmentationLoss.shares`).

    The result differs from that of one large batch where a network or a loss looks at the whole batch: in BatchNorm's
    statistics, and in the losses that `SegmentationLoss.inexact` names.
    """
    if len(batches) == 1:
        return gradients(batches[0])
    losses: list[Tensor] = []
    total: list[Tensor] = []
    for batch, share in zip(batches, loss.shares([masks[1:] for masks in batches]), strict=True):
        losses.append(gradients((*batch, share)))
        found = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if total:
            torch._foreach_add_(total, found)
        else:
            total = [gradient.clone() for gradient in found]  # the next batch may overwrite them
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    for parameter, gradient in zip(trained, total, strict=True):
        parameter.grad = gradient
    return torch.stack(losses).sum()


def steps_in_epoch(batches: int, schedule: TrainingConfig, place: str) -> int:
    """Steps in an epoch of `batches`. place: `search` or `retrain`. Raises: ConfigError: some batches are left."""
    accumulate, most = schedule.accumulate, schedule.max_steps_per_epoch
    steps = batches // accumulate
    if most is not None and steps >= most:
        return most
    if batches % accumulate == 0:
        return steps
    if not steps:
        raise ConfigError(
            f"{place}.accumulate is {accumulate}, but an epoch has {batches} batches of {place}.batch_size; set it to"
            f" at most {batches}, or add images",
            code="accumulate-too-large",
        )
    divisors = [number for number in range(1, batches + 1) if batches % number == 0]
    below = max(number for number in divisors if number < accumulate)
    above = min((number for number in divisors if number > accumulate), default=batches)
    raise ConfigError(
        f"{place}.accumulate is {accumulate}, which does not divide the {batches} batches of an epoch; set it to"
        f" {below} or {above}, or set {place}.max_steps_per_epoch={steps} to leave the last {batches % accumulate} out",
        code="accumulate-indivisible",
    )


def accumulation_notes(schedule: TrainingConfig, place: str, batch_norm: bool, inexact: Sequence[str]) -> list[str]:
    """One line on a run with gradient accumulation; none without. inexact: from `SegmentationLoss`."""
    if schedule.accumulate == 1:
        return []
    apart = ", ".join([*["the statistics of BatchNorm"] * batch_norm, *inexact])
    images = schedule.accumulate * schedule.batch_size
    note = f"{place}.accumulate {schedule.accumulate}: each step has the gradients of one batch of {images} images"
    return [note + f"; computed from {schedule.batch_size} images at a time: {apart}" * bool(apart)]
