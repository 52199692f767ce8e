"""What becomes smaller for a device's memory, and in which order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engine.memory_measured import search_config
from tiny_runs import RETRAIN, SPACE, call, retrain_task, write_config, write_folder

from autoseg.api import fitting
from autoseg.api.fitting import fit_to_device, smaller_settings
from autoseg.cli.main import run
from autoseg.config import RetrainConfig, SearchConfig
from autoseg.engine.plan import predict_memory
from autoseg.engine.training_memory import predict_training_memory
from autoseg.errors import ConfigError
from autoseg.files import read_yaml

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def always_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "MOST_BYTES", {"search": 10**9, "retrain": 10**9})


def searched(**search: Any) -> SearchConfig:
    return search_config(SPACE, **{"crop": [96, 96], "batch_size": 8, **search})


def needed(config: SearchConfig | RetrainConfig, **changes: Any) -> int:
    kind = "search" if isinstance(config, SearchConfig) else "retrain"
    changed: Any = config.model_copy(update={kind: getattr(config, kind).model_copy(update=changes)})
    predict: Any = predict_memory if kind == "search" else predict_training_memory
    return int(predict(changed, CPU).needed_bytes(CPU))


def changed(config: Any, memory_bytes: int, *given: str) -> tuple[dict[str, Any], list[str]]:
    fitted, reasons = fit_to_device(config, CPU, given, memory_bytes)
    kind = "search" if isinstance(config, SearchConfig) else "retrain"
    before, after = (getattr(one, kind).to_dict() for one in (config, fitted))
    return {key: after[key] for key in after if after[key] != before[key]}, reasons


def test_what_fits_stays() -> None:
    config = searched()
    assert changed(config, needed(config)) == ({}, [])


def test_cells_are_computed_again_before_anything_shrinks() -> None:
    config = searched()
    changes, reasons = changed(config, needed(config, checkpoint_cells=True))
    assert changes == {"checkpoint_cells": True}
    assert reasons[0].startswith("search.checkpoint_cells True: as it was, the run would need ")


def test_the_batch_shrinks_before_the_crop() -> None:
    config = searched()
    changes, reasons = changed(config, needed(config, checkpoint_cells=True, batch_size=4))
    assert changes == {"checkpoint_cells": True, "batch_size": 4}
    assert len(reasons) == 2
    changes, _ = changed(config, needed(config, checkpoint_cells=True, batch_size=2, crop=(64, 64)))
    assert changes == {"checkpoint_cells": True, "batch_size": 2, "crop": [64, 64]}


def test_what_the_user_set_stays() -> None:
    config = searched()
    changes, _ = changed(config, needed(config, batch_size=4), "crop", "checkpoint_cells")
    assert changes == {"batch_size": 4}
    changes, reasons = changed(config, 10**6, "crop", "checkpoint_cells", "batch_size")
    assert changes == {}
    assert reasons[0].startswith("search: it may run out of memory: as it was, the run would need ")
    assert reasons[0].endswith("and there are 1.00 MB")


def test_a_retraining() -> None:
    config = retrain_task(crop=[96, 96], batch_size=8).config
    assert changed(config, needed(config)) == ({}, [])
    changes, reasons = changed(config, needed(config, batch_size=2))
    assert changes == {"batch_size": 2}
    assert reasons[0].startswith("retrain.batch_size 2: ")
    assert changed(config, needed(config, batch_size=2, crop=(64, 64)))[0] == {"batch_size": 2, "crop": [64, 64]}


def test_nothing_is_predicted_where_there_is_plenty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(fitting, "predict_memory", lambda *_: pytest.fail("predicted"))
    assert changed(searched(), 10**12) == ({}, [])


def test_a_run_is_fitted_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_folder(tmp_path / "data", {"train": [(64, 64)] * 8, "val": [(64, 64)]})
    short = [f"--set=retrain.{setting}" for setting in ("epochs=1", "max_steps_per_epoch=1", "crop=[64,64]")]
    monkeypatch.setattr(fitting, "device_memory", lambda _: 12 * 10**6)
    call("retrain", "--network", "unet", "--data", data, "--out", tmp_path / "net", "--set=network.width=0.1", *short)
    assert "retrain.batch_size" in capsys.readouterr().out
    assert read_yaml(tmp_path / "net/config.yaml", ConfigError)["retrain"]["batch_size"] < 8


@pytest.mark.parametrize(
    ("batch", "expected"), [(4, "--set retrain.batch_size=2"), (2, "a smaller network or more memory")]
)
def test_a_device_that_runs_out_of_memory_is_one_line(
    batch: int, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fitting, "MOST_BYTES", {"retrain": 0})  # predict nothing

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("autoseg.engine.retrain.RetrainTask.step", fail)
    config = write_config(tmp_path / "config.yaml", RETRAIN, {"retrain": {"batch_size": batch}})
    assert run(["retrain", "--config", str(config), "--out", str(tmp_path / "net")]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: cpu is out of memory; start anew with {expected}; ")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"batch_size": 8}, "--set search.checkpoint_cells=true"),
        ({"batch_size": 8, "checkpoint_cells": True}, "--set search.batch_size=4"),
        ({"batch_size": 2, "checkpoint_cells": True}, "--set 'search.crop=[64, 64]'"),
        ({"batch_size": 2, "checkpoint_cells": True, "crop": [32, 32]}, "a smaller network or more memory"),
    ],
)
def test_what_is_advised(settings: dict[str, Any], expected: str) -> None:
    assert smaller_settings(searched(**settings)) == expected
