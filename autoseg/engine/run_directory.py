"""The run directory, which passes results between commands (files: docs/guide/run_directory.md)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoseg.config.base import Model, Settings, parse
from autoseg.errors import RunError
from autoseg.files import parse_json, read_yaml, to_yaml, user_path, write_text

LEFTOVERS = ".*.tmp"
"""Unfinished files of a killed process (see `write_atomically`)."""

DIVERGED = "diverged"
"""The kind of the row in metrics.jsonl that ends a run whose loss was no longer finite."""


class Run:
    """One run directory: its settings, metrics and checkpoints."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_path = path / "config.yaml"
        self.metrics_path = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        """Folder of last.pt and best.pt."""
        self._board: Any = None

    @classmethod
    def create(cls, path: str | Path, config: Settings, environment: Mapping[str, Any]) -> Run:
        """Make a new run. Raises: RunError: the directory is not empty or cannot be made."""
        run = cls(user_path(path, RunError))
        refuse_used(run.path)
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            write_text(run.config_path, to_yaml(config.to_dict()))  # first: with it, the run can be resumed
            run.complete(environment)
        except OSError as reason:
            raise RunError(
                f"{path} cannot be made ({reason.strerror}); give another --out", code="folder-unwritable"
            ) from None
        return run

    def complete(self, environment: Mapping[str, Any]) -> None:
        """Add the files that a run killed at its start may lack, and remove half-written files."""
        self.checkpoints.mkdir(exist_ok=True)
        for folder in (self.path, self.checkpoints, self.path / "arch"):
            for leftover in folder.glob(LEFTOVERS):
                leftover.unlink()
        if not (self.path / "environment.yaml").exists():
            write_text(self.path / "environment.yaml", to_yaml(environment))

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

    def config(self, model: type[Model]) -> Model:
        """The run's settings as `SearchConfig` or `RetrainConfig`. Raises: AutosegError: config.yaml is invalid."""
        return parse(model, self.settings, str(self.config_path))

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
        """Drop the metrics that were written after a checkpoint, which was made after `step`."""
        if self.metrics_path.exists():
            with self.metrics_path.open("r+b") as file:
                file.truncate(min(metrics_bytes, self.metrics_size()))
        self._open_board(purge_step=step + 1)  # TensorBoard drops this step and what follows

    def log(self, kind: str, epoch: int, step: int, **values: float | None) -> None:
        """Append a row to metrics.jsonl and to TensorBoard; a value that is not finite becomes null."""
        plain = {key: value if value is not None and math.isfinite(value) else None for key, value in values.items()}
        with self.metrics_path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps({"kind": kind, "epoch": epoch, "step": step, **plain}) + "\n")
        if self._board is None:
            self._open_board()
        for key, value in plain.items():
            if value is not None:
                self._board.add_scalar(f"{kind}/{key}", value, step)

    def metrics(self) -> list[dict[str, Any]]:
        """The complete rows of metrics.jsonl. Raises: RunError: one is damaged."""
        if not self.metrics_path.exists():
            return []
        rows = []
        with self.metrics_path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith(b"\n"):
                    rows.append(self._row(number, line))
        return rows

    def _row(self, number: int, line: bytes) -> dict[str, Any]:
        """A line of metrics.jsonl. Raises: RunError: it is none that `log` writes."""
        try:
            row: dict[str, Any] = parse_json(line.decode())
            figures = [value for key, value in row.items() if key != "kind" and value is not None]
            if {*row} >= {"kind", "epoch", "step"} and all(type(value) in (int, float) for value in figures):
                return row
        except (ValueError, AttributeError):
            pass
        raise RunError(
            f"{self.metrics_path}, line {number}, is no row of metrics; remove the line", code="metrics-damaged"
        )

    @property
    def diverged(self) -> str | None:
        """Where the loss was no longer finite, if the run ended so: `epoch 3, step 120 of the run`."""
        last = (self.metrics() or [{}])[-1]
        return f"epoch {last['epoch'] + 1}, step {last['step']} of the run" if last.get("kind") == DIVERGED else None

    def close(self) -> None:
        """Flush TensorBoard."""
        if self._board is not None:
            self._board.close()
            self._board = None

    def _open_board(self, purge_step: int | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self._board = SummaryWriter(str(self.path / "tensorboard"), purge_step=purge_step)


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
    if there == path and any(not entry.match(LEFTOVERS) for entry in path.iterdir()):
        raise RunError(f"{path} is not an empty directory; give another --out", code="folder-not-empty")
