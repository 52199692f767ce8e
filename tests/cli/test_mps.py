"""Commands on a pretended Mac: nothing is in float64 on its GPU, and the results are those of the CPU.

What Apple's GPU really computes nobody has tried here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.data_sets import write_folder
from helpers.pretend_mps import MPS, pretended_mps
from helpers.tiny_runs import RETRAIN, SEARCH, call, checkpoint, rows, write_config
from PIL import Image

from autoseg.config.data import DataConfig
from autoseg.config.training import AugmentConfig
from autoseg.data.dataset import open_dataset, resolve
from autoseg.data.loading.loader import BatchLoader, evaluation_batches
from autoseg.engine.environment import prepare
from autoseg.engine.evaluate import evaluate_network
from autoseg.losses.losses import SegmentationLoss
from autoseg.metrics.details import Details

CPU = torch.device("cpu")
ON_MPS = ("--device", "mps")


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In here there is mps."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 10**10)
    prepare.cache_clear()
    with pretended_mps():
        yield
    prepare.cache_clear()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data", {"train": [(40, 40)] * 8, "val": [(36, 44)] * 2}, labels=5)


def test_the_pretended_device_has_no_float64(mac: None) -> None:
    for make in (
        lambda: torch.zeros(3, dtype=torch.float64, device=MPS),
        lambda: torch.ones(3, device=MPS).double(),
        lambda: torch.ones(3, dtype=torch.float64).to(MPS),
        lambda: torch.tensor([1.0], dtype=torch.float64, device=MPS),
        lambda: torch.from_numpy(np.ones(2, np.uint16)).to(MPS),
    ):
        with pytest.raises(TypeError, match="Cannot convert a MPS Tensor"):
            make()
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        torch.ones(3, device=MPS) + torch.ones(3)
    with pytest.raises(RuntimeError, match="Pinned memory"):
        torch.ones(3, device=MPS, pin_memory=True)


@pytest.mark.slow
def test_every_command_runs(
    mac: None, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """A search, a network with all that has a state, its scores and its predictions."""
    rich = {"augment": {"colour": 0.3, "rotate": 10, "blur": 0.5, "cutout": 0.5}, "class_weights": "enet"}
    configs = {
        "search": write_config(tmp_path / "s.yaml", SEARCH, {"search": {**rich, "epochs": 2, "clip_grad_norm": 1.0}}),
        "retrain": write_config(
            tmp_path / "r.yaml", RETRAIN, {"retrain": {**rich, "epochs": 1, "loss": ["dice", "boundary"]}}
        ),
    }
    for kind, config in configs.items():
        call(kind, "--config", config, "--data", data, "--out", tmp_path / kind, *ON_MPS)
        environment = yaml.safe_load((tmp_path / kind / "environment.yaml").read_text())
        assert environment["device"] == "Apple GPU (mps)"
        assert all(np.isfinite(row["loss"]) for row in rows(tmp_path / kind, "train"))
        assert {"mps"} == {yaml.safe_load((tmp_path / kind / "config.yaml").read_text())["device"]}
    call("decode", tmp_path / "search")
    call("evaluate", tmp_path / "retrain", *ON_MPS, "--flip", "--window", 32, 32)
    call("predict", tmp_path / "retrain", data / "val" / "images", "--out", tmp_path / "out", *ON_MPS)
    assert np.asarray(Image.open(tmp_path / "out" / "labels" / "0.png")).shape == (36, 44)
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [line for line in said if "mps" in line] == [
        "device mps is experimental: its operations were compared with the CPU's, runs on it were not"
    ]
    assert all(value.device == CPU for value in checkpoint(tmp_path / "search")["state"]["supernet"].values())


@pytest.mark.slow
def test_a_search_is_that_of_the_cpu(mac: None, data: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.yaml", SEARCH)
    for device in ("cpu", "mps"):
        call("search", "--config", config, "--data", data, "--out", tmp_path / device, "--device", device)
    for kind in ("train", "arch", "val"):
        losses = [[row["loss"] for row in rows(tmp_path / device, kind)] for device in ("cpu", "mps")]
        assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.slow
def test_scores_are_those_of_the_cpu(mac: None, retrained: Path, data: Path, tmp_path: Path) -> None:
    """Sums too, which float32 would round."""
    results: list[dict[str, Any]] = []
    for device in ("cpu", "mps"):
        file = tmp_path / f"{device}.json"
        data_set = ["--data", data, "--set", "data.num_classes=7"]
        call("evaluate", retrained, *data_set, "--device", device, "--out", file)
        results.append(json.loads(file.read_text()))
    first, second = results
    assert second["confusion"] == first["confusion"]
    assert second["boundary_f_by_class"] == first["boundary_f_by_class"]
    for name in ("loss", "brier_score", "expected_calibration_error"):
        assert second[name] == pytest.approx(first[name], rel=1e-6)


def test_a_long_sum_is_not_rounded(mac: None) -> None:
    """2^24 + 1 pixels with one that is not sure: float32 would lose it."""
    details = Details(2, 255)
    logits = torch.tensor([40.0, -40.0]).view(1, 2, 1, 1).expand(1, 2, 1, 1).to(MPS)
    masks = torch.zeros(1, 1, 1, dtype=torch.int64).to(MPS)
    details.calibration._brier = float(2**24)
    details.calibration._pixels[-1] = 2.0**24
    details.calibration.update(logits.flip(1), masks)
    assert details.calibration._brier == 2**24 + 2
    assert float(details.calibration._pixels.sum()) == 2**24 + 1
    assert details.calibration._pixels.dtype == torch.float64


@pytest.mark.slow
def test_training_batches_are_made_on_the_cpu(mac: None, data: Path) -> None:
    config = resolve(DataConfig(root=str(data)))
    augment = AugmentConfig(rotate=10, blur=0.5, cutout=0.5)
    loaders = [
        BatchLoader(
            open_dataset(config, "train"), range(8), 2, crop=(32, 32), augment=augment, mean=config.mean,
            std=config.std, seed=0, stream="train", device=device,
        )
        for device in (None, MPS)
    ]  # fmt: skip
    for batch, other in zip(loaders[0].epoch(0), loaders[1].epoch(0), strict=True):
        assert batch[0].device == other[0].device == CPU
        assert torch.equal(batch[0], other[0])
        assert torch.equal(batch[1], other[1])


@pytest.mark.parametrize("pixel_type", ["uint8", "uint16"])
def test_images_of_16_bits_reach_it_normalised(pixel_type: Any, mac: None) -> None:
    config = resolve(DataConfig(layout="generated", pixel_type=pixel_type))
    images = [
        next(iter(evaluation_batches(open_dataset(config, "val"), [0], config.mean, config.std, 1, device)))[1]
        for device in (CPU, MPS)
    ]
    assert images[1].device == MPS
    assert torch.equal(images[1].cpu(), images[0])


def test_images_lie_there_channels_first(mac: None) -> None:
    config = resolve(DataConfig(layout="generated"))
    seen: list[bool] = []

    class Network(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(images.is_contiguous())
            return images[:, :1].expand(-1, 7, -1, -1)

    evaluate_network(Network(), open_dataset(config, "val"), config, MPS, limit=1)
    assert seen == [True]


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "dice", "lovasz", "boundary", "ohem"])
def test_losses(name: str, mac: None) -> None:
    from autoseg.config.training import TrainingConfig

    (term,) = TrainingConfig(loss=(name,)).loss
    logits, masks = torch.randn(2, 5, 12, 9), torch.randint(5, (2, 12, 9))
    masks[0, :4] = 255
    found = []
    for device in (CPU, MPS):
        features = logits.to(device).requires_grad_()
        loss = SegmentationLoss(255, terms=(term,))(features, masks.to(device))
        found.append((loss.detach().cpu(), torch.autograd.grad(loss, features)[0].cpu()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one)
