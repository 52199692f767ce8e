"""The loop around every run: epochs, validation, checkpoints, stopping and resuming.

The task (`search.py`, `retrain.py`) defines one step. A step depends only on the settings, its number and the state in
the checkpoint, never on what the process did before. So a run that was stopped anywhere resumes to the same result, bit
for bit on a CPU.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from autoseg.config.training import TrainingConfig
from autoseg.data.wording import counted
from autoseg.engine.checkpoint import (
    BEST,
    EPOCH,
    LAST,
    Kind,
    fitting,
    has_checkpoint,
    keep_as,
    load_last,
    save_checkpoint,
)
from autoseg.engine.config import AnyConfig
from autoseg.engine.log import Progress
from autoseg.engine.run_directory import DIVERGED, RETURNED, Run
from autoseg.errors import DataError, Interrupted, RunError
from autoseg.files import shell_quoted
from autoseg.signals import StopNow, StopRequest, stop_request

_log = logging.getLogger(__name__)

Figures = Mapping[str, Mapping[str, float | Tensor]]
"""Figures to log after a step or a validation: kind of row -> name -> value."""


class TrainingTask(Protocol):
    """What a run trains: a search or a retraining."""

    kind: Kind
    architecture: Mapping[str, Any]
    steps_per_epoch: int
    lr_factor: float
    """The learning rates of all steps are multiplied by this."""
    notes: Sequence[str]
    """Lines to print before the run."""

    @property
    def config(self) -> AnyConfig:
        """All settings of the run."""

    @property
    def schedule(self) -> TrainingConfig:
        """The settings that searches and retrainings share."""

    def begin(self, run: Run) -> None:
        """Write the files that the run directory has from the start."""

    def batches(self, epoch: int, start_step: int) -> Iterator[Any]:
        """The batches of an epoch from a step on. They depend on nothing else."""

    def step(self, batch: Any, epoch: int, step: int) -> Figures:
        """One iteration; `step` counts over the whole run.

        Each row of the figures has `loss`, and `skipped`: whether the step was left out, as its loss or a gradient was
        not finite. Both stay on the device.
        """

    def validate(self, run: Run, epoch: int) -> Figures:
        """Evaluate at the end of an epoch: `{"val": {"miou": ...}}`."""

    def end_epoch(self, run: Run, epoch: int) -> Figures:
        """Write the files of an epoch besides checkpoints, and return figures of it to log, if any."""

    def write_record(self) -> None:
        """Put on the disk what the steps so far have recorded; a checkpoint then counts on it."""

    def rewind(self, run: Run, done: int) -> None:
        """Drop what was recorded after the first `done` steps of a run, whose state is that of then."""

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""


class DivergedError(Exception):
    """Too many steps were skipped, or something to save is not finite; the text says what is."""


class Trainer:
    """Runs a task to its end, or until a signal stops it: `Trainer(task, run).run()`."""

    def __init__(self, task: TrainingTask, run_directory: Run, show_progress: bool = True) -> None:
        self.task, self.run_directory, self.show_progress = task, run_directory, show_progress
        self.epoch, self.step_in_epoch = 0, 0
        self.best_miou: float | None = None
        self.seconds = 0.0
        self.returns = 0
        """How often the run has gone back. Each time halves the learning rate."""
        self._skipped: dict[str, int | Tensor] = {}
        self._in_a_row: dict[str, int | Tensor] = {}
        """Kind of row -> number of skipped steps since the last row, and of the last ones in a row, which stays once it
        is above `max_skipped`. Both stay on the device until they are read."""
        self._since = self._saved = time.monotonic()

    @property
    def done(self) -> int:
        """Steps done in the whole run."""
        return self.epoch * self.task.steps_per_epoch + self.step_in_epoch

    def save_start(self) -> None:
        """Save the state before the first step, so that a run that is resumed does not read its first weights again."""
        self._save(LAST, self._start_state())

    def run(self) -> None:
        """Run the remaining epochs. Raises: Interrupted, after a clean save. RunError: the loss is no longer finite."""
        self._restore()
        task, schedule = self.task, self.task.schedule
        total = schedule.epochs * task.steps_per_epoch
        progress = Progress(task.kind, total, self.done, self.show_progress)
        if self.epoch == schedule.epochs and self.show_progress:
            epochs = f"{task.kind}.epochs"
            print(f"all {schedule.epochs} epochs are done, nothing is left to do; more: --resume --set {epochs}=N")
        self._since = self._saved = time.monotonic()
        with stop_request() as stop, progress:
            progress.update(self.done, miou=self.best_miou)
            try:
                while self.epoch < schedule.epochs:
                    try:
                        for batches in stop.between(task.batches(self.epoch, self.step_in_epoch)):
                            figures = task.step(batches, self.epoch, self.done)
                            self.step_in_epoch += 1
                            self._count_skipped(figures)
                            epoch_ends = self.step_in_epoch == task.steps_per_epoch
                            shown: dict[str, Any] = {}
                            if epoch_ends or self.done % schedule.log_every == 0:
                                loss = self._log(figures)["train"]["loss"]
                                shown = {"epoch": f"{self.epoch + 1}/{schedule.epochs}", "loss": loss}
                            progress.update(self.done, **shown)
                            if not epoch_ends:
                                self._pause(stop)
                        self._end_epoch(stop, progress)
                    except DivergedError as what:
                        self._go_back(str(what))
            except StopNow:  # a validation is done again when the run goes on
                self._pause(stop)
            except DataError:  # between two steps
                if self.step_in_epoch:
                    with suppress(DivergedError):
                        self._save(LAST, self._good_state())
                raise

    def _end_epoch(self, stop: StopRequest, progress: Progress) -> None:
        """Validate and save. Raises: DivergedError: something is not finite. StopNow: a signal, while it validates."""
        task, schedule = self.task, self.task.schedule
        state, is_best = self._good_state(), False  # before anything is made of it
        miou: float | None = None
        if self.epoch + 1 == schedule.epochs or (self.epoch + 1) % schedule.validate_every == 0:
            with stop.ends_at_once():
                figures = task.validate(self.run_directory, self.epoch)
            val = self._log(figures)["val"]
            is_best = self.best_miou is None or val["miou"] > self.best_miou
            self.best_miou = val["miou"] if is_best else self.best_miou
            miou = val["miou"]
        evidence = self._log(task.end_epoch(self.run_directory, self.epoch)).get("evidence", {})
        progress.update(self.done, miou=miou, decided=_decided(evidence))
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
        if is_best:
            self._save(BEST, state)
        self._keep_epoch(self._save(LAST, state))
        self._pause(stop)

    def _pause(self, stop: StopRequest) -> None:
        """Save if it is time to, and stop if a signal asked for it."""
        due = time.monotonic() - self._saved >= self.task.schedule.checkpoint_seconds
        if (due or stop.is_set()) and self.step_in_epoch:  # the end of an epoch is saved already
            self._save(LAST, self._good_state())
        if stop.is_set() and self.epoch < self.task.schedule.epochs:
            raise Interrupted(
                f"stopped at epoch {self.epoch + 1}, step {self.step_in_epoch}; everything is saved:"
                f" `autoseg {self.task.kind} --out {shell_quoted(self.run_directory.path)} --resume` goes on"
            )

    def _log(self, figures: Figures) -> dict[str, dict[str, float]]:
        """Log one row for each kind, and return the figures as numbers. Raises: DivergedError."""
        numbers = {kind: {name: float(value) for name, value in row.items()} for kind, row in figures.items()}
        for kind, row in numbers.items():
            if "skipped" in row:
                del row["skipped"]  # of this step alone
                if skipped := int(self._skipped[kind]):
                    row["skipped"] = skipped
                    _log.warning(
                        f"{counted(skipped, 'step')} skipped until epoch {self.epoch + 1}, step {self.step_in_epoch}:"
                        f" the {kind} loss or its gradients were not finite"
                    )
                self._skipped[kind] = 0
            self.run_directory.log(kind, self.epoch, self.done, **row)
        self._check_in_a_row()
        if not math.isfinite(numbers.get("val", {}).get("loss", 0.0)):
            raise DivergedError("the validation loss is")
        return numbers

    def _count_skipped(self, figures: Figures) -> None:
        """Count the skipped steps, without waiting for the device."""
        for kind, row in figures.items():
            skipped, in_a_row = torch.as_tensor(row["skipped"]), self._in_a_row.get(kind, 0)
            self._skipped[kind] = self._skipped.get(kind, 0) + skipped
            self._in_a_row[kind] = (in_a_row + skipped) * (skipped | (in_a_row > self.task.schedule.max_skipped))

    def _check_in_a_row(self) -> None:
        """Raises: DivergedError: too many steps in a row were skipped."""
        for kind, in_a_row in self._in_a_row.items():
            if in_a_row > self.task.schedule.max_skipped:
                raise DivergedError(f"the {kind} loss is")

    def _good_state(self) -> dict[str, Any]:
        """The task's state. Raises: DivergedError: a value in it is not finite, or too many steps were skipped."""
        self._check_in_a_row()
        state = self.task.state()
        values = [leaf for leaf in tree_leaves(state) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
        if values and not bool(torch.stack([value.isfinite().all().cpu() for value in values]).all()):
            raise DivergedError("the weights are")
        return state

    def _start_state(self) -> dict[str, Any]:
        """As `_good_state`, where the run cannot go back any further. Raises: RunError."""
        try:
            return self._good_state()
        except DivergedError as what:
            self._stop(str(what))

    @property
    def _where(self) -> str:
        return f"epoch {self.epoch + 1}, step {self.step_in_epoch} of {self.run_directory.path}"

    def _stop(self, what: str) -> NoReturn:
        kind = self.task.kind
        self.run_directory.log(DIVERGED, self.epoch, self.done)
        halved = f" with the learning rate at 1/{2**self.returns}" if self.returns else ""
        raise RunError(
            f"{what} no longer finite at {self._where}{halved}; start again with a lower learning rate"
            f" ({kind}.optimizer.lr), a longer warm-up ({kind}.schedule.warmup_epochs) or clipped gradients"
            f" ({kind}.clip_grad_norm), and look at the images with `autoseg check-data`",
            code="loss-not-finite",
        ) from None

    def _go_back(self, what: str) -> None:
        """Go back to the end of the last good epoch, and halve the learning rate.

        It does not matter when it was found out that the run diverged: what follows is the same to the last bit.
        Raises: RunError: the run has gone back too often.
        """
        run, task, returns, where = self.run_directory, self.task, self.returns + 1, self._where
        if returns > task.schedule.max_returns:
            self._stop(what)
        self._take(restore(task, run, EPOCH)[1])
        self._in_a_row = {}
        self.returns, task.lr_factor = returns, 0.5**returns
        run.log(RETURNED, self.epoch, self.done, lr_factor=task.lr_factor)
        self._keep_epoch(self._save(LAST, self._start_state()))
        to = f"the end of epoch {self.epoch}" if self.epoch else "the start"
        _log.warning(
            f"{what} no longer finite at {where}: going back to {to} with half the learning rate, 1/{2**returns} of the"
            f" schedule's (return {returns} of at most {task.schedule.max_returns})"
        )

    def _keep_epoch(self, path: Path) -> None:
        """Keep a checkpoint as that of the last good epoch, if it is of an epoch's end and no step was just skipped."""
        if self.step_in_epoch == 0 and not any(map(int, self._in_a_row.values())):
            keep_as(path, path.with_name(EPOCH))

    def _save(self, name: str, state: Mapping[str, Any]) -> Path:
        """Save a checkpoint, and return its path."""
        now = time.monotonic()
        self.seconds += now - self._since
        self._since = self._saved = now
        contents = {
            "epoch": self.epoch,
            "step_in_epoch": self.step_in_epoch,
            "best_miou": self.best_miou,
            "seconds": self.seconds,
            "metrics_bytes": self.run_directory.metrics_size(),
            "config": self.task.config.to_dict(),
            "returns": self.returns,
            "skipped": {kind: int(number) for kind, number in self._skipped.items()},
            "in_a_row": {kind: int(number) for kind, number in self._in_a_row.items()},
            "state": state,
        }
        self.task.write_record()
        self.run_directory.flush()  # a checkpoint on the disk has its metrics there
        path, keep = self.run_directory.checkpoints / name, self.task.schedule.keep_checkpoints if name == LAST else 1
        save_checkpoint(path, self.task.kind, self.task.architecture, contents, keep)
        return path

    def _restore(self) -> None:
        if where := self.run_directory.diverged:
            _log.warning(
                f"this run diverged at {where}, and may do so again; if it does, start another with a lower"
                f" {self.task.kind}.optimizer.lr"
            )
        if not has_checkpoint(self.run_directory.checkpoints):
            self.run_directory.rewind(0, 0)
            state = self._start_state()
            self.task.rewind(self.run_directory, 0)
            self._save(EPOCH, state)
            return
        path, saved = restore(self.task, self.run_directory)
        self._take(saved)
        self.seconds = saved["seconds"]
        self._keep_epoch(path)

    def _take(self, saved: Mapping[str, Any]) -> None:
        """Go on from the contents of a checkpoint."""
        self.epoch, self.step_in_epoch, self.best_miou = saved["epoch"], saved["step_in_epoch"], saved["best_miou"]
        self.returns, self.task.lr_factor = saved["returns"], 0.5 ** saved["returns"]
        self._skipped, self._in_a_row = dict(saved["skipped"]), dict(saved["in_a_row"])
        self.run_directory.rewind(saved["metrics_bytes"], self.done)
        self.task.rewind(self.run_directory, self.done)


def restore(task: TrainingTask, run: Run, first: str = LAST) -> tuple[Path, dict[str, Any]]:
    """Load a run's last checkpoint into its task; returns as `load_last`. Raises: CheckpointError: it is unusable."""
    path, saved = load_last(run.checkpoints, task.kind, task.architecture, task.schedule.keep_checkpoints, first)
    with fitting(path):
        task.load_state(saved["state"])
    return path, saved


def checkpoints_bytes(task: TrainingTask) -> int:
    """Bytes of all checkpoints of a run, with best.pt, epoch.pt and the one being written, by its first state."""
    size = sum(leaf.nbytes for leaf in tree_leaves(task.state()) if isinstance(leaf, Tensor))
    for optimizer in (one for one in vars(task).values() if isinstance(one, Optimizer)):
        moments = 2 if "betas" in optimizer.defaults else int(optimizer.defaults["momentum"] > 0)
        size += moments * sum(weight.nbytes for group in optimizer.param_groups for weight in group["params"])
    return size * (task.schedule.keep_checkpoints + 3)


def _decided(figures: Mapping[str, float]) -> str | None:
    """How many of the architecture's choices are decided, for the progress bar, such as `1/9 alpha, 0/12 beta`."""
    tables = [key.removesuffix("_choices") for key in figures if key.endswith("_choices")]
    counts = (f"{figures[f'{name}_decided']:.0f}/{figures[f'{name}_choices']:.0f} {name}" for name in tables)
    return ", ".join(counts) or None
