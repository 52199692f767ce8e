"""Files of a run that a disk has changed, cut or lost: each is found out, and the checkpoint before serves."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.errors import check_line, raises_code
from helpers.tiny_runs import SEARCH, SPACE, call, checkpoint, rows, write_config

from autoseg.cli.main import run
from autoseg.engine.checkpoint import load_checkpoint, load_last, save_checkpoint
from autoseg.engine.run_directory import Run
from autoseg.errors import CheckpointError
from autoseg.files import is_intact, seal
from autoseg.space.schema import SearchSpace
from autoseg.space.snapshot import ArchProbs

PLAN = {"name": "a"}
FLIPS = 500


def save(path: Path, number: int, keep: int = 1) -> None:
    save_checkpoint(path, "search", PLAN, contents(number), keep)


def contents(number: int) -> dict[str, object]:
    counts = {"epoch": number, "step_in_epoch": 0, "metrics_bytes": 0, "seconds": 0.0, "best_miou": None}
    return {**counts, "state": {"weights": torch.arange(40) + number}}


def epoch(path: Path) -> int:
    return int(load_checkpoint(path, "search", PLAN)["epoch"])


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def bits_of(content: bytes, random_ones: int) -> list[int]:
    """Every bit of the last 130 bytes, where the seal is, and random ones of all."""
    size = 8 * len(content)
    return [*range(size - 8 * 130, size), *random.Random(0).sample(range(size), random_ones)]


def test_no_flipped_bit_of_a_checkpoint_goes_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save(path, 3)
    content = path.read_bytes()
    for bit in bits_of(content, FLIPS):
        path.write_bytes(flipped(content, bit))
        with raises_code(CheckpointError, "checkpoint-damaged", path):
            load_checkpoint(path, "search", PLAN)
    path.write_bytes(content)
    assert epoch(path) == 3


def test_no_flipped_bit_of_the_architecture_goes_unnoticed(tmp_path: Path) -> None:
    path, space = tmp_path / "epoch_0000.npz", SearchSpace.parse(SPACE)
    ArchProbs.zeros(space).save(path)
    content = path.read_bytes()
    for bit in bits_of(content, FLIPS):
        path.write_bytes(flipped(content, bit))
        with raises_code(CheckpointError, "snapshot-unreadable", path):
            ArchProbs.load(path, space)
    path.write_bytes(content)
    assert np.array_equal(ArchProbs.load(path, space).alpha_logits, ArchProbs.zeros(space).alpha_logits)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99, -1])
def test_a_cut_checkpoint_is_noticed(share: float, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save(path, 3)
    content = path.read_bytes()
    path.write_bytes(content[: -1 if share < 0 else int(share * len(content))])
    with raises_code(CheckpointError, "checkpoint-damaged", path):
        load_checkpoint(path, "search", PLAN)


def test_files_without_a_seal_are_read(tmp_path: Path) -> None:
    """As earlier versions wrote them."""
    torch.save({"version": 1, "kind": "search", "architecture": PLAN, **contents(5)}, tmp_path / "last.pt")
    assert epoch(tmp_path / "last.pt") == 5


def test_other_programs_read_sealed_files(tmp_path: Path) -> None:
    save(tmp_path / "last.pt", 3)
    np.savez(tmp_path / "a.npz", values=np.arange(5))
    seal(tmp_path / "a.npz")
    assert is_intact(tmp_path / "a.npz")
    assert torch.load(tmp_path / "last.pt", weights_only=True)["epoch"] == 3
    assert np.load(tmp_path / "a.npz")["values"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("has_links", [True, False])
@pytest.mark.parametrize("keep", [1, 2, 3, 4])
def test_the_latest_are_kept(keep: int, has_links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_links:
        monkeypatch.delattr(os, "link")
        monkeypatch.setattr(os, "link", refuse, raising=False)
    for number in range(6):
        save(tmp_path / "last.pt", number, keep)
    names = ["last.pt", *(f"last.{number}.pt" for number in range(1, keep))]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert [epoch(tmp_path / name) for name in names] == [5 - number for number in range(keep)]


def refuse(source: Path, target: Path) -> None:
    raise PermissionError("no links here")


def test_the_one_before_a_damaged_one_serves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    last, before = tmp_path / "last.pt", tmp_path / "last.1.pt"
    for number in range(3):
        save(last, number, 3)
    assert load_last(tmp_path, "search", PLAN, 3)[1]["epoch"] == 2
    assert not caplog.messages
    last.write_bytes(flipped(last.read_bytes(), 2000))
    path, saved = load_last(tmp_path, "search", PLAN, 3)
    assert (path, saved["epoch"]) == (before, 1)
    assert [message for message in caplog.messages if str(last) in message and "last.1.pt" in message]
    before.unlink()
    assert load_last(tmp_path, "search", PLAN, 3)[1]["epoch"] == 0
    (tmp_path / "last.2.pt").unlink()
    with raises_code(CheckpointError, "checkpoint-damaged", last):
        load_last(tmp_path, "search", PLAN, 3)


def test_another_space_is_no_damage(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / "last.pt", number, 3)
    with raises_code(CheckpointError, "checkpoint-architecture-differs"):
        load_last(tmp_path, "search", {"name": "b"}, 3)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is flushed and renamed, in its order."""
    found: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def noted_fsync(file: int) -> None:
        path = Path(f"/proc/self/fd/{file}").resolve()
        names = ["", *sorted(os.listdir(path))] if path.name == "run" else []
        found.append("flush " + path.name.replace(str(os.getpid()), "P") + " ".join(names))
        fsync(file)

    def noted_replace(self: Path, target: Path) -> Path:
        found.append(f"rename to {Path(target).name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    return found


def test_a_checkpoint_is_on_the_disk_before_its_name(tmp_path: Path, events: list[str]) -> None:
    """A power cut at any point leaves last.pt as it was or whole: contents, name, and only then the folder."""
    save(tmp_path / "last.pt", 0)
    assert events == ["flush .last.pt.P.tmp", "rename to last.pt", f"flush {tmp_path.name}"]


@pytest.mark.slow
def test_metrics_are_on_the_disk_before_the_checkpoint_that_counts_them(tmp_path: Path, events: list[str]) -> None:
    config = write_config(
        tmp_path / "c.yaml", SEARCH, {"search": {"epochs": 1, "arch_start_epoch": 0, "keep_checkpoints": 1}}
    )
    call("search", "--config", config, "--out", tmp_path / "run")
    names = next(event for event in reversed(events[: events.index("rename to last.pt")]) if "flush run" in event)
    assert {"arch", "checkpoints", "config.yaml", "metrics.jsonl"} <= {*names.split()}
    events[:] = [" ".join(event.split()[:2]) if event.startswith("flush") else event for event in events]
    saves = [number for number, event in enumerate(events) if event == "rename to last.pt"]
    assert len(saves) == 4, "after each of the 4 steps"
    for number in saves:
        assert events[number - 3 : number + 2] == [
            "flush gradients.bin", "flush metrics.jsonl",
            "flush .last.pt.P.tmp", "rename to last.pt", "flush checkpoints",
        ]  # fmt: skip


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of 3 epochs, stopped after the second."""
    out = tmp_path_factory.mktemp("search")
    config = write_config(out / "c.yaml", SEARCH)
    call("search", "--config", config, "--out", out / "run")
    return out / "run"


@pytest.mark.slow
def test_a_run_goes_on_from_the_checkpoint_before(
    searched: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = Path(shutil.copytree(searched, tmp_path / "run"))
    last = out / "checkpoints/last.pt"
    assert sorted(path.name for path in last.parent.glob("last*")) == ["last.1.pt", "last.2.pt", "last.pt"]
    last.write_bytes(flipped(last.read_bytes(), 5000))
    call("search", "--out", out, "--resume")
    assert "going on from last.1.pt, the one before" in caplog.text
    assert [row["step"] for row in rows(out, "train")] == list(range(1, 13))
    for key, value in checkpoint(searched)["state"]["supernet"].items():
        assert torch.equal(value, checkpoint(out)["state"]["supernet"][key]), key


@pytest.mark.slow
def test_all_checkpoints_damaged_is_one_line(
    searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(searched, tmp_path / "run"))
    for path in (out / "checkpoints").glob("last*.pt"):
        path.write_bytes(flipped(path.read_bytes(), 5000))
    assert run(["search", "--out", str(out), "--resume"]) == 2
    check_line(capsys.readouterr().err.splitlines()[-1], "checkpoint-damaged", out / "checkpoints/last.pt")


def test_cut_and_damaged_metrics(searched: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = Path(shutil.copytree(searched, tmp_path / "run"))
    metrics = out / "metrics.jsonl"
    whole, size = Run(out).metrics(), metrics.stat().st_size
    metrics.write_bytes(metrics.read_bytes()[:-9])
    assert Run(out).metrics() == whole[:-1]
    resumed = Run(out)
    resumed.rewind(size, 12)
    resumed.close()
    assert "has lost rows" in caplog.text
    assert Run(out).metrics() == whole[:-1]
    assert metrics.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize(
    "line",
    [
        b"\0" * 40,
        b"\xff\xfe",
        b"hello",
        b"[]",
        b"{}",
        b"[" * 5000,
        b'{"kind": "val", "epoch": Infinity, "step": 1}',
        b'{"kind": "val", "epoch": ' + b"9" * 5000 + b"}",
        b'{"kind": "val", "epoch": null, "step": 3, "miou": 0.5}',
        b'{"kind": "val", "epoch": 1, "step": 2.5, "miou": 0.5}',
        b'{"kind": "val", "epoch": "a", "step": "b", "miou": "c", "loss": "d"}',
    ],
)
def test_a_line_that_is_no_row_is_said_and_passed_over(
    line: bytes, searched: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = Path(shutil.copytree(searched, tmp_path / "run"))
    metrics, whole = out / "metrics.jsonl", Run(out).metrics()
    lines = metrics.read_bytes().splitlines(keepends=True)
    metrics.write_bytes(b"".join([*lines[:2], line + b"\n", *lines[2:]]))
    assert Run(out).metrics() == whole
    assert [message for message in caplog.messages if "metrics.jsonl, line 3, is no row" in message]
    call("decode", out)


@pytest.mark.slow
def test_a_damaged_best_checkpoint_says_what_to_use_in_its_place(
    retrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(retrained, tmp_path / "run"))
    best, last = (out / "checkpoints" / name for name in ("best.pt", "last.pt"))
    best.write_bytes(flipped(best.read_bytes(), 9000))
    commands = ["evaluate", str(out)], ["export", str(out), "--format", "safetensors", "--out", str(tmp_path / "a")]
    for command in commands:
        capsys.readouterr()
        assert run(command) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        check_line(line, "checkpoint-damaged", best, "use last.pt in its place", "--checkpoint last", last)
    call("evaluate", out, "--checkpoint", "last")
    last.write_bytes(flipped(last.read_bytes(), 9000))
    assert run(commands[0]) == 2
    check_line(capsys.readouterr().err.splitlines()[-1], "checkpoint-damaged", best, "use another")
