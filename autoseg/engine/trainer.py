"""The loop around every run: epochs, validation, checkpoints, stopping and resuming.

What is done at a step is the task's (`search.py`, `retrain.py`). A step depends on the settings, its number and the
state in the checkpoint alone, never on what a process did before: so a run that was stopped anywhere goes on to the
same result, bit for bit on a CPU.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType, TracebackType
from typing import Any, Protocol

import torch
from torch import Tensor

from autoseg.config.training import TrainingConfig
from autoseg.engine.checkpoint import Kind, fitting, load_checkpoint, save_checkpoint
from autoseg.engine.log import Progress
from autoseg.engine.run_directory import Run
from autoseg.errors import Interrupted, RunError
from autoseg.files import shell_quoted

Figures = Mapping[str, Mapping[str, float | Tensor]]
"""What to log of a step or a validation: kind of row -> name -> value."""


class TrainingTask(Protocol):
    """What a run does."""

    kind: Kind
    architecture: Mapping[str, Any]
    steps_per_epoch: int
    notes: Sequence[str]
    """What is to be said of the settings before the run, a line each."""

    @property
    def schedule(self) -> TrainingConfig:
        """The settings that all runs have."""
        ...

    def begin(self, run: Run) -> None:
        """Write what the run directory holds from the start."""
        ...

    def batches(self, epoch: int, start_step: int) -> Iterator[Any]:
        """The batches of an epoch from a step on; the same whatever came before."""
        ...

    def step(self, batch: Any, epoch: int, step: int) -> Figures:
        """One iteration; `step` counts over the whole run."""
        ...

    def validate(self, run: Run, epoch: int) -> Figures:
        """Measure at the end of an epoch; `{"val": {"miou": ...}}`."""
        ...

    def end_epoch(self, run: Run, epoch: int) -> None:
        """Write what is written each epoch besides checkpoints."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a state."""
        ...


class StopRequest:
    """Turns Ctrl-C and TERM into a flag, so that a run stops at a step boundary; a second one stops at once."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


class Trainer:
    """Runs a task to its end, or until it is asked to stop.

    Raises: Interrupted: stopped, after a clean save. RunError: the loss is no longer finite.
    """

    def __init__(self, task: TrainingTask, run: Run, show_progress: bool = True) -> None:
        self.task, self.run, self.show_progress = task, run, show_progress
        self.epoch, self.step_in_epoch = 0, 0
        self.best_miou: float | None = None
        self.seconds = 0.0
        self._finite: dict[str, Tensor] = {}
        """Kind of row -> whether each loss since the last look was finite: on the device, which a look waits for."""

    @property
    def done(self) -> int:
        """Steps done over the whole run."""
        return self.epoch * self.task.steps_per_epoch + self.step_in_epoch

    def __call__(self) -> None:
        """Go on from the last checkpoint, or from the beginning where there is none."""
        self._restore()
        total = self.task.schedule.epochs * self.task.steps_per_epoch
        progress = Progress(self.task.kind, total, self.done, self.show_progress)
        self._since = self._saved = time.monotonic()
        try:
            with StopRequest() as stop, progress:
                progress.update(self.done, miou=self.best_miou)
                while self.epoch < self.task.schedule.epochs:
                    self._run_epoch(stop, progress)
        finally:
            self.run.close()

    def _run_epoch(self, stop: StopRequest, progress: Progress) -> None:
        task, schedule = self.task, self.task.schedule
        for batch in task.batches(self.epoch, self.step_in_epoch):
            figures = task.step(batch, self.epoch, self.done)
            self.step_in_epoch += 1
            self._note_finite(figures)
            if self.done % schedule.log_every == 0 or self.step_in_epoch == task.steps_per_epoch:
                figures = self._log(figures)
                progress.update(self.done, epoch=f"{self.epoch + 1}/{schedule.epochs}", loss=figures["train"]["loss"])
            else:
                progress.update(self.done)
            if self.step_in_epoch < task.steps_per_epoch:
                self._pause(stop)
        self._end_epoch(progress)
        self._pause(stop)

    def _end_epoch(self, progress: Progress) -> None:
        task, schedule = self.task, self.task.schedule
        last = self.epoch + 1 == schedule.epochs
        is_best = False
        if last or (self.epoch + 1) % schedule.validate_every == 0:
            figures = self._log(task.validate(self.run, self.epoch))
            miou = float(figures["val"]["miou"])
            is_best = self.best_miou is None or miou > self.best_miou
            self.best_miou = miou if is_best else self.best_miou
            progress.update(self.done, miou=miou, entropy=_entropies(figures["val"]))
        task.end_epoch(self.run, self.epoch)
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
        if is_best:
            self._save("best.pt")
        self._save("last.pt")

    def _pause(self, stop: StopRequest) -> None:
        """Save where it is time to, and stop where that was asked for."""
        at_epoch_end = self.step_in_epoch == 0
        due = time.monotonic() - self._saved >= self.task.schedule.checkpoint_seconds
        if (due or stop.requested) and not at_epoch_end:
            self._save("last.pt")
        if stop.requested and self.epoch < self.task.schedule.epochs:
            raise Interrupted(
                f"stopped at epoch {self.epoch + 1}, step {self.step_in_epoch}; everything is saved:"
                f" `autoseg {self.task.kind} --out {shell_quoted(str(self.run.path))} --resume` goes on"
            )

    def _log(self, figures: Figures) -> dict[str, dict[str, float]]:
        """Write one row a kind, and return the figures as numbers."""
        self._check_finite()
        numbers = {kind: {name: float(value) for name, value in row.items()} for kind, row in figures.items()}
        for kind, row in numbers.items():
            self.run.log(kind, self.epoch, self.done, **row)
        return numbers

    def _note_finite(self, figures: Figures) -> None:
        """Keep whether the losses of a step are finite, without waiting for the device."""
        for kind, row in figures.items():
            finite = torch.isfinite(torch.as_tensor(row["loss"]))
            before = self._finite.get(kind)
            self._finite[kind] = finite if before is None else before & finite

    def _check_finite(self) -> None:
        """Raises: RunError: a loss was not finite since the last look."""
        noted, self._finite = self._finite, {}
        for kind, finite in noted.items():
            if not bool(finite):
                raise RunError(
                    f"the {kind} loss is no longer finite at epoch {self.epoch + 1}, step {self.step_in_epoch} of"
                    f" {self.run.path}; start again with a lower learning rate ({self.task.kind}.optimizer.lr)",
                    code="loss-not-finite",
                )

    def _save(self, name: str) -> None:
        self._check_finite()
        now = time.monotonic()
        self.seconds += now - self._since
        self._since = self._saved = now
        contents = {
            "epoch": self.epoch,
            "step_in_epoch": self.step_in_epoch,
            "best_miou": self.best_miou,
            "seconds": self.seconds,
            "metrics_bytes": self.run.metrics_size(),
            "state": self.task.state(),
        }
        save_checkpoint(self.run.checkpoints / name, self.task.kind, self.task.architecture, contents)

    def _restore(self) -> None:
        if not (self.run.checkpoints / "last.pt").exists():
            self.run.rewind(0, 0)
            return
        saved = restore(self.task, self.run)
        self.epoch, self.step_in_epoch = saved["epoch"], saved["step_in_epoch"]
        self.best_miou, self.seconds = saved["best_miou"], saved["seconds"]
        self.run.rewind(saved["metrics_bytes"], self.done)


def restore(task: TrainingTask, run: Run) -> dict[str, Any]:
    """Put a task into the state of its run's last checkpoint, and return that. Raises: CheckpointError."""
    saved = load_checkpoint(run.checkpoints / "last.pt", task.kind, task.architecture)
    with fitting(run.checkpoints / "last.pt"):
        task.load_state(saved["state"])
    return saved


def _entropies(figures: Mapping[str, float]) -> str | None:
    """Those of alpha and beta, for the progress bar; a retraining has none."""
    if "alpha_entropy" not in figures:
        return None
    return f"{figures['alpha_entropy']:.2f}/{figures['beta_entropy']:.2f}"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Automatic mixed precision in bf16 or fp16, or nothing.

    A step reads each weight once: a cache of their casts would save nothing, and would cross streams.
    """
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None, cache_enabled=False)


def seed_step(seed: int, step: int) -> None:
    """Make dropout and drop path depend on the step's number alone."""
    torch.manual_seed(seed_of(seed, step))


def seed_of(seed: int, number: int) -> int:
    """The seed of one of many numbered things of a run."""
    return (seed * 1_000_003 + number) % 2**31
