"""The start of a run: new or resumed, with its settings, its data and its directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoseg.config.training import SearchSchedule, TrainingConfig
from autoseg.data.dataset import SegmentationDataset, describe_dataset, open_dataset
from autoseg.data.loading.cache import keep_samples
from autoseg.engine.checkpoint import Kind
from autoseg.engine.config import AnyConfig, Config
from autoseg.engine.environment import describe_environment, pick_device
from autoseg.engine.log import Progress
from autoseg.engine.retrain import RetrainTask
from autoseg.engine.run_directory import Run, refuse_used
from autoseg.engine.search import SearchTask
from autoseg.errors import ConfigError, RunError
from autoseg.files import user_path, write_text
from autoseg.planning.fit import fit_to_device
from autoseg.setup.from_data import guide, is_shipped
from autoseg.setup.settings import Sources, first_difference


def open_run(out: str | Path, kind: Kind, resume: bool, given: bool) -> Run | None:
    """The run in `out` to resume; None for a new one. given: settings are given. Raises: RunError: neither works."""
    path = user_path(out, RunError)
    if not (resume and (path / "config.yaml").is_file()):
        refuse_used(path)
        if resume and not given:
            raise RunError(
                f"{path} holds no run to resume; give the directory of one, or start one without --resume",
                code="run-missing",
            )
        return None
    run = Run.open(path)
    if run.kind != kind:
        raise RunError(f"{path} holds a {run.kind}, not a {kind}; give another --out", code="run-kind-differs")
    return run


def settle(
    wanted: Config, sources: Sources, quick: bool, run: Run | None
) -> tuple[Config, list[str], SegmentationDataset | None]:
    """The settings of a run. Those that the user has not set are made to fit the data and the device.

    Also returns one line for each setting that was picked, and the training images if they were opened already.
    run: one to resume, which keeps its own settings. Raises: ConfigError: the settings given now differ from them.
    """
    named = sources.set_by_user(wanted.kind)
    if run is not None:  # it has its schedule already
        named |= {*TrainingConfig.model_fields, *SearchSchedule.model_fields}
    train = open_dataset(wanted.data, "train")
    guided, reasons = guide(wanted, train, named, quick)
    if run is None:
        stays = named if is_shipped(wanted) else {*SearchSchedule.model_fields}
        settings, more = fit_to_device(guided, pick_device(guided.device), stays)
        reasons += more
    else:
        settings = run.config(type(wanted))
        if difference := first_difference(settings.to_dict(), guided.to_dict()):
            raise ConfigError(
                f"{run.path} was started with other settings ({difference}); resume with --out and --resume alone",
                code="run-settings-differ",
            )
    return settings, reasons, train if guided.data == wanted.data else None


def open_splits(
    config: AnyConfig, train: SegmentationDataset | None
) -> tuple[SegmentationDataset, SegmentationDataset]:
    """The training images, if they are not open yet, and the validation images."""
    return open_dataset(config.data, "train") if train is None else train, open_dataset(config.data, "val")


def begin(
    run: Run | None, out: str | Path, task: SearchTask | RetrainTask, reasons: Sequence[str], show_progress: bool
) -> Run:
    """Read every sample, to find a bad file now and not hours later, print the notes, and make a new directory."""
    train, val = task.train_set, task.val_set
    where = task.schedule.store, task.device, task.schedule.cache_dir
    with Progress("reading", len(train) + len(val), enabled=show_progress) as progress:
        keep_samples(train, *where, lambda done, _: progress.update(done))
        keep_samples(val, *where, lambda done, _: progress.update(len(train) + done))
    if show_progress:
        print("\n  ".join([describe_dataset(task.config.data), *reasons, *task.notes]))
    environment = describe_environment(task.device, task.config.seed)
    if run is None:
        run = Run.create(out, task.config, environment)
    else:
        run.complete(environment)
    skipped = [(split, *one) for split, dataset in (("train", train), ("val", val)) for one in dataset.left_out]
    if skipped:
        write_text(run.path / "left_out.txt", "".join(f"{split}/{name}: {reason}\n" for split, name, reason in skipped))
    task.begin(run)
    return run
