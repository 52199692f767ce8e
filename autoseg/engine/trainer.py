"""The loop around every run: epochs, validation, checkpoints, stopping and resuming.

The task (`search.py`, `retrain.py`) defines one step. A step depends only on the settings, its number and the state in
the checkpoint, never on what the process did before. So a run that was stopped anywhere resumes to the same result, bit
for bit on a CPU.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from autoseg.config.training import TrainingConfig
from autoseg.engine.checkpoint import Kind, fitting, has_checkpoint, load_last, save_checkpoint
from autoseg.engine.log import Progress
from autoseg.engine.run_directory import DIVERGED, Run
from autoseg.errors import Interrupted, RunError
from autoseg.files import shell_quoted

_log = logging.getLogger(__name__)

Figures = Mapping[str, Mapping[str, float | Tensor]]
"""Figures to log after a step or a validation: kind of row -> name -> value."""


class TrainingTask(Protocol):
    """What a run trains: a search or a retraining."""

    kind: Kind
    architecture: Mapping[str, Any]
    steps_per_epoch: int
    notes: Sequence[str]
    """Lines to print before the run."""

    @property
    def schedule(self) -> TrainingConfig:
        """The settings that searches and retrainings share."""

    def begin(self, run: Run) -> None:
        """Write the files that the run directory has from the start."""

    def batches(self, epoch: int, start_step: int) -> Iterator[Any]:
        """The batches of an epoch from a step on. They depend on nothing else."""

    def step(self, batch: Any, epoch: int, step: int) -> Figures:
        """One iteration; `step` counts over the whole run."""

    def validate(self, run: Run, epoch: int) -> Figures:
        """Evaluate at the end of an epoch: `{"val": {"miou": ...}}`."""

    def end_epoch(self, run: Run, epoch: int) -> None:
        """Write the files of an epoch besides checkpoints."""

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""


@contextmanager
def stop_request() -> Iterator[threading.Event]:
    """Set the event at the first Ctrl-C or TERM, so that a run stops after a step; a second signal stops at once."""
    requested = threading.Event()

    def request(number: int, frame: FrameType | None) -> None:
        if requested.is_set():
            raise KeyboardInterrupt
        requested.set()

    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, request) for number in numbers}
    try:
        yield requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Trainer:
    """Runs a task to its end, or until a signal stops it: `Trainer(task, run).run()`."""

    def __init__(self, task: TrainingTask, run_directory: Run, show_progress: bool = True) -> None:
        self.task, self.run_directory, self.show_progress = task, run_directory, show_progress
        self.epoch, self.step_in_epoch = 0, 0
        self.best_miou: float | None = None
        self.seconds = 0.0
        self._finite: dict[str, Tensor] = {}
        """Kind of row -> whether all losses since the last check were finite. It stays on the device until a check."""

    @property
    def done(self) -> int:
        """Steps done in the whole run."""
        return self.epoch * self.task.steps_per_epoch + self.step_in_epoch

    def save_start(self) -> None:
        """Save the state before the first step, so that a run that is resumed does not read its first weights again."""
        self._since = time.monotonic()
        self._save("last.pt")

    def run(self) -> None:
        """Run the remaining epochs. Raises: Interrupted, after a clean save. RunError: the loss is no longer finite."""
        self._restore()
        task, schedule = self.task, self.task.schedule
        total = schedule.epochs * task.steps_per_epoch
        progress = Progress(task.kind, total, self.done, self.show_progress)
        if self.done == total and self.show_progress:
            epochs = f"{task.kind}.epochs"
            print(f"all {schedule.epochs} epochs are done, nothing is left to do; more: --resume --set {epochs}=N")
        self._since = self._saved = time.monotonic()
        with stop_request() as stop, progress:
            progress.update(self.done, miou=self.best_miou)
            while self.epoch < schedule.epochs:
                for batches in task.batches(self.epoch, self.step_in_epoch):
                    figures = task.step(batches, self.epoch, self.done)
                    self.step_in_epoch += 1
                    self._note_finite(figures)
                    epoch_ends = self.step_in_epoch == task.steps_per_epoch
                    shown: dict[str, Any] = {}
                    if epoch_ends or self.done % schedule.log_every == 0:
                        loss = self._log(figures)["train"]["loss"]
                        shown = {"epoch": f"{self.epoch + 1}/{schedule.epochs}", "loss": loss}
                    progress.update(self.done, **shown)
                    if not epoch_ends:
                        self._pause(stop)

                self._finite_state()  # before anything is made of it
                is_best = False
                if self.epoch + 1 == schedule.epochs or (self.epoch + 1) % schedule.validate_every == 0:
                    val = self._log(task.validate(self.run_directory, self.epoch))["val"]
                    is_best = self.best_miou is None or val["miou"] > self.best_miou
                    self.best_miou = val["miou"] if is_best else self.best_miou
                    progress.update(self.done, miou=val["miou"], entropy=_entropies(val))
                task.end_epoch(self.run_directory, self.epoch)
                self.epoch, self.step_in_epoch = self.epoch + 1, 0
                if is_best:
                    self._save("best.pt")
                self._save("last.pt")
                self._pause(stop)

    def _pause(self, stop: threading.Event) -> None:
        """Save if it is time to, and stop if a signal asked for it."""
        due = time.monotonic() - self._saved >= self.task.schedule.checkpoint_seconds
        if (due or stop.is_set()) and self.step_in_epoch:  # the end of an epoch is saved already
            self._save("last.pt")
        if stop.is_set() and self.epoch < self.task.schedule.epochs:
            raise Interrupted(
                f"stopped at epoch {self.epoch + 1}, step {self.step_in_epoch}; everything is saved:"
                f" `autoseg {self.task.kind} --out {shell_quoted(self.run_directory.path)} --resume` goes on"
            )

    def _log(self, figures: Figures) -> dict[str, dict[str, float]]:
        """Log one row for each kind, and return the figures as numbers."""
        self._check_finite()
        numbers = {kind: {name: float(value) for name, value in row.items()} for kind, row in figures.items()}
        for kind, row in numbers.items():
            self.run_directory.log(kind, self.epoch, self.done, **row)
        return numbers

    def _note_finite(self, figures: Figures) -> None:
        """Record whether the losses of a step are finite, without waiting for the device."""
        for kind, row in figures.items():
            self._finite[kind] = torch.isfinite(torch.as_tensor(row["loss"])) & self._finite.get(kind, True)

    def _check_finite(self) -> None:
        """Raises: RunError: a loss was not finite since the last check."""
        noted, self._finite = self._finite, {}
        for kind, finite in noted.items():
            if not bool(finite):
                self._diverge(f"the {kind} loss is")

    def _diverge(self, what: str) -> NoReturn:
        self.run_directory.log(DIVERGED, self.epoch, self.done)
        raise RunError(
            f"{what} no longer finite at epoch {self.epoch + 1}, step {self.step_in_epoch} of"
            f" {self.run_directory.path}; start again with a lower learning rate ({self.task.kind}.optimizer.lr)",
            code="loss-not-finite",
        )

    def _finite_state(self) -> dict[str, Any]:
        """The task's state. Raises: RunError: a loss since the last check, or a value in the state, is not finite."""
        self._check_finite()
        state = self.task.state()
        values = [leaf for leaf in tree_leaves(state) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
        if values and not bool(torch.stack([value.isfinite().all().cpu() for value in values]).all()):
            self._diverge("the weights are")
        return state

    def _save(self, name: str) -> None:
        state = self._finite_state()
        now = time.monotonic()
        self.seconds += now - self._since
        self._since = self._saved = now
        contents = {
            "epoch": self.epoch,
            "step_in_epoch": self.step_in_epoch,
            "best_miou": self.best_miou,
            "seconds": self.seconds,
            "metrics_bytes": self.run_directory.metrics_size(),
            "state": state,
        }
        self.run_directory.flush()  # a checkpoint on the disk has its metrics there
        keep = self.task.schedule.keep_checkpoints if name == "last.pt" else 1
        save_checkpoint(self.run_directory.checkpoints / name, self.task.kind, self.task.architecture, contents, keep)

    def _restore(self) -> None:
        if where := self.run_directory.diverged:
            _log.warning(
                f"this run diverged at {where}, and may do so again; if it does, start another with a lower"
                f" {self.task.kind}.optimizer.lr"
            )
        if not has_checkpoint(self.run_directory.checkpoints):
            self.run_directory.rewind(0, 0)
            return
        saved = restore(self.task, self.run_directory)
        self.epoch, self.step_in_epoch = saved["epoch"], saved["step_in_epoch"]
        self.best_miou, self.seconds = saved["best_miou"], saved["seconds"]
        self.run_directory.rewind(saved["metrics_bytes"], self.done)


def restore(task: TrainingTask, run: Run) -> dict[str, Any]:
    """Load a run's last checkpoint into its task, and return its contents. Raises: CheckpointError: it is unusable."""
    path, saved = load_last(run.checkpoints, task.kind, task.architecture, task.schedule.keep_checkpoints)
    with fitting(path):
        task.load_state(saved["state"])
    return saved


def checkpoints_bytes(task: TrainingTask) -> int:
    """Bytes of all checkpoints that a run keeps, with best.pt and the one that is being written, by its first state."""
    size = sum(leaf.nbytes for leaf in tree_leaves(task.state()) if isinstance(leaf, Tensor))
    for optimizer in (one for one in vars(task).values() if isinstance(one, Optimizer)):
        moments = 2 if "betas" in optimizer.defaults else int(optimizer.defaults["momentum"] > 0)
        size += moments * sum(weight.nbytes for group in optimizer.param_groups for weight in group["params"])
    return size * (task.schedule.keep_checkpoints + 2)


def _entropies(figures: Mapping[str, float]) -> str | None:
    """The entropies of alpha and beta for the progress bar; None in a retraining."""
    names = "alpha_entropy", "beta_entropy"
    return "/".join(f"{figures[name]:.2f}" for name in names) if names[0] in figures else None
