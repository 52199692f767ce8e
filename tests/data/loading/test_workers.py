"""Worker processes that are killed, stopped, crash, fail or find no room: the batches come all the same."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.data_sets import ArrayDataset, random_dataset
from helpers.errors import raises_code
from torch.utils.data import get_worker_info

from autoseg.config.training import AugmentConfig
from autoseg.data.loading.loader import Batch, BatchLoader
from autoseg.errors import DataError

STEPS = 30
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and shared memory of Linux")


class InWorkers(ArrayDataset):
    """Does something before a worker reads an image."""

    def __init__(self, action: Callable[[int], object]) -> None:
        plain = random_dataset(10)
        super().__init__(plain.samples, plain.num_classes)
        self.action = action

    def read(self, index: int) -> tuple:
        if get_worker_info() is not None:
            self.action(index)
        return super().read(index)


def loader(dataset: ArrayDataset, workers: int, worker_seconds: float = 300.0) -> BatchLoader:
    return BatchLoader(
        dataset, range(10), 2, crop=(32, 32), augment=AugmentConfig(), mean=(0.5,) * 3, std=(0.2,) * 3, seed=1,
        stream="train", workers=workers, worker_seconds=worker_seconds,
    )  # fmt: skip


def same(some: list[Batch], others: list[Batch]) -> bool:
    pairs = list(zip(some, others, strict=True))
    return all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)


def raise_error(index: int) -> None:
    raise RuntimeError("no such luck")


def leave_no_room(index: int) -> None:
    """Files larger than 4,096 bytes fail, those in shared memory too."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))


def end_by(number: int) -> Callable[[int], None]:
    return lambda index: os.kill(os.getpid(), number) if index == 7 else None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("action", "said"),
    [
        (end_by(signal.SIGKILL), "was ended by SIGKILL, perhaps as memory ran out"),
        (end_by(signal.SIGBUS), "--shm-size"),
        (end_by(signal.SIGSTOP), "has given no batch for 1 seconds"),
        (leave_no_room, "--shm-size"),
        (raise_error, "no such luck"),
    ],
    ids=["killed", "bus error", "stopped", "no room", "raises"],
)
def test_batches_go_on_without_workers(
    action: Callable[[int], None], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    failing = loader(InWorkers(action), 2, worker_seconds=1 if "given no" in said else 300)
    handlers = [signal.getsignal(number) for number in (signal.SIGCHLD, signal.SIGINT)]
    with caplog.at_level(logging.WARNING, "autoseg"):
        assert same(list(failing.epoch(0, steps=STEPS)), list(loader(random_dataset(10), 0).epoch(0, steps=STEPS)))
    (line,) = caplog.messages
    assert "\n" not in line
    assert said in line
    assert "set `workers: 0`" in line
    assert failing.workers == 0
    assert not multiprocessing.active_children()
    assert handlers == [signal.getsignal(number) for number in (signal.SIGCHLD, signal.SIGINT)]


def test_a_slow_worker_is_waited_for() -> None:
    """The time counts from one batch to the next."""
    import time

    slow = loader(InWorkers(lambda index: time.sleep(0.12)), 1, worker_seconds=1.0)
    assert len(list(slow.epoch(0, steps=6))) == 6
    assert slow.workers == 1


@pytest.mark.slow
def test_no_processes_can_be_started(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where shared memory has no room for a semaphore."""

    def refuse() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("autoseg.data.loading.workers.Lock", refuse)
    failing = loader(random_dataset(10), 2)
    assert same(list(failing.epoch(0)), list(loader(random_dataset(10), 0).epoch(0)))
    (line,) = caplog.messages
    assert line.startswith("a worker process cannot be started ([Errno 28] No space left on device; a")
    assert "--shm-size" in line


@pytest.mark.slow
def test_a_crash_names_the_images(capfd: pytest.CaptureFixture[str]) -> None:
    """The main process would crash on them too."""
    crashing = loader(InWorkers(end_by(signal.SIGSEGV)), 2)
    with raises_code(DataError, "worker-crashed", "SIGSEGV", "images ("):
        list(crashing.epoch(0, steps=STEPS))
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_workers_that_are_left_in_the_middle_end_at_once() -> None:
    def stop(index: int) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def wait(index: int) -> None:
        signal.pause()

    for action in (wait, stop):
        batches = loader(InWorkers(lambda index, action=action: action(index) if index == 7 else None), 2).epoch(0)
        next(batches)
        assert multiprocessing.active_children()
        batches.close()
        children = multiprocessing.active_children()
        for child in children:
            child.join(1)
        assert not multiprocessing.active_children()


@pytest.mark.slow
def test_workers_never_get_the_signals_to_stop(tmp_path: Path) -> None:
    def note(index: int) -> None:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        (tmp_path / str(os.getpid())).write_text(" ".join(sorted(signal.Signals(number).name for number in blocked)))

    list(loader(InWorkers(note), 2).epoch(0))
    assert [file.read_text() for file in tmp_path.iterdir()] == ["SIGHUP SIGINT SIGTERM"] * 2
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
