"""What is checked of a run before any data is opened."""

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
    """The device of a run, ready for what the run's settings ask of it.

    Raises: ConfigError: it is not there, it cannot do that, or no device could.
    """
    device = pick_device(config.device)
    kind = "search" if isinstance(config, SearchConfig) else "retrain"
    schedule: TrainingConfig = getattr(config, kind)
    Setting(schedule.crop, schedule.batch_size, False, schedule.precision).check()
    check_precision(schedule, kind, device)
    if isinstance(config, SearchConfig):
        choose_kernels(config.search.kernels, device, config.space)
    prepare(device)
    return device


def check_precision(schedule: TrainingConfig, kind: str, device: torch.device) -> None:
    """Raises: ConfigError: fp16 where there is no CUDA GPU."""
    if schedule.precision == "fp16" and device.type != "cuda":
        raise ConfigError(
            f"{kind}.precision fp16 needs a CUDA GPU, but the device is {device}; use bf16 or float32",
            code="precision-needs-gpu",
        )
