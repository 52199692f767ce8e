"""The loss of a batch, its gradients, and the optimizer's step, as a search and a retraining take them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from autoseg.config.training import SearchSchedule
from autoseg.engine.cuda_graphs import CudaGraphs, Inputs, Recorder, Recordings
from autoseg.engine.trainer import autocast
from autoseg.errors import ConfigError
from autoseg.losses.losses import SegmentationLoss
from autoseg.supernet import Supernet
from autoseg.supernet.upsampler_cost import relative_costs

Half = Literal["weights", "architecture"]
HALVES: tuple[Half, Half] = ("weights", "architecture")


# --- several batches as one -------------------------------------------------------------------------------------------


def accumulated(
    parameters: Sequence[torch.nn.Parameter],
    loss: SegmentationLoss,
    batches: Sequence[Inputs],
    gradients: Callable[[Inputs, Tensor | None], Tensor],
) -> Tensor:
    """The loss of some batches as of one that holds them all; its gradients are in `.grad`.

    batches: images (N, C, H, W), masks (N, H, W), and the masks before pixels were left out of them, if any were.
    gradients: the loss of one batch, with its gradients in `.grad`; it takes the shares of `SegmentationLoss.shares`,
    or None for a batch that stands alone. Gradients and loss equal those of the one batch but for what a network or a
    loss computes over a whole batch: BatchNorm's statistics, and the losses that `SegmentationLoss.shares` names.
    """
    if len(batches) == 1:
        return gradients(batches[0], None)
    losses: list[Tensor] = []
    total: list[Tensor] = []
    for batch, share in zip(batches, loss.shares([masks[1:] for masks in batches]), strict=True):
        losses.append(gradients(batch, share))
        found = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if total:
            torch._foreach_add_(total, found)
        else:
            total = [gradient.clone() for gradient in found]  # the next batch may overwrite them
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    for parameter, gradient in zip(trained, total, strict=True):
        parameter.grad = gradient
    return torch.stack(losses).sum()


# --- the optimizer's step ---------------------------------------------------------------------------------------------


def make_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler | None:
    """What keeps small gradients from vanishing in fp16 (Micikevicius et al. 2018); None for other precisions."""
    return torch.amp.GradScaler(device.type) if precision == "fp16" else None


def take_step(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[torch.nn.Parameter],
    clip_grad_norm: float | None,
    scaler: torch.amp.GradScaler | None,
) -> None:
    """Clip the gradients and let the optimizer step, without waiting for the device.

    With a scaler, a step whose gradients are not finite is left out, which the optimizer finds on the device: it must
    be a fused one.
    """
    if scaler is not None:
        scaler.unscale_(optimizer)
    if clip_grad_norm is not None:
        torch.nn.utils.clip_grad_norm_(parameters, clip_grad_norm)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()


def loss_scale(scaler: torch.amp.GradScaler | None, loss: Tensor) -> Mapping[str, Tensor]:
    """The scaler's present factor as a figure to log, on the device; nothing without a scaler."""
    return {} if scaler is None else {"loss_scale": scaler.scale(torch.ones_like(loss))}


# --- the search -------------------------------------------------------------------------------------------------------


def make_recorder(supernet: Supernet, schedule: SearchSchedule, device: torch.device) -> Recorder | None:
    """What records the steps of a search; None where they stay eager.

    With operations that are sampled anew for each step (GDAS), no two steps are the same work.
    """
    if device.type != "cuda" or not schedule.cuda_graphs or supernet.space.relaxation.gdas is not None:
        return None
    return CudaGraphs(device, len(supernet.space.network.strides))


class Gradients:
    """The loss of a batch, and its gradients in `.grad` of the parameters of one half of the supernet."""

    def __init__(
        self,
        supernet: Supernet,
        precision: str,
        loss: SegmentationLoss,
        recorder: Recorder | None = None,
        upsampler_cost: float = 0.0,
        compare: bool = False,
        scalers: Mapping[Half, torch.amp.GradScaler | None] | None = None,
    ) -> None:
        """upsampler_cost: weight of what gamma's choices cost in the loss of the architecture. compare: see
        `Recordings`. scalers: of each half, for fp16.

        Raises: ConfigError: such a weight in a space without gamma.
        """
        self.supernet, self.precision, self.loss = supernet, precision, loss
        self.gamma_costs = _gamma_costs(supernet, upsampler_cost)
        self.parameters: dict[Half, list[torch.nn.Parameter]] = {
            "weights": supernet.weights(),
            "architecture": list(supernet.arch.parameters()),
        }
        self.recordings = Recordings(recorder, supernet.buffers, compare, precision)
        self.scalers = scalers or {}

    @property
    def recorder(self) -> Recorder | None:
        """What records the steps; None where they are eager."""
        return self.recordings.recorder

    @recorder.setter
    def recorder(self, recorder: Recorder | None) -> None:
        self.recordings.recorder = recorder

    def __call__(self, half: Half, *batches: tuple[Tensor, Tensor]) -> Tensor:
        """The loss of batches, images (N, C, H, W) and masks (N, H, W) each, as of one that holds them all.

        `.grad` of the other half means nothing afterwards.
        """

        def gradients(batch: Inputs, share: Tensor | None) -> Tensor:
            def compute(inputs: Inputs, streams: Sequence[torch.cuda.Stream]) -> Tensor:
                return self._compute(half, inputs, streams, 1 / len(batches))

            inputs = batch if share is None else (*batch, share)
            return self.recordings(half, inputs, self.parameters[half], compute, self.supernet.training)

        return accumulated(self.parameters[half], self.loss, batches, gradients)

    def _compute(
        self, half: Half, inputs: Inputs, streams: Sequence[torch.cuda.Stream] = (), cost_share: float = 1.0
    ) -> Tensor:
        """inputs: images, masks, and what the batch counts in each term of the loss, if it does not stand alone."""
        images, masks, *share = inputs
        if half == "weights":
            self.supernet.train_weights()
        else:
            self.supernet.train_architecture()
        for parameter in self.parameters[half]:
            parameter.grad = None
        with self.supernet.kernels.in_use(), self.supernet.on_streams(streams):
            with autocast(images.device, self.precision):
                logits = self.supernet(images)
            loss = self.loss(logits, masks, None, *share)
            gamma_probs = self.supernet.arch.gamma_probs()
            if half == "architecture" and self.gamma_costs is not None and gamma_probs is not None:
                loss = loss + (self.gamma_costs * gamma_probs).sum() * cost_share
            scaler = self.scalers.get(half)
            (loss if scaler is None else scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
        return loss.detach()


def _gamma_costs(supernet: Supernet, weight: float) -> Tensor | None:
    """[site, upsampler]: what gamma's probabilities are multiplied with in the loss; None where that is nothing."""
    if not weight:
        return None
    logits, space = supernet.arch.gamma_logits, supernet.space
    if logits is None:
        raise ConfigError(
            f"search.upsampler_cost is {weight:g}, but in space '{space.name}' no upsamplers compete; leave it out, or"
            " name several in resolution.upsamplers or decoder.upsamplers",
            code="no-competing-upsamplers",
        )
    return relative_costs(space, supernet.num_classes).to(logits) * (weight / len(logits))
