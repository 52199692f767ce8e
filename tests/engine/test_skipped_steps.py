"""Steps that are not finite are skipped, and a run with too many of them goes back with half the learning rate.

Faults are planted: in images, losses or gradients of chosen steps. The oracle of a skipped step is the state before it;
that of a run which goes back is the same task, taken by hand from the end of the last good epoch.
"""

from __future__ import annotations

import copy
import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.errors import check_line
from helpers.pretend_recorder import StandIn, Watch
from helpers.tiny_runs import (
    SETTINGS,
    assert_same_run,
    assert_same_state,
    call,
    checkpoint,
    retrain_task,
    rows,
    search_task,
    write_config,
)
from torch import nn

from autoseg.cli.main import run
from autoseg.config.base import parse
from autoseg.config.training import OptimizerConfig
from autoseg.engine import search
from autoseg.engine.optim import RunningStatistics, StepGuard, build_optimizer, load_optimizer
from autoseg.engine.retrain import RetrainTask
from autoseg.engine.search import Gradients, SearchTask

CPU, NAN = torch.device("cpu"), float("nan")
TASKS: dict[str, Any] = {"search": SearchTask, "retrain": RetrainTask}
FAULTS = ("image", "loss", "gradient", "infinite gradient")
When = Callable[[Any, int, str], bool]
"""(task, number of the step, half) -> whether a fault is planted."""


def plant(monkeypatch: pytest.MonkeyPatch, kind: str, when: When, fault: str = "image") -> None:
    """Plant a fault in the gradients of some steps. What is planted comes from outside the code that skips them."""
    step, place = TASKS[kind].step, {}

    def noted(task: Any, batches: Any, epoch: int, number: int) -> Any:
        place.update(task=task, number=number)
        return step(task, batches, epoch, number)

    def spoiled(half: str, batches: Sequence[Any], gradients: Callable[..., Any], parameters: Sequence[Any]) -> Any:
        if not when(place["task"], place["number"], half):
            return gradients(batches)
        if fault == "image":
            batches = [(images.clone().index_fill_(0, torch.tensor(0), NAN), *rest) for images, *rest in batches]
        loss = gradients(batches)
        found = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if fault.endswith("gradient"):
            found[-1].view(-1)[-1] = NAN if fault == "gradient" else float("inf")
        return loss * NAN if fault == "loss" else loss

    of_search, of_network = Gradients.__call__, RetrainTask._gradients

    def in_search(self: Gradients, half: Any, *batches: Any) -> Any:
        return spoiled(half, batches, lambda given: of_search(self, half, *given), self.parameters[half])

    def in_network(self: RetrainTask, inputs: Any) -> Any:
        return spoiled("weights", [inputs], lambda given: of_network(self, *given), self.parameters)

    monkeypatch.setattr(TASKS[kind], "step", noted)
    monkeypatch.setattr(Gradients, "__call__", in_search)
    monkeypatch.setattr(RetrainTask, "_gradients", in_network)


def taken(state: Any) -> Any:
    """A state without BatchNorm's number of batches, which nothing uses."""
    if isinstance(state, dict):
        return {key: taken(value) for key, value in state.items() if not str(key).endswith("num_batches_tracked")}
    return copy.deepcopy(state)


# --- one step ---------------------------------------------------------------------------------------------------------


OPTIONS: list[dict[str, Any]] = [
    {},
    {"accumulate": 2, "clip_grad_norm": 0.1},
    {"precision": "bf16", "optimizer": {"name": "adam", "lr": 0.01}},
]


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "accumulated", "bf16"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_step_of_the_weights_leaves_the_state_before_it(
    fault: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, BatchNorm's statistics and the optimizer; with accumulation, one bad batch spoils the step."""
    plant(monkeypatch, "search", lambda task, number, half: number == 1, fault)
    task = search_task(**options)
    batches = list(task.batches(0, 0))
    assert not task.step(batches[0], 0, 0)["train"]["skipped"]
    before = taken(task.state())
    assert task.step(batches[1], 0, 1)["train"]["skipped"]
    lr = {"param_groups": task.state()["optimizer"]["param_groups"]}  # the schedule goes on
    assert_same_state(taken(task.state()), {**before, "optimizer": {**before["optimizer"], **lr}})
    task.step(batches[0], 0, 2)
    assert all(value.isfinite().all() for value in task.supernet.state_dict().values())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_step_of_the_architecture_leaves_the_weights_step(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, "search", lambda task, number, half: (number, half) == (5, "architecture"), fault)
    task, alone = search_task(), search_task()
    first, second = list(task.batches(1, 0))[:2]
    for each, last in ((task, second), (alone, (second[0], None))):
        each.step(first, 1, 4)
        figures = each.step(last, 1, 5)
        assert not figures["train"]["skipped"]
    assert task.step((second[0], None), 1, 6).keys() == {"train"}
    alone.step((second[0], None), 1, 6)
    assert_same_state(taken(task.state()), taken(alone.state()))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"optimizer": {"name": "adamw", "lr": 0.01}}])
def test_a_bad_step_of_a_retraining(fault: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The moving average is not spoiled either: it moves on to the weights that are there."""
    plant(monkeypatch, "retrain", lambda task, number, half: number == 1, fault)
    task = retrain_task(**options)
    batches = list(task.batches(0, 0))
    task.step(batches[0], 0, 0)
    before, average = taken(task.state()), copy.deepcopy(task.average)
    assert task.step(batches[1], 0, 1)["train"]["skipped"]
    after = taken(task.state())
    assert_same_state(after["network"], before["network"])
    assert_same_state(after["optimizer"]["state"], before["optimizer"]["state"])
    average.update(task.network)
    assert_same_state(after["average"], taken(average.state_dict()))


@pytest.mark.parametrize("fused", [None, True])
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_guard_skips_with_either_kind_of_optimizer(name: str, fused: bool | None) -> None:
    """Fused ones, as on a GPU, read the flag themselves. Without faults the bits are those without a guard."""
    config = parse(OptimizerConfig, {"name": name, "lr": 0.1})
    guarded, plain = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer, alone, guard = (
        build_optimizer(config, [guarded], fused), build_optimizer(config, [plain], fused), StepGuard(CPU, False),
    )  # fmt: skip
    values = torch.tensor([0.3, -2.0, 1e-3])
    for factor, spoiled_loss, expected in (
        (1.0, 1.0, False), (NAN, 1.0, True), (1.0, NAN, True), (1.0, float("inf"), True), (float("-inf"), 1.0, True),
        (2.0, 1.0, False),
    ):  # fmt: skip
        optimizer.zero_grad()
        loss = (guarded * values).sum()
        guard.scale(loss * factor).backward()
        assert bool(guard.check(optimizer, loss.detach() * spoiled_loss)) == expected
        guard.step(optimizer)
        guard.update()
        if not expected:
            alone.zero_grad()
            ((plain * values).sum() * factor).backward()
            alone.step()
        assert torch.equal(guarded, plain)
        assert guard.get_scale() == 1


def test_in_fp16_a_scale_that_is_too_large_is_no_fault() -> None:
    parameter = nn.Parameter(torch.ones(3))
    optimizer, guard = build_optimizer(OptimizerConfig(), [parameter], True), StepGuard(CPU, scales=True)
    found = []
    for scale, loss in ((65536.0, 1.0), (2.0, 1.0), (1.0, 1.0), (65536.0, NAN)):
        guard.scale(parameter.sum() * float("inf")).backward()
        guard.update(scale)
        found.append(bool(guard.check(optimizer, torch.tensor(loss))))
        guard.step(optimizer)
        guard.update()
        optimizer.zero_grad()
        assert torch.equal(parameter, torch.ones(3))
    assert found == [False, False, True, True]


def test_statistics_come_back_only_after_a_lost_step() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2))
    statistics = RunningStatistics(network)
    before, kept = statistics.copy(), copy.deepcopy(network.state_dict())
    network(torch.full((2, 3, 5, 5), NAN))
    statistics.restore(before, torch.tensor(True))
    assert_same_state(taken(network.state_dict()), taken(kept))
    network(torch.randn(2, 3, 5, 5))
    after = copy.deepcopy(network.state_dict())
    statistics.restore(before, torch.tensor(False))
    assert_same_state(network.state_dict(), after)
    bare = RunningStatistics(nn.Conv2d(3, 4, 1))
    bare.restore(bare.copy(), torch.tensor(True))


def test_nothing_of_it_waits_for_the_device() -> None:
    """A meta tensor has no value that could be read, and nothing comes from the CPU."""
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).to("meta")
    guard, statistics = StepGuard(torch.device("meta"), scales=False), RunningStatistics(network)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    with Watch() as watch:
        before = statistics.copy()
        loss = network(torch.empty(2, 3, 5, 5, device="meta")).sum()
        guard.scale(loss).backward()
        lost = guard.check(optimizer, loss.detach(), 1.0)
        statistics.restore(before, lost)
        guard.update()
    assert lost.is_meta
    assert watch.mixed == set()
    assert not watch.operations & {"nonzero", "_local_scalar_dense", "masked_select", "equal"}


def test_a_state_of_another_device_leaves_the_optimizer_fused_or_not() -> None:
    """Only a fused optimizer skips a step on a GPU, also with the state of a run that began on a CPU."""
    parameter = nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    for first, then in ((None, True), (True, None)):
        old, new = (build_optimizer(OptimizerConfig(name="adam"), [parameter], fused) for fused in (first, then))
        old.step()
        load_optimizer(new, old.state_dict())
        assert new.param_groups[0]["fused"] is then
        assert float(new.state[parameter]["step"]) == 1
        new.step()


# --- a run ------------------------------------------------------------------------------------------------------------


def start(kind: str, folder: Path, **changes: Any) -> list[str]:
    config = write_config(folder / f"{kind}.yaml", SETTINGS[kind], {kind: changes})
    return [kind, "--config", str(config), "--out", str(folder / "run")]


def of_full_rate(task: Any, number: int, half: str) -> bool:
    """Every step from the sixth on, until the learning rate is halved."""
    return number >= 5 and task.lr_factor == 1 and half == "weights"


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "fault"), [("search", "image"), ("search", "loss"), ("retrain", "gradient")])
def test_a_run_with_one_bad_step_ends_well(
    kind: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plant(monkeypatch, kind, lambda task, number, half: number == 5, fault)
    assert run(start(kind, tmp_path, log_every=2)) == 0
    counts = {(row["kind"], row["step"]): row["skipped"] for row in rows(tmp_path / "run") if "skipped" in row}
    assert counts == {("train", 6): 1} | ({("arch", 6): 1} if kind == "search" else {})
    said = [message for message in caplog.messages if "1 step skipped until epoch" in message]
    assert len(said) == len(counts)
    for path in (tmp_path / "run/checkpoints").iterdir():
        saved = torch.load(path, weights_only=True)["state"]["supernet" if kind == "search" else "network"]
        assert all(value.isfinite().all() for value in saved.values()), path


@pytest.mark.slow
@pytest.mark.parametrize("kind", TASKS)
def test_a_run_goes_back_and_on_with_half_the_rate(
    kind: str, searched: Path, retrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """To the end of the first epoch of a search, and to the start of a retraining, whose epochs have 8 steps."""
    with monkeypatch.context() as patch:
        plant(patch, kind, of_full_rate, "loss")
        assert run(start(kind, tmp_path, max_skipped=1)) == 0
    out, back = tmp_path / "run", 4 if kind == "search" else 0
    assert [(row["step"], row["lr_factor"]) for row in rows(out, "returned")] == [(back, 0.5)]
    (line,) = [message for message in caplog.messages if "going back" in message]
    to = "the end of epoch 1" if back else "the start"
    assert "the train loss is no longer finite at epoch" in line
    assert f"going back to {to} with half the learning rate, 1/2 of the schedule's (return 1 of at most 3)" in line
    whole = searched if kind == "search" else retrained
    before, after = ([(row["step"], row["lr"]) for row in rows(each, "train")] for each in (whole, out))
    assert after == [(step, lr if step <= back else lr / 2) for step, lr in before]

    task = search_task() if kind == "search" else retrain_task()  # the same by hand
    for factor, epochs in ((1.0, range(back // 4)), (0.5, range(back // 4, task.schedule.epochs))):
        task.lr_factor = factor
        for epoch in epochs:
            for number, batches in enumerate(task.batches(epoch, 0)):
                task.step(batches, epoch, epoch * task.steps_per_epoch + number)
    assert_same_state(checkpoint(out)["state"], task.state())
    assert checkpoint(out)["returns"] == 1
    if kind == "search":
        assert checkpoint(out)["state"]["architect"]["param_groups"][0]["lr"] == 0.01


@pytest.mark.slow
@pytest.mark.parametrize("kind", TASKS)
def test_it_is_interrupted_anywhere_and_ends_alike(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of the skipped steps, before and after going back, saved often or rarely."""

    def some(task: Any, number: int, half: str) -> bool:
        """Two in a row, and later single ones."""
        return number in (8, 10, 12, 14) if task.lr_factor < 1 else number in (5, 6) and half == "weights"

    plant(monkeypatch, kind, some)
    (tmp_path / "whole").mkdir()
    assert run(start(kind, tmp_path / "whole", max_skipped=1, log_every=2)) == 0
    step, calls = TASKS[kind].step, 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:  # in each process the third step
            signal.raise_signal(signal.SIGINT)
        return step(*arguments)

    monkeypatch.setattr(TASKS[kind], "step", interrupted)
    arguments, status = start(kind, tmp_path, max_skipped=1, log_every=2, checkpoint_seconds=100), 130
    assert run(arguments) == status
    for _ in range(10):
        status = run([kind, "--out", str(tmp_path / "run"), "--resume"])
        if status == 0:
            break
    assert calls > 12
    assert_same_run(tmp_path / "whole/run", tmp_path / "run")


@pytest.mark.slow
def test_it_ends_alike_when_it_is_found_out_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, "search", of_full_rate)
    states = []
    for number, how in enumerate(({"log_every": 100}, {"log_every": 3, "checkpoint_seconds": 100})):
        (tmp_path / str(number)).mkdir()
        assert run(start("search", tmp_path / str(number), max_skipped=1, **how)) == 0
        states.append(checkpoint(tmp_path / str(number) / "run")["state"])
    assert_same_state(*states)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "half"), [("search", "weights"), ("search", "architecture"), ("retrain", "weights")])
def test_a_run_that_has_gone_back_too_often_stops(
    kind: str, half: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    plant(monkeypatch, kind, lambda task, number, of: number >= 9 and of == half)
    assert run(start(kind, tmp_path, max_skipped=1, max_returns=2)) == 2
    line, out = capsys.readouterr().err.splitlines()[-1], tmp_path / "run"
    what = "the train loss is" if half == "weights" else "the arch loss is"
    named = "with the learning rate at 1/4", f"{kind}.optimizer.lr", "warmup_epochs", "clip_grad_norm", "check-data"
    check_line(line, "loss-not-finite", what, out, *named)
    found = rows(out)
    assert [row["lr_factor"] for row in found if row["kind"] == "returned"] == [0.5, 0.25]
    assert found[-1]["kind"] == "diverged"
    for path in (out / "checkpoints").iterdir():
        saved = torch.load(path, weights_only=True)["state"]["supernet" if kind == "search" else "network"]
        assert all(value.isfinite().all() for value in saved.values()), path


@pytest.mark.slow
def test_a_validation_loss_that_is_not_finite(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of that epoch is kept: no best.pt, no arch file, no row."""
    validate, best = SearchTask.validate, checkpoint(searched, "best")

    def spoiled(task: SearchTask, *arguments: Any) -> Any:
        figures = validate(task, *arguments)
        return {"val": {**figures["val"], "loss": NAN, "miou": 1.0}} if task.lr_factor == 1 else figures

    monkeypatch.setattr(SearchTask, "validate", spoiled)
    assert run(start("search", tmp_path)) == 0
    assert "the validation loss is no longer finite at epoch 1, step 4" in caplog.text
    assert [row["lr_factor"] for row in rows(tmp_path / "run", "returned")] == [0.5]
    assert checkpoint(tmp_path / "run", "best")["best_miou"] < 1
    assert best["returns"] == 0
    assert len(rows(tmp_path / "run", "val")) == 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", TASKS)
def test_first_weights_that_are_not_finite(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def begin(task: Any, run_directory: object) -> None:
        with torch.no_grad():
            task.optimizer.param_groups[0]["params"][0].fill_(NAN)

    monkeypatch.setattr(TASKS[kind], "begin", begin)
    assert run(start(kind, tmp_path)) == 2
    check_line(capsys.readouterr().err.splitlines()[-1], "loss-not-finite", "the weights are", "epoch 1, step 0")
    assert not list((tmp_path / "run/checkpoints").iterdir())


@pytest.mark.slow
def test_the_epoch_before_the_skipped_steps_is_the_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skipped steps may reach over an epoch's end, which is then none to go back to."""
    plant(monkeypatch, "search", lambda task, number, half: number >= 7 and task.lr_factor == 1)
    assert run(start("search", tmp_path, max_skipped=3)) == 0
    assert [row["step"] for row in rows(tmp_path / "run", "returned")] == [4]


@pytest.mark.slow
def test_a_damaged_checkpoint_to_go_back_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The last one serves in its place."""
    plant(monkeypatch, "search", of_full_rate)
    step = SearchTask.step

    def damaging(task: SearchTask, batches: Any, epoch: int, number: int) -> Any:
        if number == 6 and task.lr_factor == 1:
            (tmp_path / "run/checkpoints/epoch.pt").write_bytes(b"PK")
        return step(task, batches, epoch, number)

    monkeypatch.setattr(SearchTask, "step", damaging)
    assert run(start("search", tmp_path, max_skipped=1)) == 0
    assert "epoch.pt is no readable checkpoint" in caplog.text
    assert [row["lr_factor"] for row in rows(tmp_path / "run", "returned")] == [0.5]


@pytest.mark.slow
def test_recorded_steps_are_skipped_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for CUDA graphs the run ends as an eager one."""
    plant(monkeypatch, "search", lambda task, number, half: number in (6, 9))
    (tmp_path / "eager").mkdir()
    assert run(start("search", tmp_path / "eager")) == 0
    made: list[StandIn] = []
    monkeypatch.setattr(search, "make_recorder", lambda supernet, *_: made.append(StandIn(supernet)) or made[-1])
    assert run(start("search", tmp_path)) == 0
    assert made[0].records == 2
    assert made[0].replays > 4
    states = [taken(checkpoint(path)["state"]) for path in (tmp_path / "eager/run", tmp_path / "run")]
    assert_same_state(*states)


@pytest.mark.slow
def test_a_run_of_an_earlier_version_has_a_checkpoint_to_go_back_to(searched: Path, tmp_path: Path) -> None:
    """Its checkpoints have none of the counts."""
    arguments = start("search", tmp_path, epochs=2)
    call(*arguments)
    folder = tmp_path / "run/checkpoints"
    old = {key: value for key, value in checkpoint(tmp_path / "run").items() if key in OLD_KEYS}
    torch.save(old, folder / "last.pt")
    for name in ("epoch.pt", "last.1.pt", "last.2.pt"):
        (folder / name).unlink()
    config = tmp_path / "run/config.yaml"
    kept = [line for line in config.read_text().splitlines() if "max_skipped" not in line and "max_ret" not in line]
    config.write_text("\n".join(kept))
    call("search", "--out", tmp_path / "run", "--resume", "--set", "search.epochs=3")
    assert checkpoint(tmp_path / "run", "epoch")["epoch"] == 3
    assert json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])["step"] == 12


OLD_KEYS = (
    "version", "kind", "architecture", "epoch", "step_in_epoch", "best_miou", "seconds", "metrics_bytes", "state",
)  # fmt: skip
