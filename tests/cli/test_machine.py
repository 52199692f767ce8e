"""What the machine refuses, in every command: one line, status 2, before long work, and nothing is lost."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.errors import check_line
from helpers.tiny_runs import RETRAIN, SEARCH, files_of, write_config

from autoseg.cli import main, options
from autoseg.cli.main import run

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

OUT = "out"
LONG = [
    "autoseg.setup.start.open_dataset", "autoseg.setup.start.keep_samples", "autoseg.api.evaluate.load_for_inference",
    "autoseg.api.predict.load_for_inference", "autoseg.api.check_data.check_dataset", "autoseg.api.convert.resolve",
    "autoseg.api.plot._figures", "autoseg.api.demo.search", "autoseg.export.network.copy.deepcopy",
]  # fmt: skip
"""What a command must not get to."""


COMMANDS = [
    ["search", "--config", "search.yaml", "--out", OUT],
    ["retrain", "--config", "retrain.yaml", "--out", OUT],
    ["evaluate", "RETRAINED", "--out", f"{OUT}.json"],
    ["evaluate", "RETRAINED"],
    ["predict", "RETRAINED", ".", "--out", OUT],
    ["export", "RETRAINED", "--format", "onnx", "--out", OUT],
    ["export", "RETRAINED", "--format", "json", "--out", OUT],
    ["plot", "tiny", "--out", OUT],
    ["check-data", "generated", "--out", OUT],
    ["check-data", "generated", "--json", OUT],
    ["convert", ".", OUT],
    ["demo", "--out", OUT],
]
NUMBERS = (errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EMFILE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "number"),
    [*((command, errno.ENOSPC) for command in COMMANDS), *((COMMANDS[0], number) for number in NUMBERS)],
    ids=lambda value: os.strerror(value) if isinstance(value, int) else " ".join(value),
)
def test_a_place_that_takes_no_file_is_said_before_long_work(
    command: list[str],
    number: int,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path / "search.yaml", SEARCH)
    write_config(tmp_path / "retrain.yaml", RETRAIN)
    given = request.getfixturevalue("retrained") if "RETRAINED" in command else None
    before = files_of(tmp_path)
    monkeypatch.setattr("autoseg.files._refusal", lambda path: OSError(number, os.strerror(number)))
    for name in LONG:
        monkeypatch.setattr(name, lambda *_, name=name, **__: pytest.fail(f"it came to {name}"))
    capsys.readouterr()
    assert run([str(given) if word == "RETRAINED" else word for word in command]) == 2
    place = given if command == ["evaluate", "RETRAINED"] else OUT
    code = "disk-full" if number in (errno.ENOSPC, errno.EDQUOT) else "file-unwritable"
    check_line(capsys.readouterr().err, code, place, os.strerror(number))
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    ("reason", "code", "named"),
    [
        (OSError(errno.EMFILE, "Too many open files", "a.png"), "file-unusable", ("a.png", "ulimit -n")),
        (OSError(errno.EIO, "Input/output error", "b"), "file-unusable", ("b", "Input/output")),
        (OSError(errno.ENOSPC, "No space left on device"), "disk-full", ("output", "No space left")),
        (RuntimeError("can't start new thread"), "out-of-memory", ("threads", "ulimit -a")),
        (torch.OutOfMemoryError("CUDA out of memory"), "out-of-memory", ("memory",)),
    ],
    ids=str,
)
def test_what_no_command_expects(
    reason: Exception,
    code: str,
    named: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object) -> None:
        raise reason

    monkeypatch.setattr(options, "say", refuse)
    assert run(["spaces"]) == 2
    check_line(capsys.readouterr().err, code, *named)
    with pytest.raises(type(reason)):
        run(["spaces", "--debug"])


def test_a_fault_of_ours_is_no_fault_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "our fault")

    monkeypatch.setattr(options, "say", wrong)
    with pytest.raises(FileNotFoundError, match="our fault"):
        main.run(["spaces"])


@pytest.mark.slow
def test_the_table_of_small_containers(searched: Path, tmp_path: Path) -> None:
    """One cell of each kind, without what needs rights: a limit, and a full output."""
    import small_container

    (tmp_path / "search").symlink_to(searched)
    assert small_container.run("decode GIVEN/search --out OUT/a.yaml", "24 descriptors", tmp_path)[0].startswith("done")
    cell, line = small_container.run("decode GIVEN/search --out OUT/a.yaml", small_container.STDOUT_FULL, tmp_path)
    assert cell.startswith("output-unwritable"), line
    cell, fault = small_container.run("export GIVEN/search --format json", "24 descriptors", tmp_path)
    assert cell.startswith("FAULT")  # an error in the use of the command has no code
    assert "--out" in fault


def is_mountable() -> bool:
    return sys.platform == "linux" and not subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode


@pytest.mark.slow
@pytest.mark.skipif(not is_mountable(), reason="no disk can be mounted here")
def test_a_real_disk_that_is_full_or_read_only(searched: Path, tmp_path: Path) -> None:
    import small_container

    (tmp_path / "search").symlink_to(searched)
    for condition, code in (("full disk", "disk-full"), ("read-only disk", "file-unwritable")):
        cell, line = small_container.run("decode GIVEN/search --out OUT/a.yaml", condition, tmp_path)
        assert cell.startswith(code), line
