"""The duration of a search on a device, from steps that are measured on it."""

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
from autoseg.host_memory import lacks_memory
from autoseg.planning.memory import (
    SMALLEST_BATCH,
    STEPS,
    Setting,
    Step,
    random_batch,
    stand_in_task,
    take_step,
)

SIDES = (65, 129, 257, 513)
"""Crops to measure before a setting that may take too long to measure."""
LONGEST_ITERATION = 3.0
"""Seconds. Longer iterations are extrapolated from two samples; the second sample may take four times as long."""
WARM_UP = {"cuda": EAGER_STEPS + 2}
"""Iterations that are not counted; one on other devices. On a GPU: the eager ones, the one that records a CUDA graph
and compares it, and one more."""
REPEATS = 3
LONGEST_MEASURING = 15.0
"""Seconds after which the measurement of a setting stops."""


class StepSeconds(NamedTuple):
    """Seconds of one step of each kind."""

    weight: float
    architecture: float


class Sample(NamedTuple):
    """The measurement of one setting."""

    setting: Setting
    seconds: StepSeconds


class StepTimes(NamedTuple):
    """Seconds of the steps at a setting, and the measured settings: that one, or one or two smaller ones."""

    seconds: StepSeconds
    measured: tuple[Sample, ...]
    extrapolated: bool


class Steps(NamedTuple):
    """Number of steps of a whole schedule."""

    weight: int
    architecture: int

    def hours(self, seconds: StepSeconds) -> float:
        """Hours of all steps, without validation."""
        return (self.weight * seconds.weight + self.architecture * seconds.architecture) / 3600


def step_times(config: SearchConfig, device: torch.device, may_try: Callable[[Setting], bool]) -> StepTimes | None:
    """Measure the steps of a search, or extrapolate them from smaller crops and batches.

    `may_try`: whether a setting fits into memory. Returns None if not even the smallest does.
    Raises: ConfigError: the device runs out of memory.
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
    """Seconds at `setting`, linear in the pixels of a batch, from the last two samples.

    The fixed part is 0 with one sample, and if the larger setting was not slower.
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
    """Median seconds of some steps of a search on random images that are already on the device."""
    warm_up = WARM_UP.get(device.type, 1)
    try:
        # building a task seeds the random numbers
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            task = stand_in_task(config, device)
            batches = {step: [random_batch(task) for _ in range(config.search.accumulate)] for step in STEPS}
            times: dict[Step, list[float]] = {step: [] for step in STEPS}
            start = time.perf_counter()
            while len(times["weight"]) < warm_up + REPEATS and time.perf_counter() - start < LONGEST_MEASURING:
                for step, of_step in batches.items():
                    began = time.perf_counter()
                    take_step(task, step, of_step)
                    if device.type != "cpu":
                        torch.accelerator.synchronize(device)
                    times[step].append(time.perf_counter() - began)
    except Exception as reason:
        if not isinstance(reason, torch.OutOfMemoryError) and not lacks_memory(reason):
            raise
        raise ConfigError(
            f"{device} is out of memory at crop {config.search.crop[0]} {config.search.crop[1]}, batch"
            f" {config.search.batch_size}; is something else running there? give --no-time to measure nothing",
            code="out-of-memory",
        ) from None
    return StepSeconds(*(statistics.median(times[step][warm_up:] or times[step][-1:]) for step in STEPS))


def count_steps(config: SearchConfig, images: int, groups: Sequence[str] | None = None) -> Steps:
    """The steps of a search on `images` training images. groups: the group of each image, if halves keep groups whole.

    Raises: DataError, ConfigError: there are no whole steps.
    """
    schedule = config.search
    halves = [len(half) for half in halve(images, schedule.train_a_fraction, config.seed, groups)]
    if min(halves) < schedule.batch_size:
        raise ConfigError(
            f"batch {schedule.batch_size}: the {images} training images are {halves[0]} in trainA and {halves[1]} in"
            f" trainB; give {f'a batch of at most {min(halves)}, or ' * (min(halves) > 1)}more images",
            code="batch-too-large",
        )
    steps = steps_in_epoch(halves[0] // schedule.batch_size, schedule, "search")
    return Steps(schedule.epochs * steps, (schedule.epochs - schedule.arch_start_epoch) * steps)
