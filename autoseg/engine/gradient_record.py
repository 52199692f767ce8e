"""What a search records of its architecture's gradients, for the evidence (`analysis.evidence`)."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from autoseg.analysis.choices import tables_of
from autoseg.analysis.evidence import Evidence, Replayed
from autoseg.analysis.gradient_file import NAME, GradientFile
from autoseg.engine.config import SearchConfig
from autoseg.engine.run_directory import RESUME, Run
from autoseg.space.snapshot import logits_shapes
from autoseg.supernet.arch_parameters import ArchParameters

_log = logging.getLogger(__name__)


class GradientRecord:
    """Keeps the gradient of each architecture step on the device, and appends them to the run's file when asked to.

    It records from the first `rewind` on, which tells the file.
    """

    def __init__(self, config: SearchConfig, arch: ArchParameters, steps_per_epoch: int) -> None:
        self._config, self._steps_per_epoch = config, steps_per_epoch
        self._logits: list[nn.Parameter] = [getattr(arch, f"{name}_logits") for name in logits_shapes(config.space)]
        legal = [table.legal for table in tables_of(config.space).values()]
        ends = np.cumsum([logits.numel() for logits in self._logits])
        each = zip(ends, self._logits, legal, strict=True)
        self._columns = np.concatenate([end - logits.numel() + of for end, logits, of in each])
        self._tables = np.repeat(np.arange(len(legal)), [len(of) for of in legal])
        """The number of the table to which each recorded entry belongs."""
        self._pending: list[tuple[float, Tensor, list[bool]]] = []
        self._file: GradientFile | None = None
        self._replayed: Replayed | None = None
        self._said = False
        self.latest: Evidence | None = None
        """The evidence after the last epoch that this process has done."""

    def add(self, lr: float, lost: Tensor) -> None:
        """Keep the gradients of a step, without waiting for the device. lost: whether the step is skipped."""
        if self._file is not None:
            missing = [logits.grad is None for logits in self._logits]
            parts = [torch.zeros_like(logits) if logits.grad is None else logits.grad for logits in self._logits]
            row = torch.cat([part.flatten() for part in parts])  # a copy: the next step writes into the same tensors
            self._pending.append((lr, torch.where(lost, math.nan, row), missing))

    def write(self) -> None:
        """Append what was kept. Raises: RunError: it cannot be written."""
        if self._file is None or not self._pending:
            return
        rates, rows, missing = zip(*self._pending, strict=True)
        gradients = self._legal(torch.stack(rows))
        gradients[~np.isfinite(gradients).all(1)] = np.nan  # fp16 skips a step whose scale was too large
        gradients[np.array(missing)[:, self._tables]] = np.nan  # the optimizer leaves tables without a gradient as is
        self._file.append(rates, gradients)
        self._pending.clear()

    def flush(self) -> None:
        """Append what was kept, and flush the file to the disk."""
        self.write()
        if self._file is not None:
            self._file.flush()

    def rewind(self, run: Run, done: int) -> None:
        """Drop what was recorded after the first `done` steps of a run, whose state is that of then.

        Raises: RunError: the file is damaged, or is not this run's.
        """
        self._pending.clear()
        self._file = self._replayed = None
        schedule, path = self._config.search, gradients_path(run.path)
        file = GradientFile(
            path, self._config.space, schedule.arch_optimizer, schedule.arch_start_epoch, self._steps_per_epoch, RESUME
        )
        if not (steps := file.steps_until(done)):
            file.create(self._legal(torch.cat([logits.detach().flatten() for logits in self._logits])[None])[0])
        elif path.exists():
            file.cut(steps)
        else:
            if not self._said:
                _log.warning(f"{path} is not there, so this run ends without evidence on its architecture")
            self._said = True
            return
        self._file = file

    def evidence(self, epoch: int) -> Evidence | None:
        """The evidence after an epoch, all of whose steps are done. None without architecture steps or a record."""
        if self._file is None or epoch < self._config.search.arch_start_epoch:
            return None
        self.write()
        self._replayed = self._replayed or Replayed(self._file)
        self._replayed.take_epochs(epoch + 1 - self._config.search.arch_start_epoch)
        self.latest = self._replayed.evidence()
        return self.latest

    def _legal(self, rows: Tensor) -> np.ndarray:
        """The legal entries of rows (n, entries of all tables), in float32 on the CPU."""
        values: np.ndarray = rows.to("cpu", torch.float32).numpy()
        return values[:, self._columns]


def gradients_path(run: Path) -> Path:
    """The file of gradients in a run directory."""
    return run / "arch" / NAME
