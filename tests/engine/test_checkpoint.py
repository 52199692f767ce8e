"""Checkpoints: what was saved comes back, and nothing else is ever taken for one."""

from __future__ import annotations

import os
import pickle
import random
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from helpers.errors import raises_code
from helpers.tiny_runs import SEARCH, SPACE, call, checkpoint, write_config

from autoseg.cli.main import run
from autoseg.engine.checkpoint import ADDED, CHECKPOINT_VERSION, load_checkpoint, save_checkpoint
from autoseg.engine.predict import load_network
from autoseg.errors import CheckpointError, RunError

SPACE_DATA = {"name": "mini", "layers": 2}
COUNTS = {"epoch": 3, "step_in_epoch": 0, "best_miou": None, "seconds": 1.5, "metrics_bytes": 10}
CONTENTS = {**COUNTS, "state": {"weight": torch.arange(6.0).reshape(2, 3), "list": [1, (2, 3)]}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "last.pt"
    save_checkpoint(path, "search", SPACE_DATA, CONTENTS)
    return path


def refused(path: Path, code: str, *named: object, kind: Any = "search", architecture: Any = None) -> None:
    with raises_code(CheckpointError, code, path, *named):
        load_checkpoint(path, kind, architecture)


def test_round_trip(path: Path) -> None:
    loaded = load_checkpoint(path, "search", SPACE_DATA)
    assert torch.equal(loaded["state"].pop("weight"), CONTENTS["state"]["weight"])  # type: ignore[index]
    assert loaded == {
        "version": CHECKPOINT_VERSION, "kind": "search", "architecture": SPACE_DATA, **COUNTS,
        "state": {"list": [1, (2, 3)]}, **ADDED,
    }  # fmt: skip


@pytest.mark.slow
def test_missing_truncated_and_damaged(path: Path, tmp_path: Path) -> None:
    refused(tmp_path / "none.pt", "checkpoint-missing", "--resume")
    whole = path.read_bytes()
    rng = random.Random(0)
    for length in (0, 1, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(path, "checkpoint-damaged")
    path.write_text("not a checkpoint at all")
    refused(path, "checkpoint-damaged")
    for _ in range(100):  # a flipped byte is either noticed in one line or in a place that does not matter
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(damaged))
        try:
            load_checkpoint(path, "search", SPACE_DATA)
        except CheckpointError as reason:
            assert "\n" not in str(reason)  # noqa: PT017 - most flips are caught, but not all have to be


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_code_in_a_checkpoint_is_never_run(writer: str, tmp_path: Path) -> None:
    path, mark = tmp_path / "evil.pt", tmp_path / "mark"
    payload = {"version": 1, "kind": "search", "architecture": SPACE_DATA, "state": Bomb(mark)}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload, path)
    refused(path, "checkpoint-damaged")
    assert not mark.exists()
    torch.load(path, weights_only=False) if writer == "torch" else pickle.loads(path.read_bytes())
    assert mark.exists()  # it would have run


def test_of_another_kind_version_or_space(path: Path, tmp_path: Path) -> None:
    refused(path, "checkpoint-kind-differs", "of a retrain", "autoseg retrain", kind="retrain")
    differs = "checkpoint-architecture-differs"
    refused(path, differs, "space", "space.name: mini, not tiny", architecture={"name": "tiny"})
    refused(path, differs, "space", "space.layers: 2, not 3", architecture={"name": "mini", "layers": 3})
    for payload in ([1], {"kind": "search"}, {"kind": "search", "version": "1"}):
        torch.save(payload, tmp_path / "other.pt")
        refused(tmp_path / "other.pt", "checkpoint-kind-differs", "of a search")
    torch.save({"kind": "search", "version": CHECKPOINT_VERSION + 1}, tmp_path / "new.pt")
    refused(tmp_path / "new.pt", "version-too-new", f"version {CHECKPOINT_VERSION + 1}", "update autoseg")


def test_a_write_that_fails_leaves_the_old_checkpoint(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(payload: object, file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with raises_code(RunError, "disk-full", path, "No space left", "free", "--resume"):
        save_checkpoint(path, "search", SPACE_DATA, {"epoch": 4})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


# --- in a run ---------------------------------------------------------------------------------------------------------


def resuming_refused(run_directory: Path, capsys: pytest.CaptureFixture[str], code: str, *named: str) -> None:
    before = (run_directory / "metrics.jsonl").read_bytes()
    capsys.readouterr()
    assert run(["search", "--out", str(run_directory), "--resume"]) == 2
    assert (run_directory / "metrics.jsonl").read_bytes() == before
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert last.endswith(f" [{code}]")
    for text in (str(run_directory / "checkpoints" / "last.pt"), *named):
        assert text in last


@pytest.mark.slow
def test_resuming_from_a_checkpoint_that_does_not_belong(
    searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(searched, mine)
    other = {"space": {**SPACE, "name": "other"}, "search": {"epochs": 1, "arch_start_epoch": 0}}
    call("search", "--config", write_config(tmp_path / "o.yaml", SEARCH, other), "--out", tmp_path / "other")
    shutil.copy(tmp_path / "other" / "checkpoints" / "last.pt", mine / "checkpoints" / "last.pt")
    resuming_refused(mine, capsys, "checkpoint-architecture-differs", "space.name: other, not mini", "config.yaml")

    classes = {"data": {"num_classes": 9}, "search": {"epochs": 1, "arch_start_epoch": 0}}
    call("search", "--config", write_config(tmp_path / "k.yaml", SEARCH, classes), "--out", tmp_path / "nine")
    of_earlier_version = {**checkpoint(tmp_path / "nine"), "config": None}
    torch.save(of_earlier_version, mine / "checkpoints" / "last.pt")
    resuming_refused(mine, capsys, "checkpoint-settings-differ", "config.yaml")

    for last in (mine / "checkpoints").glob("last*.pt"):
        last.write_bytes(last.read_bytes()[:1000])
    resuming_refused(mine, capsys, "checkpoint-damaged")


@pytest.mark.slow
def test_a_network_whose_weights_do_not_fit(retrained: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(retrained, mine)
    payload = checkpoint(mine, "best")
    del payload["state"]["average"]["module.decoder.classifier.bias"], payload["state"]["network"]
    torch.save(payload, mine / "checkpoints" / "best.pt")
    with raises_code(CheckpointError, "checkpoint-settings-differ", mine / "checkpoints" / "best.pt"):
        load_network(mine)
    del payload["state"]
    torch.save(payload, mine / "checkpoints" / "best.pt")
    with raises_code(CheckpointError, "checkpoint-damaged", mine / "checkpoints" / "best.pt"):
        load_network(mine)
