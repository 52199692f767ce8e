"""The common course of a search and of a retraining: check, guide, read, train."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch

from autoseg.config.base import parse
from autoseg.config.training import RetrainConfig, SearchConfig, SearchSchedule, TrainingConfig
from autoseg.data.dataset import SegmentationDataset, describe_dataset, open_dataset
from autoseg.data.loading.cache import keep_samples
from autoseg.engine.environment import describe_environment, pick_device
from autoseg.engine.log import Progress
from autoseg.engine.retrain import RetrainTask
from autoseg.engine.run_directory import Run, refuse_used
from autoseg.engine.trainer import Trainer, TrainingTask
from autoseg.errors import ConfigError, RunError
from autoseg.files import read_yaml, write_text
from autoseg.planning.device import memory_errors
from autoseg.planning.fit import fit_to_device, smaller_settings
from autoseg.setup.from_data import guide, is_shipped
from autoseg.setup.preflight import check_device
from autoseg.setup.settings import first_difference
from autoseg.zoo.match_cost import CostTarget

Config = TypeVar("Config", SearchConfig, RetrainConfig)


class Given(NamedTuple):
    """What the user gave for the settings of a run."""

    source: object
    data: object
    config: str | Path | None
    overrides: Mapping[str, Any] | None
    match: CostTarget | None = None

    @property
    def anything(self) -> bool:
        """Is there any of it?"""
        return any(value not in (None, {}) for value in self)

    def scheduled(self, kind: str) -> set[str]:
        """The settings of the schedule, and the genotype's, that are named, which no proposal changes."""
        file = {} if self.config is None else read_yaml(Path(self.config), ConfigError)
        groups = [source.get(key) for source in (file, self.overrides or {}) for key in (kind, "genotype")]
        return {name for group in groups if isinstance(group, Mapping) for name in group}


class _Guided(Generic[Config]):
    """The settings that were given, with what is proposed where they say nothing."""

    def __init__(self, resolve: Callable[[Path | None], Config], given: Given, quick: bool) -> None:
        self._resolve: Callable[[Path | None], Config] = resolve
        self._given, self._quick = given, quick
        self.reasons: list[str] = []
        self.train: SegmentationDataset | None = None
        """What was looked at, where no proposal changes how it is read."""

    def __call__(self, own: Path | None) -> Config:
        """`own`: config.yaml of a run to go on with."""
        found = self._resolve(own)
        named = self._given.scheduled("search" if isinstance(found, SearchConfig) else "retrain")
        if own is not None:  # a run has its schedule already, and its genotype unless that is given again
            named |= {*TrainingConfig.model_fields, *SearchSchedule.model_fields}
            named |= {"batch_norm"} if self._given.source is None else set()
        train = open_dataset(found.data, "train")
        proposed, self.reasons = guide(found, train, named, self._quick)
        if own is None:
            stays = named if is_shipped(found) else {*SearchSchedule.model_fields}
            proposed, more = fit_to_device(proposed, pick_device(proposed.device), stays)
            self.reasons += more
        self.train = train if proposed.data == found.data else None
        return proposed


def carry_out(
    model: type[Config],
    make_task: Callable[[Config, SegmentationDataset, SegmentationDataset, torch.device], TrainingTask],
    out: str | Path,
    resolve: Callable[[Path | None], Config],
    given: Given,
    resume: bool,
    quick: bool,
    show_progress: bool,
) -> Run:
    """Check everything, then make the run directory or go on with it, and do the work."""
    guided: _Guided[Config] = _Guided(resolve, given, quick)
    run, settings = _start(model, out, resume, guided, given)
    device = check_device(settings)
    train = open_dataset(settings.data, "train") if guided.train is None else guided.train
    val = open_dataset(settings.data, "val")
    task: TrainingTask = make_task(settings, train, val, device)
    schedule = settings.search if isinstance(settings, SearchConfig) else settings.retrain
    if isinstance(task, RetrainTask) and not (run and (run.checkpoints / "last.pt").is_file()):
        task.load_weights()
    _read_all(train, val, schedule, device, show_progress)
    if show_progress:
        print("\n  ".join([describe_dataset(settings.data), *guided.reasons, *task.notes]))
    run = _ready(run, out, settings, device)
    _write_left_out(run, train, val)
    task.begin(run)
    with memory_errors(device, f"start anew with {smaller_settings(settings)}; {run.path} holds what was done"):
        Trainer(task, run, show_progress).run()
    return run


def _start(
    model: type[Config],
    out: str | Path,
    resume: bool,
    resolve: Callable[[Path | None], Config],
    given: Given,
) -> tuple[Run | None, Config]:
    """The run to go on with, if any, and the settings: its own, or those that were given.

    `resolve`: the given settings, laid over those of a config file where one is named.
    """
    path = Path(out)
    if not (resume and (path / "config.yaml").is_file()):
        refuse_used(path)
        if resume and not given.anything:
            raise RunError(
                f"{path} holds no run to resume; give the directory of one, or start one without --resume",
                code="run-missing",
            )
        return None, resolve(None)
    run = Run.open(path)
    kind = "search" if model is SearchConfig else "retrain"
    if run.kind != kind:
        raise RunError(f"{path} holds a {run.kind}, not a {kind}; give another --out", code="run-kind-differs")
    own = parse(model, run.settings, str(path / "config.yaml"))
    if given.anything:
        difference = first_difference(own.to_dict(), resolve(path / "config.yaml").to_dict())
        if difference is not None:
            raise ConfigError(
                f"{path} was started with other settings ({difference}); resume with --out and --resume alone",
                code="run-settings-differ",
            )
    return run, own


def _ready(run: Run | None, out: str | Path, settings: Config, device: torch.device) -> Run:
    """The run to go on with, or a new one in `out`."""
    environment = describe_environment(device, settings.seed)
    if run is None:
        return Run.create(out, settings, environment)
    run.complete(environment)
    return run


def _write_left_out(run: Run, train: SegmentationDataset, val: SegmentationDataset) -> None:
    """left_out.txt: a line on each sample that `on_bad_file: skip` left out, split and name and why; none, no file."""
    lines = [
        f"{split}/{name}: {reason}\n"
        for split, dataset in (("train", train), ("val", val))
        for name, reason in dataset.left_out
    ]
    if lines:
        write_text(run.path / "left_out.txt", "".join(lines))


def _read_all(
    train: SegmentationDataset,
    val: SegmentationDataset,
    schedule: TrainingConfig,
    device: torch.device,
    show_progress: bool,
) -> None:
    """Read each sample once, so that a bad file is found now and not hours later, and keep it where there is room."""
    where = schedule.store, device, schedule.cache_dir
    with Progress("reading", len(train) + len(val), enabled=show_progress) as progress:
        keep_samples(train, *where, lambda done, _: progress.update(done))
        keep_samples(val, *where, lambda done, _: progress.update(len(train) + done))
