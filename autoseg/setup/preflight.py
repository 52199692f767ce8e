"""Checks of a run's settings before any data is opened."""

from __future__ import annotations

import torch

from autoseg.config.training import TrainingConfig
from autoseg.engine.config import RetrainConfig, SearchConfig
from autoseg.engine.device_check import prepare
from autoseg.engine.environment import pick_device
from autoseg.errors import ConfigError
from autoseg.planning.memory import Setting
from autoseg.supernet.fast.kernels import choose_kernels


def check_device(config: SearchConfig | RetrainConfig) -> torch.device:
    """Prepare and return the device of a run.

    Raises: ConfigError: the device is missing or cannot do what the settings ask, or crop or batch are out of range.
    """
    device = pick_device(config.device)
    Setting.of(config.schedule).check()
    check_precision(config.schedule, config.kind, device)
    if isinstance(config, SearchConfig):
        choose_kernels(config.search.kernels, device, config.space)
    prepare(device)
    return device


def check_precision(schedule: TrainingConfig, kind: str, device: torch.device) -> None:
    """Raises: ConfigError: fp16 without a CUDA GPU."""
    if schedule.precision == "fp16" and device.type != "cuda":
        raise ConfigError(
            f"{kind}.precision fp16 needs a CUDA GPU, but the device is {device}; use bf16 or float32",
            code="precision-needs-gpu",
        )
