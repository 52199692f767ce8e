"""Every command on a system like Windows (`pretend_windows`), and no call in the package that Windows lacks."""

from __future__ import annotations

import ast
import ctypes
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.data_sets import write_folder
from helpers.errors import check_line
from helpers.pretend_windows import FORBIDDEN, NO_CALLS, NO_SIGNAL_CALLS, SIGNALS, windows
from helpers.tiny_runs import RETRAIN, SEARCH, call, rows, write_config
from PIL import Image

from autoseg.cli.main import run
from autoseg.data.loading.cache import keep_samples
from autoseg.errors import ConfigError
from autoseg.planning.device import device_memory

__all__ = ["windows"]  # the fixture

PACKAGE = Path(__file__).parents[2] / "autoseg"
POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
GUARDED = {
    ("host_memory.py", "os", "sysconf"),
    ("engine/run_lock.py", "import", "fcntl"),
    ("data/loading/workers.py", "signal", "SIGCHLD"),
}
"""Where AttributeError is caught (`test_memory_is_not_known`), and on other systems than Windows, or with SIGCHLD."""


def test_the_system_is_like_windows(windows: None, tmp_path: Path) -> None:
    """What the other tests here rely on."""
    assert not hasattr(os, "pwrite")
    assert not hasattr(signal, "SIGKILL")
    with pytest.raises(ValueError, match="invalid signal"):
        signal.signal(9, signal.SIG_IGN)
    with pytest.raises(TypeError):
        ctypes.CDLL(None)
    file = tmp_path / "a.txt"
    file.write_text("a")
    (tmp_path / "b.txt").write_text("b")
    with file.open("rb") as held:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fsync(held.fileno())
        with pytest.raises(PermissionError):
            (tmp_path / "b.txt").replace(file)
        with pytest.raises(PermissionError):
            file.unlink()
    mapped = np.memmap(file, mode="r")
    with pytest.raises(PermissionError):
        (tmp_path / "b.txt").replace(file)
    del mapped
    (tmp_path / "b.txt").replace(file)
    (tmp_path / "some").mkdir()
    with (tmp_path / "some" / "c.txt").open("w"), pytest.raises(PermissionError):
        (tmp_path / "some").replace(tmp_path / "other")
    (tmp_path / "some").replace(tmp_path / "other")
    with pytest.raises(OSError, match="Invalid argument"):
        (tmp_path / "10:30.txt").write_text("")


@pytest.mark.slow
def test_every_command(windows: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_folder(tmp_path / "my data", {"train": [(40, 40)] * 8, "val": [(36, 44)] * 2}, labels=5)
    configs = {kind: write_config(tmp_path / f"{kind}.yaml", settings) for kind, settings in
               (("search", SEARCH), ("retrain", RETRAIN))}  # fmt: skip
    a, b = tmp_path / "a", tmp_path / "b"
    disk = ["--set", f"search.cache_dir={tmp_path / 'cache'}", "--set", "search.store=disk"]
    call("check-data", data, "--out", tmp_path / "checked")
    call("plan", "--config", configs["search"], "--data", data, "--memory", "1GB", "--no-time",
         "--set", "space.cell.operations=[none, skip_connect]")  # fmt: skip
    call("search", "--config", configs["search"], "--data", data, "--out", a, *disk, "--set", "search.epochs=2")
    assert len(rows(a, "val")) == 2
    assert len(list((tmp_path / "cache").iterdir())) == 2
    call("decode", a)
    call("retrain", "--config", configs["retrain"], "--data", data, "--out", b, "--set", "retrain.epochs=1")
    call("evaluate", b, "--plot")
    call("predict", b, data / "val" / "images", "--out", tmp_path / "out")
    call("plot", a)
    call("export", b, "--format", "safetensors", "--out", tmp_path / "net.safetensors")
    assert np.asarray(Image.open(tmp_path / "out" / "labels" / "1.png")).shape == (36, 44)
    assert not [path for path in tmp_path.rglob("*") if FORBIDDEN & set(path.name)]
    assert not list(tmp_path.rglob("*.tmp"))
    for path in (a / "config.yaml", a / "metrics.jsonl", b / "evaluation_val.json"):
        assert b"\r" not in path.read_bytes()


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on(windows: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are replaced and cut to the checkpoint. Ctrl-C is the signal that Windows sends."""
    config, steps = write_config(tmp_path / "c.yaml", RETRAIN), []
    log = "autoseg.engine.run_directory.Run.log"

    def stop(*arguments: object, **figures: object) -> None:
        steps.append(arguments)
        if len(steps) == 5:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(log, stop)
        assert run(["retrain", "--config", str(config), "--out", str(tmp_path / "a")]) == 130
    call("retrain", "--out", tmp_path / "a", "--resume")
    assert rows(tmp_path / "a", "train")[-1]["step"] == 16


def test_samples_that_are_in_use_are_done_without(
    windows: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another program has mapped some that are out of date, which cannot be removed."""
    from autoseg.config.data import DataConfig
    from autoseg.data.dataset import open_dataset, resolve

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    data = write_folder(tmp_path / "data", {"train": [(40, 40)] * 3, "val": [(36, 44)]}, labels=5)
    config = resolve(DataConfig(root=str(data)))
    kept = open_dataset(config, "train")
    assert keep_samples(kept, "disk", torch.device("cpu"), tmp_path / "cache") == "disk"
    os.utime(data / "train" / "images" / "0.png", ns=(1, 1))
    again = open_dataset(config, "train")
    assert keep_samples(again, "disk", torch.device("cpu"), tmp_path / "cache") == "none"
    assert "cannot be kept in" in caplog.text
    assert np.array_equal(again.load(1).image, kept.load(1).image)


def test_memory_is_not_known(windows: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the Windows API, which is not here: a plan asks for it, and a run goes without."""
    with pytest.raises(ConfigError, match="--memory"):
        device_memory(torch.device("cpu"))
    config = write_config(tmp_path / "c.yaml", SEARCH)
    assert run(["plan", "--config", str(config), "--no-time"]) == 2
    check_line(capsys.readouterr().err, "memory-unknown", "--memory", "16GB")


# --- what the package calls -------------------------------------------------------------------------------------------


def calls(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(module, name) of every attribute that is read of `os` and `signal`, and ("import", module)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("os", "signal"):
            yield node.value.id, node.attr
        elif isinstance(node, ast.Import):
            yield from (("import", alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "import", (node.module or "").partition(".")[0]
            yield from ((node.module or "", alias.name) for alias in node.names)


def missing_on_windows(module: str, name: str) -> bool:
    if module == "import":
        return name in POSIX_MODULES
    if module == "os":
        return name in NO_CALLS
    is_signal = name.startswith("SIG") and not name.startswith("SIG_")
    return module == "signal" and (name in NO_SIGNAL_CALLS or (is_signal and name not in SIGNALS))


@pytest.mark.slow
def test_the_package_calls_nothing_that_windows_lacks() -> None:
    found = {
        (path.relative_to(PACKAGE).as_posix(), *called)
        for path in PACKAGE.rglob("*.py")
        for called in calls(ast.parse(path.read_text(encoding="utf-8")))
        if missing_on_windows(*called)
    }
    assert found == GUARDED


@pytest.mark.parametrize(
    "code", ["import os; os.pwrite(1, b'', 0)", "from os import fork", "import fcntl", "from resource import getrusage",
             "import signal; signal.signal(signal.SIGHUP, None)"]
)  # fmt: skip
def test_such_a_call_would_be_found(code: str) -> None:
    assert any(missing_on_windows(*called) for called in calls(ast.parse(code)))
