"""The dense CRF against its equations, and what it does to labels of images."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.data_sets import write_folder
from helpers.tiny_runs import call
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from autoseg.cli.main import run
from autoseg.config.data import DataConfig
from autoseg.config.inference import CrfConfig, InferenceConfig
from autoseg.data.augment.sample import normalisation
from autoseg.data.dataset import open_dataset, resolve
from autoseg.engine import predict as predict_module
from autoseg.engine.crf import colours_of, refine
from autoseg.engine.evaluate import evaluate_network
from autoseg.engine.predict import label_map, load_network

CPU = torch.device("cpu")


@pytest.fixture
def densecrf() -> None:
    pytest.importorskip("pydensecrf.densecrf", reason="the extra crf is not installed")


def mean_field(energies: np.ndarray, image: np.ndarray, config: CrfConfig) -> np.ndarray:
    """(K, H, W) and (H, W, 3) -> (K, H, W), straight from the equations, every pixel with every pixel.

    Krähenbühl and Koltun 2011, algorithm 1, with Gaussian kernels k(i, j) = exp(-|f_i - f_j|^2 / 2) normalised by
    the roots of their sums over i and over j, and labels that are compatible where they are equal.
    """
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    places = np.stack([rows.ravel(), columns.ravel()], 1).astype(np.float64)
    colours = image.reshape(-1, 3).astype(np.float64)
    kernels = np.zeros((len(places), len(places)))
    for weight, features in (
        (config.gaussian_weight, places / config.gaussian_xy_std),
        (
            config.bilateral_weight,
            np.concatenate([places / config.bilateral_xy_std, colours / config.bilateral_rgb_std], 1),
        ),
    ):
        kernel = np.exp(-((features[:, None] - features[None]) ** 2).sum(-1) / 2)
        root = np.sqrt(kernel.sum(1))
        kernels += weight * kernel / root[:, None] / root[None]
    flat = energies.reshape(len(energies), -1).astype(np.float64)
    probabilities = softmax(-flat)
    for _ in range(config.iterations):
        probabilities = softmax(-flat + probabilities @ kernels)
    return probabilities.reshape(energies.shape)


def softmax(scores: np.ndarray) -> np.ndarray:
    exponentials = np.exp(scores - scores.max(0))
    return np.asarray(exponentials / exponentials.sum(0))


def two_colours(size: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) of two colours with a slanted edge between them, and its labels 0 and 1."""
    rows, columns = np.mgrid[:size, :size]
    labels = (2 * columns + rows > 1.5 * size).astype(np.int64)
    image = np.array([[200, 60, 40], [40, 80, 190]])[labels]
    image = image + np.random.default_rng(seed).normal(0, noise, image.shape)
    return image.clip(0, 255).astype(np.uint8), labels


def blurred(labels: np.ndarray, classes: int, strength: float = 2.0) -> Tensor:
    """Logits (1, K, H, W) as of a network at output stride 16: those of the labels' means, drawn large again."""
    one_hot = F.one_hot(torch.as_tensor(labels), classes).permute(2, 0, 1)[None].float()
    small = F.avg_pool2d(one_hot, 16)
    return strength * F.interpolate(small, labels.shape, mode="bilinear", align_corners=False)


# --- the mean field ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "image", "greatest", "mean"),
    [
        # the package's kernels are approximate (a permutohedral lattice), and steps add that up where colours are noise
        ({"iterations": 1}, "noise", 0.04, 0.005),
        ({"iterations": 1, "gaussian_xy_std": 2.0}, "noise", 0.04, 0.005),
        ({"iterations": 1, "bilateral_xy_std": 5.0, "bilateral_rgb_std": 13.0}, "two colours", 0.04, 0.006),
        ({"iterations": 1, "bilateral_xy_std": 3.0, "bilateral_rgb_std": 100.0}, "two colours", 0.06, 0.008),
        ({"iterations": 5, "bilateral_weight": 0.0}, "noise", 0.1, 0.012),
        ({}, "two colours", 0.1, 0.004),
        ({"gaussian_weight": 0.0}, "two colours", 0.03, 0.004),
    ],
)
def test_it_is_the_mean_field_of_the_equations(
    densecrf: None, changes: dict[str, Any], image: str, greatest: float, mean: float
) -> None:
    rng = np.random.default_rng(0)
    colours = two_colours(12, 0)[0] if image == "two colours" else rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    probabilities = rng.dirichlet(np.ones(3), (12, 12)).transpose(2, 0, 1) + 1e-6
    config = CrfConfig(**changes)
    logits = torch.as_tensor(np.log(probabilities), dtype=torch.float32)[None] + 3.0  # a summand changes nothing
    refined = refine(logits, colours[None], config).exp()[0].numpy()
    expected = mean_field(-np.log(probabilities), colours, config)
    difference = np.abs(refined - expected)
    assert difference.max() < greatest
    assert difference.mean() < mean
    moved = np.abs(expected - probabilities / probabilities.sum(0)).mean()
    assert moved > 8 * mean  # what it does is far more than what it is off by
    assert np.allclose(refined.sum(0), 1, atol=1e-5)


def test_blurred_labels_move_to_the_edge_of_the_image(densecrf: None) -> None:
    image, labels = two_colours(96, noise=2)
    logits = blurred(labels, classes=4)
    refined = refine(logits, image[None], CrfConfig())
    before, after = ((answer.argmax(1)[0].numpy() != labels).mean() for answer in (logits, refined))
    assert before > 0.01
    assert after < before / 10
    assert refined.exp()[0, 2:].max() < 0.01  # classes that the network does not see stay away
    without_colours = refine(logits, image[None], CrfConfig(bilateral_weight=0.0))
    assert (without_colours.argmax(1)[0].numpy() != labels).mean() > before / 2


def test_two_classes_of_one_colour_stay_apart(densecrf: None) -> None:
    """Far from each other, where the network is sure of both."""
    image = np.full((64, 160, 3), 90, np.uint8)
    image[:, 60:100] = 210
    labels = np.zeros((64, 160), np.int64)
    labels[:, 60:100], labels[:, 100:] = 1, 2
    refined = refine(blurred(labels, 3, strength=12.0), image[None], CrfConfig(bilateral_xy_std=10.0))
    assert (refined.argmax(1)[0].numpy() == labels).mean() > 0.99


def test_each_image_of_a_batch_is_refined_alone(densecrf: None) -> None:
    images, logits = [], []
    for seed in range(3):
        image, labels = two_colours(48, noise=20, seed=seed)
        images.append(image)
        logits.append(blurred(labels, 3) + torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(seed)))
    batch = torch.cat(logits).contiguous(memory_format=torch.channels_last)
    together = refine(batch, np.stack(images), CrfConfig())
    alone = [refine(part, image[None], CrfConfig()) for part, image in zip(logits, images, strict=True)]
    assert torch.equal(together, torch.cat(alone))


def test_colours_come_back_from_normalised_images() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    for mean, std in (((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.0, 0.5, 1.0), (1.0, 0.01, 2.0))):
        scale, shift = normalisation(mean, std, CPU)
        colours = colours_of(pixels * scale + shift, mean, std)
        assert colours.dtype == np.uint8
        assert np.array_equal(colours, pixels.permute(0, 2, 3, 1).numpy())


# --- evaluate and predict ---------------------------------------------------------------------------------------------


def watch(monkeypatch: pytest.MonkeyPatch, module: str) -> list[tuple[tuple[int, ...], np.ndarray, CrfConfig]]:
    """The shapes, colours and settings with which a module calls `refine`, from now on."""
    seen = []

    def watched(logits: Tensor, colours: np.ndarray, config: CrfConfig) -> Tensor:
        seen.append((tuple(logits.shape), colours.copy(), config))
        return refine(logits, colours, config)

    monkeypatch.setattr(f"{module}.refine", watched)
    return seen


def test_evaluate_counts_what_the_crf_says(
    densecrf: None, retrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sees the colours of the images; pixels that the masks ignore are not counted; batches change nothing."""
    root = write_folder(tmp_path / "set", {"train": [(40, 40)] * 2, "val": [(40, 40)] * 2, "test": [(40, 48)] * 3})
    data = resolve(DataConfig(root=str(root), num_classes=7))
    dataset = open_dataset(data, "test")
    network, _, _ = load_network(retrained)
    inference = InferenceConfig(crf=CrfConfig(iterations=3), scales=(0.75, 1.0))
    confusion = np.zeros((7, 7), np.int64)
    for index in range(3):
        image, mask = dataset.load(index)
        labels = label_map(network, image, data, CPU, inference)
        np.add.at(confusion, (mask[mask != 255], labels[mask != 255]), 1)
    plain, _ = evaluate_network(network, dataset, data, CPU)
    assert not np.array_equal(plain.confusion, confusion)
    seen = watch(monkeypatch, "autoseg.engine.crf")
    for batch_size in (1, 3):
        scores, loss = evaluate_network(network, dataset, data, CPU, batch_size=batch_size, inference=inference)
        assert np.abs(np.asarray(scores.confusion) - confusion).sum() <= 8  # ties of logits may fall either way
        assert np.isfinite(loss)
    images = np.stack([dataset.load(index).image for index in range(3)])
    for colours in (np.concatenate([each[1] for each in seen[:3]]), seen[3][1]):
        assert np.array_equal(colours, images)


def test_the_commands(densecrf: None, retrained: Path, tmp_path: Path) -> None:
    options = ["--crf", "--set", "crf.iterations=2", "--set", "crf.bilateral_rgb_std=13"]
    call("evaluate", retrained, *options, "--out", tmp_path / "e.json")
    written = json.loads((tmp_path / "e.json").read_text())["crf"]
    assert written == CrfConfig(iterations=2, bilateral_rgb_std=13.0).to_dict()
    image = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    photo = Image.fromarray(image).resize((60, 80), Image.Resampling.BICUBIC)
    photo.save(tmp_path / "photo.png")
    call("predict", retrained, tmp_path / "photo.png", *options, "--out", tmp_path / "crf")
    network, config, _ = load_network(retrained)
    inference = InferenceConfig(crf=CrfConfig(iterations=2, bilateral_rgb_std=13.0))
    labels = np.asarray(Image.open(tmp_path / "crf" / "labels" / "photo.png"))
    assert (labels == label_map(network, np.asarray(photo), config.data, CPU, inference)).mean() > 0.98
    assert not np.array_equal(labels, label_map(network, np.asarray(photo), config.data, CPU))


@pytest.mark.parametrize(("dtype", "full"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_it_sees_colours_of_8_bits(dtype: type, full: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the images' type: 0 is black, its full scale 255, and beyond there is nothing."""
    seen: list[np.ndarray] = []
    monkeypatch.setattr(predict_module, "refine", lambda logits, colours, _: (seen.append(colours), logits)[1])
    shares = np.array([0.0, 0.25, 0.5, 1.0, *([1.5, -0.5] if dtype is np.float32 else [])])
    image = np.tile((shares * full).astype(dtype)[:, None, None], (8, 40, 3))
    network = torch.nn.Conv2d(3, 4, 1)
    network.num_classes = 4
    data = resolve(DataConfig(layout="generated", mean=(0.5,) * 3, std=(0.5,) * 3))
    label_map(network, image, data, CPU, InferenceConfig(crf=CrfConfig()))  # type: ignore[arg-type]
    (colours,) = seen
    assert (colours.dtype, colours.shape) == (np.uint8, (1, *image.shape))
    expected = np.rint((image / full).clip(0, 1) * 255)
    assert np.abs(colours[0] - expected).max() <= (0 if dtype is np.uint8 else 1)
    assert (colours.min(), colours.max()) == (0, 255)


def test_it_sees_the_image_at_its_own_size(densecrf: None, retrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, config, _ = load_network(retrained)
    seen = watch(monkeypatch, "autoseg.engine.crf")
    image = two_colours(70, noise=5)[0]
    data = config.data.model_copy(update={"resize": (32, 48)})
    inference = InferenceConfig(crf=CrfConfig(iterations=1))
    assert label_map(network, image, data, CPU, inference).shape == (70, 70)
    ((shape, colours, crf),) = seen
    assert shape == (1, 7, 70, 70)
    assert np.array_equal(colours[0], image)
    assert crf == inference.crf


@pytest.mark.slow
@pytest.mark.parametrize("command", [["evaluate", "nowhere"], ["predict", "nowhere", "nothing.png", "--out", "out"]])
def test_without_the_package_it_says_what_to_install_before_anything_else(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)  # as where it is not installed
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    assert run([*command, "--crf"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.endswith(" [package-missing]\n")
    assert "pydensecrf" in error
    assert "pip install 'autoseg[crf]'" in error
    assert error.count("\n") == 1
    assert run(command) == 2
    error = capsys.readouterr().err  # without --crf it is not asked for
    assert "nowhere" in error
    assert error.endswith(" [run-missing]\n")
