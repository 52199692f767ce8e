"""A run that is stopped anywhere and resumed ends where one that was never stopped ends, bit for bit."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_runs import (
    SEARCH,
    SETTINGS,
    assert_same_run,
    call,
    checkpoint,
    rows,
    start,
    wait_for_rows,
    write_config,
)

from autoseg.cli.main import run
from autoseg.engine import trainer as loop
from autoseg.engine.retrain import RetrainTask
from autoseg.engine.search import SearchTask
from autoseg.errors import DataError

TASKS: dict[str, Any] = {"search": SearchTask, "retrain": RetrainTask}


class KilledError(BaseException):
    """The process is gone: nothing is saved, nothing is cleaned up."""


@pytest.fixture(params=["search", "retrain"])
def command(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def whole(command: str, request: pytest.FixtureRequest) -> Path:
    """The run that was never stopped."""
    return Path(request.getfixturevalue({"search": "searched", "retrain": "retrained"}[command]))


@pytest.fixture
def arguments(command: str, tmp_path: Path) -> list[object]:
    config = write_config(tmp_path / "config.yaml", SETTINGS[command])
    return [command, "--config", config, "--out", tmp_path / "run"]


def before(count: int, action: Callable[[], None], inner: Callable[..., Any]) -> Callable[..., Any]:
    """`inner`, with `action` before its call number `count`, from 0 on."""
    calls = iter(range(10**6))

    def wrapped(*arguments: Any) -> Any:
        if next(calls) == count:
            action()
        return inner(*arguments)

    return wrapped


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def kill() -> None:
    raise KilledError


@pytest.mark.slow
@pytest.mark.parametrize(("method", "count"), [("step", 0), ("step", 1), ("step", 7), ("validate", 0), ("batches", 1)])
def test_interrupted_and_resumed(
    method: str,
    count: int,
    command: str,
    whole: Path,
    arguments: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        task = TASKS[command]
        patch.setattr(task, method, before(count, interrupt, getattr(task, method)))
        assert run([str(argument) for argument in arguments]) == 130
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("stopped at epoch ")
    assert f"`autoseg {command} --out {tmp_path / 'run'} --resume` goes on" in last
    saved = checkpoint(tmp_path / "run")
    per_epoch = {"search": 4, "retrain": 8}[command]
    done = count + 1 if method == "step" else per_epoch
    assert saved["epoch"] * per_epoch + saved["step_in_epoch"] == done  # a validation is done again
    call(command, "--out", tmp_path / "run", "--resume")
    assert_same_run(whole, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["search"], indirect=True)
def test_a_run_that_data_has_ended_loses_no_step(
    command: str, whole: Path, arguments: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(task: Any, epoch: int, start_step: int) -> Iterator[Any]:
        yield from islice(batches(task, epoch, start_step), 2)
        raise DataError("no more", code="file-changed")

    batches = TASKS[command].batches
    with monkeypatch.context() as patch:
        patch.setattr(TASKS[command], "batches", broken)
        rare = [*arguments, "--set", f"{command}.checkpoint_seconds=1000"]
        assert run([str(argument) for argument in rare]) == 2
    assert checkpoint(tmp_path / "run")["step_in_epoch"] == 2
    call(command, "--out", tmp_path / "run", "--resume")
    assert_same_run(whole, tmp_path / "run")


@pytest.mark.slow
def test_the_pixels_of_the_loss_are_drawn_alike_after_resuming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"retrain": {"loss_sampling": 0.3, "max_steps_per_epoch": 3, "epochs": 1}}
    config = write_config(tmp_path / "config.yaml", SETTINGS["retrain"], changes)
    call("retrain", "--config", config, "--out", tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(RetrainTask, "step", before(1, interrupt, RetrainTask.step))
        assert run(["retrain", "--config", str(config), "--out", str(tmp_path / "run")]) == 130
    call("retrain", "--out", tmp_path / "run", "--resume")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "count"), [("step", 0), ("step", 1), ("step", 6), ("validate", 1), ("end_epoch", 1)]
)
def test_killed_and_resumed(
    method: str,
    count: int,
    command: str,
    whole: Path,
    arguments: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(TASKS[command], method, before(count, kill, getattr(TASKS[command], method)))
        with pytest.raises(KilledError):
            run([str(argument) for argument in arguments])
    call(command, "--out", tmp_path / "run", "--resume")
    assert_same_run(whole, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("stop", [kill, interrupt])
def test_without_frequent_checkpoints(
    stop: Callable[[], None],
    command: str,
    whole: Path,
    arguments: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rare = [*arguments, "--set", f"{command}.checkpoint_seconds=1000"]
    with monkeypatch.context() as patch:
        patch.setattr(TASKS[command], "step", before(10, stop, TASKS[command].step))
        with pytest.raises(KilledError) if stop is kill else contextlib.nullcontext():
            assert run([str(argument) for argument in rare]) == 130
    # whoever asks a run to stop loses no step; after a kill, all that the epoch did is done again
    assert checkpoint(tmp_path / "run")["step_in_epoch"] == (0 if stop is kill else 3)
    call(command, "--out", tmp_path / "run", "--resume")
    assert_same_run(whole, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 4, 5, 8])
def test_the_best_network_is_kept_through_a_kill(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first validation is the best; killed before the save number `count`, of which 3 is best.pt and 4 last.pt."""
    mious = (0.5, 0.25, 0.3)
    monkeypatch.setattr(SearchTask, "validate", lambda _, run, epoch: {"val": {"miou": mious[epoch], "loss": 1.0}})
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", before(count, kill, loop.save_checkpoint))
        with pytest.raises(KilledError):
            run(["search", "--config", str(write_config(tmp_path / "c.yaml", SEARCH)), "--out", str(tmp_path / "run")])
    call("search", "--out", tmp_path / "run", "--resume")
    best, last = checkpoint(tmp_path / "run", "best"), checkpoint(tmp_path / "run")
    assert (best["epoch"], best["best_miou"], last["epoch"], last["best_miou"]) == (1, 0.5, 3, 0.5)


@pytest.mark.slow
def test_resuming_a_finished_run_changes_nothing(command: str, arguments: list[object], tmp_path: Path) -> None:
    call(*arguments)
    metrics = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    call(command, "--out", tmp_path / "run", "--resume")
    call(*arguments, "--resume")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == metrics


@pytest.mark.slow
def test_resume_begins_a_run_that_is_not_there(arguments: list[object], whole: Path, tmp_path: Path) -> None:
    call(*arguments, "--resume")
    assert_same_run(whole, tmp_path / "run")


@pytest.mark.slow
def test_tensorboard_has_each_step_once_after_a_kill(
    arguments: list[object], command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with monkeypatch.context() as patch:
        patch.setattr(TASKS[command], "validate", before(1, kill, TASKS[command].validate))
        with pytest.raises(KilledError):
            run([str(argument) for argument in arguments])
    time.sleep(1.1)  # TensorBoard orders the files by the second in their names
    call(command, "--out", tmp_path / "run", "--resume")
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    for kind in ("train", "val"):
        events = [(event.step, event.value) for event in board.Scalars(f"{kind}/loss")]
        expected = [(row["step"], row["loss"]) for row in rows(tmp_path / "run", kind)]
        assert [step for step, _ in events] == [step for step, _ in expected]
        assert [value for _, value in events] == pytest.approx([value for _, value in expected])


# --- real signals -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "number"), [("search", signal.SIGINT), ("retrain", getattr(signal, "SIGHUP", signal.SIGTERM))]
)
def test_signals(number: int, command: str, whole: Path, arguments: list[object], tmp_path: Path) -> None:
    process = start(*arguments, slow=True)
    wait_for_rows(process, tmp_path / "run", 2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert f"`autoseg {command} --out {tmp_path / 'run'} --resume` goes on" in errors.splitlines()[-1]
    assert 2 <= len(rows(tmp_path / "run")) < len(rows(whole))
    call(command, "--out", tmp_path / "run", "--resume")
    assert_same_run(whole, tmp_path / "run")


@pytest.mark.slow
def test_a_signal_to_the_workers_too(whole: Path, command: str, arguments: list[object], tmp_path: Path) -> None:
    """As a batch system ends a job: every process of it gets the signal."""
    process = start(*arguments, "--set", f"{command}.workers=1", slow=True)
    wait_for_rows(process, tmp_path / "run", 2)
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "goes on" in errors.splitlines()[-1]
    call(command, "--out", tmp_path / "run", "--resume")
    assert_same_run(whole, tmp_path / "run")


def test_interrupted_before_the_run_has_begun(
    arguments: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("autoseg.setup.start.keep_samples", lambda *_: interrupt())
    assert run([str(argument) for argument in arguments]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_kill_9_at_two_moments(command: str, whole: Path, arguments: list[object], tmp_path: Path) -> None:
    rng = random.Random(f"{command} 7")
    moments = sorted(rng.sample(range(1, len(rows(whole)) - 2), 2))
    for attempt, count in enumerate(moments):
        process = start(*(arguments if attempt == 0 else [command, "--out", tmp_path / "run", "--resume"]))
        wait_for_rows(process, tmp_path / "run", count)
        time.sleep(rng.uniform(0, 0.02))
        process.kill()
        process.communicate(timeout=60)
        # on a busy machine the run may be over before the last kill; the first comes early enough
        assert process.returncode == -signal.SIGKILL or (attempt > 0 and process.returncode == 0)
    call(command, "--out", tmp_path / "run", "--resume")
    assert_same_run(whole, tmp_path / "run")
    assert not [path for path in (tmp_path / "run").rglob("*.tmp")]
