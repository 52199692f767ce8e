"""A disk that fills in the middle of a run: one line, what was saved stays, and the run goes on to the same end.

The limit of a file's size (RLIMIT_FSIZE) makes the system refuse in the middle of a file, for any user.
"""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.errors import check_line, raises_code
from helpers.tiny_runs import RETRAIN, SEARCH, assert_same_run, files_of, retrain_task, search_task, write_config
from PIL import Image

from autoseg.api import predict as predicting
from autoseg.cli.main import run
from autoseg.data.loading import packed
from autoseg.engine.board import Board
from autoseg.engine.run_directory import Run
from autoseg.engine.trainer import checkpoints_bytes
from autoseg.errors import RunError
from autoseg.files import check_room, write_atomically, write_text


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system writes no file beyond this size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def refuse(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int, size: Callable[..., int]) -> None:
    """From the `call`-th call of a function on, it may not write files beyond `size` of its arguments."""
    function, calls = getattr(owner, name), [0]

    def limited(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] < call:
            return function(*arguments, **named)
        with files_of_at_most(size(*arguments)):
            return function(*arguments, **named)

    monkeypatch.setattr(owner, name, limited)


CASES: dict[str, tuple[Any, str, int, Callable[..., int], str]] = {
    "checkpoint": (torch, "save", 7, lambda *_: 20_000, "last.pt"),
    "metrics": (Run, "log", 6, lambda run, *_: run.metrics_size() + 20, "metrics.jsonl"),
    "events": (Board, "add", 6, lambda board, *_: board.path.stat().st_size + 20, "events.out"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_disk_that_fills_in_the_middle_of_a_run(
    case: str, retrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    owner, name, call, size, named = CASES[case]
    out, config = tmp_path / "run", write_config(tmp_path / "config.yaml", RETRAIN)
    with monkeypatch.context() as patch:
        refuse(patch, owner, name, call, size)
        assert run(["retrain", "--config", str(config), "--out", str(out)]) == 2
    check_line(capsys.readouterr().err.splitlines()[-1], "disk-full", out, named, "free", "make room", "--resume")
    assert not [path for path in files_of(out) if path.endswith(".tmp")]
    saved = torch.load(out / "checkpoints/last.pt", weights_only=True)
    assert saved["step_in_epoch"] in (5, 6)
    assert run(["retrain", "--out", str(out), "--resume"]) == 0
    assert_same_run(out, retrained)


def test_a_file_that_does_not_fit_leaves_nothing_and_the_old_one(tmp_path: Path) -> None:
    """PyTorch, NumPy, Pillow, and Python itself. NumPy alone does not say why; a disk that is full is asked then."""
    noise = np.random.default_rng(0).integers(0, 255, (100, 100, 3)).astype(np.uint8)
    old = tmp_path / "a"
    old.write_text("old")

    def array(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, noise)

    def tensor(path: Path) -> None:
        with path.open("wb") as file:
            torch.save(torch.from_numpy(noise), file)

    writers: list[tuple[Callable[[Path], Any], str]] = [
        (array, "file-unwritable"),
        (tensor, "disk-full"),
        (lambda path: Image.fromarray(noise).save(path, format="PNG"), "disk-full"),
        (lambda path: path.write_bytes(noise.tobytes()), "disk-full"),
    ]
    for write, code in writers:
        with files_of_at_most(10_000), raises_code(RunError, code, old, "give another place"):
            write_atomically(old, write)
        assert files_of(tmp_path) == {"a": b"old"}
    with pytest.raises(RuntimeError, match="our fault"):
        write_atomically(old, our_fault)


def our_fault(path: Path) -> None:
    raise RuntimeError("our fault")


@pytest.mark.parametrize("kind", ["search", "retrain"])
def test_the_size_of_checkpoints_is_foreseen(kind: str, request: pytest.FixtureRequest) -> None:
    """Within a tenth of tensors; the file has names and settings besides."""
    task: Any = search_task() if kind == "search" else retrain_task()
    out: Path = request.getfixturevalue("searched" if kind == "search" else "retrained")
    foreseen = checkpoints_bytes(task) / (task.schedule.keep_checkpoints + 3)
    saved = torch.load(out / "checkpoints/last.pt", weights_only=True)["state"]
    tensors = [leaf for leaf in torch.utils._pytree.tree_leaves(saved) if isinstance(leaf, torch.Tensor)]
    assert foreseen == pytest.approx(sum(tensor.nbytes for tensor in tensors), rel=0.1)


def test_room_is_asked_for_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=20_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr("autoseg.setup.start.keep_samples", lambda *_: pytest.fail("it was read"))
    for command, settings in (("search", SEARCH), ("retrain", RETRAIN)):
        config = write_config(tmp_path / "config.yaml", settings)
        out = tmp_path / "run"
        assert run([command, "--config", str(config), "--out", str(out)]) == 2
        check_line(capsys.readouterr().err.splitlines()[-1], "disk-full", out, "20.0 KB are free", "keep_checkpoints")
        assert not out.exists()


def test_a_place_is_tried_and_nothing_is_left(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    for path in (tmp_path / "a", tmp_path, tmp_path / "no/such/folder"):
        check_room(path, 1000)
    with raises_code(RunError, "disk-full", tmp_path / "b", "needs 1000 TB"):
        check_room(tmp_path / "b", 10**15)
    with files_of_at_most(1000), raises_code(RunError, "disk-full", tmp_path / "b"):
        check_room(tmp_path / "b")
    assert files_of(tmp_path) == {"a": b"old"}


def test_a_full_cache_leaves_nothing_behind(tmp_path: Path) -> None:
    layout = packed.Layout([(64, 64)], np.dtype(np.uint8))
    image, mask = np.ones((64, 64, 3), np.uint8), np.ones((64, 64), np.uint8)
    with files_of_at_most(5000), pytest.raises(OSError, match="File too large"):
        packed.write_folder(tmp_path / "kept", "x", layout, lambda put: put(0, image, mask))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_was_predicted_and_measured_before_is_kept(
    retrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Predictions of earlier images stay whole. Scores that cannot be written are printed, since they took long."""
    photos, out, scores = tmp_path / "photos", tmp_path / "out", tmp_path / "scores.json"
    photos.mkdir()
    for name in "abc":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8)).save(
            photos / f"{name}.png"
        )
    monkeypatch.setattr("autoseg.api.evaluate.write_text", limited_write_text)
    refuse(monkeypatch, predicting, "write_atomically", 4, lambda *_: 50)
    assert run(["predict", str(retrained), str(photos), "--out", str(out)]) == 2
    check_line(capsys.readouterr().err.splitlines()[-1], "disk-full", out / "overlays" / "b.png", "free")
    assert sorted(files_of(out)) == ["labels/a.png", "labels/b.png", "overlays/a.png"]
    assert run(["evaluate", str(retrained), "--out", str(scores)]) == 2
    captured = capsys.readouterr()
    check_line(captured.err.splitlines()[-1], "disk-full", scores, "free")
    assert json.loads(captured.out)["images"] == 5
    assert not scores.exists()


def limited_write_text(path: Path, text: str) -> None:
    with files_of_at_most(100):
        write_text(path, text)
