"""What fits into the memory of a device: the largest setting, and which settings must be smaller."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch

from autoseg.config.base import LEAST_INPUT_SIDE
from autoseg.config.training import SearchSchedule
from autoseg.engine.config import AnyConfig, Config
from autoseg.errors import ConfigError
from autoseg.files import format_bytes, shell_quoted
from autoseg.ops.resize import Size
from autoseg.planning.device import device_memory, most_memory
from autoseg.planning.memory import MARGIN, SMALLEST_BATCH, STEPS, Memory, Setting, predict_memory, uses_graphs

MOST_BYTES = {"search": 64 * 2**10, "retrain": 16 * 2**10}
"""Bytes for each pixel of the batch, four times what the spaces and networks of autoseg take. If this fits twice, the
prediction, which takes seconds, is skipped."""
DOUBT = 0.1
"""Skip the exact prediction if the estimate by proportion exceeds the available memory by more than this share."""
CERTAIN = 0.9
"""Refuse settings if this share of their predicted peak is more than the device can have."""
STEP = 16
"""Sides of a reduced crop are multiples of this."""


# --- the largest that fits --------------------------------------------------------------------------------------------


class Option(NamedTuple):
    """One line of a plan. `memory` is None if not even the smallest candidate fits; `setting` is then the smallest."""

    name: str
    setting: Setting
    memory: Memory | None
    fits: bool


class Limits(NamedTuple):
    """The largest values to propose."""

    crop: Size
    batch_size: int


UNKNOWN = Limits((2049, 2049), 1024)
"""The limits if the number and size of the images are unknown."""
Predict = Callable[[Setting], Memory]


class Planner:
    """Compares the predicted memory of a run's settings with `memory_bytes`; predicts each setting once."""

    def __init__(self, config: AnyConfig, device: torch.device, memory_bytes: int, limits: Limits = UNKNOWN) -> None:
        self.config, self.device, self.memory_bytes, self.limits = config, device, memory_bytes, limits
        self.asked = Setting.of(config.schedule)
        self.predict: Predict = cache(lambda setting: predict_memory(setting.apply(config), device))
        self.predict_peak = cache(self._predict_peak)

    def _predict_peak(self, setting: Setting) -> Memory:
        """Predict in half the time: only the step that has the peak at the asked crop and batch size.

        Both steps are needed if CUDA graphs hold the memory of both (`recorded_bytes`).
        """
        known = setting._replace(crop=self.asked.crop, batch_size=self.asked.batch_size)
        if setting == known:
            return self.predict(setting)
        schedule = self.config.schedule
        starts_later = isinstance(schedule, SearchSchedule) and schedule.arch_start_epoch > 0
        later = starts_later and uses_graphs(schedule, self.device)
        steps = STEPS if later else (self.predict(known).peak_step,)
        return predict_memory(setting.apply(self.config), self.device, steps)

    def room(self, memory: Memory) -> int:
        """The bytes that a setting with this `memory` leaves free; negative if it does not fit."""
        return self.memory_bytes - memory.needed_bytes(self.device)

    def fits(self, setting: Setting) -> bool:
        """Whether the device has the memory that a setting needs."""
        return self.room(self.predict(setting)) >= 0

    def options(self) -> list[Option]:
        """The setting as asked, its variants, and the largest batch and the largest crop that fit."""
        asked = self.asked
        other = asked._replace(checkpoint_cells=not asked.checkpoint_cells)
        named = {"as asked": asked, f"{'with' if other.checkpoint_cells else 'without'} checkpointing": other}
        if asked.precision == "float32" and self._has_bf16():
            named["with bf16"] = asked._replace(precision="bf16")
            if not asked.checkpoint_cells:
                named["with both"] = other._replace(precision="bf16")
        options = [Option(name, one, self.predict(one), self.fits(one)) for name, one in named.items()]
        plain, checkpointed = sorted((asked, other), key=lambda one: one.checkpoint_cells)
        for name, candidates in (("largest batch", self._batches), ("largest crop", self._crops)):
            options += [self._largest(name, one, candidates(one), self.predict_peak) for one in (plain, checkpointed)]
        if not any(option.fits for option in options):
            smallest = checkpointed._replace(batch_size=SMALLEST_BATCH)
            options.append(self._largest("smallest batch", smallest, self._crops(smallest), self.predict))
        return options

    def may_try(self, setting: Setting) -> bool:
        """Whether a smaller setting than the asked one fits, estimated by proportion."""
        return self.room(self.predict(self.asked).scaled(setting.pixels / self.asked.pixels)) >= 0

    def least(self) -> Setting:
        """The setting that needs the least memory."""
        return self.asked._replace(
            crop=(LEAST_INPUT_SIDE, LEAST_INPUT_SIDE), batch_size=SMALLEST_BATCH, checkpoint_cells=True
        )

    def _has_bf16(self) -> bool:
        """Whether to propose bf16: on a GPU that has it. An absent GPU counts as such, as all since Ampere are."""
        if self.device.type != "cuda":
            return False
        return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)

    def _largest(self, name: str, start: Setting, candidates: Sequence[Setting], predict: Predict) -> Option:
        found = largest_that_fits(candidates, start, predict, self.room)
        if found is None:
            return Option(name, candidates[0], None, False)
        return Option(name, found, predict(found), True)

    def _batches(self, start: Setting) -> list[Setting]:
        most = max(SMALLEST_BATCH, self.limits.batch_size)
        return [start._replace(batch_size=count) for count in range(SMALLEST_BATCH, most + 1)]

    def _crops(self, start: Setting) -> list[Setting]:
        """Crops with heights 32 and 32n + 1, as the paper's 321, and widths in the asked proportion."""
        height, width = start.crop
        crops = [(LEAST_INPUT_SIDE, LEAST_INPUT_SIDE)]
        for step in range(1, self.limits.crop[0] // 32 + 1):
            crop = (32 * step + 1, 32 * max(1, round(step * width / height)) + 1)
            if crop[0] <= self.limits.crop[0] and crop[1] <= self.limits.crop[1]:
                crops.append(crop)
        return [start._replace(crop=crop) for crop in crops]


def largest_that_fits(
    candidates: Sequence[Setting], start: Setting, predict: Predict, room_of: Callable[[Memory], int], doubt: float = 0
) -> Setting | None:
    """The largest of `candidates` that fits, given in ascending order; None if not even the first fits.

    Memory is fixed_bytes plus a part nearly proportional to the pixels of a batch. So each prediction, beginning with
    `start`, estimates which candidate is the last to fit. That candidate is predicted next, until the estimate repeats.
    `room_of`: bytes that a setting leaves free, negative if it does not fit. `doubt`: possible error of an estimate in
    bytes; only candidates that exceed the room by more are skipped.
    """
    pixels = [one.pixels for one in candidates]
    fits_to, fails_from, setting = -1, len(candidates), start
    while fails_from - fits_to > 1:
        memory = predict(setting)
        room = room_of(memory)
        if room >= 0:
            fits_to = max(fits_to, bisect_right(pixels, setting.pixels) - 1)
        else:
            fails_from = min(fails_from, bisect_left(pixels, setting.pixels))
        growth = 1 + (room + doubt) / MARGIN / max(1, memory.peak_bytes - memory.fixed_bytes)
        told = bisect_right(pixels, setting.pixels * growth) - 1
        if told == fits_to >= 0:
            break
        if fails_from - fits_to > 1:
            setting = candidates[min(max(told, fits_to + 1), fails_from - 1)]
    return candidates[fits_to] if fits_to >= 0 else None


# --- what must be smaller ---------------------------------------------------------------------------------------------


def fit_to_device(
    config: Config, device: torch.device, given: Collection[str], most_bytes: Mapping[str, int] = MOST_BYTES
) -> tuple[Config, list[str]]:
    """Make settings fit the device's memory; return them and a line on each change.

    The first change is `checkpoint_cells`, which changes no result; then the batch is halved, then the crop reduced.
    Settings in `given` stay. If nothing helps, all settings stay and the line is a warning. `most_bytes`: bytes for
    each pixel of the batch, by the kind of run, above which a prediction is made.
    Raises: ConfigError: the `given` settings clearly do not fit, whatever the others are; the message says what fits.
    """
    try:
        available = device_memory(device)
    except ConfigError:  # the system does not say
        return config, []
    kind, planner = config.kind, Planner(config, device, available)
    asked, predict = planner.asked, planner.predict
    if 2 * asked.pixels * most_bytes[kind] <= available or planner.fits(asked):
        return config, []
    needed = predict(asked).needed_bytes(device)
    reason = f"as it was, the run would need {format_bytes(needed)}, and there are {format_bytes(available)}"
    smaller = list(_smaller(config, given))
    again = bool(smaller) and smaller[0].pixels == asked.pixels  # the first change is checkpoint_cells
    start = smaller[0] if again else asked
    found = largest_that_fits(smaller[::-1], start, predict, planner.room, DOUBT * available)
    if found is not None:
        return found.apply(config), [f"{kind}.{key} {value}: {reason}" for key, value in _changes(asked, found).items()]
    least = [asked, *_smaller(config, [name for name in given if name != "checkpoint_cells"])][-1]
    most = most_memory(device)
    if most is not None and CERTAIN * predict(least).peak_bytes > most:
        raise ConfigError(_refusal(planner, least), code="memory-too-small")
    fits = planner.fits(least) and "checkpoint_cells" in given
    return config, [f"{kind}: it may run out of memory: {reason}" + f"; {kind}.checkpoint_cells=true fits" * fits]


def _refusal(planner: Planner, least: Setting) -> str:
    """The message that settings do not fit, and which crop or which batch size would by proportion."""
    kind, memory, (height, width) = planner.config.kind, planner.predict(least), least.crop

    def last(settings: Sequence[Setting]) -> dict[str, Any]:
        fitting = [one for one in settings if planner.room(memory.scaled(one.pixels / least.pixels)) >= 0]
        return _changes(least, fitting[-1]) if fitting else {}

    sides = range(LEAST_INPUT_SIDE, height, STEP)
    crops = [(side, max(LEAST_INPUT_SIDE, side * width // height // STEP * STEP)) for side in sides]
    works = last([least._replace(crop=crop) for crop in crops])
    works |= last([least._replace(batch_size=count) for count in range(SMALLEST_BATCH, least.batch_size)])
    advice = " or ".join(f"{kind}.{key}={value}" for key, value in works.items())
    even = ", even with checkpointed cells" if least.checkpoint_cells else ""
    return (
        f"{kind}.crop {[height, width]} and {kind}.batch_size {least.batch_size} do not fit{even}: the run would need"
        f" {format_bytes(memory.needed_bytes(planner.device))}, and {planner.device} has"
        f" {format_bytes(planner.memory_bytes)};"
        + (f" set {advice}" if works else " take a smaller network, or a device with more memory")
    )


def smaller_settings(config: AnyConfig) -> str:
    """Options of the command line for a run that needs less memory."""
    smaller = next(_smaller(config, ()), None)
    if smaller is None:
        return "a smaller network or more memory"
    changes = _changes(Setting.of(config.schedule), smaller).items()
    return " ".join(f"--set {shell_quoted(f'{config.kind}.{key}={json.dumps(value)}')}" for key, value in changes)


def _smaller(config: AnyConfig, given: Collection[str]) -> Iterator[Setting]:
    """Settings in descending order of memory."""
    schedule, setting = config.schedule, Setting.of(config.schedule)
    if isinstance(schedule, SearchSchedule) and not schedule.checkpoint_cells and "checkpoint_cells" not in given:
        yield (setting := setting._replace(checkpoint_cells=True))
    while "batch_size" not in given and setting.batch_size > SMALLEST_BATCH:
        yield (setting := setting._replace(batch_size=max(SMALLEST_BATCH, setting.batch_size // 2)))
    while "crop" not in given and max(setting.crop) > LEAST_INPUT_SIDE:
        height, width = (max(LEAST_INPUT_SIDE, int(side * 3 / 4) // STEP * STEP) for side in setting.crop)
        yield (setting := setting._replace(crop=(height, width)))


def _changes(before: Setting, after: Setting) -> dict[str, Any]:
    """The settings that differ in `after`, as JSON values, in the order in which they are tried."""
    changed = {key: value for key, value in after._asdict().items() if value != getattr(before, key)}
    keys = [key for key in ("checkpoint_cells", "batch_size", "crop") if key in changed]
    return {key: list(changed[key]) if key == "crop" else changed[key] for key in keys}
