"""Signals that ask a command to stop: Ctrl-C (SIGINT), SIGTERM and SIGHUP. Loads without torch.

Python calls a handler in the main thread, and only between two steps of its interpreter. One call into a library, such
as a backward pass, can take minutes, so the command line watches the signals in a thread as well.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, TypeVar

STATUS = 130
"""Exit status of a command that a signal has stopped, whichever it was."""
TOGETHER_SECONDS = 0.5
"""Signals within this time are one request: `timeout`, shells and batch systems send several at once."""
LATE = "stopping: the run finishes its step and saves; a second signal ends it at once, without saving"

Item = TypeVar("Item")
Handler = Callable[[int, FrameType | None], Any]


def stopping() -> tuple[int, ...]:
    """The signals that ask a command to stop. Windows has no SIGHUP."""
    return tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class StopNow(KeyboardInterrupt):
    """A signal came while a run waited for data or validated, which can be left off."""


class StopRequest:
    """Whether a signal has asked a run to stop. A second one raises KeyboardInterrupt, wherever the run is."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._ends_at_once = False

    def is_set(self) -> bool:
        """Whether a signal has come."""
        return self._since is not None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signals."""
        since, self._since = self._since, self._since or time.monotonic()
        if since is None and self._ends_at_once:
            _raise(StopNow)
        elif since is not None and time.monotonic() - since > TOGETHER_SECONDS:
            _raise(KeyboardInterrupt)

    @contextmanager
    def ends_at_once(self) -> Iterator[None]:
        """A part that changes nothing of the run. Raises: StopNow: a signal came before or meanwhile."""
        self._ends_at_once = True
        try:
            if self.is_set():
                raise StopNow
            yield
        finally:
            self._ends_at_once = False

    def between(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items; the wait for the next one `ends_at_once`."""
        iterator = iter(items)
        while True:
            with self.ends_at_once():
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item


class _State:
    """What handlers and the watching thread know."""

    asked = False
    """Whether a signal has stopped the command outside of a run."""
    runs = 0
    """Runs under way, which save before they stop."""
    held: list[type[KeyboardInterrupt]] | None = None
    """What handlers would have raised, while they are held back."""


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """A request that signals set, so that a run can save before it stops. Ignored signals (`nohup`) stay ignored."""
    request = StopRequest()
    _State.runs += 1
    with _handled_by(request.handle):
        yield request
        _State.runs -= 1  # not if it was stopped: then the process ends, and the watching thread lets it


@contextmanager
def without_signals() -> Iterator[None]:
    """Start processes that never get the signals. Raises: KeyboardInterrupt: at the end, if one came meanwhile.

    The processes inherit the mask of this thread, so that not even their start can print a traceback.
    """
    mask = getattr(signal, "pthread_sigmask", None)
    before = mask(signal.SIG_BLOCK, stopping()) if mask else ()
    outermost, _State.held = _State.held, [] if _State.held is None else _State.held
    try:
        yield
    finally:
        if mask:
            mask(signal.SIG_SETMASK, before)
        held, _State.held = _State.held, outermost
    if held and outermost is None:
        raise held[0]


@contextmanager
def watched(patience: float = 1.5) -> Iterator[Callable[[], bool]]:
    """Make signals raise KeyboardInterrupt, and end the process by itself where that does not work.

    If the main thread has not ended after `patience` seconds, the process ends, unless a run is under way, which saves
    first. A second signal always ends it. Call this in the main thread. Yields: whether a signal has stopped the
    command outside of a run.
    """
    _State.asked, _State.runs = False, 0
    arrived, arrives = socket.socketpair()  # Windows knows no pipes that do not block
    arrives.setblocking(False)
    thread = threading.Thread(target=_watch, args=(arrived, patience), daemon=True)
    thread.start()
    with _handled_by(_interrupt):
        before = signal.set_wakeup_fd(arrives.fileno(), warn_on_full_buffer=False)
        try:
            yield lambda: _State.asked
        finally:
            signal.set_wakeup_fd(before)
            arrives.send(b"\0")
            thread.join()
            arrived.close()
            arrives.close()


def end_process() -> NoReturn:
    """End this process and its workers now, without waiting for threads."""
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(STATUS)


def _watch(arrived: socket.socket, patience: float) -> None:
    first = 0.0
    while number := arrived.recv(1)[0]:
        if number not in stopping():
            continue
        if not first:
            first = time.monotonic()
            timer = threading.Timer(patience, _end_if_late)
            timer.daemon = True
            timer.start()
        elif time.monotonic() - first > TOGETHER_SECONDS:
            time.sleep(TOGETHER_SECONDS)  # the main thread may do it properly
            _say("interrupted")
            end_process()
    if first:
        timer.cancel()


def _end_if_late() -> None:
    if _State.runs:
        _say(LATE)
    else:
        _say("interrupted")
        end_process()


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise once: what follows must not disturb the way out."""
    if not _State.asked:
        _State.asked = True
        _raise(KeyboardInterrupt)


def _raise(kind: type[KeyboardInterrupt]) -> None:
    if _State.held is None:
        raise kind
    _State.held.append(kind)


@contextmanager
def _handled_by(handler: Handler) -> Iterator[None]:
    """Set the handler of all signals that are not ignored, where this thread may."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in stopping():
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
