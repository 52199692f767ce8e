"""Optimizers, mixed precision, and learning rates as a function of the step: resuming needs no scheduler state."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from autoseg.config.training import LrScheduleConfig, OptimizerConfig, TrainingConfig


def build_optimizer(
    config: OptimizerConfig, parameters: Iterable[nn.Parameter], fused: bool | None = None
) -> torch.optim.Optimizer:
    """SGD, Adam or AdamW over `parameters`.

    fused: one kernel for all parameters, which leaves a step out on the device if `StepGuard` says so; None: PyTorch's
    choice, with which the host waits for the device to tell.
    """
    parameters = list(parameters)
    if config.name == "sgd":
        momentum, decay, nesterov = config.momentum, config.weight_decay, config.nesterov and config.momentum > 0
        sgd = torch.optim.SGD(parameters, config.lr, momentum, weight_decay=decay, nesterov=nesterov, fused=fused)
        if fused and config.momentum > 0:
            # If a scaler skips the first step, as it often does, PyTorch 2.13's fused SGD continues from uninitialised
            # momentum. Starting from zeros gives the same first step as starting without momentum.
            for parameter in parameters:
                sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return sgd
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=fused)


def learning_rate(lr: float, schedule: LrScheduleConfig, step: int, steps: int, steps_per_epoch: int) -> float:
    """The learning rate of step 0..steps-1: it rises linearly over the warm-up and then falls to `min_lr`.

    poly: (1 - t)^power (DeepLab); cosine: (1 + cos(pi t)) / 2 (SGDR); t is the share of the steps after the warm-up
    that are done, 0 to 1.
    """
    warmup = min(round(schedule.warmup_epochs * steps_per_epoch), steps)
    if step < warmup:
        return lr * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    share: float = {
        "constant": 1.0,
        "poly": (1 - done) ** schedule.power,
        "cosine": (1 + math.cos(math.pi * done)) / 2,
    }[schedule.name]
    least = min(schedule.min_lr, lr)
    return least + (lr - least) * share


def set_learning_rate(
    optimizer: torch.optim.Optimizer, schedule: TrainingConfig, step: int, steps_per_epoch: int, factor: float = 1.0
) -> float:
    """Give the optimizer the learning rate of a step of a run, times `factor`, and return it."""
    steps = schedule.epochs * steps_per_epoch
    lr = learning_rate(schedule.optimizer.lr, schedule.schedule, step, steps, steps_per_epoch) * factor
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Restore an optimizer's state. It stays fused or not, as its device needs it: the state may be of another one."""
    groups = zip(state["param_groups"], optimizer.param_groups, strict=True)
    optimizer.load_state_dict({**state, "param_groups": [{**saved, "fused": own["fused"]} for saved, own in groups]})


class StepGuard(GradScaler):
    """Leaves out the optimizer's step if the loss or a gradient is not finite.

    This is PyTorch's gradient scaler. In fp16 it scales the loss, so that small gradients do not vanish (Micikevicius
    et al. 2018); for other precisions its scale stays 1, which changes no bit. Use it as the scaler, with `check` in
    place of `unscale_`. The flag stays on the device, where a fused optimizer reads it.
    """

    def __init__(self, device: torch.device, scales: bool, enabled: bool = True) -> None:
        """scales: for fp16. enabled: False takes every step, for tensors without data, whose flag cannot be read."""
        super().__init__(device.type, init_scale=2.0**16 if scales else 1.0, enabled=enabled)
        self.scales = scales

    def check(self, optimizer: torch.optim.Optimizer, loss: Tensor, most: float | None = None) -> Tensor:
        """Undo the scale, and clip the optimizer's gradients to the common norm `most`, if given.

        Returns, on the device, whether the step is lost: it is skipped, and not because fp16's scale was too large.
        """
        self.unscale_(optimizer)
        lost = ~loss.isfinite()
        for skips in self._found_inf_per_device(optimizer).values() if self.is_enabled() else ():  # of one device
            skips.logical_or_(lost)
            scale, _ = self._check_scale_growth_tracker("check")
            lost = lost | skips.bool() & (scale <= 1)
        if most is not None:
            nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], most)
        return lost

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """As `GradScaler`, but only fp16's scale changes."""
        super().update(new_scale if self.scales else 1.0)


class RunningStatistics:
    """The statistics of BatchNorm in a network, which a lost step must not change.

    The forward pass has changed them before its loss tells that it is lost. So they are copied before it and brought
    back after it, without waiting for the device to tell.
    """

    def __init__(self, network: nn.Module) -> None:
        self._buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
        self._sizes = [buffer.numel() for buffer in self._buffers]

    def copy(self) -> Tensor | None:
        """All statistics, one after the other; None without any."""
        return torch.cat([buffer.flatten() for buffer in self._buffers]) if self._buffers else None

    def restore(self, before: Tensor | None, lost: Tensor) -> None:
        """Bring `before` back if `lost`, a flag on the device."""
        if before is not None and (now := self.copy()) is not None:
            parts = torch.split_with_sizes(torch.where(lost, before, now), self._sizes)
            torch._foreach_copy_(
                self._buffers, [part.view_as(buffer) for part, buffer in zip(parts, self._buffers, strict=True)]
            )


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context of automatic mixed precision in bf16 or fp16; it does nothing in float32."""
    # no cache: a step casts each weight only once, and a cached cast could be read on another stream
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None, cache_enabled=False)


def loss_scale(scaler: StepGuard, loss: Tensor) -> Mapping[str, Tensor]:
    """The current scale in fp16 as a figure to log, on the device; else nothing."""
    # GradScaler.get_scale would wait for the device
    return {"loss_scale": scaler.scale(torch.ones_like(loss))} if scaler.scales else {}
