"""A search and a retraining of a second or two, and what the tests of engine, api and command line ask of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoseg.cli.main import run
from autoseg.config.base import merge, parse
from autoseg.config.data import DataConfig
from autoseg.data.dataset import open_dataset, resolve
from autoseg.engine.config import RetrainConfig, SearchConfig
from autoseg.engine.retrain import RetrainTask
from autoseg.engine.search import SearchTask
from autoseg.files import to_yaml
from autoseg.setup.settings import retrain_config, retrain_sources, search_config, search_sources

DATA: dict[str, Any] = {
    "layout": "generated",
    "generated": {"size": [32, 32], "train": 16, "val": 5, "test": 3},
}
SPACE: dict[str, Any] = {
    "name": "mini",
    "cell": {"blocks": 1, "operations": ["none", "skip_connect", "sep_conv_3x3"]},
    "network": {"layers": 2, "strides": [4, 8], "filter_multiplier": 2},
    "stem": {"channels": [4, 4], "strides": [2, 2]},
    "head": {"aspp_rate": 8},
    "decoder": {"filters": 8, "aspp_rates": [8], "low_level_filters": 4},
}
GENOTYPE: dict[str, Any] = {
    "name": "mini_network",
    "cell": [[{"input": "prev", "operation": "sep_conv_3x3"}, {"input": "prev_prev", "operation": "skip_connect"}]],
    "network": {"strides": [8, 4], "filter_multiplier": 4},
    "stem": {"channels": [4, 4], "strides": [2, 2]},
    "decoder": {"filters": 8, "aspp_rates": [8], "low_level_filters": 4, "dropout": 0.2},
}
COMMON: dict[str, Any] = {"batch_size": 2, "crop": [32, 32], "log_every": 1, "checkpoint_seconds": 0}
SEARCH: dict[str, Any] = {
    "space": SPACE,
    "data": DATA,
    "search": {**COMMON, "epochs": 3, "arch_start_epoch": 1, "arch_optimizer": {"name": "adam", "lr": 0.02}},
    "device": "cpu",
}
"""4 steps an epoch, 12 in all."""
RETRAIN: dict[str, Any] = {
    "genotype": GENOTYPE,
    "data": DATA,
    "retrain": {
        **COMMON,
        "epochs": 2,
        "drop_path": 0.3,
        "auxiliary_weight": 0.4,
        "ema_decay": 0.9,
        "schedule": {"name": "poly", "warmup_epochs": 0.5},
    },
    "device": "cpu",
}
"""8 steps an epoch, 16 in all; everything random and everything with a state is on."""
SETTINGS = {"search": SEARCH, "retrain": RETRAIN}


def write_config(path: Path, settings: Mapping[str, Any], *changes: Mapping[str, Any]) -> Path:
    path.write_text(to_yaml(merge(settings, *changes)), encoding="utf-8")
    return path


def resolved(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as config.yaml holds them, with data of which everything is known."""
    return {**settings, "data": resolve(parse(DataConfig, settings["data"])).to_dict()}


def search_task(**search: Any) -> SearchTask:
    """A search that has not begun; the arguments change `search.*`."""
    config = parse(SearchConfig, resolved(merge(SEARCH, {"search": search})))
    return SearchTask(config, open_dataset(config.data, "train"), open_dataset(config.data, "val"), torch.device("cpu"))


def retrain_task(data: Mapping[str, Any] | None = None, **retrain: Any) -> RetrainTask:
    """A retraining that has not begun; the arguments change `retrain.*`."""
    config = parse(RetrainConfig, resolved(merge(RETRAIN, {"retrain": retrain, "data": data or {}})))
    return RetrainTask(
        config, open_dataset(config.data, "train"), open_dataset(config.data, "val"), torch.device("cpu")
    )


def search_settings(*given: Any, **named: Any) -> SearchConfig:
    """The settings of a search from its sources."""
    return search_config(search_sources(*given, **named))


def retrain_settings(*given: Any, **named: Any) -> RetrainConfig:
    """The settings of a retraining from its sources."""
    return retrain_config(retrain_sources(*given, **named))


def call(*arguments: object) -> None:
    """A command that must succeed."""
    assert run([str(argument) for argument in arguments]) == 0


SLOW = """
import sys, time
from autoseg.cli.main import main
from autoseg.engine.trainer import Trainer

pause = Trainer._pause
Trainer._pause = lambda *arguments: (time.sleep(0.05), pause(*arguments))
main()
"""


def start(*arguments: object, slow: bool = False) -> subprocess.Popen[str]:
    """The same in a process of its own. `slow`: 50 ms more a step, so that a signal surely comes before the end."""
    return subprocess.Popen(
        [sys.executable, *(("-c", SLOW) if slow else ("-m", "autoseg")), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that a signal can go to its whole process group and spare the tests
    )


def wait_for_rows(process: subprocess.Popen[str], run_directory: Path, count: int) -> None:
    """Until metrics.jsonl has `count` lines."""
    path, end = run_directory / "metrics.jsonl", time.monotonic() + 120
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "no progress"
        time.sleep(0.01)


def rows(run_directory: Path, kind: str | None = None) -> list[dict[str, Any]]:
    lines = (run_directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if kind in (None, row["kind"])]


def checkpoint(run_directory: Path, name: str = "last") -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(run_directory / "checkpoints" / f"{name}.pt", weights_only=True)
    return loaded


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every tensor and plain value of nested settings, lists and tensors."""
    if isinstance(value, Mapping):
        for key in value:
            yield from flat(value[key], f"{path}/{key}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from flat(inner, f"{path}/{index}")
    else:
        yield path, value.numpy() if isinstance(value, torch.Tensor) else value


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, logits, optimisers, metrics, snapshots and recorded gradients are equal, bit for bit."""
    for name in ("last", "best"):
        first, second = checkpoint(one, name), checkpoint(other, name)
        assert_same_state(first["state"], second["state"])
        for key in ("epoch", "step_in_epoch", "best_miou", "architecture", "metrics_bytes"):
            assert first[key] == second[key], key
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    names = sorted(path.name for path in (one / "arch").glob("*"))
    assert names == sorted(path.name for path in (other / "arch").glob("*"))
    for name in names:
        if not name.endswith(".npz"):
            assert (one / "arch" / name).read_bytes() == (other / "arch" / name).read_bytes(), name
            continue
        with np.load(one / "arch" / name) as first, np.load(other / "arch" / name) as second:
            assert set(first) == set(second)
            assert all(np.array_equal(first[key], second[key]) for key in first)


def difference(one: Path, other: Path) -> str:
    """What `assert_same_run` finds, for scripts; empty if the two runs are equal."""
    try:
        assert_same_run(one, other)
    except (AssertionError, OSError) as found:
        return str(found) or "other"
    return ""


def assert_same_state(first: Any, second: Any) -> None:
    old, new = dict(flat(first)), dict(flat(second))
    assert old.keys() == new.keys()
    different = [key for key in old if not np.array_equal(np.asarray(old[key]), np.asarray(new[key]))]
    assert not different, different[:5]


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its place."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
