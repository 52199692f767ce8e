"""Classes called left and right: found by whole words, set by the user, and swapped wherever a view is mirrored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.data_sets import ArrayDataset

from autoseg.config.data import DataConfig, ResolvedDataConfig
from autoseg.config.training import AugmentConfig, FlipPairs
from autoseg.data.augment.batch import BatchAugment
from autoseg.data.augment.sample import augment
from autoseg.data.base import Sample
from autoseg.data.dataset import resolve
from autoseg.data.flip_pairs import (
    found_pairs,
    mirrored_classes,
    mirrored_labels,
    pairs_by_name,
    pairs_line,
    resolved_pairs,
)
from autoseg.data.loading.cache import keep_samples
from autoseg.data.loading.loader import BatchLoader
from autoseg.data.loading.packed import mask_tensor
from autoseg.errors import ConfigError

CPU = torch.device("cpu")
KEY = "search.augment.flip_pairs"
NAMES = ("background", "left arm", "nose", "right arm", "left leg", "right leg", "bright")
ARMS, LEGS = ("left arm", "right arm"), ("left leg", "right leg")


def data_of(*classes: str, ignore_label: int = 255) -> ResolvedDataConfig:
    return resolve(DataConfig(layout="generated", classes=classes, ignore_label=ignore_label))


# --- by name ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [" ", "_", "-", ".", "/", " (", "2"])
@pytest.mark.parametrize("form", ["left{}eye", "eye{}left", "LEFT{}eye", "Left{}Eye", "the{}left{}eye", "left{}2"])
def test_whole_words_are_found_whatever_separates_them(separator: str, form: str) -> None:
    one = form.replace("{}", separator)
    other = one.replace("left", "right").replace("LEFT", "Right").replace("Left", "RIGHT")
    assert pairs_by_name(["nose", other, one]) == ((other, one),)


@pytest.mark.parametrize(
    "pair",
    [("leftArm", "rightArm"), ("LeftArm", "RightArm"), ("armLeft", "armRight"), ("armLEFT", "armRIGHT"),
     ("MRILeft", "MRIRight"), ("LEFTArm", "RIGHTArm"), ("left", "right"), ("Left", "right"), ("left_arm", "Right-Arm"),
     ("left left-turn", "right right-turn"), ("left right-turn", "right left-turn"), ("left-right", "right-left"),
     ("œil left", "œil right")],
)  # fmt: skip
def test_names_that_are_pairs(pair: tuple[str, str]) -> None:
    assert pairs_by_name(pair) == (pair,)
    assert pairs_by_name(reversed(pair)) == (pair[::-1],)


@pytest.mark.parametrize(
    "names",
    [("bright", "bleft"), ("copyright", "copyleft"), ("leftover", "rightover"), ("upright", "upleft"),
     ("right of way", "car"), ("left arm", "right leg"), ("lefts", "rights"), ("leftarm", "rightarm"),
     ("arm_l", "arm_r"), ("left left-turn", "right left-turn"), ("éleft", "éright"), ("aleft", "aright"),
     ("left arm", "Left_Arm", "right arm"), ("leftArm", "rightarm"), ("left",), ()],
)  # fmt: skip
def test_names_that_are_no_pairs(names: tuple[str, ...]) -> None:
    assert pairs_by_name(names) == ()


def test_several_pairs_come_in_the_order_of_the_classes() -> None:
    assert pairs_by_name(NAMES) == (ARMS, LEGS)
    assert pairs_by_name(NAMES[::-1]) == (LEGS[::-1], ARMS[::-1])


def test_an_ignored_class_is_in_no_pair() -> None:
    assert found_pairs(data_of(*NAMES, ignore_label=3)) == (LEGS,)
    assert found_pairs(data_of(*NAMES, ignore_label=0)) == (ARMS, LEGS)
    with pytest.raises(ConfigError, match="no class 3"):
        resolved_pairs(((1, 3),), data_of(*NAMES, ignore_label=3), KEY)


# --- as set -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, (ARMS, LEGS)), ((), ()), (((1, 3),), (ARMS,)), (((6, "nose"),), (("bright", "nose"),)),
     (((5, 4), ARMS), (LEGS[::-1], ARMS))],
)  # fmt: skip
def test_what_is_set_replaces_what_was_found(given: FlipPairs | None, expected: FlipPairs) -> None:
    assert resolved_pairs(given, data_of(*NAMES), KEY) == expected


def test_without_pairs_nothing_is_set_said_or_swapped() -> None:
    data = data_of("sky", "bright")
    assert resolved_pairs(None, data, KEY) is None
    for none in (None, ()):
        assert pairs_line(none, data) == []
        assert mirrored_classes(none, data.classes) is None
        assert mirrored_labels(none, data.classes, 255) is None


def test_a_class_named_as_a_number_is_not_the_class_of_that_number() -> None:
    assert resolved_pairs((("2", 2),), data_of("0", "2", "1"), KEY) == (("2", "1"),)


@pytest.mark.parametrize(
    ("given", "code", "text"),
    [((("left arm", "right am"),), "unknown-class", "has no class 'right am' (did you mean 'right arm'?)"),
     (((0, 7),), "unknown-class", "has no class 7 (the numbers are 0..6)"),
     (((1, "left arm"),), "flip-pairs-overlap", "the class 'left arm' comes twice"),
     (((1, 2), ("nose", 5)), "flip-pairs-overlap", "the class 'nose' comes twice")],
)  # fmt: skip
def test_what_does_not_fit_the_classes(given: FlipPairs, code: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolved_pairs(given, data_of(*NAMES), KEY)
    assert caught.value.code == code
    assert str(caught.value).startswith(f"{KEY}: ")
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_said() -> None:
    data = data_of(*NAMES)
    assert pairs_line((ARMS, LEGS), data) == [
        "mirrored images swap 2 pairs of classes: left arm and right arm, left leg and right leg (by their names;"
        " augment.flip_pairs sets it)"
    ]
    assert pairs_line((ARMS,), data) == [
        "mirrored images swap 1 pair of classes: left arm and right arm (augment.flip_pairs)"
    ]
    many = data_of(*(f"{side} {number}" for number in range(5) for side in ("left", "right")))
    (line,) = pairs_line(found_pairs(many), many)
    assert line.startswith("mirrored images swap 5 pairs of classes: left 0 and right 0, ")
    assert ", left 3 and right 3, ... (by" in line


# --- in training ------------------------------------------------------------------------------------------------------

PAIRS: FlipPairs = (("c1", "c3"), ("c4", 0))
"""Of the seven classes of `dataset`."""
SWAPPED = {1: 3, 3: 1, 4: 0, 0: 4}
VIEWS: dict[str, dict[str, Any]] = {
    "as it is": {"scale": (1, 1)},
    "scaled": {"scale": (0.4, 2.5)},
    "all else": {"scale": (0.4, 2.5), "colour": 0.2, "rotate": 20.0, "blur": 0.5, "cutout": 0.5},
}  # fmt: skip


def dataset(ignore_label: int = 255, dtype: Any = np.uint8, labels: int = 7) -> ArrayDataset:
    """Noise, with ignored pixels."""
    rng = np.random.default_rng(0)
    samples = []
    for size in [(40, 48), (64, 90), (20, 130), (33, 33)]:
        mask = rng.integers(0, labels, size).astype(dtype)
        mask[3:9, :20] = ignore_label
        samples.append((rng.integers(0, 256, (*size, 3), dtype=np.uint8), mask))
    return ArrayDataset(samples, labels, ignore_label=ignore_label)


def relabelled(mask: torch.Tensor) -> torch.Tensor:
    """Pixel by pixel."""
    return torch.tensor([[SWAPPED.get(label, label) for label in row] for row in mask.tolist()])


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("flip", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("ignore_label", "dtype"), [(255, np.uint8), (7, np.uint8), (65535, np.uint16)])
def test_flipped_views_alone_are_relabelled_one_by_one_and_at_once(
    view: str, flip: float, ignore_label: int, dtype: Any
) -> None:
    settings = AugmentConfig(**VIEWS[view], flip=flip)
    data, common = dataset(ignore_label, dtype), ((48, 40), settings, [0.0] * 3, [1.0] * 3, ignore_label)
    table = mirrored_labels(PAIRS, data.classes, ignore_label)
    samples = [Sample(*sample) for sample in data.samples]

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(number) for number in range(len(samples))]

    flipped = [bool(torch.rand(8, generator=one, dtype=torch.float64)[3] < flip) for one in generators()]
    assert (any(flipped), all(flipped)) == (flip > 0, flip == 1)
    tensors = [(torch.from_numpy(sample.image), mask_tensor(sample.mask)) for sample in samples]
    at_once = [BatchAugment(*common, CPU, swapped)(tensors, generators()) for swapped in (None, table)]
    for number, (sample, is_flipped) in enumerate(zip(samples, flipped, strict=True)):
        alone = [augment(sample, *common, generators()[number], swapped) for swapped in (None, table)]
        for plain, swapped in (alone, [[part[number] for part in batch] for batch in at_once]):
            assert torch.equal(swapped[0], plain[0])
            assert torch.equal(swapped[1], relabelled(plain[1]) if is_flipped else plain[1])


def loader(data: ArrayDataset, device: torch.device | None, workers: int = 0, **settings: Any) -> BatchLoader:
    return BatchLoader(
        data, range(len(data)), 2, crop=(48, 40), augment=AugmentConfig(**settings), mean=[0.0] * 3, std=[1.0] * 3,
        seed=1, stream="train", workers=workers, device=device,
    )  # fmt: skip


@pytest.mark.parametrize("device", [None, CPU], ids=["one by one", "at once"])
@pytest.mark.parametrize("kept", ["none", "memory", "disk"])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_swaps_wherever_the_samples_are(
    device: torch.device | None, kept: Any, workers: int, tmp_path: Any
) -> None:
    data = dataset()
    if kept != "none":
        keep_samples(data, kept, CPU, str(tmp_path))
    always = {"flip": 1.0, "scale": (1, 1)}
    plain = loader(dataset(), None, **always).epoch(1, steps=3)
    found = loader(data, device, workers, **always, flip_pairs=PAIRS).epoch(1, steps=3)
    for (_, mask), (_, other) in zip(plain, found, strict=True):
        assert torch.equal(other, torch.stack([relabelled(one) for one in mask]))
        assert not torch.equal(other, mask)


def test_no_pairs_make_no_operation() -> None:
    assert loader(dataset(), None)._batches.mirrored is None
    at_once = loader(dataset(), CPU, flip_pairs=())._at_once
    assert at_once is not None
    assert at_once._mirrored is None
