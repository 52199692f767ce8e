"""A search and a retraining of seconds, for scripts that break them, and whether two ends are equal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoseg.files import to_yaml

DATA = {"layout": "generated", "generated": {"size": [32, 32], "train": 16, "val": 5, "test": 3}}
TRAINING = {"batch_size": 2, "crop": [32, 32], "log_every": 1, "checkpoint_seconds": 0}
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
SETTINGS: dict[str, dict[str, Any]] = {
    "search": {
        "space": SPACE, "data": DATA, "device": "cpu",
        "search": {**TRAINING, "epochs": 3, "arch_start_epoch": 1, "arch_optimizer": {"name": "adam", "lr": 0.02}},
    },
    "retrain": {
        "genotype": GENOTYPE, "data": DATA, "device": "cpu",
        "retrain": {**TRAINING, "epochs": 2, "drop_path": 0.3, "auxiliary_weight": 0.4, "ema_decay": 0.9},
    },
}  # fmt: skip
"""12 steps of a search and 16 of a retraining, each saved; everything random and everything with a state is on."""


def write_settings(path: Path, kind: str, changes: Mapping[str, Any] | None = None) -> Path:
    """The settings of a search or a retraining as a file; `changes` to its schedule."""
    settings = {**SETTINGS[kind], kind: {**SETTINGS[kind][kind], **(changes or {})}}
    path.write_text(to_yaml(settings), encoding="utf-8")
    return path


def start(*arguments: object) -> subprocess.Popen[str]:
    """An `autoseg` command on one thread, whose output is kept."""
    command = [sys.executable, "-m", "autoseg", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(*arguments: object) -> None:
    """An `autoseg` command that must succeed. Raises: RuntimeError: it does not."""
    process = start(*arguments)
    out, err = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"autoseg {' '.join(map(str, arguments))}: status {process.returncode}\n{out}{err}")


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two ended runs: checkpoints, metrics, architectures."""
    found = []
    for name in ("last.pt", "best.pt"):
        first, second = (
            torch.load(run / "checkpoints" / name, map_location="cpu", weights_only=True) for run in (one, other)
        )
        first.pop("seconds"), second.pop("seconds")
        old, new = dict(_flat(first)), dict(_flat(second))
        if old.keys() != new.keys():
            found.append(f"{name}: other keys")
        found += [f"{name}: {key}" for key in old if key in new and not _equal(old[key], new[key])]
    if (one / "metrics.jsonl").read_bytes() != (other / "metrics.jsonl").read_bytes():
        rows = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, other)]
        found.append(f"metrics.jsonl: {len(rows[0])} and {len(rows[1])} rows")
    records = [run / "arch" / "gradients.bin" for run in (one, other)]
    if records[0].exists() and (not records[1].exists() or len({file.read_bytes() for file in records}) > 1):
        found.append("gradients.bin")
    names = [sorted(path.name for path in (run / "arch").glob("*.npz")) for run in (one, other)]
    if names[0] != names[1]:
        return [*found, f"arch: {names[0]} and {names[1]}"]
    for name in names[0]:
        with np.load(one / "arch" / name) as first_file, np.load(other / "arch" / name) as second_file:
            found += [f"{name}: {key}" for key in first_file if not _equal(first_file[key], second_file[key])]
    return found


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _flat(inner, f"{place}.{number}")
    else:
        yield place, value


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor | np.ndarray):
        return np.array_equal(np.asarray(one), np.asarray(other))
    return bool(one == other)
