"""Signals that ask a command to stop, wherever it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from autoseg.signals import LATE, STATUS, StopNow, StopRequest, stop_request, without_signals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


def send(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_learns_of_a_signal_and_ends_its_step(number: int) -> None:
    with stop_request() as stop:
        assert not stop.is_set()
        send(number)
        assert stop.is_set()
        send(number)  # at once: `timeout` and shells send several
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_signal_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with stop_request() as stop:
        send()
        monkeypatch.setattr(stop, "_since", time.monotonic() - 1)
        with pytest.raises(KeyboardInterrupt) as caught:
            send()
    assert caught.type is KeyboardInterrupt


def test_waits_and_validations_end_at_once() -> None:
    def items() -> Iterator[int]:
        yield 0
        send()
        yield 1

    with stop_request() as stop:
        some = stop.between(items())
        assert next(some) == 0
        with pytest.raises(StopNow):
            next(some)
        with pytest.raises(StopNow), stop.ends_at_once():  # it came before
            raise AssertionError("not reached")
    assert list(StopRequest().between(range(3))) == [0, 1, 2]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_what_is_ignored_stays_ignored(number: int) -> None:
    """As `nohup` leaves SIGHUP, and a shell leaves SIGINT for what it runs in the background."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stop_request() as stop:
            send(number)
            assert not stop.is_set()
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_signals_are_held_back_while_processes_start() -> None:
    with stop_request() as stop, pytest.raises(StopNow), stop.ends_at_once(), without_signals():
        stop.handle(signal.SIGINT, None)  # as if another thread had got the signal
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])


# --- the watching thread ----------------------------------------------------------------------------------------------

STUCK = """
import hashlib, sys, threading, time
from autoseg.signals import stop_request, watched

def stuck():  # one call that no handler interrupts
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**8)

def swallowed():
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(60)

threading.Timer(0.2, print, ("begun",), {"flush": True}).start()
with watched(patience=0.3):
    if sys.argv[1] == "run":
        with stop_request():
            stuck()
    globals()[sys.argv[1]]()
"""


@contextmanager
def process(what: str) -> Iterator[subprocess.Popen[str]]:
    started = subprocess.Popen(
        [sys.executable, "-c", STUCK, what], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert started.stdout is not None
        assert started.stdout.readline()
        yield started
    finally:
        started.kill()
        started.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("what", ["stuck", "swallowed"])
def test_a_command_that_hears_no_signal_ends(what: str, number: int) -> None:
    with process(what) as other:
        start = time.monotonic()
        other.send_signal(number)
        assert other.wait(10) == STATUS
        assert time.monotonic() - start < 2
        assert other.stderr is not None
        assert other.stderr.read() == "interrupted\n"


@pytest.mark.slow
def test_a_run_in_a_long_step_says_so_and_a_second_signal_ends_it() -> None:
    with process("run") as other:
        other.send_signal(signal.SIGINT)
        assert other.stderr is not None
        assert other.stderr.readline() == f"{LATE}\n"
        time.sleep(0.3)
        assert other.poll() is None
        other.send_signal(signal.SIGINT)
        assert other.wait(10) == STATUS
