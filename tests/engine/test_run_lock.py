"""The lock of a run directory: one process at a time, none after a killed one, and what cannot be known is said."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.errors import check_line, raises_code
from helpers.tiny_runs import SEARCH, call, rows, write_config

from autoseg.cli.main import run
from autoseg.engine import run_lock
from autoseg.engine.run_directory import Run
from autoseg.engine.run_lock import LOCK, RunLock
from autoseg.errors import RunError

HOLD = """
import sys, time
from pathlib import Path
from autoseg.engine.run_lock import RunLock
lock = RunLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@contextmanager
def holding(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


def test_another_process_is_named(tmp_path: Path) -> None:
    with holding(tmp_path) as other:
        named = [tmp_path, f"process {other.pid} on {socket.gethostname()} since 20", "--out"]
        for _ in range(2):  # a refused attempt does not end the lock
            with raises_code(RunError, "run-in-use", *named):
                RunLock(tmp_path)


def test_a_killed_process_leaves_no_lock(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with holding(tmp_path):
        pass
    assert (tmp_path / LOCK).read_text().startswith(socket.gethostname())
    RunLock(tmp_path).release()
    assert not caplog.records
    assert (tmp_path / LOCK).read_text() == ""


def test_one_run_of_a_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = RunLock(tmp_path)
    monkeypatch.chdir(tmp_path)
    with raises_code(RunError, "run-in-use", "another run of this process", os.getpid()):
        RunLock(Path())
    lock.release()
    again = RunLock(Path())
    lock.release()  # has no part in the second one
    with raises_code(RunError, "run-in-use"):
        RunLock(tmp_path)
    again.release()


def test_a_released_lock_is_free_for_others(tmp_path: Path) -> None:
    RunLock(tmp_path).release()
    with holding(tmp_path):
        pass


def test_a_process_of_another_machine_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="autoseg")
    (tmp_path / LOCK).write_text("elsewhere\n77\n2026-01-02 03:04:05")
    lock = RunLock(tmp_path)
    (message,) = caplog.messages
    assert message.startswith("process 77 on elsewhere since 2026-01-02 03:04:05 has not ended its use of")
    lock.release()
    caplog.clear()
    RunLock(tmp_path).release()
    assert not caplog.messages


@pytest.mark.parametrize("process", [str(os.getppid()), "999999999", "", "x"])
def test_a_file_system_without_locks(
    process: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(file: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(run_lock, "_lock", refuse)
    (tmp_path / LOCK).write_text(f"{socket.gethostname()}\n{process}\n2026-01-02 03:04:05")
    if process == str(os.getppid()):
        with raises_code(RunError, "run-in-use", f"process {process} on"):
            RunLock(tmp_path)
    else:
        RunLock(tmp_path).release()
        assert [message for message in caplog.messages if "cannot be locked" in message]


@pytest.mark.parametrize("content", [b"\0" * 40, b"\xff\xfe", b"a\nb\nc\nd", b"x" * 5000])
def test_a_damaged_file_hinders_nobody(content: bytes, tmp_path: Path) -> None:
    (tmp_path / LOCK).write_bytes(content)
    lock = RunLock(tmp_path)
    assert (tmp_path / LOCK).read_text().split("\n")[:2] == [socket.gethostname(), str(os.getpid())]
    lock.release()


def test_no_folder(tmp_path: Path) -> None:
    with raises_code(RunError, "file-unwritable", tmp_path / "none", "--out"):
        RunLock(tmp_path / "none")


@contextmanager
def searching(config: Path, out: Path, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that searches; it is killed at the end."""
    arguments = ["search", "--config", str(config), "--out", str(out), *more]
    code = "import sys; from autoseg.cli.main import run; sys.exit(run(sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_resume_beside_a_live_run_and_after_its_death(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    config = write_config(tmp_path / "c.yaml", SEARCH, {"search": {"epochs": 4, "log_every": 1}})
    with searching(config, out) as other:
        deadline = time.monotonic() + 60
        while not ((out / "metrics.jsonl").exists() or other.poll() is not None or time.monotonic() > deadline):
            time.sleep(0.05)
        os.kill(other.pid, signal.SIGSTOP)  # it lives on, and does not end before it is asked about
        for how in (["--resume"], ["--config", str(config), "--resume"]):
            assert run(["search", "--out", str(out), *how]) == 2
            line = capsys.readouterr().err.splitlines()[-1]
            check_line(line, "run-in-use", out, f"process {other.pid} on {socket.gethostname()}")
    call("search", "--out", out, "--resume")
    assert [row["step"] for row in rows(out, "train")] == list(range(1, 17))
    assert (out / LOCK).read_text() == ""


@pytest.mark.slow
def test_several_starts_at_once_make_one_run(tmp_path: Path) -> None:
    """As `torchrun` starts them."""
    out = tmp_path / "run"
    config = write_config(tmp_path / "c.yaml", SEARCH, {"search": {"epochs": 2, "log_every": 1}})
    with searching(config, out) as one, searching(config, out) as two:
        assert sorted([one.wait(120), two.wait(120)]) == [0, 2]
    assert [row["step"] for row in rows(out, "train")] == list(range(1, 9))


def test_a_failed_start_leaves_no_lock(tmp_path: Path) -> None:
    run_directory = Run(tmp_path)
    run_directory.hold()
    with raises_code(RunError, "run-in-use"):
        Run(tmp_path).hold()
    run_directory.close()
    Run(tmp_path).hold()


def test_unfinished_files_of_living_processes_stay(tmp_path: Path) -> None:
    run_directory = Run(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    for name in (f".genotype.yaml.{os.getppid()}.tmp", ".config.yaml.999999999.tmp", "checkpoints/.last.pt.x.tmp"):
        (tmp_path / name).touch()
    run_directory.complete({})
    run_directory.close()
    assert [path.name for path in tmp_path.rglob("*.tmp")] == [f".genotype.yaml.{os.getppid()}.tmp"]
