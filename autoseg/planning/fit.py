"""What of a schedule must be smaller for the memory of the device that a run will be on."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import torch

from autoseg.config.base import LEAST_INPUT_SIDE
from autoseg.config.training import SearchSchedule, TrainingConfig
from autoseg.engine.config import RetrainConfig, SearchConfig
from autoseg.errors import ConfigError
from autoseg.files import shell_quoted
from autoseg.ops.resize import Size
from autoseg.planning.device import device_memory, format_bytes, most_memory
from autoseg.planning.memory import Memory, predict_memory
from autoseg.planning.training_memory import predict_training_memory

Config = TypeVar("Config", SearchConfig, RetrainConfig)

MOST_BYTES = {"search": 64 * 2**10, "retrain": 16 * 2**10}
"""A pixel of the batch, four times what spaces and networks take that ship with autoseg: where this fits twice, nothing
is predicted, which takes seconds."""
ESTIMATE = 1.1
"""Settings are predicted that take no more than this share by proportion."""
CERTAIN = 0.9
"""A prediction is within a tenth: settings are refused whose predicted peak, less this, is more than there can be."""
LEAST_BATCH, STEP = 2, 16
"""Of a batch, and of the sides of a crop, which become multiples of it."""


def fit_to_device(
    config: Config, device: torch.device, given: Collection[str], memory_bytes: int | None = None
) -> tuple[Config, list[str]]:
    """The settings with what the device has room for, and a line on what was changed.

    Cells are computed again first (`checkpoint_cells`, which changes no result), then the batch is halved, then the
    crop made smaller, but for what is `given`; where nothing helps the settings stay, and the line is a warning.
    `memory_bytes`: what the device has.
    Raises: ConfigError: what is `given` is clearly too much, whatever the rest is; the message says what fits.
    """
    kind, schedule = _schedule(config)
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
            estimate = _scaled(known, _pixels(smaller) / _pixels(before))
            if estimate.needed_bytes(device) > ESTIMATE * available:
                continue
        candidate = config.model_copy(update={kind: smaller})
        known, before = _predict(candidate, device), smaller
        if known.needed_bytes(device) <= available:
            return candidate, [f"{kind}.{key} {_shown(value)}: {reason}" for key, value in changes.items()]
    least, memory = _least(config, device, given)
    most = most_memory(device) if memory_bytes is None else memory_bytes
    if most is not None and CERTAIN * memory.peak_bytes > most:
        raise ConfigError(_refusal(least, memory, device, available), code="memory-too-small")
    fits = memory.needed_bytes(device) <= available and "checkpoint_cells" in given
    return config, [f"{kind}: it may run out of memory: {reason}" + f"; {kind}.checkpoint_cells=true fits" * fits]


def _least(config: Config, device: torch.device, given: Collection[str]) -> tuple[Config, Memory]:
    """The settings that need least without another crop or batch than what is `given`, and their memory."""
    kind, schedule = _schedule(config)
    kept = [name for name in given if name != "checkpoint_cells"]
    changes = list(_smaller(schedule, kept))[-1:]
    least = config.model_copy(update={kind: schedule.model_copy(update=changes[0] if changes else None)})
    return least, _predict(least, device)


def _refusal(least: Config, memory: Memory, device: torch.device, available: int) -> str:
    """Why settings cannot be used, and what fits by proportion: a smaller crop at that batch, or a smaller batch."""
    kind, schedule = _schedule(least)
    (height, width), batch = schedule.crop, schedule.batch_size

    def crop(side: int) -> Size:
        return side, max(LEAST_INPUT_SIDE, side * width // height // STEP * STEP)

    def fits(crop: Size, batch: int) -> bool:
        share = batch * crop[0] * crop[1] / _pixels(schedule)
        return _scaled(memory, share).needed_bytes(device) <= available

    works = []
    if (side := _last(range(LEAST_INPUT_SIDE, height, STEP), lambda side: fits(crop(side), batch))) is not None:
        works.append(f"{kind}.crop={list(crop(side))}")
    if (count := _last(range(LEAST_BATCH, batch), lambda count: fits(schedule.crop, count))) is not None:
        works.append(f"{kind}.batch_size={count}")
    even = ", even with checkpointed cells" if getattr(schedule, "checkpoint_cells", False) else ""
    return (
        f"{kind}.crop {[height, width]} and {kind}.batch_size {batch} do not fit{even}: the run would need"
        f" {format_bytes(memory.needed_bytes(device))}, and {device} has {format_bytes(available)};"
        + (f" set {' or '.join(works)}" if works else " take a smaller network, or a device with more memory")
    )


def _last(numbers: range, fits: Callable[[int], bool]) -> int | None:
    """The last of growing numbers that fits, as all before it do; None where not even the first does."""
    count = bisect_left(numbers, True, key=lambda number: not fits(number))
    return numbers[count - 1] if count else None


def _scaled(memory: Memory, share: float) -> Memory:
    """The memory of a batch of `share` times as many pixels, by proportion."""
    return replace(memory, peak_bytes=memory.fixed_bytes + round((memory.peak_bytes - memory.fixed_bytes) * share))


def smaller_settings(config: SearchConfig | RetrainConfig) -> str:
    """What to set for a run that needs less memory, as the command line takes it."""
    kind, schedule = _schedule(config)
    changes = next(_smaller(schedule, ()), None)
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
    while "crop" not in given and max(crop) > LEAST_INPUT_SIDE:
        height, width = (max(LEAST_INPUT_SIDE, int(side * 3 / 4) // STEP * STEP) for side in crop)
        changes["crop"] = crop = height, width
        yield dict(changes)


def _predict(config: SearchConfig | RetrainConfig, device: torch.device) -> Memory:
    if isinstance(config, SearchConfig):
        return predict_memory(config, device)
    return predict_training_memory(config, device)


def _schedule(config: SearchConfig | RetrainConfig) -> tuple[str, TrainingConfig]:
    """The name and the settings of a run's schedule."""
    return ("search", config.search) if isinstance(config, SearchConfig) else ("retrain", config.retrain)


def _pixels(schedule: TrainingConfig) -> int:
    """Of a batch."""
    return schedule.batch_size * schedule.crop[0] * schedule.crop[1]


def _shown(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
