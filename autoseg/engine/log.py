"""Progress: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from autoseg.errors import printable

LINE_SECONDS = 10.0
"""Shortest time between two lines outside a terminal."""


class Progress:
    """Shows the steps done, the latest figures and the time left. Use it as a context manager.

    The estimate of the time left uses only the steps of this process, so that it is right after resuming.
    """

    def __init__(self, what: str, total: int = 0, done: int = 0, enabled: bool = True) -> None:
        """total: 0 if only `update` knows it; the bar appears then."""
        self.what = printable(what)
        self.total, self.done, self.first = total, done, done
        self.figures: dict[str, str] = {}
        self.enabled = enabled
        self._started = self._last_line = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if self.total:
            self._open_bar()
        return self

    def _open_bar(self) -> None:
        if self._bar is None and self.enabled and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(  # the bar is last, so that a narrow terminal shortens it
                TextColumn("{task.description} {task.completed}/{task.total}", markup=False),
                TextColumn("{task.fields[left]} left"),
                TextColumn("[cyan]{task.fields[figures]}"),
                BarColumn(bar_width=None),
                console=Console(stderr=True),
                expand=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.what, total=self.total, completed=self.done, figures="", left="?")

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, total: int | None = None, **figures: float | str | None) -> None:
        """Show that `done` steps are done. Figures stay until new ones replace them."""
        self.done = done
        if total is not None and not self.total:
            self.total = total
            self._open_bar()
        shown = {key: value for key, value in figures.items() if value is not None}
        self.figures |= {key: value if isinstance(value, str) else f"{value:.3f}" for key, value in shown.items()}
        if not self.enabled:
            return
        if self._bar is not None:
            self._bar.update(self._task, completed=done, figures=self._text(), left=self.time_left())
        elif time.monotonic() - self._last_line >= LINE_SECONDS or done == self.total:
            self._last_line = time.monotonic()
            print(
                f"{self.what} {done}/{self.total}  {self._text()}  {self.time_left()} left", file=sys.stderr, flush=True
            )

    def time_left(self) -> str:
        """The time left, such as `12:05`; `?` before the first step."""
        if self.done <= self.first:
            return "?"
        seconds = (time.monotonic() - self._started) / (self.done - self.first) * (self.total - self.done)
        return show_seconds(seconds)

    def _text(self) -> str:
        return "  ".join(f"{key} {value}" for key, value in self.figures.items())


def show_seconds(seconds: float) -> str:
    """Format seconds as `4:05` or `1:04:05`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
