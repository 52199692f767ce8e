"""A run whose steps are not finite stops where it may not go back, and nothing of it is saved (test_skipped_steps.py:
where it may)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.errors import check_line
from helpers.tiny_runs import RETRAIN, SEARCH, call, checkpoint, search_task, write_config

from autoseg.cli.main import run
from autoseg.engine.retrain import RetrainTask
from autoseg.engine.search import SearchTask
from autoseg.engine.trainer import DivergedError, Trainer

STEP = SearchTask.step


AT_ONCE = {"max_skipped": 0, "max_returns": 0}
"""The first skipped step ends the run."""


def spoil(monkeypatch: pytest.MonkeyPatch, kind: str, at: int) -> None:
    """One step says that it was skipped; those after it are as they were."""

    def step(task: SearchTask, batches: Any, epoch: int, number: int) -> Any:
        figures = STEP(task, batches, epoch, number)
        if number == at:
            figures[kind] |= {"loss": figures[kind]["loss"] * torch.nan, "skipped": torch.tensor(True)}
        return figures

    monkeypatch.setattr(SearchTask, "step", step)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "at"), [("train", 1), ("train", 5), ("arch", 6)])
def test_a_loss_that_is_not_logged_is_found_too(
    kind: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    spoil(monkeypatch, kind, at)
    rarely = {"log_every": 100, "checkpoint_seconds": 100}
    config = write_config(tmp_path / "c.yaml", SEARCH, {"search": {**rarely, **AT_ONCE}})
    assert run(["search", "--config", str(config), "--out", str(tmp_path / "run")]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert last.endswith(" [loss-not-finite]")
    assert f"{kind} loss" in last
    assert f"epoch {at // 4 + 1}, step 4 of {tmp_path / 'run'}" in last


@pytest.mark.slow
def test_nothing_is_saved_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every step: the last one is of the step before."""
    spoil(monkeypatch, "train", 6)
    config = write_config(tmp_path / "c.yaml", SEARCH, {"search": {"log_every": 100, **AT_ONCE}})
    assert run(["search", "--config", str(config), "--out", str(tmp_path / "run")]) == 2
    saved = checkpoint(tmp_path / "run")
    assert (saved["epoch"], saved["step_in_epoch"]) == (1, 2)
    monkeypatch.undo()
    call("search", "--out", tmp_path / "run", "--resume")


def spoil_retraining(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    before = RetrainTask.step

    def step(task: RetrainTask, batches: Any, epoch: int, number: int) -> Any:
        figures = before(task, batches, epoch, number)
        return {"train": {**figures["train"], "skipped": torch.tensor(True)}} if number == at else figures

    monkeypatch.setattr(RetrainTask, "step", step)


@pytest.mark.slow
def test_decoding_says_that_the_search_diverged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(monkeypatch, "train", 6)
    config, out = write_config(tmp_path / "c.yaml", SEARCH, {"search": AT_ONCE}), tmp_path / "run"
    assert run(["search", "--config", str(config), "--out", str(out)]) == 2
    assert "diverged" not in caplog.text
    call("decode", out)
    assert f"{out} diverged at epoch 2, step 7 of the run" in caplog.text
    monkeypatch.undo()
    caplog.clear()
    call("search", "--out", out, "--resume")
    assert "this run diverged at epoch 2, step 7 of the run" in caplog.text
    caplog.clear()
    call("decode", out, "--overwrite")
    assert "diverged" not in caplog.text, "the resumed run went well"


@pytest.mark.slow
def test_decoding_a_search_that_diverged_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    spoil(monkeypatch, "train", 0)
    config, out = write_config(tmp_path / "c.yaml", SEARCH, {"search": AT_ONCE}), tmp_path / "run"
    assert run(["search", "--config", str(config), "--out", str(out)]) == 2
    assert run(["decode", str(out)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    check_line(line, "no-epoch-yet", out, "diverged at epoch 1, step 1", "search.optimizer.lr")
    assert "--resume" not in line


@pytest.mark.slow
def test_evaluating_a_retraining_that_diverged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, caplog: pytest.LogCaptureFixture
) -> None:
    config = write_config(tmp_path / "c.yaml", RETRAIN, {"retrain": AT_ONCE})
    for out, at in ((tmp_path / "at_once", 0), (tmp_path / "later", 9)):
        with monkeypatch.context() as patch:
            spoil_retraining(patch, at)
            assert run(["retrain", "--config", str(config), "--out", str(out)]) == 2
    capsys.readouterr()
    assert run(["evaluate", str(tmp_path / "at_once")]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    check_line(line, "checkpoint-missing", "diverged at epoch 1, step 1", "retrain.optimizer.lr")
    assert "--resume" not in line
    call("evaluate", tmp_path / "later")
    assert f"{tmp_path / 'later'} diverged at epoch 2, step 10" in caplog.text
    (tmp_path / "later/checkpoints/last.pt").unlink()
    call("evaluate", tmp_path / "later", "--checkpoint", "last")
    assert "going on from last.1.pt" in caplog.text


def test_skipped_steps_are_read_where_figures_are_logged_only() -> None:
    """Counting on a device without values (meta) reads none; looking does."""
    loop = Trainer(search_task(), run_directory=None)  # type: ignore[arg-type]
    skipped = torch.ones((), dtype=torch.bool, device="meta")
    for _ in range(3):
        loop._count_skipped({"train": {"loss": 1.0, "skipped": skipped}, "arch": {"loss": 1.0, "skipped": skipped}})
    assert loop._in_a_row["train"].is_meta
    with pytest.raises(RuntimeError, match="meta"):
        loop._check_in_a_row()


def test_a_good_step_after_too_many_does_not_hide_them() -> None:
    loop = Trainer(search_task(max_skipped=2), run_directory=None)  # type: ignore[arg-type]
    for skipped, in_a_row in ((1, 1), (1, 2), (0, 0), (1, 1), (1, 2), (1, 3), (0, 3), (0, 3)):
        loop._count_skipped({"train": {"loss": 1.0, "skipped": torch.tensor(bool(skipped))}})
        assert loop._in_a_row == {"train": in_a_row}
    assert loop._skipped == {"train": 5}
    with pytest.raises(DivergedError, match="train loss"):
        loop._check_in_a_row()


@pytest.mark.slow
@pytest.mark.parametrize("at", [3, 6, 11])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_never_saved(
    at: int, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The last step before a save spoils a weight, and no later loss can tell."""

    def step(task: SearchTask, batches: Any, epoch: int, number: int) -> Any:
        figures = STEP(task, batches, epoch, number)
        if number == at:
            with torch.no_grad():
                next(iter(task.supernet.parameters())).view(-1)[0] = value
        return figures

    monkeypatch.setattr(SearchTask, "step", step)
    config, out = write_config(tmp_path / "c.yaml", SEARCH, {"search": {"checkpoint_seconds": 0}}), tmp_path / "run"
    assert run(["search", "--config", str(config), "--out", str(out)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    check_line(line, "loss-not-finite", "the weights are", f"epoch {at // 4 + 1}", "search.optimizer.lr")
    for path in (out / "checkpoints").iterdir():
        saved = torch.load(path, weights_only=True)["state"]["supernet"]
        assert all(value.isfinite().all() for value in saved.values() if value.is_floating_point()), path
    assert checkpoint(out)["epoch"] * 4 + checkpoint(out)["step_in_epoch"] == at
