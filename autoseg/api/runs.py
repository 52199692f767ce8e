"""Searching and retraining."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from autoseg.api.settings import Source, first_difference, retrain_settings, search_settings
from autoseg.config import DataConfig, RetrainConfig, SearchConfig, parse
from autoseg.data.dataset import SegmentationDataset, open_dataset, verify
from autoseg.engine.environment import describe_environment, pick_device
from autoseg.engine.log import Progress
from autoseg.engine.loop import Loop
from autoseg.engine.retrain import RetrainTask
from autoseg.engine.run import Run, refuse_used
from autoseg.engine.search import SearchTask
from autoseg.errors import ConfigError, RunError
from autoseg.genotype.schema import Genotype
from autoseg.space.schema import SearchSpace

Config = TypeVar("Config", SearchConfig, RetrainConfig)


def search(
    space: Source | SearchSpace | None = None,
    data: Source | DataConfig | None = None,
    out: str | Path = "runs/search",
    *,
    config: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    resume: bool = False,
    show_progress: bool = True,
) -> Run:
    """Search a space on a data set and leave a run directory.

    `overrides`: nested settings, such as `{"search": {"epochs": 10}, "seed": 1}`. `resume`: go on with the run in
    `out`, with its own settings, or start it where there is none.
    Raises: AutosegError: something that was given is wrong. Interrupted: stopped, after a clean save.
    """
    run, settings = _start(
        SearchConfig, out, resume, lambda: search_settings(space, data, config, overrides), (space, data, config, overrides)
    )
    device = pick_device(settings.device)
    train, val = _open_data(settings.data, show_progress)
    task = SearchTask(settings, train, val, device)
    run = run or Run.create(out, settings, describe_environment(device, settings.seed))
    task.write_split(run)
    Loop(task, run, show_progress)()
    return run


def retrain(
    genotype: Source | Genotype | None = None,
    data: Source | DataConfig | None = None,
    out: str | Path = "runs/retrain",
    *,
    config: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    resume: bool = False,
    show_progress: bool = True,
) -> Run:
    """Train the network of a genotype from scratch and leave a run directory; the arguments are those of `search`."""
    run, settings = _start(
        RetrainConfig,
        out,
        resume,
        lambda: retrain_settings(genotype, data, config, overrides),
        (genotype, data, config, overrides),
    )
    device = pick_device(settings.device)
    train, val = _open_data(settings.data, show_progress)
    task = RetrainTask(settings, train, val, device)
    run = run or Run.create(out, settings, describe_environment(device, settings.seed))
    task.genotype.save(run.path / "genotype.yaml")
    Loop(task, run, show_progress)()
    return run


def _start(
    model: type[Config], out: str | Path, resume: bool, resolve: Callable[[], Config], given: tuple[object, ...]
) -> tuple[Run | None, Config]:
    """The run to go on with, if any, and the settings: its own, or those that were given."""
    path = Path(out)
    if not (resume and (path / "config.yaml").is_file()):
        refuse_used(path)
        if resume and all(value is None or value == {} for value in given):
            raise RunError(f"{path} holds no run to resume; give the directory of one, or start one without --resume")
        return None, resolve()
    run = Run.open(path)
    kind = "search" if model is SearchConfig else "retrain"
    if run.kind != kind:
        raise RunError(f"{path} holds a {run.kind}, not a {kind}; give another --out")
    own = parse(model, run.settings, str(path / "config.yaml"))
    if any(value not in (None, {}) for value in given):
        difference = first_difference(own.to_dict(), resolve().to_dict())
        if difference is not None:
            raise ConfigError(
                f"{path} was started with other settings ({difference}); resume with --out and --resume alone"
            )
    return run, own


def _open_data(data: DataConfig, show_progress: bool) -> tuple[SegmentationDataset, SegmentationDataset]:
    """train and val, each sample read once, so that a bad file is found now and not hours later."""
    splits = open_dataset(data, "train"), open_dataset(data, "val")
    total = sum(len(split) for split in splits)
    with Progress("reading", total, enabled=show_progress) as progress:
        done = 0
        for split in splits:
            verify(split, lambda count, _, done=done: progress.update(done + count))  # type: ignore[misc]
            done += len(split)
    return splits
