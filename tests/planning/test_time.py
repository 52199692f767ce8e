"""Seconds of steps, measured or extrapolated, and how many there are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers.errors import raises_code
from helpers.measured_memory import search_config
from helpers.tiny_runs import SPACE, search_task

from autoseg.engine.config import SearchConfig
from autoseg.errors import ConfigError
from autoseg.planning import time as module
from autoseg.planning.memory import Setting
from autoseg.planning.time import Sample, Steps, StepSeconds, count_steps, extrapolate, measure, step_times

CPU = torch.device("cpu")


def line(setting: Setting) -> StepSeconds:
    """A machine whose steps take a fixed part and one in proportion to the pixels."""
    return StepSeconds(0.1 + 1e-5 * setting.pixels, 0.2 + 4e-6 * setting.pixels)


def at(side: int, batch: int = 2) -> Setting:
    return Setting((side, side), batch, False, "float32")


def test_a_straight_line_is_found_again() -> None:
    samples = [Sample(at(32), StepSeconds(9, 9)), *(Sample(at(side), line(at(side))) for side in (65, 129))]
    assert extrapolate(samples, at(321, 8)) == pytest.approx(line(at(321, 8)))


def test_without_a_slope_the_seconds_are_in_proportion() -> None:
    one = Sample(at(64), StepSeconds(1.0, 0.5))
    assert extrapolate([one], at(128)) == pytest.approx((4.0, 2.0))
    assert extrapolate([Sample(at(32), StepSeconds(2.0, 0.4)), one], at(128)) == pytest.approx((4.0, 0.5 + 0.4))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Setting]:
    """The settings that were measured, on the machine of `line`."""
    settings: list[Setting] = []

    def pretend(config: SearchConfig, device: torch.device) -> StepSeconds:
        settings.append(Setting.of(config.search))
        return line(settings[-1])

    monkeypatch.setattr(module, "measure", pretend)
    return settings


def times_of(side: int, batch: int, may_try: Callable[[Setting], bool] = lambda _: True) -> module.StepTimes | None:
    return step_times(search_config(SPACE, crop=[side, side], batch_size=batch), CPU, may_try)


def test_what_is_quick_is_measured_itself(measured: list[Setting]) -> None:
    times = times_of(65, 2)
    assert times == (line(at(65)), (Sample(at(65), line(at(65))),), False)
    assert measured == [at(65)]
    measured.clear()
    times = times_of(161, 2)
    assert times is not None
    assert (times.seconds, times.extrapolated) == (line(at(161)), False)
    assert measured == [at(65), at(161)]


def test_what_is_slow_is_extrapolated_to(measured: list[Setting]) -> None:
    times = times_of(1025, 16)
    assert times is not None
    assert times.extrapolated
    assert times.seconds == pytest.approx(line(at(1025, 16)))
    assert measured == [at(65), at(129), at(257)]  # the next would take more than 3 seconds
    assert [sample.setting for sample in times.measured] == measured[-2:]


def test_what_does_not_fit_is_not_tried(measured: list[Setting]) -> None:
    times = times_of(161, 2, lambda setting: setting.pixels < 20_000)
    assert times is not None
    assert times.extrapolated
    assert measured == [at(65)]
    assert times_of(161, 2, lambda _: False) is None


def test_real_steps_take_time_and_leave_the_random_numbers_alone() -> None:
    state = torch.get_rng_state()
    seconds = measure(search_config(SPACE), CPU)
    assert min(seconds) > 0
    assert max(seconds) < 10
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("search", [{}, {"max_steps_per_epoch": 3}, {"train_a_fraction": 0.3}, {"batch_size": 3}])
def test_steps_are_those_of_a_search(search: dict[str, float]) -> None:
    task = search_task(**search)
    steps = count_steps(task.config, len(task.train_set))
    assert steps == Steps(3 * task.steps_per_epoch, 2 * task.steps_per_epoch)  # 3 epochs, the architecture from the 2nd


def test_the_papers_schedule() -> None:
    config = search_config(SPACE, epochs=40, arch_start_epoch=20, batch_size=2)
    steps = count_steps(config, 2975)
    assert steps == (40 * 744, 20 * 744)
    assert steps.hours(StepSeconds(0.3, 0.6)) == pytest.approx((40 * 744 * 0.3 + 20 * 744 * 0.6) / 3600)


def test_too_few_images_for_a_batch() -> None:
    with raises_code(ConfigError, "batch-too-large", "batch 6", "11 training images", "at most 5"):
        count_steps(search_config(SPACE, batch_size=6), 11)
