import hashlib

import numpy as np
import pytest
import torch
from helpers.errors import raises_code
from torch import nn

from autoseg.config.base import parse
from autoseg.config.data import DataConfig
from autoseg.data.base import SegmentationDataset
from autoseg.data.dataset import open_dataset, resolve
from autoseg.data.generated import CLASSES
from autoseg.data.statistics import count_classes
from autoseg.errors import DataError


def generated(split: str = "train", **settings: object) -> SegmentationDataset:
    return open_dataset(resolve(parse(DataConfig, {"layout": "generated", "generated": settings})), split)


def digest(dataset: SegmentationDataset, index: int) -> str:
    image, mask = dataset.load(index)
    return hashlib.sha256(image.tobytes() + mask.tobytes()).hexdigest()[:16]


def miou(truth: np.ndarray, answer: np.ndarray, classes: int = len(CLASSES)) -> float:
    counts = np.bincount(truth.ravel() * classes + answer.ravel(), minlength=classes**2).reshape(classes, classes)
    hits = np.diag(counts)
    return float((hits / (counts.sum(0) + counts.sum(1) - hits)).mean())


@pytest.mark.slow
def test_shape_type_and_labels() -> None:
    dataset = generated(size=(64, 80), train=20)
    assert len(dataset) == 20
    assert dataset.classes == CLASSES
    for index in range(20):
        image, mask = dataset.load(index)
        assert (image.shape, image.dtype) == ((64, 80, 3), np.uint8)
        assert (mask.shape, mask.dtype) == ((64, 80), np.uint8)
        assert mask.max() < len(CLASSES)


def test_a_sample_depends_on_seed_split_and_index_alone() -> None:
    forwards, backwards = generated(train=8), generated(train=5)
    hashes = [digest(forwards, index) for index in range(5)]
    assert hashes == [digest(backwards, index) for index in reversed(range(5))][::-1]
    others = [digest(generated("val"), 0), digest(generated("test"), 0), digest(generated(seed=1), 0)]
    assert len({*hashes, *others}) == 8


def test_samples_are_the_same_everywhere() -> None:
    """Figures that are reported for the generated set hold for these images."""
    assert [digest(generated(), 0), digest(generated("val"), 63)] == ["4073c3e9568113b0", "90af9762f13ee21e"]


@pytest.mark.slow
def test_every_class_occurs_and_the_commonest_one_is_no_answer() -> None:
    counts = count_classes(generated("val")).pixels
    assert (counts > 0.02 * counts.sum()).all()
    constant = counts.max() / counts.sum() / len(CLASSES)  # all pixels one class: its share, and 0 for the others
    assert constant < 0.12


@pytest.mark.slow
def test_colour_says_nothing() -> None:
    """A classifier of single pixels, linear or not, finds no more than the commonest class."""
    train, val = generated(train=48), generated("val", val=16)
    samples = [[split.load(index) for index in range(len(split))] for split in (train, val)]
    colours, labels = (
        [np.concatenate([s[part].reshape(-1, *s[part].shape[2:]) for s in split]) for split in samples]
        for part in (0, 1)
    )
    torch.manual_seed(0)
    for net in (nn.Linear(3, len(CLASSES)), nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, len(CLASSES)))):
        fit(net, colours[0], labels[0])
        with torch.no_grad():
            answer = net(torch.from_numpy(colours[1]).float() / 255).argmax(1).numpy()
        assert miou(labels[1].astype(np.int64), answer) < 0.13


def fit(net: nn.Module, colours: np.ndarray, labels: np.ndarray) -> None:
    """Cross-entropy with balanced classes, so that answering `background` everywhere does not pay."""
    x, y = torch.from_numpy(colours).float() / 255, torch.from_numpy(labels.astype(np.int64))
    weights = 1 / torch.bincount(y, minlength=len(CLASSES))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    order = torch.Generator().manual_seed(0)
    for _ in range(150):
        batch = torch.randint(len(x), (4096,), generator=order)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[batch]), y[batch], weight=weights).backward()
        optimizer.step()


def test_sizes_from_32_pixels_up_work() -> None:
    for size in ((32, 32), (33, 97), (256, 32), (200, 300)):
        image, mask = generated(size=size).load(0)
        assert image.shape == (*size, 3)
        assert len(np.unique(mask)) >= 3


def test_no_noise_leaves_smooth_surfaces() -> None:
    noisy, clean = (generated(noise=noise).load(0).image.astype(float) for noise in (0.08, 0.0))
    assert np.abs(noisy - clean).mean() == pytest.approx(0.08 * 255 * 0.8, rel=0.1)


def test_a_split_that_is_not_there() -> None:
    with raises_code(DataError, "unknown-split", "generated", "'dev'", "train, val, test"):
        generated("dev")


def test_label_map_and_resize_hold_for_generated_images() -> None:
    merged = DataConfig(layout="generated", label_map={2: 1, 3: 1, 4: 1, 5: 1, 6: 255}, resize=(48, 64))
    dataset = open_dataset(resolve(merged), "train")
    assert dataset.num_classes == 2
    assert dataset.load(0).mask.shape == (48, 64)
    assert set(np.unique(dataset.load(0).mask)) == {0, 1, 255}


def test_resolve_names_the_classes() -> None:
    resolved = resolve(DataConfig(layout="generated"))
    assert (resolved.classes, resolved.num_classes) == (CLASSES, 7)
    assert resolve(resolved) == resolved
