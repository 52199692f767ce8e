"""The bilevel search: what each step moves, what it leaves alone, and what a run leaves behind."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.errors import raises_code
from helpers.tiny_runs import SEARCH, assert_same_run, call, checkpoint, rows, search_task, write_config
from torch.nn import functional as F

from autoseg.cli.main import run
from autoseg.config.base import parse
from autoseg.config.training import SearchSchedule
from autoseg.data.loading.loader import epoch_order
from autoseg.data.statistics import repeat_factors
from autoseg.engine.search import SearchTask
from autoseg.errors import ConfigError, DataError, RunError
from autoseg.losses.losses import SegmentationLoss
from autoseg.space.snapshot import ArchProbs


def batches(task: SearchTask) -> tuple[Any, Any]:
    """One batch of trainA and one of trainB."""
    return next(iter(task.loader_a.epoch(0))), next(iter(task.loader_b.epoch(0)))


def weights(task: SearchTask) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in task.supernet.weights()]


def logits(task: SearchTask) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in task.supernet.arch.parameters()]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(first, second) for first, second in zip(one, other, strict=True))


# --- the split --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_halves_are_disjoint_whole_stored_and_seeded(searched: Path, tmp_path: Path) -> None:
    split = yaml.safe_load((searched / "split.yaml").read_text())
    first, second = split["train_a"], split["train_b"]
    assert len(first) == len(second) == 8
    assert sorted(first + second) == [f"train_{index:05d}" for index in range(16)]
    assert first != sorted(first + second)[:8]  # at random, not the first half
    task = search_task()
    assert first == [task.train_set.names[index] for index in task.loader_a.indices]
    assert second == [task.train_set.names[index] for index in task.loader_b.indices]
    config = write_config(tmp_path / "c.yaml", SEARCH, {"search": {"epochs": 1, "arch_start_epoch": 0}})
    call("search", "--config", config, "--seed", 1, "--out", tmp_path / "run")
    other = yaml.safe_load((tmp_path / "run" / "split.yaml").read_text())
    assert sorted(other["train_a"] + other["train_b"]) == sorted(first + second)
    assert other["train_a"] != first


@pytest.mark.slow
def test_the_seed_decides_weights_logits_and_both_streams_of_batches() -> None:
    """Each by itself; the two streams of a run have no random numbers in common."""

    def of(seed: int) -> SearchTask:
        task = search_task()
        config = task.config.model_copy(update={"seed": seed})
        return SearchTask(config, task.train_set, task.val_set, torch.device("cpu"))

    def seeds(task: SearchTask) -> list[set[int]]:
        loaders = task.loader_a, task.loader_b
        return [{seed for step in range(4) for _, seed in loader.keys(0, step)} for loader in loaders]

    one, same, other = of(1), of(1), of(2)
    assert equal(weights(one), weights(same))
    assert equal(logits(one), logits(same))
    assert seeds(one) == seeds(same)
    differ = [not torch.equal(*pair) for pair in zip(weights(one), weights(other), strict=True)]
    assert sum(differ) > len(differ) / 2  # BatchNorm's begin at 1 and 0
    assert not equal(logits(one), logits(other))
    assert len(set.union(*seeds(one), *seeds(other))) == 4 * 4 * 2


def test_batches_come_from_their_halves() -> None:
    task = search_task(augment={"scale": [1, 1], "flip": 0})
    images = {index: task.train_set.load(index).mask for index in range(len(task.train_set))}
    for loader in (task.loader_a, task.loader_b):
        for _, masks in loader.epoch(0):
            for mask in masks.numpy():
                matches = [index for index, known in images.items() if np.array_equal(known, mask)]
                assert set(matches) & set(loader.indices)


def test_halves_too_small_for_a_batch() -> None:
    with raises_code(DataError, "batch-too-large", "trainA", 8, 16, "search.batch_size is 9"):
        search_task(batch_size=9)
    with raises_code(DataError, "batch-too-large", "trainB has 2", 16, "search.batch_size"):
        search_task(batch_size=3, train_a_fraction=0.9)


def test_a_half_of_one_image_does_not_ask_for_a_smaller_batch() -> None:
    with raises_code(DataError, "batch-too-large", "trainB has 1 of the 16", "add images") as raised:
        search_task(batch_size=2, train_a_fraction=0.94)
    assert "lower" not in str(raised.value)


# --- one step ---------------------------------------------------------------------------------------------------------


def test_a_weight_step_is_sgd_on_the_weights_and_leaves_the_architecture_alone() -> None:
    optimizer = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}
    schedule = {"optimizer": optimizer, "schedule": {"name": "constant"}}
    task, twin = search_task(**schedule), search_task(**schedule)
    (images, masks), _ = batches(task)
    before, arch = weights(task), logits(task)
    assert equal(before, weights(twin))
    loss = F.cross_entropy(twin.supernet.train()(images), masks, ignore_index=255)
    gradients = torch.autograd.grad(loss, twin.supernet.weights(), materialize_grads=True)
    expected = [old - 0.05 * (gradient + 0.01 * old) for old, gradient in zip(before, gradients, strict=True)]

    reported = task.step(([(images, masks)], None), 0, 0)["train"]["loss"]
    assert float(reported) == pytest.approx(float(loss.detach()), rel=1e-6)
    for new, wanted in zip(weights(task), expected, strict=True):
        assert torch.allclose(new, wanted, atol=1e-6)
    assert not equal(weights(task), before)
    assert equal(logits(task), arch)
    assert all(parameter.grad is None for parameter in task.supernet.arch.parameters())


def test_an_architecture_step_is_adam_on_the_logits_and_leaves_the_weights_alone() -> None:
    """It takes the weights as the weight step of the iteration left them."""
    schedule = {"arch_optimizer": {"name": "adam", "lr": 0.02, "betas": [0.5, 0.999], "weight_decay": 0.001}}
    task, twin = search_task(**schedule), search_task(**schedule)
    batch_a, (images, masks) = batches(task)
    twin.step(([batch_a], None), 1, 4)
    moved, arch = weights(twin), logits(twin)
    twin.supernet.requires_grad_(True)
    loss = F.cross_entropy(twin.supernet(images), masks, ignore_index=255)
    gradients = torch.autograd.grad(loss, list(twin.supernet.arch.parameters()))
    expected = []
    for old, gradient in zip(arch, gradients, strict=True):
        decayed = gradient + 0.001 * old  # Adam's first step: the moving averages, corrected, are g and g squared
        expected.append(old - 0.02 * decayed / (decayed.abs() + 1e-8))

    reported = task.step(([batch_a], [(images, masks)]), 1, 4)["arch"]["loss"]
    assert float(reported) == pytest.approx(float(loss.detach()), rel=1e-6)
    for new, wanted in zip(logits(task), expected, strict=True):
        assert torch.allclose(new, wanted, atol=1e-5)
    assert not equal(logits(task), arch)
    assert equal(weights(task), moved)


def test_an_iteration_steps_the_weights_on_a_and_then_the_architecture_on_b() -> None:
    """In each half the other one is frozen."""
    task, calls = search_task(), []
    batch_a, batch_b = batches(task)
    halves = (task.supernet.weights(), list(task.supernet.arch.parameters()))

    def trained() -> list[bool]:
        return [bool(flag) for half in halves for flag in {parameter.requires_grad for parameter in half}]

    task.supernet.register_forward_pre_hook(lambda _, images: calls.append((images[0], trained())))
    task.optimizer.register_step_pre_hook(lambda *_: calls.append(("weights", trained())))
    task.arch_optimizer.register_step_pre_hook(lambda *_: calls.append(("architecture", trained())))
    assert set(task.step(([batch_a], [batch_b]), 1, 4)) == {"train", "arch"}
    (first, *flags_a), (second, *_), (third, *flags_b), (fourth, *_) = calls
    assert (second, fourth) == ("weights", "architecture")
    assert torch.equal(first, batch_a[0])
    assert torch.equal(third, batch_b[0])
    assert (flags_a, flags_b) == ([[True, False]], [[False, True]])
    calls.clear()
    assert set(task.step(([batch_a], None), 0, 0)) == {"train"}
    assert [call[0] for call in calls[1:]] == ["weights"]


def test_gradients_of_the_weights_are_clipped() -> None:
    optimizer = {"name": "sgd", "lr": 1.0, "momentum": 0, "weight_decay": 0}
    task = search_task(clip_grad_norm=0.01, optimizer=optimizer, schedule={"name": "constant"})
    (images, masks), _ = batches(task)
    before = weights(task)
    task.step(([(images, masks)], None), 0, 0)
    moved = [new - old for new, old in zip(weights(task), before, strict=True)]
    assert math.sqrt(sum(float((step**2).sum()) for step in moved)) == pytest.approx(0.01, rel=1e-3)


def test_bf16_and_class_weights_train() -> None:
    task = search_task(precision="bf16", class_weights=[1, 2, 3, 4, 5, 6, 7])
    (images, masks), batch_b = batches(task)
    task.supernet.train()
    with torch.no_grad():
        logits_ = task.supernet(images)
    expected = F.cross_entropy(logits_, masks, torch.arange(1.0, 8.0), ignore_index=255)
    figures = task.step(([(images, masks)], [batch_b]), 1, 4)
    assert float(figures["train"]["loss"]) == pytest.approx(float(expected), rel=0.05)
    assert math.isfinite(float(figures["arch"]["loss"]))
    with raises_code(ConfigError, "class-weights-number", "class_weights", 2, "7 classes"):
        search_task(class_weights=[1, 2])


@pytest.mark.slow
def test_both_steps_minimise_the_loss_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    terms = [{"name": "focal", "weight": 0.5, "gamma": 1.0}, "lovasz"]
    task, twin = search_task(loss=terms, class_weights="inverse"), search_task(class_weights="inverse")
    (images, masks), (images_b, masks_b) = batches(task)
    loss = SegmentationLoss(255, twin.loss.class_weights, 0.0, parse(SearchSchedule, {"loss": terms}).loss)
    twin.supernet.train()
    expected = [loss(twin.supernet(given), labels).item() for given, labels in ((images, masks), (images_b, masks_b))]
    plain = twin.loss(twin.supernet(images), masks).item()
    # so that both losses are those of the same weights
    monkeypatch.setattr("autoseg.engine.optim.learning_rate", lambda *_: 0.0)
    figures = task.step(([(images, masks)], [(images_b, masks_b)]), 1, 4)
    assert float(figures["train"]["loss"]) == pytest.approx(expected[0], rel=1e-5)
    assert float(figures["arch"]["loss"]) == pytest.approx(expected[1], rel=1e-5)
    assert expected[0] != pytest.approx(plain, rel=1e-2)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_each_half_is_balanced_by_its_own_images(share: float) -> None:
    task = search_task(balanced_sampling=share)
    for loader, indices in ((task.loader_a, task.indices_a.tolist()), (task.loader_b, task.indices_b.tolist())):
        chances = repeat_factors(task.train_set, indices)
        order = epoch_order(len(indices), 0, 1, loader.stream, 0, share, chances)
        shown = [index for index, _ in loader.keys(1, 0)]
        assert shown == [indices[place] for place in order[: len(shown)]]


# --- a run ------------------------------------------------------------------------------------------------------------


def test_a_run_leaves_every_file(searched: Path) -> None:
    names = {str(path.relative_to(searched)) for path in searched.rglob("*") if path.is_file()}
    boards = {name for name in names if name.startswith("tensorboard/events.")}
    assert len(boards) == 1
    assert names - boards == {
        "config.yaml", "environment.yaml", "split.yaml", "metrics.jsonl", "checkpoints/last.pt", "checkpoints/best.pt",
        "arch/epoch_0000.npz", "arch/epoch_0001.npz", "arch/epoch_0002.npz", "lock",
        "arch/gradients.bin",
        "checkpoints/last.1.pt", "checkpoints/last.2.pt", "checkpoints/epoch.pt",
    }  # fmt: skip
    environment = yaml.safe_load((searched / "environment.yaml").read_text())
    assert environment["packages"]["torch"] == torch.__version__
    assert (environment["device"], environment["seed"]) == ("cpu", 0)
    assert environment["git_commit"] is None or len(environment["git_commit"]) == 40


def test_metrics_of_a_run(searched: Path) -> None:
    train, arch, val = (rows(searched, kind) for kind in ("train", "arch", "val"))
    assert [(row["epoch"], row["step"]) for row in train] == [(step // 4, step + 1) for step in range(12)]
    expected = [1e-3 + (0.025 - 1e-3) * 0.5 * (1 + math.cos(math.pi * step / 12)) for step in range(12)]
    assert [row["lr"] for row in train] == pytest.approx(expected)
    assert [row["step"] for row in arch] == list(range(5, 13))  # from arch_start_epoch 1 on
    assert [(row["epoch"], row["step"]) for row in val] == [(0, 4), (1, 8), (2, 12)]
    assert all(0 <= row["miou"] <= 1 and 0 <= row["alpha_entropy"] <= 1 for row in val)
    saved = checkpoint(searched, "best")
    assert saved["best_miou"] == max(row["miou"] for row in val)
    assert saved["epoch"] == 1 + [row["miou"] for row in val].index(saved["best_miou"])


def test_the_architecture_waits_for_its_epoch(searched: Path) -> None:
    task = search_task()
    snapshots = [ArchProbs.load(searched / "arch" / f"epoch_{epoch:04d}.npz", task.space) for epoch in range(3)]
    first = task.supernet.arch.snapshot()
    assert np.array_equal(snapshots[0].alpha_logits, first.alpha_logits)
    assert np.array_equal(snapshots[0].beta_logits, first.beta_logits)
    for before, after in itertools.pairwise(snapshots):
        assert not np.array_equal(before.alpha_logits, after.alpha_logits)
        assert not np.array_equal(before.beta_logits, after.beta_logits)
    last = checkpoint(searched)["state"]["supernet"]
    assert np.array_equal(snapshots[2].alpha_logits, last["arch.alpha_logits"].double().numpy())
    assert np.array_equal(snapshots[2].beta_logits, last["arch.beta_logits"].double().numpy())


@pytest.mark.slow
def test_a_run_from_the_config_of_another_is_the_same(searched: Path, tmp_path: Path) -> None:
    call("search", "--config", searched / "config.yaml", "--out", tmp_path / "b")
    assert_same_run(searched, tmp_path / "b")
    assert (searched / "config.yaml").read_bytes() == (tmp_path / "b" / "config.yaml").read_bytes()
    assert (searched / "split.yaml").read_bytes() == (tmp_path / "b" / "split.yaml").read_bytes()


@pytest.mark.slow
def test_another_seed_is_another_search(searched: Path, tmp_path: Path) -> None:
    call("search", "--config", searched / "config.yaml", "--seed", 3, "--out", tmp_path / "b")
    one, other = checkpoint(searched)["state"], checkpoint(tmp_path / "b")["state"]
    assert not torch.equal(one["supernet"]["arch.alpha_logits"], other["supernet"]["arch.alpha_logits"])


@pytest.mark.slow
def test_validating_seldom_and_logging_seldom(tmp_path: Path) -> None:
    changes = {"epochs": 4, "validate_every": 3, "val_images": 2, "max_steps_per_epoch": 3, "log_every": 2}
    config = write_config(tmp_path / "c.yaml", SEARCH, {"search": changes})
    call("search", "--config", config, "--out", tmp_path / "run")
    assert [row["epoch"] for row in rows(tmp_path / "run", "val")] == [2, 3]  # the last epoch always
    assert [row["step"] for row in rows(tmp_path / "run", "train")] == [2, 3, 4, 6, 8, 9, 10, 12]


@pytest.mark.slow
def test_a_diverged_loss_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # weight decay of 10 times 1 a step makes the weights overflow: a large loss alone BatchNorm would survive
    changes = {"optimizer": {"lr": 10.0, "weight_decay": 1.0}, "schedule": {"name": "constant"}, "epochs": 30}
    changes |= {"max_returns": 0}
    config = write_config(tmp_path / "c.yaml", SEARCH, {"search": changes})
    status = run(["search", "--config", str(config), "--out", str(tmp_path / "run")])
    last = capsys.readouterr().err.splitlines()[-1]
    assert status == 2
    assert last.startswith("error: ")
    assert last.endswith(" [loss-not-finite]")
    assert re.search(r"\bepoch \d+, step \d+\b", last)
    assert "search.optimizer.lr" in last


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from autoseg.api.search import search

    nothing = torch.tensor(float("nan"))
    monkeypatch.setattr(SearchTask, "step", lambda *_: {"train": {"loss": nothing, "lr": 0.1, "skipped": True}})
    config = write_config(tmp_path / "c.yaml", SEARCH, {"search": {"max_skipped": 0, "max_returns": 0}})
    with raises_code(RunError, "loss-not-finite", "train loss", "epoch 1, step 1"):
        search(config=config, out=tmp_path / "run", show_progress=False)
    assert not (tmp_path / "run" / "checkpoints" / "last.pt").exists()
