"""What is checked of a run before any data is opened."""

from __future__ import annotations

import torch

from autoseg.config import RetrainConfig, SearchConfig, TrainingConfig
from autoseg.engine.device_check import prepare
from autoseg.engine.environment import pick_device
from autoseg.errors import ConfigError


def check_device(config: SearchConfig | RetrainConfig) -> torch.device:
    """The device of a run, ready for what the run's settings ask of it.

    Raises: ConfigError: it is not there, or it cannot do that.
    """
    device = pick_device(config.device)
    if isinstance(config, SearchConfig):
        check_precision(config.search, "search", device)
    else:
        check_precision(config.retrain, "retrain", device)
    prepare(device)
    return device


def check_precision(schedule: TrainingConfig, place: str, device: torch.device) -> None:
    """Raises: ConfigError: fp16 where there is no CUDA GPU."""
    if schedule.precision == "fp16" and device.type != "cuda":
        raise ConfigError(f"{place}.precision fp16 needs a CUDA GPU, but the device is {device}; use bf16 or float32")
