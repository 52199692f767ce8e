"""The file of a search's architecture gradients, `arch/gradients.bin`. No torch.

A line of text with the facts of the run, then records of one size: first the logits before the first step, then the
gradient of each step, as the optimizer saw it. A record has the learning rate (float64), the legal entries of all
tables (float32), and a CRC-32 of both. A step that was skipped has NaN, and so has a table
without a gradient: with GDAS, alpha has none if all sampled operations are `none`. Records are only appended, and cut
off when a run goes back.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from autoseg import limits
from autoseg.analysis.choices import tables_of
from autoseg.config.training import OptimizerConfig
from autoseg.errors import RunError
from autoseg.files import ELSEWHERE, digest, flush_folder, one_line, parse_json, write_atomically, writing
from autoseg.space.schema import SearchSpace
from autoseg.space.snapshot import logits_shapes

NAME = "gradients.bin"
"""Its name in the folder `arch` of a run."""
VERSION = 1
MAGIC = b"autoseg gradients "
CHUNK = 4096
"""Records that are read at once where all are checked."""
LONGEST_HEADER = 65_536
"""Most bytes of the first line."""
WITHOUT = "remove it, and everything but the evidence goes on"


class GradientFile:
    """The gradients of a run: a file that may not exist yet."""

    def __init__(
        self, path: Path, space: SearchSpace, optimizer: OptimizerConfig, arch_start_epoch: int,
        steps_per_epoch: int | None = None, remedy: str = ELSEWHERE,
    ) -> None:  # fmt: skip
        """steps_per_epoch: None takes what the file says.

        Raises: RunError: then, it is damaged, or of another space, optimizer or version.
        """
        self.path, self.space, self.optimizer, self.remedy = path, space, optimizer, remedy
        self.arch_start_epoch = arch_start_epoch
        self.tables = tables_of(space)
        shapes = logits_shapes(space)
        self.header: Mapping[str, Any] = {
            "version": VERSION,
            "space": space.name,
            "space_sha256": digest(space.to_dict()),
            "tables": {name: [list(shapes[name]), len(table.legal)] for name, table in self.tables.items()},
            "optimizer": optimizer.model_dump(mode="json"),
            "arch_start_epoch": arch_start_epoch,
        }
        entries = sum(len(table.legal) for table in self.tables.values())
        self.record = np.dtype([("lr", "<f8"), ("values", "<f4", (entries,)), ("crc", "<u4")])
        self.steps_per_epoch = self._steps_per_epoch() if steps_per_epoch is None else steps_per_epoch

    def steps_until(self, done: int) -> int:
        """Number of architecture steps among the first `done` steps of the run."""
        return max(0, done - self.arch_start_epoch * self.steps_per_epoch)

    def columns(self) -> dict[str, slice]:
        """Where each table's entries are among the values of a record."""
        ends = np.cumsum([len(table.legal) for table in self.tables.values()]).tolist()
        return {
            name: slice(end - len(self.tables[name].legal), end) for name, end in zip(self.tables, ends, strict=True)
        }

    # --- writing --------------------------------------------------------------------------------------------------

    def create(self, start: np.ndarray) -> None:
        """Begin anew with the logits before the first step, (P,). Raises: RunError: it cannot be written."""
        whole = self._first_line + self._records([0.0], start[None])
        write_atomically(self.path, lambda temporary: temporary.write_bytes(whole), self.remedy)
        flush_folder(self.path.parent)

    def append(self, rates: Sequence[float], gradients: np.ndarray) -> None:
        """Add steps: learning rates (n,) and gradients (n, P). Raises: RunError: they cannot be written."""
        with writing(self.path, self.remedy), self.path.open("r+b") as file:
            file.seek(0, os.SEEK_END)  # not "ab", which makes a file that somebody has removed
            file.write(self._records(rates, gradients))

    def flush(self) -> None:
        """Flush the file to the disk."""
        with writing(self.path, self.remedy), self.path.open("r+b") as file:
            os.fsync(file.fileno())

    def cut(self, steps: int) -> None:
        """Drop what was written after `steps` steps. Raises: RunError: these are not there, or damaged."""
        if self._steps_per_epoch() != self.steps_per_epoch:
            raise self.of_other_run("it has another number of steps an epoch")
        for first in range(0, steps, CHUNK):
            self.read(first, min(first + CHUNK, steps))
        with writing(self.path, self.remedy), self.path.open("r+b") as file:
            file.truncate(self._place(steps + 1))

    def _records(self, rates: Sequence[float], values: np.ndarray) -> bytes:
        records = np.zeros(len(rates), self.record)
        records["lr"], records["values"] = rates, values
        records["crc"] = _checksums(records)
        return records.tobytes()

    # --- reading --------------------------------------------------------------------------------------------------

    def start(self) -> np.ndarray:
        """The logits before the first step, (P,)."""
        values: np.ndarray = self._read(0, 1)["values"][0]
        return values

    def read(self, first: int, last: int) -> np.ndarray:
        """Records of the steps `first` to `last` - 1, with `lr` and `values` (P,).

        Raises: RunError: the file is damaged, or has fewer.
        """
        return self._read(first + 1, last + 1)

    def _read(self, first: int, last: int) -> np.ndarray:
        try:
            there = max(0, (self.path.stat().st_size - self._place(1)) // self.record.itemsize)
            if there < last - 1 or self.path.stat().st_size < self._place(1):
                raise self.damaged(f"it has {there:,} of the {last - 1:,} steps that the run has done")
            with self.path.open("rb") as file:
                file.seek(self._place(first))
                data = file.read((last - first) * self.record.itemsize)
        except OSError as reason:
            raise self.damaged(one_line(reason.strerror or reason)) from None
        records = np.frombuffer(data, self.record)
        wrong = np.flatnonzero(_checksums(records) != records["crc"])
        if len(wrong):
            raise self.damaged(f"the checksum of step {first + int(wrong[0])} differs")
        return records

    def _place(self, record: int) -> int:
        return len(self._first_line) + record * self.record.itemsize

    @cached_property
    def _first_line(self) -> bytes:
        facts = json.dumps({**self.header, "steps_per_epoch": self.steps_per_epoch}).encode()
        return _sealed(facts)

    def _steps_per_epoch(self) -> int:
        """What the file says. Raises: RunError: it is damaged, or of another run."""
        try:
            with self.path.open("rb") as file:
                line = file.readline(LONGEST_HEADER)
            facts = line[len(_sealed(b"")) - 1 :]
            if line != _sealed(facts[:-1]):
                raise ValueError
            said = parse_json(facts.decode())
            if said["version"] > VERSION:
                raise RunError(
                    f"{self.path} cannot be used: a later version of autoseg wrote it; update, or {WITHOUT}",
                    code="version-too-new",
                )
            steps: int = said.pop("steps_per_epoch")
            if type(steps) is not int or not 0 < steps <= limits.STEPS:
                raise ValueError
        except OSError as reason:
            raise self.damaged(one_line(reason.strerror or reason)) from None
        except (ValueError, TypeError, KeyError):
            raise self.damaged("its first line is damaged") from None
        wrong = next((key for key, value in self.header.items() if said.get(key) != value), None)
        if wrong is not None:
            raise self.of_other_run(f"it is of another {wrong.removesuffix('_sha256')}")
        return steps

    def damaged(self, what: str) -> RunError:
        """The error of a file that is not as it was written."""
        return RunError(f"{self.path} cannot be used: {what}; {WITHOUT}", code="gradients-damaged")

    def of_other_run(self, what: str) -> RunError:
        """The error of a file that is another run's."""
        return RunError(f"{self.path} cannot be used: {what}; {WITHOUT}", code="gradients-of-other-run")


def _sealed(facts: bytes) -> bytes:
    """The first line of a file, with its checksum."""
    return MAGIC + f"{zlib.crc32(facts):08x} ".encode() + facts + b"\n"


def _checksums(records: np.ndarray) -> np.ndarray:
    """The CRC-32 of each record without its own field."""
    size = records.dtype.itemsize - 4
    return np.array([zlib.crc32(record.tobytes()[:size]) for record in records], dtype=np.uint32)
