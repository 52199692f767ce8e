"""The run directory: made once, never written over, found again after a kill."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import yaml
from helpers.errors import raises_code
from helpers.tiny_runs import SEARCH, assert_same_run, call, write_config

from autoseg.config.data import GeneratedConfig
from autoseg.engine import run_directory as run_module
from autoseg.engine.log import Progress, show_seconds
from autoseg.engine.run_directory import Run, refuse_used
from autoseg.errors import RunError

CONFIG = GeneratedConfig(train=3)


def test_create_and_open(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "deep" / "run", CONFIG, {"seed": 1})
    assert run.checkpoints.is_dir()
    assert yaml.safe_load((run.path / "environment.yaml").read_text()) == {"seed": 1}
    assert Run.open(run.path).settings == CONFIG.to_dict()
    with raises_code(RunError, "run-exists", run.path, "--out", "--resume"):
        Run.create(run.path, CONFIG, {})
    with raises_code(RunError, "run-missing", tmp_path / "nope", "not exist"):
        Run.open(tmp_path / "nope")
    with raises_code(RunError, "run-missing", tmp_path / "deep", "config.yaml"):
        Run.open(tmp_path / "deep")


def test_directories_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    for place in ("file", "file/run", "file/deep/run"):
        with raises_code(RunError, "folder-is-file", tmp_path / place, f"{tmp_path / 'file'} is a file"):
            refuse_used(tmp_path / place)
    with raises_code(RunError, "folder-not-empty", tmp_path / "full"):
        refuse_used(tmp_path / "full")
    refuse_used(tmp_path / "empty")
    refuse_used(tmp_path / "new" / "deep")


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 1])
def test_killed_while_the_directory_is_made(
    count: int, searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies at the first or second file; what it had written of that file stays behind."""
    real, calls = run_module.write_text, iter(range(100))

    def dying(path: Path, text: str) -> None:
        if next(calls) == count:
            path.with_name(f".{path.name}.999999999.tmp").write_text(text[:9])
            raise KeyboardInterrupt
        real(path, text)

    arguments = ["search", "--config", write_config(tmp_path / "c.yaml", SEARCH), "--out", tmp_path / "run"]
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "write_text", dying)
        with pytest.raises(AssertionError):  # the command did not succeed
            call(*arguments)
    call(*arguments, "--resume")
    assert_same_run(searched, tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {path.name for path in searched.iterdir()}


def test_metrics(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", CONFIG, {})
    run.rewind(0, 0)
    run.log("train", 0, 1, loss=1.5)
    size = run.metrics_size()
    run.log("val", 0, 2, miou=math.nan, loss=math.inf)
    assert run.metrics() == [
        {"kind": "train", "epoch": 0, "step": 1, "loss": 1.5},
        {"kind": "val", "epoch": 0, "step": 2, "miou": None, "loss": None},
    ]
    with run.metrics_path.open("a") as file:
        file.write('{"kind": "tr')  # cut off by a kill
    assert len(run.metrics()) == 2
    run.rewind(size, 1)
    run.close()
    assert [json.loads(line)["step"] for line in run.metrics_path.read_text().splitlines()] == [1]


def test_progress_in_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("search", 3) as progress:
        progress.update(1, loss=0.5, miou=None)
        progress.update(2)
        progress.update(3, miou=0.25)
    assert capsys.readouterr().err.splitlines() == ["search 3/3  loss 0.500  miou 0.250  0:00 left"]
    with Progress("search", 3, enabled=False) as progress:
        progress.update(3)
    assert capsys.readouterr().err == ""


def test_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 130.0, 130.0])
    monkeypatch.setattr("autoseg.engine.log.time.monotonic", lambda: next(clock))
    progress = Progress("search", 100, done=40)
    assert progress.time_left() == "?"
    progress.done = 50  # ten steps in thirty seconds, fifty to go
    assert progress.time_left() == "2:30"
    assert (show_seconds(59.6), show_seconds(3661)) == ("1:00", "1:01:01")


@pytest.mark.slow
def test_a_run_that_goes_on_with_other_threads_says_so(
    searched: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They change the last digits of gradients. What cannot be read of the environment is passed over."""
    out = Path(shutil.copytree(searched, tmp_path / "run"))
    environment = out / "environment.yaml"
    call("search", "--out", out, "--resume")
    assert "threads" not in caplog.text
    environment.write_text(environment.read_text().replace("threads: 1", "threads: 7"))
    call("search", "--out", out, "--resume")
    assert "threads 1, not 7" in caplog.text
    caplog.clear()
    environment.write_text("threads: [")
    call("search", "--out", out, "--resume")
    assert "threads" not in caplog.text
