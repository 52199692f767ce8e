"""The worker processes of PyTorch's loader: what they make, and what is wrong when they fail."""

from __future__ import annotations

import errno
import signal
import threading
from collections.abc import Iterator, Sequence
from itertools import count
from multiprocessing import Lock, active_children
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from autoseg.files import cut, one_line
from autoseg.signals import without_signals

CRASHES = ("SIGSEGV", "SIGABRT", "SIGFPE", "SIGILL")
"""Signals that end a process by a fault in what it does, which would end the main process too."""
ROOM = "a container has little shared memory unless --shm-size gives it more"
TICK_SECONDS = 0.5
_END = object()


class WorkersError(Exception):
    """Worker processes cannot go on; the text says what happened to one. crashed: by a fault in what it did."""

    crashed = False


def from_workers(loader: DataLoader[Any], seconds: float) -> Iterator[Any]:
    """The items of a loader with worker processes, which are killed when this ends.

    seconds: longest wait for an item.
    Raises: WorkersError: a process cannot be started, has died or was stopped, finds no room for an item, or waits too
    long.
    """
    others, watch = {*active_children()}, _Watch(seconds)
    try:
        try:
            items = _started(loader)
        except (OSError, RuntimeError) as reason:  # semaphores are in shared memory, and processes may be limited
            hint = f"; {ROOM}" if isinstance(reason, OSError) and reason.errno == errno.ENOSPC else ""
            raise WorkersError(f"cannot be started ({one_line(reason)}{hint})") from None
        watch.workers = [child for child in active_children() if child not in others]
        watch.start()
        for watch.awaited in count():
            try:
                item = next(items, _END)
            except Exception as reason:  # whatever PyTorch finds wrong with a queue
                raise _fault(watch, reason) from None
            watch.awaited = None
            if isinstance(item, WorkersError):
                raise item
            if item is _END:
                return
            yield item
    finally:
        watch.over.set()
        left = {*active_children()} - others
        for child in left:
            child.kill()  # one that is stopped, or waits for a disk, ends by nothing less
        for child in left:
            child.join(1)


def shared(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor] | WorkersError:
    """A batch in shared memory, where the main process finds it; an error if there is no room.

    PyTorch would do the same when it sends a batch, but lose the batch where there is no room, and wait forever.
    """
    try:
        images, masks = (part.share_memory_() for part in batch)  # type: ignore[no-untyped-call]
        return images, masks
    except RuntimeError as reason:
        size = sum(part.nbytes for part in batch)
        return WorkersError(
            f"finds no room for a batch of {size:,} bytes ({one_line(reason).rpartition(': ')[2]}; {ROOM})"
        )


class _Watch(threading.Thread):
    """Kills the workers if the main process waits for one item too long."""

    def __init__(self, seconds: float) -> None:
        super().__init__(daemon=True)
        self.seconds = seconds
        self.workers: Sequence[BaseProcess] = ()
        self.awaited: int | None = None
        """Number of the item that the main process waits for."""
        self.over, self.expired = threading.Event(), False

    def run(self) -> None:
        """Count the ticks of one wait: a clock would go on while the machine sleeps."""
        seen, waited = self.awaited, 0.0
        while not self.over.wait(TICK_SECONDS):
            waited = waited + TICK_SECONDS if seen == self.awaited is not None else 0.0
            seen = self.awaited
            if waited >= self.seconds:
                self.expired = True
                for worker in self.workers:
                    worker.kill()  # the main process may wait inside a read, which ends with the other side
                return


def _started(loader: DataLoader[Any]) -> Iterator[Any]:
    """Start the processes. PyTorch's handler of ended ones is taken back: it raises an error anywhere in a step."""
    in_main = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD")
    before = signal.getsignal(signal.SIGCHLD) if in_main else None
    with without_signals():
        # as many semaphores as PyTorch makes, which prints tracebacks where there is room for some of them only
        [Lock() for _ in range(8 + 3 * loader.num_workers)]
        items = iter(loader)
    if in_main:
        signal.signal(signal.SIGCHLD, before)
    return items


def _fault(watch: _Watch, reason: Exception) -> WorkersError:
    """What is wrong after an error of PyTorch's."""
    if watch.expired:
        return WorkersError(
            f"has given no batch for {watch.seconds:g} seconds (if your data is that slow, set `worker_seconds` higher)"
        )
    wait([worker.sentinel for worker in watch.workers], timeout=1)
    for worker in watch.workers:
        worker.join(0.1)  # what waits for a process may end a moment before it
    codes = [worker.exitcode for worker in watch.workers if worker.exitcode]
    if not codes:  # an exception of the worker's, behind its traceback; if it is no accident, it comes here again
        *_, last = str(reason).strip().splitlines() or [""]
        return WorkersError(f"failed ({cut(last, 300) or type(reason).__name__})")
    names = {-number.value: number.name for number in signal.Signals}
    name = names.get(codes[0], f"status {codes[0]}")
    hint = {"SIGKILL": ", perhaps as memory ran out", "SIGBUS": ", perhaps as shared memory ran out (--shm-size)"}
    error = WorkersError(f"was ended by {name}{hint.get(name, '')}")
    error.crashed = name in CRASHES
    return error
