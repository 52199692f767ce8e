"""Names of any letters: escaped where they are printed, quoted in hints, and never empty."""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from helpers.data_sets import write_folder
from helpers.errors import check_line, raises_code
from helpers.tiny_runs import SEARCH, files_of, write_config

from autoseg.cli.main import _Printable, run
from autoseg.config.data import SplitConfig
from autoseg.config.training import SearchSchedule
from autoseg.errors import ConfigError, DataError, printable
from autoseg.files import user_path
from autoseg.viz.heat_maps import draw_confusion
from autoseg.viz.style import save

ODD = "\udcff\x1b[31m\x9b\u202e$(touch x) 'b\""
"""Half a letter (a byte that is no UTF-8), controls of C0 and C1, a mark that turns writing round, and a command."""
_CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("größer 😀 a\\b", "größer 😀 a\\b"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\nb\tc\x7f", r"a\nb\tc\x7f"),
        ("\x9b31m\x85", r"\x9b31m\x85"),
        ("\u202egnp.exe\u2066", r"\u202egnp.exe\u2066"),
        ("line\u2028break", r"line\u2028break"),
        ("\udcff\ud800", r"\udcff\ud800"),
    ],
)
def test_no_letter_commands_a_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert str(DataError(f"label in {text}", code="a-b")) == f"label in {shown}"
    record = logging.LogRecord("autoseg", logging.WARNING, "", 0, text, None, None)
    assert _Printable().format(record) == shown


def test_figures_show_any_name(tmp_path: Path) -> None:
    for path in save(draw_confusion(np.eye(3, dtype=int), ["a\udcff", "b\x1b", "$x_{$"]), tmp_path / "c"):
        assert path.stat().st_size
    text = "".join(ElementTree.parse(tmp_path / "c.svg").getroot().itertext())
    assert all(name in text for name in (r"a\udcff", r"b\x1b", "$x_{$"))


EMPTY: list[list[str]] = [
    ["search", "--space", "tiny", "--data", "", "--out", "o"],
    ["search", "--space", "tiny", "--data", "generated", "--out="],
    ["retrain", "unet", "--data", "generated", "--out", "o", "--weights", ""],
    ["retrain", "", "--data", "generated", "--out", "o"],
    ["evaluate", "", "--out", "o"],
    ["evaluate", "r", "--out", ""],
    ["predict", "r", "", "--out", "o"],
    ["decode", ""],
    ["export", "unet", "--format", "json", "--out", ""],
    ["plot", "tiny", "--out="],
    ["check-data", ""],
    ["check-data", "d", "--json", ""],
    ["convert", "d", ""],
    ["demo", "--out", ""],
    ["plan", "--config", ""],
    ["show", ""],
    ["spaces", "--plugin", ""],
]


@pytest.mark.parametrize("arguments", EMPTY, ids=" ".join)
def test_an_empty_argument_is_not_the_current_folder(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    at = next(number for number, word in enumerate(arguments) if not word or word.endswith("="))
    assert run(arguments) == 2
    check_line(capsys.readouterr().err, "argument-empty", arguments[at].rstrip("=") or arguments[at - 1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("setting", ["data.root=", "search.cache_dir=''", "data.root=''"])
def test_an_empty_path_in_settings(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["search", "--space", "tiny", "--data", "generated", "--out", "o", "--set", setting]) == 2
    code = "setting-invalid" if "'" in setting else "assignment-invalid"
    check_line(capsys.readouterr().err, code, setting.partition("=")[0])
    with raises_code(ConfigError, "path-invalid", "empty"):
        user_path("")


def test_a_home_in_settings_is_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    place = SplitConfig(images="~/images", masks="masks", without=("~/list.txt",))
    assert (place.images, place.masks, place.without) == (f"{tmp_path}/images", "masks", (f"{tmp_path}/list.txt",))
    assert SearchSchedule(cache_dir="~/kept").cache_dir == f"{tmp_path}/kept"


@pytest.mark.slow
def test_every_command_with_names_of_any_letters(
    searched: Path, retrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run directories, data sets, images, outputs and the current folder; hints hold the path as one word."""
    try:
        (tmp_path / ODD).mkdir()
    except OSError:
        pytest.skip("this file system takes no such names")
    monkeypatch.chdir(tmp_path / ODD)
    found, trained, data, out = (Path(f"{name}{ODD}") for name in ("search", "retrain", "data", "out"))
    shutil.copytree(searched, found)
    shutil.copytree(retrained, trained)
    write_folder(data, {"train": [(40, 40)] * 8, "val": [(40, 40)] * 2})
    photo = f"photo{ODD}.png"
    shutil.copyfile(data / "val/images/0.png", photo)
    config = write_config(Path("c.yaml"), SEARCH, {"data": None}, {"search": {"epochs": 1, "arch_start_epoch": 0}})
    hints = []
    for arguments in (
        ["check-data", data, "--out", f"check{ODD}", "--json", f"figures{ODD}.json"],
        ["search", "--config", config, "--data", data, "--out", f"new{ODD}", "--set", "search.store=disk"],
        ["search", "--out", f"new{ODD}", "--resume", "--set", "search.epochs=2"],
        ["decode", found],
        ["plot", found, "--format", "svg"],
        ["export", found, "--format", "json", "--out", f"{out}.json"],
        ["export", found, "--format", "graphml", "--out", f"{out}.graphml"],
        ["export", found, "--format", "dot", "--out", f"{out}.dot"],
        ["show", found],
        ["evaluate", trained, "--out", f"{out}.scores.json"],
        ["predict", trained, photo, "--out", out],
        ["export", trained, "--format", "safetensors", "--out", f"{out}.safetensors"],
        ["convert", data, f"converted{ODD}"],
    ):
        status = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert status == 0, captured.err
        assert not _CONTROLS.search(captured.out + captured.err)
        hints += re.findall("next: (autoseg .*)", captured.out)
    assert [shlex.split(hint)[2] for hint in hints] == [
        printable(path)
        for path in (f"new{ODD}", f"new{ODD}", found / "genotype.yaml", Path(f"converted{ODD}/data.yaml"))
    ]
    assert f"labels/photo{ODD}.png" in files_of(out)


def test_output_that_is_full_is_one_line() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-m", "autoseg", "spaces"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    check_line(done.stderr, "output-unwritable", "output")
