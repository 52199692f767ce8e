"""The run directory, which passes results between commands (files: docs/guide/run_directory.md)."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoseg.config.base import Model, Settings, merge, parse
from autoseg.engine.board import Board
from autoseg.engine.run_lock import LOCK, RunLock, is_alive
from autoseg.errors import RunError
from autoseg.files import flush_folder, make_folder, parse_json, read_yaml, to_yaml, user_path, write_text, writing

_log = logging.getLogger(__name__)
LEFTOVERS = ".*.tmp"
"""Unfinished files of a killed process (see `write_atomically`)."""
RESUME = "and --resume goes on from the last checkpoint"
"""What to do when a run cannot write."""

DIVERGED = "diverged"
"""The kind of the row in metrics.jsonl that ends a run whose loss was no longer finite."""
RETURNED = "returned"
"""The kind of the row of a run that went back to the end of an epoch, with a lower learning rate."""


class Run:
    """One run directory: its settings, metrics and checkpoints."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_path = path / "config.yaml"
        self.metrics_path = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        """Folder of last.pt and best.pt."""
        self._board: Board | None = None
        self._lock: RunLock | None = None

    @classmethod
    def create(cls, path: str | Path, config: Settings, environment: Mapping[str, Any]) -> Run:
        """Make a new run and hold it. Raises: RunError: the directory is in use, not empty or cannot be made."""
        run = cls(user_path(path, RunError))
        refuse_used(run.path)
        try:
            make_folder(run.path)
            flush_folder(run.path.parent)
            run.hold()
            refuse_used(run.path)  # another process may have been there just now
            write_text(run.config_path, to_yaml(config.to_dict()))  # first: with it, the run can be resumed
            run.complete(environment)
        except BaseException:
            run.close()
            raise
        return run

    def hold(self) -> None:
        """Keep other processes from this run until `close`. Raises: RunError: another one holds it."""
        self._lock = self._lock or RunLock(self.path)

    def complete(self, environment: Mapping[str, Any]) -> None:
        """Add the files that a run killed at its start may lack, and remove half-written files. The run is held."""
        self.hold()
        make_folder(self.checkpoints)
        for folder in (self.path, self.checkpoints, self.path / "arch"):
            for leftover in folder.glob(LEFTOVERS):
                if not is_alive(leftover.name.split(".")[-2]):  # `.NAME.PROCESS.tmp`
                    leftover.unlink(missing_ok=True)
        if not (self.path / "environment.yaml").exists():
            write_text(self.path / "environment.yaml", to_yaml(environment))

    def compare(self, environment: Mapping[str, Any]) -> None:
        """Say, when a run is resumed, what makes its figures differ from those of a run that never stopped."""
        before: dict[str, Any] = {}
        with contextlib.suppress(RunError):  # a record, which nothing else needs
            before = read_yaml(self.path / "environment.yaml", RunError)
        names = [name for name in ("device", "threads") if before.get(name) not in (None, environment[name])]
        if names:
            changed = ", ".join(f"{name} {environment[name]}, not {before[name]}" for name in names)
            _log.warning(
                f"{self.path} began elsewhere ({changed}): figures may differ from now on in their last digits"
            )

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open an existing run. Raises: RunError: there is none."""
        run = cls(user_path(path, RunError))
        if not run.config_path.is_file():
            problem = "holds no run (no config.yaml)" if run.path.exists() else "does not exist"
            raise RunError(
                f"{path} {problem}; give the directory that `--out` of search or retrain named", code="run-missing"
            )
        return run

    def config(self, model: type[Model], changes: Mapping[str, Any] | None = None) -> Model:
        """The run's settings as `SearchConfig` or `RetrainConfig`, with nested `changes` if given.

        Raises: AutosegError: config.yaml or a change is invalid.
        """
        return parse(model, merge(self.settings, changes or {}), str(self.config_path))

    def rewrite_config(self, config: Settings, note: str) -> None:
        """Replace config.yaml. A comment at its top keeps `note`, below those of earlier changes."""
        lines = self.config_path.read_text(encoding="utf-8").splitlines()
        notes = dict.fromkeys([*(line for line in lines if line.startswith("# ")), f"# {note}"])
        write_text(self.config_path, "\n".join([*notes, to_yaml(config.to_dict())]))

    @property
    def settings(self) -> dict[str, Any]:
        """config.yaml as plain data."""
        return read_yaml(self.config_path, RunError)

    @property
    def kind(self) -> str:
        """`search` or `retrain`."""
        return "search" if "space" in self.settings else "retrain"

    # --- metrics --------------------------------------------------------------------------------------------------

    def metrics_size(self) -> int:
        """Bytes of metrics.jsonl. Checkpoints store this, so that a resumed run can drop later rows."""
        return self.metrics_path.stat().st_size if self.metrics_path.exists() else 0

    def rewind(self, metrics_bytes: int, step: int) -> None:
        """Drop the metrics that were written after a checkpoint, which was made after `step`, and open TensorBoard."""
        if (size := self.metrics_size()) < metrics_bytes:
            _log.warning(f"{self.metrics_path} has lost rows: {size:,} bytes are left of {metrics_bytes:,}")
        with writing(self.metrics_path, RESUME), self.metrics_path.open("a+b") as file:
            file.seek(0)
            whole = file.read(metrics_bytes).rfind(b"\n") + 1
            file.truncate(whole)
        flush_folder(self.path)  # a new file has its name on the disk before a checkpoint counts its rows
        if self._board is not None:
            self._board.close()
        with writing(self.path / "tensorboard", RESUME):
            self._board = Board(self.path / "tensorboard", purge_step=step + 1)

    def log(self, kind: str, epoch: int, step: int, **values: float | None) -> None:
        """Append a row to metrics.jsonl and to TensorBoard, if it is open; a value that is not finite becomes null."""
        plain = {key: value if value is not None and math.isfinite(value) else None for key, value in values.items()}
        with writing(self.metrics_path, RESUME), self.metrics_path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps({"kind": kind, "epoch": epoch, "step": step, **plain}) + "\n")
        if self._board is not None:
            with writing(self._board.path, RESUME):
                self._board.add({f"{kind}/{key}": value for key, value in plain.items() if value is not None}, step)

    def flush(self) -> None:
        """Flush the metrics to the disk."""
        if self.metrics_path.exists():
            with writing(self.metrics_path, RESUME), self.metrics_path.open("r+b") as file:
                os.fsync(file.fileno())

    def metrics(self) -> list[dict[str, Any]]:
        """The complete rows of metrics.jsonl. A line that a disk or somebody has changed is said and passed over."""
        if not self.metrics_path.exists():
            return []
        rows = []
        with self.metrics_path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    rows += [self._row(line)] if line.endswith(b"\n") else []
                except ValueError:
                    _log.warning(f"{self.metrics_path}, line {number}, is no row of metrics and is passed over")
        return rows

    @staticmethod
    def _row(line: bytes) -> dict[str, Any]:
        """A line of metrics.jsonl. Raises: ValueError: it is none that `log` writes."""
        row = parse_json(line.decode())
        if not (isinstance(row, dict) and {*row} >= {"kind", "epoch", "step"}):
            raise ValueError("no row")
        figures = [value for key, value in row.items() if key != "kind" and value is not None]
        if not all(type(value) in (int, float) for value in figures):
            raise ValueError("a figure is no number")
        if not type(row["epoch"]) is type(row["step"]) is int:
            raise ValueError("an epoch or a step is no count")
        return row

    @property
    def diverged(self) -> str | None:
        """Where the loss was no longer finite, if the run ended so: `epoch 3, step 120 of the run`."""
        last = (self.metrics() or [{}])[-1]
        return f"epoch {last['epoch'] + 1}, step {last['step']} of the run" if last.get("kind") == DIVERGED else None

    def close(self) -> None:
        """Let other processes have the run."""
        if self._board is not None:
            self._board.close()
            self._board = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def refuse_used(path: Path) -> None:
    """Raises: RunError: `path` is no directory, or not an empty one."""
    if (path / "config.yaml").is_file():
        raise RunError(
            f"{path} already holds a run; give another --out, or --resume to go on with it", code="run-exists"
        )
    there = next(place for place in (path, *path.absolute().parents) if place.exists() or place.is_symlink())
    if not there.is_dir():
        raise RunError(
            f"{path} cannot be a run directory, as {there} is a file; give another --out", code="folder-is-file"
        )
    if there == path and any(not entry.match(LEFTOVERS) and entry.name != LOCK for entry in path.iterdir()):
        raise RunError(f"{path} is not an empty directory; give another --out", code="folder-not-empty")
