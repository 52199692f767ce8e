"""Standard input, output and error that are closed, full, or whose reader has gone."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedWriter, RawIOBase, TextIOWrapper
from typing import Any, TextIO

NO_READER = (errno.EPIPE, errno.ECONNRESET, errno.EIO, errno.EBADF)
"""Errors of a stream that nobody reads any more: a pipe such as `| head`, or a terminal that is gone."""


class Output(RawIOBase):
    """Standard output or error. What can no longer be written is dropped, so that work goes on."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self.lost: OSError | None = None
        """Why a write failed; None if all that was flushed has been written."""

    def write(self, data: Any) -> int | None:
        """Write bytes, or drop them."""
        try:
            return len(data) if self.lost is not None else self._raw.write(data)
        except OSError as reason:
            self.lost = reason
            return len(data)

    def writable(self) -> bool:
        """True, as text is written to it."""
        return True

    def fileno(self) -> int:
        """The number of the file that is written to."""
        return int(self._raw.fileno())

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return bool(self._raw.isatty())

    @property
    def failed(self) -> OSError | None:
        """Why the result is lost, unless nobody wants to read it."""
        return None if self.lost is None or self.lost.errno in NO_READER else self.lost


@contextmanager
def lasting_streams() -> Iterator[Output]:
    """Let `sys.stdout` and `sys.stderr` drop what cannot be written. Yields: standard output."""
    _open_closed()
    before = sys.stdout, sys.stderr
    (sys.stdout, output), (sys.stderr, _) = map(_lasting, before)
    try:
        yield output
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def _lasting(stream: TextIO) -> tuple[TextIO, Output]:
    stream.flush()
    output = Output(getattr(stream.buffer, "raw", stream.buffer))
    text = TextIOWrapper(
        BufferedWriter(output),
        encoding=stream.encoding,
        errors="replace",  # names may have letters that a pipe on Windows lacks
        line_buffering=any(getattr(stream, name, False) for name in ("line_buffering", "write_through")),
    )
    return text, output


def _open_closed() -> None:
    """Open what the caller has closed (`2>&-`), or the next file that is opened would get the number of a stream."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest free number, which is this
        setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - as long as the process lives
