"""What becomes smaller for a device's memory, and in which order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from helpers.data_sets import write_folder
from helpers.errors import check_line, raises_code
from helpers.measured_memory import search_config
from helpers.predicted_memory import predict_once, predicted_once
from helpers.tiny_runs import RETRAIN, SPACE, call, retrain_task, write_config

from autoseg.cli.main import run
from autoseg.engine.config import RetrainConfig, SearchConfig
from autoseg.errors import ConfigError
from autoseg.files import format_bytes, read_yaml
from autoseg.planning import fit as fitting
from autoseg.planning.fit import fit_to_device, smaller_settings
from autoseg.planning.memory import MARGIN

__all__ = ["predicted_once"]  # the fixture
pytestmark = pytest.mark.usefixtures("predicted_once")

CPU = torch.device("cpu")
PRECISIONS = ("float32", "bf16", "fp16")


PREDICTED = {"search": 10**9, "retrain": 10**9}
"""So many bytes a pixel that nothing is taken to fit unpredicted."""


def searched(**search: Any) -> SearchConfig:
    return search_config(SPACE, **{"crop": [96, 96], "batch_size": 8, **search})


def needed(config: SearchConfig | RetrainConfig, **changes: Any) -> int:
    kind = "search" if isinstance(config, SearchConfig) else "retrain"
    changed: Any = config.model_copy(update={kind: getattr(config, kind).model_copy(update=changes)})
    return int(predict_once(changed, CPU).needed_bytes(CPU))


def fit(config: Any, memory_bytes: int, *given: str, device: torch.device = CPU) -> tuple[Any, list[str]]:
    """`fit_to_device` on a device that has so much memory."""
    with patch.multiple(fitting, device_memory=lambda _: memory_bytes, most_memory=lambda _: memory_bytes):
        return fit_to_device(config, device, given, PREDICTED)


def changed(config: Any, memory_bytes: int, *given: str) -> tuple[dict[str, Any], list[str]]:
    fitted, reasons = fit(config, memory_bytes, *given)
    kind = "search" if isinstance(config, SearchConfig) else "retrain"
    before, after = (getattr(one, kind).to_dict() for one in (config, fitted))
    return {key: after[key] for key in after if after[key] != before[key]}, reasons


@pytest.mark.slow
def test_what_fits_stays() -> None:
    config = searched()
    assert changed(config, needed(config)) == ({}, [])


@pytest.mark.slow
def test_cells_are_computed_again_before_anything_shrinks() -> None:
    config = searched()
    changes, reasons = changed(config, needed(config, checkpoint_cells=True))
    assert changes == {"checkpoint_cells": True}
    assert reasons[0].startswith("search.checkpoint_cells True: as it was, the run would need ")


@pytest.mark.slow
def test_the_batch_shrinks_before_the_crop() -> None:
    config = searched()
    changes, reasons = changed(config, needed(config, checkpoint_cells=True, batch_size=4))
    assert changes == {"checkpoint_cells": True, "batch_size": 4}
    assert len(reasons) == 2
    changes, _ = changed(config, needed(config, checkpoint_cells=True, batch_size=2, crop=(64, 64)))
    assert changes == {"checkpoint_cells": True, "batch_size": 2, "crop": [64, 64]}


@pytest.mark.slow
def test_what_the_user_set_stays() -> None:
    config = searched()
    changes, _ = changed(config, needed(config, batch_size=4), "crop", "checkpoint_cells")
    assert changes == {"batch_size": 4}
    memory = needed(config, checkpoint_cells=True)
    changes, reasons = changed(config, memory, "crop", "checkpoint_cells", "batch_size")
    assert changes == {}
    assert reasons[0].startswith("search: it may run out of memory: as it was, the run would need ")
    assert reasons[0].endswith(f"and there are {format_bytes(memory)}; search.checkpoint_cells=true fits")


# --- what is refused --------------------------------------------------------------------------------------------------


def peak(config: SearchConfig | RetrainConfig, **changes: Any) -> int:
    """Without the margin."""
    return round(needed(config, **changes) / MARGIN)


def refusal(config: SearchConfig | RetrainConfig, memory_bytes: int, *given: str) -> str:
    with raises_code(ConfigError, "memory-too-small") as caught:
        fit(config, memory_bytes, *given)
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("kept", [("crop", "batch_size"), ("crop", "batch_size", "checkpoint_cells")])
def test_what_the_user_set_and_cannot_fit_is_refused(kept: tuple[str, ...]) -> None:
    config = searched()
    memory = int(0.5 * peak(config, checkpoint_cells=True))
    said = refusal(config, memory, *kept)
    for named in ("search.crop [96, 96]", "search.batch_size 8", "checkpoint", "cpu", format_bytes(memory)):
        assert named in said
    assert format_bytes(needed(config, checkpoint_cells=True)) in said
    proposed = re.search(r"search\.crop=\[(\d+), (\d+)\] or search\.batch_size=(\d+)$", said)
    assert proposed is not None
    crop, batch = (int(proposed[1]), int(proposed[2])), int(proposed[3])
    # what is proposed fits, and not much more would
    assert 0.5 * memory < needed(config, checkpoint_cells=True, crop=crop) <= 1.1 * memory
    assert 0.5 * memory < needed(config, checkpoint_cells=True, batch_size=batch) <= 1.1 * memory


@pytest.mark.slow
def test_a_batch_that_is_free_shrinks_before_a_crop_is_refused() -> None:
    config = searched()
    memory = int(0.5 * peak(config, checkpoint_cells=True, batch_size=2))
    said = refusal(config, memory, "crop")
    assert "search.crop [96, 96]" in said
    assert "search.batch_size 2" in said
    assert "checkpoint" in said
    assert "search.crop=[" in said
    assert "batch_size=" not in said


@pytest.mark.slow
def test_nothing_fits() -> None:
    said = refusal(searched(), 10**5)
    assert "search.crop [32, 32]" in said
    assert "search.batch_size 2" in said
    assert "checkpoint" in said
    assert "crop=" not in said
    assert "batch_size=" not in said


@pytest.mark.slow
def test_a_retraining_is_refused() -> None:
    config = retrain_task(crop=[96, 64], batch_size=8).config
    said = refusal(config, int(0.4 * peak(config)), "crop", "batch_size")
    assert "retrain.crop [96, 64]" in said
    assert "retrain.batch_size 8" in said
    assert "checkpoint" not in said
    assert re.search(r"retrain\.crop=\[\d+, \d+\] or retrain\.batch_size=\d$", said)


@pytest.mark.slow
@pytest.mark.parametrize(("share", "refused"), [(0.88, True), (0.92, False)])
def test_what_a_prediction_may_be_off_by_is_not_refused(share: float, refused: bool) -> None:
    config = searched(checkpoint_cells=True)
    memory = round(share * peak(config))
    if refused:
        refusal(config, memory, "crop", "batch_size")
    else:
        assert "may run out of memory" in changed(config, memory, "crop", "batch_size")[1][0]


@pytest.mark.slow
def test_memory_that_other_programs_have_now_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is that which the system says nothing of."""
    monkeypatch.setattr(fitting, "device_memory", lambda device: 10**5)
    for most in (10**10, None):
        monkeypatch.setattr(fitting, "most_memory", lambda device, most=most: most)
        config, reasons = fit_to_device(searched(), CPU, ("crop", "batch_size"))
        assert config == searched()
        assert reasons[0].startswith("search: it may run out of memory: ")
    monkeypatch.setattr(fitting, "most_memory", lambda device: 10**5)
    with raises_code(ConfigError, "memory-too-small", "search.crop [96, 96]", "search.batch_size 8"):
        fit_to_device(searched(), CPU, ("crop", "batch_size"))


@pytest.mark.slow
def test_a_run_is_refused_before_an_image_is_decoded_or_a_folder_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_folder(tmp_path / "data", {"train": [(64, 64)] * 8, "val": [(64, 64)]})
    settings = {"root": str(data), "num_classes": 7, "mean": [0.5] * 3, "std": [0.2] * 3}
    for name in ("device_memory", "most_memory"):
        monkeypatch.setattr(fitting, name, lambda device: 5 * 10**6)
    for name in ("keep_samples", "describe_environment"):
        monkeypatch.setattr(f"autoseg.setup.start.{name}", lambda *_, name=name: pytest.fail(f"{name} was reached"))
    monkeypatch.setattr("autoseg.data.dataset.FolderDataset.read", lambda *_: pytest.fail("an image was read"))
    for command in (
        ["search", "--space", write_config(tmp_path / "space.yaml", SPACE)],
        ["retrain", "--network", "unet", "--set=network.width=0.1"],
    ):
        kind = str(command[0])
        config = write_config(tmp_path / "c.yaml", {"data": settings, kind: {"crop": [512, 768], "batch_size": 4}})
        arguments = [*command, "--config", config, "--out", tmp_path / "out", "--device", "cpu"]
        assert run([str(argument) for argument in arguments]) == 2
        captured = capsys.readouterr()
        check_line(captured.err, "memory-too-small", f"{kind}.crop [512, 768]", f"{kind}.batch_size 4")
        assert captured.out == ""
        assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_fp16_takes_what_bf16_takes() -> None:
    """On a GPU, which need not be there."""
    gpu = torch.device("cuda")
    memory = {name: predict_once(searched(precision=name), gpu).needed_bytes(gpu) for name in PRECISIONS}
    assert memory["bf16"] < memory["float32"]
    assert memory["fp16"] == pytest.approx(memory["bf16"], rel=1e-3)
    for name in ("bf16", "fp16"):
        config, reasons = fit(searched(precision=name), memory["bf16"] + 10**6, device=gpu)
        assert (config, reasons) == (searched(precision=name), [])


@pytest.mark.slow
def test_a_retraining() -> None:
    config = retrain_task(crop=[96, 96], batch_size=8).config
    assert changed(config, needed(config)) == ({}, [])
    changes, reasons = changed(config, needed(config, batch_size=2))
    assert changes == {"batch_size": 2}
    assert reasons[0].startswith("retrain.batch_size 2: ")
    assert changed(config, needed(config, batch_size=2, crop=(64, 64)))[0] == {"batch_size": 2, "crop": [64, 64]}


def test_nothing_is_predicted_where_there_is_plenty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "predict_memory", lambda *_: pytest.fail("predicted"))
    monkeypatch.setattr(fitting, "device_memory", lambda _: 10**12)
    assert fit_to_device(searched(), CPU, ()) == (searched(), [])


@pytest.mark.slow
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
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("autoseg.engine.retrain.RetrainTask.step", fail)
    config = write_config(tmp_path / "config.yaml", RETRAIN, {"retrain": {"batch_size": batch}})
    assert run(["retrain", "--config", str(config), "--out", str(tmp_path / "net")]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    check_line(line, "out-of-memory", "cpu", expected)


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
