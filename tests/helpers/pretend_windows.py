"""What Windows does otherwise, made up for one process on Linux: calls that it lacks, and files that are open."""

from __future__ import annotations

import builtins
import ctypes
import errno
import fcntl
import io
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch._dynamo
import torch.utils.tensorboard  # noqa: F401

from autoseg.viz import heat_maps  # noqa: F401

FORBIDDEN = frozenset('<>:"|?*')
"""In names of files."""
LINUX = ("/proc/", "/sys/")
"""Where Linux tells of itself."""
NO_CALLS = (
    "chown", "ctermid", "fchdir", "fchmod", "fchown", "fdatasync", "fork", "forkpty", "getegid", "geteuid", "getgid",
    "getgroups", "getloadavg", "getpgid", "getpgrp", "getpriority", "getresuid", "getsid", "getuid", "killpg", "lchown",
    "lockf", "major", "mkfifo", "mknod", "nice", "openpty", "pathconf", "pipe2", "posix_fadvise", "posix_fallocate",
    "pread", "preadv", "pwrite", "pwritev", "readv", "sched_getaffinity", "sched_setaffinity", "sched_yield",
    "sendfile", "setgid", "setpgid", "setpriority", "setsid", "setuid", "sync", "sysconf", "tcgetpgrp", "uname",
    "wait3", "wait4", "writev",
)  # fmt: skip
"""Of `os`."""
SIGNALS = ("SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM", "SIGBREAK")
"""Those that it has; `signal.signal` refuses others."""
NO_SIGNAL_CALLS = (
    "alarm",
    "pause",
    "pthread_kill",
    "pthread_sigmask",
    "setitimer",
    "sigpending",
    "sigwait",
    "siginterrupt",
)


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In here the system is like Windows, as far as Python shows it."""
    _without_calls(monkeypatch)
    _with_windows_files(monkeypatch)
    monkeypatch.setattr(ctypes, "CDLL", _refuse_no_name(ctypes.CDLL))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)  # has a way of its own there


def _without_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NO_CALLS:
        monkeypatch.delattr(os, name, raising=False)
    for name in NO_SIGNAL_CALLS:
        monkeypatch.delattr(signal, name, raising=False)
    known = {getattr(signal, name) for name in SIGNALS if hasattr(signal, name)}
    for name in [name for name in vars(signal) if name.startswith("SIG") and name[3] != "_"]:
        if name not in (*SIGNALS, "SIG_DFL", "SIG_IGN"):
            monkeypatch.delattr(signal, name)
    set_handler = signal.signal

    def refusing(number: int, handler: Any) -> Any:
        if number not in known:
            raise ValueError("invalid signal value")
        return set_handler(number, handler)

    monkeypatch.setattr(signal, "signal", refusing)


def _with_windows_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushing needs a handle that may write; an open file cannot be replaced or removed; names are checked."""
    fsync = os.fsync

    def flush(handle: int) -> None:
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        fsync(handle)

    def while_open(call: Callable[..., Any], both: bool) -> Callable[..., Any]:
        def refusing(path: Any, *more: Any, **settings: Any) -> Any:
            for file in (path, *more[:1]) if both else (path,):
                if _is_open(file):
                    raise PermissionError(errno.EACCES, "The process cannot access the file", str(file))
            return call(path, *more, **settings)

        return refusing

    opened = io.open

    def open_checked(file: Any, *arguments: Any, **settings: Any) -> Any:
        if not isinstance(file, int) and FORBIDDEN & set(os.path.basename(os.fspath(file))):
            raise OSError(errno.EINVAL, "Invalid argument", file)
        if str(file).startswith(LINUX):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", file)
        return opened(file, *arguments, **settings)

    monkeypatch.setattr(os, "fsync", flush)
    for name, both in (("replace", True), ("rename", True), ("unlink", False), ("remove", False)):
        monkeypatch.setattr(os, name, while_open(getattr(os, name), both))
    for module in (io, builtins):
        monkeypatch.setattr(module, "open", open_checked)


def _is_open(path: Any) -> bool:
    """Does this process hold a file open, or mapped into memory, or one in this folder?"""
    if not os.path.exists(path):
        return False
    file = os.path.realpath(path)
    within = tuple(os.path.join(file, name) for name in os.listdir(file)) if os.path.isdir(file) else (file,)
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            if os.path.realpath(f"/proc/self/fd/{descriptor}") in within:
                return True
        except OSError:
            continue
    with os.fdopen(os.open("/proc/self/maps", os.O_RDONLY)) as maps:
        return any(line.rstrip("\n").endswith(tuple(f" {held}" for held in within)) for line in maps)


def _refuse_no_name(load: Any) -> Any:
    def refusing(name: Any, *arguments: Any, **settings: Any) -> Any:
        if name is None:
            raise TypeError("bad argument type for built-in operation")
        return load(name, *arguments, **settings)

    return refusing
