"""The start of a run: new or resumed, with its settings, its data and its directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from autoseg.config.base import differences, merge, parse, part
from autoseg.config.training import SearchSchedule, TrainingConfig
from autoseg.data.dataset import SegmentationDataset, describe_dataset, open_dataset
from autoseg.data.flip_pairs import found_pairs, pairs_line, resolved_pairs
from autoseg.data.loading.cache import keep_samples
from autoseg.engine.checkpoint import Kind, has_checkpoint, load_last
from autoseg.engine.config import AnyConfig, Config, is_free, may_change
from autoseg.engine.environment import describe_environment, pick_device
from autoseg.engine.log import Progress
from autoseg.engine.optim import learning_rate
from autoseg.engine.retrain import RetrainTask
from autoseg.engine.run_directory import Run, refuse_used
from autoseg.engine.run_lock import RunLock
from autoseg.engine.search import SearchTask
from autoseg.engine.trainer import checkpoints_bytes
from autoseg.errors import ConfigError, RunError, printable
from autoseg.files import check_room, cut, user_path, write_text
from autoseg.planning.fit import fit_to_device
from autoseg.setup.from_data import guide, is_shipped
from autoseg.setup.settings import Sources


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
        check_room(path, remedy=OTHER_OUT)
        return None
    run = Run.open(path)
    if run.kind != kind:
        raise RunError(f"{path} holds a {run.kind}, not a {kind}; give another --out", code="run-kind-differs")
    RunLock(path).release()  # it is held once the data has been read
    check_room(path, remedy=OTHER_DISK)
    return run


OTHER_OUT, OTHER_DISK = "or give another --out", "or move the run to another disk"
"""What else to do for a new run, and for one that has begun."""


def fixed_settings(overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """`overrides` without the settings that a resumed run may change."""
    return part(overrides or {}, lambda key: not may_change(key))


def settle(
    wanted: Config, sources: Sources, quick: bool, run: Run | None
) -> tuple[Config, list[str], SegmentationDataset | None]:
    """The settings of a run. Those that the user has not set are made to fit the data and the device.

    Also returns one line for each setting that was picked, and the training images if they were opened already.
    run: one to resume, which keeps its own settings but for those given now that it may change.
    Raises: ConfigError: the settings given now differ from them.
    """
    named = sources.set_by_user(wanted.kind)
    if run is not None and run.config(type(wanted)).data.label_names is None:  # of an earlier version
        wanted = wanted.model_copy(update={"data": wanted.data.model_copy(update={"label_names": None})})
    chosen, said = _with_flip_pairs(wanted, run, sources)
    if run is not None:  # it has its schedule already
        named |= {*TrainingConfig.model_fields, *SearchSchedule.model_fields}
    train = open_dataset(wanted.data, "train")
    guided, reasons = guide(chosen, train, named, quick)
    if run is None:
        stays = named if is_shipped(wanted) else {*SearchSchedule.model_fields}
        settings, more = fit_to_device(guided, pick_device(guided.device), stays)
        reasons += more
    else:
        given = part(sources.file, is_free), {"data": {"root": guided.data.root}}, part(sources.overrides, may_change)
        settings = run.config(type(wanted), merge({}, *given))
        refuse_changes(run, list(differences(settings.to_dict(), guided.to_dict(), is_free)))
    return settings, said + reasons, train if guided.data == wanted.data else None


def refuse_changes(run: Run, differences: Sequence[str]) -> None:
    """Raises: ConfigError: a run that has begun would go on with other settings."""
    if differences:
        raise ConfigError(
            f"{run.path} was started with other settings ({cut(', '.join(differences), 300)}); put them back as they"
            f" were, in config.yaml too, or start another run. --resume takes --set {run.kind}.epochs=N, and settings"
            " that change no result (docs/guide/settings.md)",
            code="run-settings-differ",
        )


def _with_flip_pairs(wanted: Config, run: Run | None, sources: Sources) -> tuple[Config, list[str]]:
    """Settings with the classes that mirroring swaps, and what to say of them. run: one to resume.

    Where nothing is set, it keeps what it has: runs of earlier versions swap nothing. Pairs of the run whose schedule
    is taken over (`--match-cost`) are not those of other classes.
    Raises: ConfigError: `augment.flip_pairs` does not fit the classes.
    """
    augment = wanted.schedule.augment
    by_user = merge({}, sources.file, sources.overrides).get(wanted.kind) or {}
    try:
        pairs = resolved_pairs(augment.flip_pairs, wanted.data, f"{wanted.kind}.augment.flip_pairs")
    except ConfigError as reason:
        if reason.code != "unknown-class" or "flip_pairs" in (by_user.get("augment") or {}):
            raise
        pairs = found_pairs(wanted.data)
    if run is not None and augment.flip_pairs is None:
        pairs = run.config(type(wanted)).schedule.augment.flip_pairs
    augment = augment.model_copy(update={"flip_pairs": pairs})
    return wanted.with_schedule(augment=augment), pairs_line(pairs, wanted.data)


def open_splits(
    config: AnyConfig, train: SegmentationDataset | None
) -> tuple[SegmentationDataset, SegmentationDataset]:
    """The training images, if they are not open yet, and the validation images."""
    return open_dataset(config.data, "train") if train is None else train, open_dataset(config.data, "val")


def begin(
    run: Run | None, out: str | Path, task: SearchTask | RetrainTask, reasons: Sequence[str], show_progress: bool
) -> Run:
    """Read every sample, to find a bad file now and not hours later, print the notes, and make a new directory.

    Raises: ConfigError: the run to resume has got further than its epochs are now, or began with other settings.
    """
    train, val = task.train_set, task.val_set
    there = 0 if run is None else sum(file.stat().st_size for file in run.checkpoints.glob("*.pt"))
    remedy = f"lower {task.kind}.keep_checkpoints, {OTHER_OUT}" if run is None else OTHER_DISK
    check_room(user_path(out, RunError), checkpoints_bytes(task) - there, remedy)
    changed = None if run is None else other_epochs(run, task)
    where = task.schedule.store, task.device, task.schedule.cache_dir
    with Progress("reading", len(train) + len(val), enabled=show_progress) as progress:
        keep_samples(train, *where, lambda done, _: progress.update(done))
        keep_samples(val, *where, lambda done, _: progress.update(len(train) + done))
    if show_progress:
        notes = [*reasons, *task.notes, *([changed.line] if changed else [])]
        print("\n  ".join(map(printable, [describe_dataset(task.config.data), *notes])))
    environment = describe_environment(task.device, task.config.seed)
    if run is None:
        run = Run.create(out, task.config, environment)
    else:
        run.complete(environment)
        run.compare(environment)
        if changed is not None:
            change_epochs(run, task, changed)
    skipped = [(split, *one) for split, dataset in (("train", train), ("val", val)) for one in dataset.left_out]
    if skipped:
        write_text(run.path / "left_out.txt", "".join(f"{split}/{name}: {reason}\n" for split, name, reason in skipped))
    task.begin(run)
    return run


# --- more epochs, or fewer --------------------------------------------------------------------------------------------


EARLIER = "genotype_of_step_{}.yaml"
"""Name of a genotype that was decoded before a search was given other epochs."""


class OtherEpochs(NamedTuple):
    """Another number of epochs for a run that has begun."""

    before: int
    """The number that the run had."""
    done: int
    """Steps done, of the weights."""
    line: str
    """What becomes of the schedule."""


def other_epochs(run: Run, task: SearchTask | RetrainTask) -> OtherEpochs | None:
    """The change from a run's epochs to those of `task`; None if they are equal.

    The schedule is that of the new number from the next step on: the learning rate, and what else depends on the share
    of the steps that are done, have the values that a run of so many epochs has at that step.
    Raises: ConfigError: the run has got that far already, or its last checkpoint was made with other settings.
    CheckpointError: that is unusable.
    """
    kind, schedule, per_epoch = task.kind, task.schedule, task.steps_per_epoch
    before, done = run.config(type(task.config)).schedule, 0
    if has_checkpoint(run.checkpoints):
        keep = schedule.keep_checkpoints
        path, saved = load_last(run.checkpoints, kind, task.architecture, keep, say=False)  # the trainer says it
        refuse_changes(run, task.config.changes(saved["config"], str(path)))
        done = saved["epoch"] * per_epoch + saved["step_in_epoch"]
        if saved["config"] is not None and before.epochs == schedule.epochs:  # config.yaml may have been edited
            before = parse(type(task.config), saved["config"], str(path)).schedule
    if before.epochs == schedule.epochs:
        return None
    if schedule.epochs * per_epoch <= done:
        raise ConfigError(
            f"{kind}.epochs is {schedule.epochs}, but {run.path} has done {done / per_epoch:.4g} epochs of"
            f" {before.epochs} already; give more of them, or another --out",
            code="epochs-done",
        )
    old, new = (
        learning_rate(of.optimizer.lr, of.schedule, step, of.epochs * per_epoch, per_epoch)
        for of, step in ((before, max(done - 1, 0)), (schedule, done))
    )
    line = (
        f"{kind}.epochs {schedule.epochs}, not {before.epochs}: from step {done + 1} on the schedule is that of"
        f" {schedule.epochs} epochs, and the learning rate goes from {old:.3g} to {new:.3g}"
    )
    if kind == "search" and (run.path / "genotype.yaml").is_file():
        line += f"; genotype.yaml, decoded before, becomes {EARLIER.format(done)}"
    return OtherEpochs(before.epochs, done, line)


def change_epochs(run: Run, task: SearchTask | RetrainTask, changed: OtherEpochs) -> None:
    """Write the new number of epochs to config.yaml. A decoded genotype is renamed, since the search goes on."""
    if task.kind == "search" and (genotype := run.path / "genotype.yaml").is_file():
        genotype.replace(run.path / EARLIER.format(changed.done))
    config = run.config(type(task.config), {task.kind: {"epochs": task.schedule.epochs}})
    run.rewrite_config(config, f"{task.kind}.epochs was {changed.before} until step {changed.done}")
