"""Optimizers, mixed precision, and learning rates as a function of the step: resuming needs no scheduler state."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from autoseg.config.training import LrScheduleConfig, OptimizerConfig, TrainingConfig


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


def set_learning_rate(
    optimizer: torch.optim.Optimizer, schedule: TrainingConfig, step: int, steps_per_epoch: int
) -> float:
    """Give the optimizer the learning rate of a step of a run, and return it."""
    steps = schedule.epochs * steps_per_epoch
    lr = learning_rate(schedule.optimizer.lr, schedule.schedule, step, steps, steps_per_epoch)
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr


def clip_gradients(
    optimizer: torch.optim.Optimizer, scaler: GradScaler, parameters: Sequence[nn.Parameter], most: float | None
) -> None:
    """Undo fp16's scale. Clip the gradients of the optimizer's `parameters` to the common norm `most`, if given."""
    scaler.unscale_(optimizer)
    if most is not None:
        nn.utils.clip_grad_norm_(parameters, most)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context of automatic mixed precision in bf16 or fp16; it does nothing in float32."""
    # no cache: a step casts each weight only once, and a cached cast could be read on another stream
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None, cache_enabled=False)


def make_scaler(precision: str, device: torch.device) -> GradScaler:
    """A scaler of the loss, so that small gradients do not vanish in fp16 (Micikevicius et al. 2018).

    For other precisions it is disabled: it returns the loss unchanged and always lets the optimizer step.
    """
    return GradScaler(device.type, enabled=precision == "fp16")


def loss_scale(scaler: GradScaler, loss: Tensor) -> Mapping[str, Tensor]:
    """The scaler's current factor as a figure to log, on the device; empty if the scaler is disabled."""
    # GradScaler.get_scale would wait for the device
    return {"loss_scale": scaler.scale(torch.ones_like(loss))} if scaler.is_enabled() else {}
