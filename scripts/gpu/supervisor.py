"""Pieces of work in a child process, one after another: a piece that hangs or crashes is recorded, the rest goes on.

The child writes events, a JSON object a line, which the parent follows:

    {"event": "environment", ...}                        versions and device
    {"event": "planned", "names": [...]}                 what it is going to do, in this order
    {"event": "start", "name": ...}, {"event": "end", "name": ..., "outcome": ..., ...}
    {"event": "restart", "reason": ...}                  it ends itself, as its further results could not be trusted

Starting a process costs some ten seconds on a machine with a GPU (importing torch, making the context), so that a new
one is started only after the old one has died, hung or asked for it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpu.output import ROOT

Event = dict[str, Any]

POLL_SECONDS = 0.02
GRACE_SECONDS = 3.0
"""Between the signal that makes Python print where it is and the one that kills."""
KILL_SECONDS = 10.0
"""That a killed process may take to end."""
LAST_OUTPUT = 4000
"""Bytes of what a process printed last, kept with the work in which it died."""
SILENT_STARTS = 2
"""Children in a row that did nothing before the parent gives up."""


# --- the child's side -------------------------------------------------------------------------------------------------


class Events:
    """Writes events, each as soon as it is there."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def __call__(self, event: str, **fields: Any) -> None:
        """Write one."""
        self._file.write(json.dumps({"event": event, **fields}) + "\n")
        self._file.flush()


def child_parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments that every child is given."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--events", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True, help="JSON: what was done by children before")
    return parser


def end_with_parent() -> None:
    """End this process once its parent has gone, which closes this one's standard input."""
    standard_input = os.dup(0)

    def wait() -> None:
        while os.read(standard_input, 4096):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


# --- the parent's side ------------------------------------------------------------------------------------------------


class Child:
    """A process with its events; what it prints goes to the end of a log."""

    def __init__(self, command: Sequence[str], events: Path, log: Path, environment: Mapping[str, str]) -> None:
        events.touch()
        self._read = events.open("rb")
        self._half = b""
        self._log = log.open("ab")
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that a signal reaches what it starts, too
        )

    def new_events(self) -> Iterator[Event]:
        """Those that came since the last time."""
        *lines, self._half = (self._half + self._read.read()).split(b"\n")
        for line in lines:
            yield json.loads(line)

    def kill(self) -> None:
        """End it and what it started; Python prints first where it was, if it still can."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGABRT)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE_SECONDS)
        with suppress(ProcessLookupError):  # what it started may have outlived it
            os.killpg(self.process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # a driver that hangs keeps even a killed process
            self.process.wait(KILL_SECONDS)
        for file in (self.process.stdin, self._read, self._log):
            if file is not None:
                file.close()


class Supervisor:
    """Runs one child after another until all that was planned is done, or the time is over.

    After `run`, `planned` holds every name in order, and `left` those that were not done.
    """

    def __init__(
        self,
        command: Sequence[str],
        record: Callable[[Event], None],
        folder: Path,
        log: Path,
        deadline: float,
        limit_of: Callable[[str], float],
        start_limit: float,
        environment: Mapping[str, str] | None = None,
        more_state: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        """command: of the child, without the arguments of `child_parser`. record: is called with each result and each
        event besides. folder: for the files between parent and child. deadline: by `time.monotonic`. limit_of: seconds
        of a piece of work. start_limit: seconds of a child before its first piece. more_state: what a child is told of
        those before, besides what they did."""
        self._command, self._record, self._folder, self._log = command, record, folder, log
        self._deadline, self._limit_of, self._start_limit = deadline, limit_of, start_limit
        self._environment, self._more_state = environment or {}, more_state
        self.planned: list[str] = []
        self.done: list[str] = []
        self.restarts: list[str] = []
        self.gave_up: str | None = None
        self._last: list[str] = []
        self._current: tuple[str, float] | None = None

    @property
    def left(self) -> list[str]:
        """What was planned and not done."""
        done = set(self.done)
        return [name for name in self.planned if name not in done]

    def run(self) -> None:
        """Do it all."""
        silent = 0
        while time.monotonic() < self._deadline and silent < SILENT_STARTS:
            before = len(self.done)
            reason = self._run_child()
            if reason is None:
                return
            self.restarts.append(reason)
            if self.planned and not self.left:
                return
            silent = silent + 1 if len(self.done) == before else 0
        if silent == SILENT_STARTS:
            self.gave_up = f"{SILENT_STARTS} processes in a row did nothing; the last one: {self.restarts[-1]}"

    def _run_child(self) -> str | None:
        """One child from its start to its end; why another one is needed, or None."""
        state, events = self._folder / "state.json", self._folder / f"events-{len(self.restarts)}.jsonl"
        state.write_text(json.dumps({"done": self.done, "last": self._last, **self._more_state()}), encoding="utf-8")
        arguments = ("--events", str(events), "--state", str(state))
        printed = self._log.stat().st_size if self._log.exists() else 0
        child = Child((*self._command, *arguments), events, self._log, self._environment)
        self._started, self._current, self._asked = time.monotonic(), None, None
        try:
            reason = self._watch(child)
        finally:
            child.kill()
        if self._current is not None:
            outcome = "cut off" if time.monotonic() >= self._deadline else "died"
            with self._log.open("rb") as log:
                log.seek(max(printed, self._log.stat().st_size - LAST_OUTPUT))
                detail = f"{reason or 'the process ended'}\n{log.read().decode(errors='replace')}"
            self._end({"name": self._current[0], "outcome": outcome, "detail": detail})
        return reason

    def _watch(self, child: Child) -> str | None:
        """Follow a child until it ends or must end; why, or None where it has done all it was to do."""
        while True:
            status = child.process.poll()  # before the events are read, so that none is missed
            for event in child.new_events():
                self._take(event)
            if status is not None:
                return self._asked or (None if status == 0 and self._current is None else _how(status))
            now = time.monotonic()
            if now >= self._deadline:
                return "the stage's time was over"
            if self._current is None:
                if now - self._started > self._start_limit:
                    return f"it did not begin within {self._start_limit:g} s"
            elif now - self._current[1] > (limit := self._limit_of(self._current[0])):
                return f"it took longer than its {limit:g} s"
            time.sleep(POLL_SECONDS)

    def _take(self, event: Event) -> None:
        kind = event["event"]
        if kind == "start":
            self._current = event["name"], time.monotonic()
        elif kind == "end":
            self._end(event)
        elif kind == "planned":
            self.planned += [name for name in event["names"] if name not in set(self.planned)]
        elif kind == "restart":
            self._asked = event["reason"]
            self._postpone(self.done[-1])
        if kind not in ("start", "end"):
            self._record(event)

    def _end(self, event: Event) -> None:
        name = event["name"]
        if event["outcome"] == "died":
            self._postpone(name)
        seconds = time.monotonic() - self._current[1] if self._current is not None else 0.0
        self._current, self._started = None, time.monotonic()
        self.done.append(name)
        self._record({"seconds": seconds, **event, "event": "end"})

    def _postpone(self, name: str) -> None:
        """Of a test with parameters, let the other ones come last: they are likely to cost a process each as well."""
        function, bracket, _ = name.partition("[")
        if bracket and function not in self._last:
            self._last.append(function)


def _how(status: int) -> str:
    if status >= 0:
        return f"the process ended with status {status}"
    try:
        return f"the process died of {signal.Signals(-status).name}"
    except ValueError:
        return f"the process died of signal {-status}"
