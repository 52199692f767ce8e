"""Standard streams that are closed, full, or whose reader has gone."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from helpers.errors import check_line
from helpers.tiny_runs import SEARCH, checkpoint, write_config

from autoseg.__main__ import main as start
from autoseg.cli.streams import Output, lasting_streams

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


class Gone:
    """A file that fails."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.writes = 0

    def write(self, data: bytes) -> int:
        self.writes += 1
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize(
    ("number", "fails"), [(errno.ENOSPC, True), (errno.EFBIG, True), (errno.EPIPE, False), (errno.EIO, False)]
)
def test_what_cannot_be_written_is_dropped(number: int, fails: bool) -> None:
    gone = Gone(number)
    output = Output(gone)
    assert output.write(b"lost") == 4
    assert output.write(b"too") == 3
    assert gone.writes == 1
    assert output.lost is not None
    assert (output.failed is not None) == fails


def test_streams_are_given_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with lasting_streams() as output:
        print("to out")
        print("to err", file=sys.stderr)
        assert output.failed is None
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr() == ("to out\n", "to err\n")


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """A command in a shell, with `autoseg` as this Python's."""
    command = command.replace("autoseg ", f"{sys.executable} -m autoseg ")
    arguments = ["bash", "-c", f"export OMP_NUM_THREADS=1; set -o pipefail; {command}"]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.slow
def test_a_full_output_is_an_error() -> None:
    ended = shell("autoseg spaces >/dev/full")
    assert ended.returncode == 2
    check_line(ended.stderr, "output-unwritable", "No space left on device")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "status"), [("spaces | true", 0), ("spaces <&- >/dev/full 2>&-", 2), ("nothing 2>/dev/full", 2)]
)
def test_nothing_more_is_said(command: str, status: int) -> None:
    ended = shell(f"autoseg {command}")
    assert (ended.returncode, ended.stderr) == (status, "")


@pytest.mark.slow
def test_a_run_goes_on_without_its_terminal(tmp_path: Path) -> None:
    """Its input is closed, its output full, the reader of its errors gone, and SIGHUP ignored, as by `nohup`."""
    shorter = {"search": {"epochs": 2, "max_steps_per_epoch": 1}}
    arguments = f"search --config {write_config(tmp_path / 'c.yaml', SEARCH, shorter)} --out {tmp_path / 'run'}"
    ended = shell(f"(trap '' HUP; autoseg {arguments} <&- 2>&1 >/dev/full & sleep 1; kill -HUP $!; wait $!) | true")
    assert ended.returncode == 0
    assert checkpoint(tmp_path / "run")["epoch"] == 2


@pytest.mark.slow
def test_no_stream_is_taken_for_a_file() -> None:
    """Without the number of a closed stream, the next file gets it, and messages of libraries land in that file."""
    code = "import os\nfrom autoseg.cli.streams import lasting_streams\nwith lasting_streams(): print(os.dup(0))"
    ended = shell(f'{sys.executable} -c "{code}" <&- 2>&-')
    assert int(ended.stdout) > 2


def test_a_signal_while_the_command_line_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    loading = ModuleType("autoseg.cli.main")
    monkeypatch.setattr(loading, "__getattr__", interrupted, raising=False)
    monkeypatch.setitem(sys.modules, "autoseg.cli.main", loading)
    with pytest.raises(SystemExit) as ended:
        start()
    assert ended.value.code == 130
