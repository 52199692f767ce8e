"""TensorBoard's file of a run, written by the run itself.

`SummaryWriter` writes in a thread, whose errors come later and with a traceback, and takes no path that is not UTF-8.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VERSION = "brain.Event:2"


class Board:
    """A new file of events in `folder`. TensorBoard drops what earlier files have from `purge_step` on."""

    def __init__(self, folder: Path, purge_step: int) -> None:
        """Raises: OSError: it cannot be made."""
        from tensorboard.compat.proto.event_pb2 import SessionLog  # slow to import

        folder.mkdir(exist_ok=True)
        self.path = (
            folder / f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{purge_step}"
        )
        self._file = self.path.open("ab")
        try:
            self._write(purge_step, file_version=VERSION)
            self._write(purge_step, session_log=SessionLog(status=SessionLog.START))
            self._file.flush()
        except BaseException:
            self.close()
            raise

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Write figures by name. Raises: OSError: they cannot be written."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        named = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step, summary=Summary(value=named))
        self._file.flush()

    def _write(self, step: int, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        RecordWriter(self._file).write(Event(wall_time=time.time(), step=step, **content).SerializeToString())

    def close(self) -> None:
        """Close the file, which has all figures already."""
        with contextlib.suppress(OSError):  # of a disk that was full before
            self._file.close()
