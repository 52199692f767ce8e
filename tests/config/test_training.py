"""Defaults of a search and of a retraining."""

from autoseg.config.base import parse
from autoseg.config.training import LrScheduleConfig, OptimizerConfig, RetrainSchedule, SearchSchedule


def test_the_search_defaults_are_the_paper_s() -> None:
    schedule = SearchSchedule()
    assert (schedule.epochs, schedule.arch_start_epoch, schedule.batch_size, schedule.crop) == (40, 20, 2, (321, 321))
    assert schedule.optimizer == OptimizerConfig(name="sgd", lr=0.025, momentum=0.9, weight_decay=3e-4)
    assert schedule.schedule == LrScheduleConfig(name="cosine", min_lr=1e-3)
    assert (schedule.arch_optimizer.name, schedule.arch_optimizer.lr) == ("adam", 3e-3)
    assert schedule.arch_optimizer.weight_decay == 1e-3


def test_schedules_that_are_partly_given_keep_the_other_defaults() -> None:
    schedule = parse(RetrainSchedule, {"optimizer": {"lr": 0.1}})
    assert schedule.optimizer.lr == 0.1
    assert schedule.schedule.name == "poly"
