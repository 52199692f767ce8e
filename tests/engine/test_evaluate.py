"""Scores against a count by hand over predictions of whole images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.data_sets import write_folder
from helpers.tiny_runs import call, rows
from PIL import Image
from torch import nn
from torch.nn import functional as F

import autoseg
from autoseg.cli.main import run
from autoseg.config.data import DataConfig, ResolvedDataConfig
from autoseg.config.inference import SCALES, InferenceConfig
from autoseg.data.dataset import open_dataset, resolve
from autoseg.engine.evaluate import evaluate_network, spaced
from autoseg.engine.inference import score_bands
from autoseg.engine.predict import load_network
from autoseg.metrics.details import BoundaryFScore, Calibration, Details

SIZES = [(40, 56), (33, 47), (64, 32), (64, 32), (64, 32)]
CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "set"
    return write_folder(root, {"train": [(40, 40)] * 2, "val": [(40, 40)] * 2, "test": SIZES})


class Colours(nn.Module):
    """A network whose answer depends on the colours around a pixel, so that every class is predicted somewhere."""

    num_classes = 7

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.kernel = torch.randn(7, 3, 5, 5, generator=generator)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.conv2d(self.norm(images), self.kernel, padding=2)


def network_logits(network: nn.Module, images: torch.Tensor, scales: Any = (1.0,), **how: Any) -> torch.Tensor:
    return torch.cat(list(score_bands(network, images, InferenceConfig(scales=scales, **how))), 2)


def count(predictions: list[np.ndarray], masks: list[np.ndarray], classes: int = 7) -> dict[str, Any]:
    """Scores by looking at each class in turn."""
    truth = np.concatenate([mask.ravel() for mask in masks])
    labels = np.concatenate([prediction.ravel() for prediction in predictions])
    labels, truth = labels[truth != 255], truth[truth != 255]
    iou, found = [], []
    for label in range(classes):
        there, said = truth == label, labels == label
        if (there | said).any():
            iou.append((there & said).sum() / (there | said).sum())
        if there.any():
            found.append((there & said).sum() / there.sum())
    return {"miou": np.mean(iou), "pixel_accuracy": np.mean(labels == truth), "mean_accuracy": np.mean(found)}


def masks_of(folder: Path, split: str) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted((folder / split / "masks").glob("*.png"))]


def settings_of(folder: Path) -> ResolvedDataConfig:
    return resolve(DataConfig(root=str(folder), num_classes=7))


def test_scores_equal_a_count_by_hand_and_batches_change_nothing(folder: Path) -> None:
    data = settings_of(folder)
    dataset = open_dataset(data, "test")
    network = Colours().eval()
    predictions, loss, pixels = [], 0.0, 0
    mean, std = np.array(data.mean), np.array(data.std)
    for path, mask in zip(sorted((folder / "test" / "images").glob("*.png")), masks_of(folder, "test"), strict=True):
        image = (np.asarray(Image.open(path)) / 255 - mean) / std
        with torch.no_grad():
            logits = network(torch.as_tensor(image, dtype=torch.float32).permute(2, 0, 1)[None])
        predictions.append(logits.argmax(1)[0].numpy())
        loss += float(F.cross_entropy(logits, torch.tensor(mask).long()[None], ignore_index=255, reduction="sum"))
        pixels += int((mask != 255).sum())
    expected = count(predictions, masks_of(folder, "test"))
    assert len(np.unique(np.concatenate([prediction.ravel() for prediction in predictions]))) == 7
    for batch_size in (1, 2, 3):
        seen: list[int] = []
        scores, measured_loss = evaluate_network(
            network, dataset, data, CPU, batch_size=batch_size, progress=lambda done, _, seen=seen: seen.append(done)
        )
        for name, value in expected.items():
            assert getattr(scores, name) == pytest.approx(value, abs=1e-12)
        assert measured_loss == pytest.approx(loss / pixels, rel=1e-5)
        assert scores.confusion.sum() == pixels
        assert seen[-1] == len(SIZES)


def test_it_measures_in_evaluation_mode_and_goes_back(folder: Path) -> None:
    data = settings_of(folder)
    network = Colours().train()
    before = network.norm.running_mean.clone()  # type: ignore[union-attr]
    evaluate_network(network, open_dataset(data, "test"), data, CPU)
    assert network.training
    assert torch.equal(network.norm.running_mean, before)  # type: ignore[arg-type]


def test_a_limit_measures_evenly_spaced_images(folder: Path) -> None:
    data = settings_of(folder)
    dataset = open_dataset(data, "test")
    scores, _ = evaluate_network(Colours(), dataset, data, CPU, limit=2)
    masks = masks_of(folder, "test")
    assert scores.confusion.sum() == sum(int((masks[index] != 255).sum()) for index in (0, 2))
    assert spaced(10, 4) == [0, 2, 5, 7]
    assert spaced(3, 8) == spaced(3, None) == [0, 1, 2]


def test_several_scales_and_flips_average_probabilities() -> None:
    network = Colours().eval()
    images = torch.randn(2, 3, 40, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        flipped = network_logits(network, images, (1.0,), flip=True)
        expected = (network(images).softmax(1) + network(images.flip(3)).flip(3).softmax(1)) / 2
        assert torch.allclose(flipped.exp(), expected, atol=1e-6)
        several = network_logits(network, images, SCALES, flip=True)
        assert several.shape == (2, 7, 40, 48)
        assert torch.allclose(several.exp().sum(1), torch.ones(2, 40, 48), atol=1e-5)
        assert torch.equal(network_logits(network, images), network(images))
        mirrored = network_logits(network, images.flip(3), SCALES, flip=True).flip(3)
        assert torch.allclose(several, mirrored, atol=1e-3)  # flipping makes it blind to left and right


def test_scales_are_fused_by_the_greatest_logit() -> None:
    """DeepLab v2; written out for two scales and their mirror images."""
    network = Colours().eval()
    images = torch.randn(2, 3, 40, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        half = F.interpolate(images, (32, 36), mode="bilinear", align_corners=False, antialias=True)  # 30 rounded up
        large = F.interpolate(network(half), (40, 48), mode="bilinear", align_corners=False)
        greatest = network_logits(network, images, (1.0, 0.75), fuse="max")
        assert torch.allclose(greatest, torch.maximum(network(images), large), atol=1e-5)
        mirrored = F.interpolate(network(half.flip(3)).flip(3), (40, 48), mode="bilinear", align_corners=False)
        flipped = network_logits(network, images, (0.75,), flip=True, fuse="max")
        assert torch.allclose(flipped, torch.maximum(large, mirrored), atol=1e-5)
        mean = network_logits(network, images, (1.0, 0.75))
        assert torch.allclose(mean.exp(), (network(images).softmax(1) + large.softmax(1)) / 2, atol=1e-6)


def test_a_network_in_bf16_gets_its_images_in_bf16() -> None:
    """At every scale; what comes back is averaged in float32."""
    network = Colours().eval().bfloat16()
    seen: list[torch.dtype] = []

    def forward(images: torch.Tensor) -> torch.Tensor:
        seen.append(images.dtype)
        return network.norm(images).float().repeat(1, 2, 1, 1)

    network.forward = forward  # type: ignore[method-assign]
    images = torch.randn(2, 3, 40, 48)
    for options, calls in (({}, 1), ({"scales": (0.5, 1.0), "flip": True}, 4)):
        seen.clear()
        assert network_logits(network, images, **options).dtype == torch.float32  # type: ignore[arg-type]
        assert seen == [torch.bfloat16] * calls


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"resize": [48, 40]}])
def test_evaluate_equals_a_count_over_what_predict_writes(
    options: dict[str, Any], folder: Path, retrained: Path, tmp_path: Path
) -> None:
    from autoseg.data.base import resize_mask

    set_ = [f"--set=data.{key}={value}" for key, value in options.items()]
    call("evaluate", retrained, "--data", folder, "--split", "test", *set_, "--out", tmp_path / "e.json")
    result = json.loads((tmp_path / "e.json").read_text())
    network, config, _ = load_network(retrained)
    data = config.data.model_copy(update={"resize": options.get("resize")})
    predictions, masks = [], []
    for number, mask in enumerate(masks_of(folder, "test")):
        image = Image.open(folder / "test" / "images" / f"{number}.png")
        if data.resize:
            image = image.resize((data.resize[1], data.resize[0]), Image.Resampling.BILINEAR)
            mask = resize_mask(mask, (data.resize[0], data.resize[1]))
        pixels = (np.asarray(image) / 255 - np.array(data.mean)) / np.array(data.std)
        with torch.no_grad():
            logits = network(torch.as_tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None])
        predictions.append(logits.argmax(1)[0].numpy())
        masks.append(mask)
    for name, value in count(predictions, masks).items():
        assert result[name] == pytest.approx(value, abs=2e-4)  # a tie between two logits may fall either way
    assert (result["images"], result["split"], result["size"]) == (5, "test", options.get("resize"))
    assert np.sum(result["confusion"]) == sum(int((mask != 255).sum()) for mask in masks)


@pytest.mark.slow
def test_evaluating_on_its_own_data_repeats_the_validation(retrained: Path, tmp_path: Path) -> None:
    result = autoseg.evaluate(retrained, checkpoint="last", out=tmp_path / "e.json", show_progress=False)
    last = rows(retrained, "val")[-1]
    assert result["miou"] == pytest.approx(last["miou"], abs=1e-3)
    assert result["loss"] == pytest.approx(last["loss"], rel=1e-4)
    assert json.loads((tmp_path / "e.json").read_text()) == result
    assert list(result["iou"]) == ["background", "disc", "square", "triangle", "striped", "pebble", "window"]


@pytest.mark.slow
def test_what_is_printed_is_what_is_written(
    retrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row a class; then mIoU with its interval, and the other scores."""
    capsys.readouterr()
    call("evaluate", retrained, "--split", "test", "--batch-size", 3, "--out", tmp_path / "e.json")
    lines = capsys.readouterr().out.splitlines()
    result = json.loads((tmp_path / "e.json").read_text())
    assert lines[0].split() == ["class", "IoU", "Dice", "pixels"]
    for line, (name, iou) in zip(lines[1:8], result["iou"].items(), strict=True):
        label, *figures = line.split()
        dice, share = result["dice"][name], result["pixel_share"][name]
        shown = ["-" if value is None else f"{value:.3f}" for value in (iou, dice)]
        assert (label, figures) == (name, [*shown, f"{100 * share:.1f}%"])
    low, high = result["miou_interval"]
    assert lines[8] == f"mIoU {result['miou']:.4f}, 95% interval {low:.4f} to {high:.4f}   (3 images of test)"
    assert f"boundary F {result['boundary_f']:.4f}" in lines[9]
    assert f"calibration error {result['expected_calibration_error']:.4f}" in lines[9]
    assert lines[10] == f"wrote {tmp_path / 'e.json'}"
    assert low <= result["miou"] <= high


@torch.no_grad()
def test_the_details_are_those_of_the_predictions(folder: Path) -> None:
    """Boundaries and calibration of whole images, whatever the batches are."""
    data = settings_of(folder)
    dataset = open_dataset(data, "test")
    network = Colours().eval()
    boundary, calibration = BoundaryFScore(7, 255), Calibration(255)
    mean, std = (np.array(part, dtype=np.float32) for part in (data.mean, data.std))
    for index in range(len(dataset)):
        image, mask = dataset.load(index)
        pixels = torch.as_tensor((image / np.float32(255) - mean) / std).permute(2, 0, 1)[None].float()
        logits, masks = network(pixels), torch.as_tensor(mask.astype(np.int64))[None]
        boundary.update(logits.argmax(1), masks)
        calibration.update(logits, masks)
    for batch_size in (1, 3):
        details = Details(7, 255)
        evaluate_network(network, dataset, data, CPU, batch_size=batch_size, details=details)
        written = details.to_dict(dataset.classes)
        assert written["boundary_f"] == pytest.approx(boundary.mean(), abs=1e-9)
        assert written["expected_calibration_error"] == pytest.approx(calibration.error, abs=1e-5)
        assert written["brier_score"] == pytest.approx(calibration.brier, abs=1e-5)
        assert list(written["boundary_f_by_class"]) == list(dataset.classes)  # type: ignore[call-overload]
    assert 0 < boundary.mean() < 1


@pytest.mark.slow
def test_multi_scale_and_flip_run(retrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("evaluate", retrained, "--multi-scale", "--flip", "--split", "test", "--out", tmp_path / "e.json")
    result = json.loads((tmp_path / "e.json").read_text())
    assert (result["multi_scale"], result["flip"], result["images"]) == (True, True, 3)
    assert 0 <= result["miou"] <= 1
    assert "mIoU" in capsys.readouterr().out


@pytest.mark.slow
def test_other_classes_are_refused(retrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("layout: generated\nnum_classes: 9\n", "layout: generated\nclasses: [a, b, c]\n"):
        (tmp_path / "data.yaml").write_text(text)
        assert run(["evaluate", str(retrained), "--data", str(tmp_path / "data.yaml")]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.endswith(" [classes-differ]\n")
        assert ("trained for 7" if "num_classes" in text else "does not know ('a', 'b', 'c')") in error
    root = write_folder(tmp_path / "more", {"train": [(32, 32)], "val": [(32, 32)]}, labels=9)
    assert run(["evaluate", str(retrained), "--data", str(root)]) == 2
    error = capsys.readouterr().err
    assert error.endswith(" [label-out-of-range]\n")
    assert "label 7 in val/masks/0.png" in error
    assert "7 classes" in error
