"""An exclusive lock on a run directory, so that two processes never write into one run.

The lock is the operating system's, on a file in the directory. It ends with its process, however that ends. The file
says who holds it. Locks reach over NFS, but some network file systems have none or keep them to one machine; there the
file alone tells of another machine's process, and nobody can tell from here whether that still runs.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import sys
import time
from pathlib import Path

from autoseg.errors import RunError
from autoseg.files import one_line, writing

LOCK = "lock"
"""Name of the file; it stays in the directory, as removing it would let two processes hold two files."""
_HELD = (errno.EACCES, errno.EAGAIN)
_FAR = 2**20
_held: set[Path] = set()
"""Directories that this process holds, since POSIX locks do not hold against their own process."""
_log = logging.getLogger(__name__)


class RunLock:
    """The lock of a run directory; `release` ends it."""

    def __init__(self, folder: Path) -> None:
        """Raises: RunError: another process, or another run of this one, uses the directory; it cannot be written."""
        self.folder = folder.resolve()
        if self.folder in _held:
            raise _in_use(folder, f"another run of this process ({os.getpid()})")
        with writing(folder / LOCK, "or give another --out"):
            self._file = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            with writing(folder / LOCK, "or give another --out"):
                self._take(folder)
        except BaseException:
            os.close(self._file)
            raise
        _held.add(self.folder)
        self._is_held = True

    def release(self) -> None:
        """Let other processes have the directory."""
        if self._is_held:
            with contextlib.suppress(OSError):  # the disk may be full or gone
                os.truncate(self._file, 0)
            os.close(self._file)
            _held.discard(self.folder)
            self._is_held = False

    def _take(self, folder: Path) -> None:
        holder = os.read(self._file, 1000).decode(errors="replace").split("\n")
        host, process, since = holder if len(holder) == 3 else ("", "", "")
        user = f"process {process} on {host} since {since}"
        own_host = socket.gethostname()
        try:
            _lock(self._file)
        except OSError as reason:
            if reason.errno in _HELD:
                raise _in_use(folder, user if host else "another process") from None
            if host == own_host and is_alive(process):
                raise _in_use(folder, user) from None
            _log.warning(f"{folder} cannot be locked ({one_line(reason)}); see that no other process uses it")
        if host and host != own_host:
            _log.warning(f"{user} has not ended its use of {folder}; if it still runs there, stop it or this one")
        os.truncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        os.write(self._file, f"{own_host}\n{os.getpid()}\n{time.strftime('%Y-%m-%d %H:%M:%S')}".encode())


def _in_use(folder: Path, user: str) -> RunError:
    return RunError(f"{folder} is in use by {user}; wait for it, stop it, or give another --out", code="run-in-use")


def is_alive(process: str) -> bool:
    """Whether this machine has a process with this number, as text."""
    if sys.platform == "win32":  # where signal 0 is Ctrl-C
        return True
    try:
        os.kill(int(process), 0)
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    except OSError:  # somebody else's
        return True
    return True


def _lock(file: int) -> None:
    """Lock a file at once. Raises: OSError: `_HELD` if another process has it; others where there are no locks."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(file, _FAR, os.SEEK_SET)  # a locked byte cannot be read
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
