"""Optimizers, their steps, and learning rates as a function of the step: resuming needs no scheduler state."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from autoseg.config.training import LrScheduleConfig, OptimizerConfig


def build_optimizer(
    config: OptimizerConfig, parameters: Iterable[nn.Parameter], fused: bool | None = None
) -> torch.optim.Optimizer:
    """SGD, Adam or AdamW over `parameters`.

    fused: one kernel for all parameters; None: PyTorch's choice. In fp16 a gradient scaler skips a step whose gradients
    are not finite. A fused optimizer checks that on the device; any other makes the host wait.
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


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Use `lr` from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def clip_gradients(
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    parameters: Sequence[nn.Parameter],
    most: float | None,
) -> None:
    """Undo fp16's scale. Clip the gradients of the optimizer's `parameters` to the common norm `most`, if given."""
    scaler.unscale_(optimizer)
    if most is not None:
        nn.utils.clip_grad_norm_(parameters, most)
