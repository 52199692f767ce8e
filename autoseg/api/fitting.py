"""What of a schedule must be smaller for the memory of the device that a run will be on."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import torch

from autoseg.config import RetrainConfig, SearchConfig, SearchSchedule, TrainingConfig
from autoseg.engine.device_memory import device_memory, format_bytes
from autoseg.engine.plan import Memory, predict_memory
from autoseg.engine.training_memory import predict_training_memory
from autoseg.errors import ConfigError
from autoseg.files import shell_quoted

Config = TypeVar("Config", SearchConfig, RetrainConfig)

MOST_BYTES = {"search": 64 * 2**10, "retrain": 16 * 2**10}
"""A pixel of the batch, four times what spaces and networks take that ship with autoseg: where this fits twice, nothing
is predicted, which takes seconds."""
ESTIMATE = 1.1
"""Settings are predicted that take no more than this share by proportion."""
LEAST_BATCH, LEAST_SIDE, STEP = 2, 32, 16
"""Of a batch, and of a crop, whose sides become multiples of 16."""


def fit_to_device(
    config: Config, device: torch.device, given: Collection[str], memory_bytes: int | None = None
) -> tuple[Config, list[str]]:
    """The settings with what the device has room for, and a line on what was changed.

    Cells are computed again first (`checkpoint_cells`, which changes no result), then the batch is halved, then the
    crop made smaller, but for what is `given`; where nothing helps the settings stay, and the line is a warning.
    `memory_bytes`: what the device has.
    """
    kind = "search" if isinstance(config, SearchConfig) else "retrain"
    schedule: TrainingConfig = getattr(config, kind)
    try:
        available = device_memory(device) if memory_bytes is None else memory_bytes
    except ConfigError:  # the system does not say
        return config, []
    if 2 * _pixels(schedule) * MOST_BYTES[kind] <= available:
        return config, []
    asked = known = _predict(config, device)
    if asked.needed_bytes(device) <= available:
        return config, []
    reason = f"as it was, the run would need {format_bytes(asked.needed_bytes(device))}, and there are"
    reason += f" {format_bytes(available)}"
    before = schedule
    for changes in _smaller(schedule, given):
        smaller = schedule.model_copy(update=changes)
        if "checkpoint_cells" not in changes or getattr(before, "checkpoint_cells", False):
            share = _pixels(smaller) / _pixels(before)
            peak = known.fixed_bytes + round((known.peak_bytes - known.fixed_bytes) * share)
            if replace(known, peak_bytes=peak).needed_bytes(device) > ESTIMATE * available:
                continue
        candidate = config.model_copy(update={kind: smaller})
        known, before = _predict(candidate, device), smaller
        if known.needed_bytes(device) <= available:
            return candidate, [f"{kind}.{key} {_shown(value)}: {reason}" for key, value in changes.items()]
    return config, [f"{kind}: it may run out of memory: {reason}"]


def smaller_settings(config: SearchConfig | RetrainConfig) -> str:
    """What to set for a run that needs less memory, as the command line takes it."""
    kind = "search" if isinstance(config, SearchConfig) else "retrain"
    changes = next(_smaller(getattr(config, kind), ()), None)
    if changes is None:
        return "a smaller network or more memory"
    return " ".join(f"--set {shell_quoted(f'{kind}.{key}={json.dumps(value)}')}" for key, value in changes.items())


def _smaller(schedule: TrainingConfig, given: Collection[str]) -> Iterator[dict[str, Any]]:
    """Changes that need ever less memory."""
    changes: dict[str, Any] = {}
    if isinstance(schedule, SearchSchedule) and not schedule.checkpoint_cells and "checkpoint_cells" not in given:
        changes["checkpoint_cells"] = True
        yield dict(changes)
    batch, crop = schedule.batch_size, schedule.crop
    while "batch_size" not in given and batch > LEAST_BATCH:
        changes["batch_size"] = batch = max(LEAST_BATCH, batch // 2)
        yield dict(changes)
    while "crop" not in given and max(crop) > LEAST_SIDE:
        height, width = (max(LEAST_SIDE, int(side * 3 / 4) // STEP * STEP) for side in crop)
        changes["crop"] = crop = height, width
        yield dict(changes)


def _predict(config: SearchConfig | RetrainConfig, device: torch.device) -> Memory:
    if isinstance(config, SearchConfig):
        return predict_memory(config, device)
    return predict_training_memory(config, device)


def _pixels(schedule: TrainingConfig) -> int:
    """Of a batch."""
    return schedule.batch_size * schedule.crop[0] * schedule.crop[1]


def _shown(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
