"""Searches with the options that change the mathematics: resumed, decoded, retrained, shown and planned."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_runs import RETRAIN, SEARCH, SPACE, assert_same_state, call, rows, search_settings, write_config

from autoseg.config.base import merge
from autoseg.data.dataset import open_dataset
from autoseg.engine.config import SearchConfig
from autoseg.engine.search import SearchTask
from autoseg.engine.training import seed_of
from autoseg.genotype.schema import Genotype
from autoseg.planning.memory import predict_memory

RELAXATIONS: dict[str, dict[str, Any]] = {
    "pc_darts": {"pc_darts": 2},
    "gdas": {"gdas": [5.0, 0.5]},
    "mix_before_cell": {"mix_before_cell": True},
    "all": {"pc_darts": 2, "gdas": [5.0, 0.5], "mix_before_cell": True},
}
each = pytest.mark.parametrize("relaxation", RELAXATIONS.values(), ids=RELAXATIONS)


def settings_with(relaxation: dict[str, Any]) -> dict[str, Any]:
    return merge(SEARCH, {"space": {"relaxation": relaxation}})


def config_with(relaxation: dict[str, Any]) -> SearchConfig:
    settings = settings_with(relaxation)
    return search_settings(settings["space"], settings["data"], overrides={"search": settings["search"]})


def task_with(relaxation: dict[str, Any]) -> SearchTask:
    config = config_with(relaxation)
    return SearchTask(config, open_dataset(config.data, "train"), open_dataset(config.data, "val"), torch.device("cpu"))


def advance(task: SearchTask, first: int, last: int) -> None:
    for number in range(first, last):
        epoch, step = divmod(number, task.steps_per_epoch)
        task.step(next(task.batches(epoch, step)), epoch, number)


@pytest.mark.slow
@each
def test_a_resumed_search_equals_one_that_never_stopped(relaxation: dict[str, Any]) -> None:
    whole, first, second = (task_with(relaxation) for _ in range(3))
    advance(whole, 0, 8)
    advance(first, 0, 5)
    state = first.state()
    torch.manual_seed(12345)
    second.load_state(state)
    advance(second, 5, 8)
    assert_same_state(whole.state(), second.state())


@pytest.mark.slow
def test_operations_are_drawn_for_each_pass_and_temperatures_go_from_first_to_last() -> None:
    task = task_with(RELAXATIONS["gdas"])
    drawn: list[tuple[int, float]] = []
    arch = task.supernet.arch
    draw = arch.draw
    arch.draw = lambda seed, temperature: (drawn.append((seed, temperature)), draw(seed, temperature))[1]
    advance(task, 0, 12)
    numbers = [n for step in range(12) for n in ((2 * step,) if step < 4 else (2 * step, 2 * step + 1))]
    assert [seed for seed, _ in drawn] == [seed_of(task.config.seed, number) for number in numbers]
    assert [t for _, t in drawn] == pytest.approx([5.0 - 4.5 * number / 23 for number in numbers])


@pytest.mark.slow
def test_the_seed_decides_what_is_drawn() -> None:
    config = config_with(RELAXATIONS["gdas"])
    data = open_dataset(config.data, "train"), open_dataset(config.data, "val"), torch.device("cpu")
    drawn: dict[int, list[int]] = {}
    for seed in (3, 4):
        task = SearchTask(config.model_copy(update={"seed": seed}), *data)
        task.supernet.arch.draw = lambda number, _, seed=seed: drawn.setdefault(seed, []).append(number)
        for number in range(6):
            task._sample_operations(number)
    assert len({*drawn[3], *drawn[4]}) == 12


@pytest.mark.slow
@each
def test_from_search_to_retraining(
    relaxation: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "search.yaml", settings_with(relaxation), {"search": {"epochs": 2}})
    run = tmp_path / "run"
    space = write_config(tmp_path / "space.yaml", SPACE, {"relaxation": relaxation})
    call("search", "--config", config, "--space", space, "--out", run)
    last = rows(run, "val")[-1]
    entropies = {"alpha_entropy", "beta_entropy"} | ({"edge_entropy"} if "pc_darts" in relaxation else set())
    assert {name for name in last if name.endswith("_entropy")} == entropies
    assert all(0 < last[name] <= 1 for name in entropies - {"beta_entropy"})
    with np.load(run / "arch" / "epoch_0001.npz") as snapshot:
        assert ("edge_probs" in snapshot) == ("pc_darts" in relaxation)
    call("decode", run)
    genotype = Genotype.load(run)
    assert genotype.source["space"] == "mini"
    network = write_config(tmp_path / "retrain.yaml", {**RETRAIN, "genotype": genotype.to_dict()})
    call("retrain", run, "--config", network, "--set", "retrain.epochs=1", "--out", tmp_path / "network")
    assert rows(tmp_path / "network", "val")
    call("plot", run)
    capsys.readouterr()
    call("show", space, "--size", 32, 32)
    shown = capsys.readouterr().out
    assert re.search(r"^relaxation .*" + ".*".join(relaxation), shown, re.MULTILINE), shown


@pytest.mark.slow
@each
def test_memory_is_predicted(relaxation: dict[str, Any]) -> None:
    memory = predict_memory(config_with(relaxation), torch.device("cpu"))
    assert memory.peak_bytes > memory.fixed_bytes > 0
    assert memory.saved_bytes > 0
