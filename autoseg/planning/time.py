"""How long a search takes on a device, from steps that are measured there now."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from autoseg.data.loading.splits import halve
from autoseg.engine.accumulation import steps_in_epoch
from autoseg.engine.config import SearchConfig
from autoseg.engine.cuda_graphs import EAGER_STEPS
from autoseg.errors import ConfigError
from autoseg.planning.memory import (
    SMALLEST_BATCH,
    STEPS,
    Setting,
    Step,
    own_random_state,
    random_batch,
    stand_in_task,
    take_step,
)

SIDES = (65, 129, 257, 513)
"""Of the crops that are measured on the way to a setting which takes too long to measure."""
LONGEST_ITERATION = 3.0
"""Seconds; what takes longer is extrapolated to, once there are two samples; the second may take four times that."""
WARM_UP = {"cuda": EAGER_STEPS + 2}
"""Iterations that do not count, on other devices one; on a GPU the eager ones, that which records a CUDA graph and is
compared with it, and one more."""
REPEATS = 3
LONGEST_MEASURING = 15.0
"""Seconds at one setting, after which it is not repeated."""


class StepSeconds(NamedTuple):
    """Seconds of one step of each kind."""

    weight: float
    architecture: float


class Sample(NamedTuple):
    """What was measured at one setting."""

    setting: Setting
    seconds: StepSeconds


class StepTimes(NamedTuple):
    """Seconds of the steps at a setting, and what was measured: that setting alone, or one or two smaller ones."""

    seconds: StepSeconds
    measured: tuple[Sample, ...]
    extrapolated: bool


class Steps(NamedTuple):
    """Steps of a whole schedule."""

    weight: int
    architecture: int

    def hours(self, seconds: StepSeconds) -> float:
        """Of all steps, without validation."""
        return (self.weight * seconds.weight + self.architecture * seconds.architecture) / 3600


def step_times(config: SearchConfig, device: torch.device, may_try: Callable[[Setting], bool]) -> StepTimes | None:
    """Seconds of the steps of the search of `config`: measured, or extrapolated from smaller crops and batches.

    `may_try`: whether a setting fits into memory. None where not even the smallest does.
    Raises: ConfigError: the device has less memory left than was thought.
    """
    wanted = Setting.of(config.search)
    rungs = [wanted._replace(crop=(side, side), batch_size=SMALLEST_BATCH) for side in SIDES]
    rungs = [rung for rung in rungs if rung.pixels < wanted.pixels / 2]
    samples: list[Sample] = []
    for rung in (*rungs, wanted):
        quick = bool(samples) and sum(extrapolate(samples, wanted)) <= LONGEST_ITERATION and may_try(wanted)
        setting = wanted if quick else rung
        patience = LONGEST_ITERATION * (4 if len(samples) == 1 else 1)
        slow = bool(samples) and sum(extrapolate(samples, setting)) > patience
        if slow or not may_try(setting):
            break
        seconds = measure(setting.apply(config), device)
        if setting == wanted:
            return StepTimes(seconds, (Sample(setting, seconds),), extrapolated=False)
        samples.append(Sample(setting, seconds))
    if not samples:
        return None
    return StepTimes(extrapolate(samples, wanted), tuple(samples[-2:]), extrapolated=True)


def extrapolate(samples: Sequence[Sample], setting: Setting) -> StepSeconds:
    """Seconds at `setting`: a fixed part and one in proportion to the pixels of a batch, through the last two samples.

    With one sample there is no fixed part; nor is there where the larger setting was no slower.
    """

    def line(half: int) -> float:
        last = samples[-1]
        per_pixel = last.seconds[half] / last.setting.pixels
        if len(samples) > 1:
            before = samples[-2]
            risen = last.seconds[half] - before.seconds[half]
            per_pixel = risen / (last.setting.pixels - before.setting.pixels) if risen > 0 else per_pixel
        return last.seconds[half] + per_pixel * (setting.pixels - last.setting.pixels)

    return StepSeconds(line(0), line(1))


def measure(config: SearchConfig, device: torch.device) -> StepSeconds:
    """Medians over some steps of the search of `config`, made on random images that are on the device already.

    Raises: ConfigError: the device is out of memory.
    """
    warm_up = WARM_UP.get(device.type, 1)
    try:
        with own_random_state(device):
            task = stand_in_task(config, device)
            batches = {step: [random_batch(task) for _ in range(config.search.accumulate)] for step in STEPS}
            times: dict[Step, list[float]] = {step: [] for step in STEPS}
            start = time.perf_counter()
            while len(times["weight"]) < warm_up + REPEATS and time.perf_counter() - start < LONGEST_MEASURING:
                for step, of_step in batches.items():
                    began = time.perf_counter()
                    take_step(task, step, of_step)
                    _synchronize(device)
                    times[step].append(time.perf_counter() - began)
    except torch.OutOfMemoryError:
        raise ConfigError(
            f"{device} is out of memory at crop {config.search.crop[0]} {config.search.crop[1]}, batch"
            f" {config.search.batch_size}; is something else running there? give --no-time to measure nothing",
            code="out-of-memory",
        ) from None
    return StepSeconds(*(statistics.median(times[step][warm_up:] or times[step][-1:]) for step in STEPS))


def _synchronize(device: torch.device) -> None:
    """Wait for what was started on a device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def count_steps(config: SearchConfig, images: int) -> Steps:
    """The steps of a search on `images` training images.

    Raises: DataError: too few to cut in two. ConfigError: trainA or trainB holds no whole batch, or no whole step of
    batches that are accumulated.
    """
    schedule = config.search
    halves = [len(half) for half in halve(images, schedule.train_a_fraction, config.seed)]
    if min(halves) < schedule.batch_size:
        raise ConfigError(
            f"batch {schedule.batch_size}: the {images} training images are {halves[0]} in trainA and {halves[1]} in"
            f" trainB; give a batch of at most {min(halves)}, or more images",
            code="batch-too-large",
        )
    steps = steps_in_epoch(
        halves[0] // schedule.batch_size, schedule.accumulate, schedule.max_steps_per_epoch, "search"
    )
    return Steps(schedule.epochs * steps, (schedule.epochs - schedule.arch_start_epoch) * steps)
