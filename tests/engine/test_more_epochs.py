"""A run that is given more epochs, or fewer: the schedule is that of the new number from the next step on."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.errors import check_line
from helpers.tiny_runs import (
    SEARCH,
    assert_same_run,
    assert_same_state,
    call,
    checkpoint,
    files_of,
    retrain_task,
    rows,
    write_config,
)

import autoseg
from autoseg.cli.main import run
from autoseg.engine.retrain import RetrainTask
from autoseg.engine.search import SearchTask
from autoseg.errors import Interrupted
from autoseg.files import read_yaml
from autoseg.genotype.schema import Genotype

TO_FOUR = ("--resume", "--set", "retrain.epochs=4")


@pytest.fixture
def finished(retrained: Path, tmp_path: Path) -> Path:
    """2 epochs of 8 steps, all done."""
    return Path(shutil.copytree(retrained, tmp_path / "run"))


def stop_at(monkeypatch: pytest.MonkeyPatch, task: type, count: int) -> None:
    """Interrupt a run in the step number `count` of the process, from 1 on."""
    inner, calls = task.step, iter(range(1, 10**6))  # type: ignore[attr-defined]

    def step(self: Any, *arguments: Any) -> Any:
        if next(calls) == count:
            raise Interrupted("stopped")
        return inner(self, *arguments)

    monkeypatch.setattr(task, "step", step)


def poly(step: int, epochs: int) -> float:
    """The tiny retraining's learning rate: half an epoch of warm-up to 0.05, then down to 0 by the power of 0.9."""
    if step < 4:
        return 0.05 * (step + 1) / 4
    return 0.05 * (1 - (step - 4) / (8 * epochs - 4)) ** 0.9


def cosine(step: int, steps: int) -> float:
    """The tiny search's learning rate, from 0.025 to 0.001."""
    return 0.001 + 0.012 * (1 + math.cos(math.pi * step / steps))


@pytest.mark.slow
def test_the_learning_rate_is_that_of_the_longer_run(
    finished: Path, retrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("retrain", "--out", finished, *TO_FOUR)
    said = capsys.readouterr().out
    assert (
        "retrain.epochs 4, not 2: from step 17 on the schedule is that of 4 epochs, and the learning rate goes from"
        f" {poly(15, 2):.3g} to {poly(16, 4):.3g}\n"
    ) in said
    metrics = (finished / "metrics.jsonl").read_bytes()
    assert metrics.startswith((retrained / "metrics.jsonl").read_bytes())
    rates = [row["lr"] for row in rows(finished, "train")]
    assert rates == pytest.approx([poly(step, 2) for step in range(16)] + [poly(step, 4) for step in range(16, 32)])
    assert [row["step"] for row in rows(finished, "val")] == [8, 16, 24, 32]
    config = finished / "config.yaml"
    assert config.read_text().startswith("# retrain.epochs was 2 until step 16\ngenotype:")
    old = read_yaml(retrained / "config.yaml", RuntimeError)  # type: ignore[arg-type]
    old["retrain"]["epochs"] = 4
    assert read_yaml(config, RuntimeError) == old  # type: ignore[arg-type]

    call("retrain", "--out", finished, "--resume", "--set", "retrain.epochs=5")
    notes = [line for line in config.read_text().splitlines() if line.startswith("#")]
    assert notes == ["# retrain.epochs was 2 until step 16", "# retrain.epochs was 4 until step 32"]


@pytest.mark.slow
def test_each_step_is_that_of_the_longer_run(finished: Path, retrained: Path) -> None:
    """To the last bit, drop path and the moving average included."""
    task = retrain_task(epochs=4)
    task.load_state(checkpoint(retrained)["state"])
    for epoch in (2, 3):
        for number, batches in enumerate(task.batches(epoch, 0)):
            task.step(batches, epoch, 8 * epoch + number)
    autoseg.retrain(out=finished, resume=True, overrides={"retrain": {"epochs": 4}}, show_progress=False)
    assert_same_state(checkpoint(finished)["state"], task.state())
    assert checkpoint(finished)["epoch"] == 4


@pytest.mark.slow
def test_it_is_interrupted_and_resumed(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path(shutil.copytree(finished, tmp_path / "whole"))
    call("retrain", "--out", whole, *TO_FOUR)
    with monkeypatch.context() as patch:
        stop_at(patch, RetrainTask, 4)
        assert run(["retrain", "--out", str(finished), *TO_FOUR]) == 130
    assert checkpoint(finished)["step_in_epoch"] == 3
    call("retrain", "--out", finished, "--resume")
    assert_same_run(whole, finished)
    assert (whole / "config.yaml").read_bytes() == (finished / "config.yaml").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("miou", "epoch"), [(0.0, 1), (1.0, 3)])
def test_best_is_kept_until_something_is_better(
    miou: float, epoch: int, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = checkpoint(finished, "best")
    assert before["epoch"] == 2
    monkeypatch.setattr(RetrainTask, "validate", lambda *_: {"val": {"miou": miou, "loss": 1.0}})
    call("retrain", "--out", finished, "--resume", "--set", "retrain.epochs=3")
    after = checkpoint(finished, "best")
    assert (after["epoch"], after["best_miou"]) == ((3, 1.0) if miou else (2, before["best_miou"]))


@pytest.mark.slow
@pytest.mark.parametrize("number", [None, 2])
def test_the_same_number_leaves_nothing_to_do(
    number: int | None, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_of(finished)
    call("retrain", "--out", finished, "--resume", *([] if number is None else ["--set", f"retrain.epochs={number}"]))
    assert "all 2 epochs are done, nothing is left to do; more: --resume --set retrain.epochs=N" in (
        capsys.readouterr().out
    )
    assert {path: data for path, data in files_of(finished).items() if path in before} == before


@pytest.mark.slow
def test_what_is_done_cannot_be_undone(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_of(finished)
    assert run(["retrain", "--out", str(finished), "--resume", "--set", "retrain.epochs=1"]) == 2
    check_line(capsys.readouterr().err, "epochs-done", "retrain.epochs is 1", finished, "2 epochs of 2")
    last = finished / "checkpoints/last.pt"
    for path in last.parent.glob("last*.pt"):
        path.write_bytes(path.read_bytes()[:500])
        before[f"checkpoints/{path.name}"] = path.read_bytes()
    assert run(["retrain", "--out", str(finished), *TO_FOUR]) == 2
    check_line(capsys.readouterr().err, "checkpoint-damaged", last)
    assert files_of(finished) == before
    assert run(["retrain", "--out", str(tmp_path / "none"), *TO_FOUR]) == 2
    check_line(capsys.readouterr().err, "run-missing", tmp_path / "none")


@pytest.mark.slow
def test_an_unfinished_search_ends_earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """6 of 12 steps are done; with all that it was started with, and by another number."""
    start = ["search", "--config", str(write_config(tmp_path / "c.yaml", SEARCH)), "--out", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        stop_at(patch, SearchTask, 7)
        assert run(start) == 130
    assert run([*start, "--resume", "--set", "search.epochs=1"]) == 2
    assert read_yaml(tmp_path / "run/config.yaml", RuntimeError)["search"]["epochs"] == 3  # type: ignore[arg-type]
    call(*start, "--resume", "--set", "search.epochs=2")
    rates = [row["lr"] for row in rows(tmp_path / "run", "train")]
    assert rates == pytest.approx([cosine(step, 12) for step in range(6)] + [cosine(step, 8) for step in (6, 7)])
    assert len(list((tmp_path / "run/arch").glob("epoch_*"))) == 2


@pytest.mark.slow
def test_the_genotype_of_a_longer_search_is_decoded_again(
    searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(searched, tmp_path / "run"))
    earlier = autoseg.decode(out)
    call("search", "--out", out, "--resume", "--set", "search.epochs=4")
    assert "genotype.yaml, decoded before, becomes genotype_of_step_12.yaml" in capsys.readouterr().out
    assert Genotype.load(out / "genotype_of_step_12.yaml") == earlier
    assert not (out / "genotype.yaml").exists()
    assert autoseg.decode(out).source["epoch"] == 3
    snapshots = [path.name for path in sorted((out / "arch").glob("epoch_*"))]
    assert snapshots == [f"epoch_000{epoch}.npz" for epoch in range(4)]
    call("search", "--out", out, "--resume")  # nothing is left to do, and the genotype stays
    assert (out / "genotype.yaml").is_file()


@pytest.mark.slow
def test_a_run_of_the_first_version_goes_on_too(tmp_path: Path) -> None:
    out = Path(shutil.copytree(Path(__file__).parents[1] / "runs_of_0_1/retrain", tmp_path / "run"))
    old = read_yaml(out / "config.yaml", RuntimeError)  # type: ignore[arg-type]
    epochs, last = old["retrain"]["epochs"], rows(out, "train")[-1]
    call("retrain", "--out", out, "--resume", "--set", f"retrain.epochs={epochs + 1}")
    assert rows(out, "train")[-1]["step"] == last["step"] // epochs * (epochs + 1)
    new = read_yaml(out / "config.yaml", RuntimeError)  # type: ignore[arg-type]
    assert {key: new["data"][key] for key in old["data"]} == old["data"]
