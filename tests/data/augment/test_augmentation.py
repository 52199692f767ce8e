"""Rotation, blur, cutout and images of any channels: what they do, and that a batch made at once is the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.data_sets import ArrayDataset

from autoseg.config.training import AugmentConfig
from autoseg.data.augment.batch import BatchAugment
from autoseg.data.augment.parameters import CoarseMask
from autoseg.data.augment.sample import augment, full_scale, gaussian, to_tensor, turned
from autoseg.data.base import Sample
from autoseg.data.loading.loader import BatchLoader, evaluation_batches
from autoseg.data.loading.packed import mask_tensor

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SIZES = [(40, 48), (64, 90), (20, 130), (33, 33), (90, 25)]
CROP = (48, 40)
FIXED = {"scale": (1, 1), "flip": 0.0}
CHANGES: list[dict[str, Any]] = [
    {"rotate": 15},
    {"rotate": 180, "flip": 1.0},
    {"blur": 0.7, "blur_sigma": (0.1, 3.0)},
    {"cutout": 0.7},
    {"max_class_share": 0.2},
    {"rotate": 30, "blur": 0.5, "cutout": 0.5, "max_class_share": 0.2, "colour": 0.3},
]
TYPES = [("uint8", 3), ("uint8", 1), ("uint8", 4), ("uint16", 1), ("uint16", 3), ("float32", 2)]


def samples(dtype: str = "uint8", channels: int = 3) -> list[Sample]:
    rng = np.random.default_rng(0)
    return [
        Sample(
            (rng.random((*size, channels)) * full_scale(np.dtype(dtype))).astype(dtype),
            rng.integers(0, 6, size, dtype=np.uint8),
        )
        for size in SIZES
    ]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_by_one(some: list[Sample], settings: AugmentConfig, seed: int, scale: list[float]) -> tuple[Any, Any]:
    zero = [0.0] * len(scale)
    pairs = [
        augment(sample, CROP, settings, zero, scale, 255, generator(10 * seed + number))
        for number, sample in enumerate(some)
    ]
    return torch.stack([image for image, _ in pairs]), torch.stack([mask for _, mask in pairs])


def at_once(
    some: list[Sample], settings: AugmentConfig, seed: int, scale: list[float], device: torch.device = CPU
) -> tuple[torch.Tensor, torch.Tensor]:
    tensors = [(torch.from_numpy(sample.image), mask_tensor(sample.mask)) for sample in some]
    generators = [generator(10 * seed + number) for number in range(len(some))]
    batch = BatchAugment(CROP, settings, [0.0] * len(scale), scale, 255, device)
    images, masks = batch(tensors, generators, [CoarseMask(sample.mask, 1) for sample in some])
    return images.cpu(), masks.cpu()


def largest_difference(settings: AugmentConfig, dtype: str, channels: int, device: torch.device = CPU) -> float:
    """In grey levels of 255, over some batches whose masks are equal."""
    difference = 0.0
    some, scale = samples(dtype, channels), [1 / 255] * channels
    for seed in range(4):
        images, masks = one_by_one(some, settings, seed, scale)
        images_at_once, masks_at_once = at_once(some, settings, seed, scale, device)
        assert torch.equal(masks, masks_at_once)
        assert images.shape == images_at_once.shape == (len(some), channels, *CROP)
        assert images_at_once.dtype == torch.float32
        difference = max(difference, float((images - images_at_once).abs().max()))
    return difference


@pytest.mark.slow
@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: "-".join(changes))
def test_a_batch_made_at_once_is_the_same(changes: dict[str, Any]) -> None:
    """Up to Pillow's rounding to whole grey levels, twice, which the colour jitter enlarges."""
    assert largest_difference(AugmentConfig(**{"scale": (0.4, 2.5)} | changes), "uint8", 3) <= 1.01 * 1.3 * 1.6**2
    exact = AugmentConfig(**FIXED | changes)
    assert largest_difference(exact, "uint8", 3) <= 1e-2


@pytest.mark.parametrize(("dtype", "channels"), TYPES)
def test_any_type_and_number_of_channels(dtype: str, channels: int) -> None:
    settings = AugmentConfig(scale=(0.4, 2.5), colour=0.3, rotate=20, blur=0.5, cutout=0.5)
    assert largest_difference(settings, dtype, channels) <= (4.4 if dtype == "uint8" else 2e-2)
    if (dtype, channels) != ("uint8", 3):
        return
    wide = [Sample(sample.image[:, :, [0, 0, 1, 2, 2]], sample.mask) for sample in samples()]
    plain = AugmentConfig(scale=(0.4, 2.5))  # channels are treated alike, and each by itself
    expected = one_by_one(samples(), plain, 0, [1.0] * 3)[0][:, [0, 0, 1, 2, 2]]
    assert torch.equal(one_by_one(wide, plain, 0, [1.0] * 5)[0], expected)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_full_scale_is_one(dtype: str) -> None:
    full = full_scale(np.dtype(dtype))
    image = np.array([[[0, full / 5]]]).astype(dtype)
    sample = Sample(image, np.zeros((1, 1), dtype=np.uint8))
    values, _ = to_tensor(sample, (0.5, 0.1), (0.25, 2.0))
    assert values.flatten().tolist() == pytest.approx([-2, 0.05], abs=1e-6)
    dataset = ArrayDataset([sample], 2)
    _, images, _ = next(iter(evaluation_batches(dataset, [0], (0.5, 0.1), (0.25, 2.0))))
    assert torch.equal(images[0], values)


def test_jitter_of_other_channels_is_brightness_and_contrast() -> None:
    """One factor and one summand for all channels: saturation would mix them."""
    rng = np.random.default_rng(0)
    sample = Sample(rng.integers(20000, 40000, (40, 40, 4)).astype(np.uint16), np.zeros((40, 40), np.uint8))
    image, changed = (
        augment(sample, (40, 40), AugmentConfig(**FIXED, colour=colour), [0] * 4, [1] * 4, 255, generator(1))[0]
        for colour in (0.0, 0.2)
    )
    slope = (changed[:, 0, 0] - changed[:, 0, 1]) / (image[:, 0, 0] - image[:, 0, 1])
    assert (slope.max() - slope.min()).item() < 1e-4
    rest = changed - slope[0] * image
    assert (rest.max() - rest.min()).item() < 1e-4
    assert (changed - image).abs().mean() > 0.005


def test_values_without_a_range_are_not_cut_off() -> None:
    sample = Sample(np.full((40, 40, 1), -7.0, dtype=np.float32), np.zeros((40, 40), np.uint8))
    image, _ = augment(sample, (40, 40), AugmentConfig(**FIXED, colour=0.2), [0], [1], 255, generator(1))
    assert image.max() < -5


# --- rotation ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_quarter_turns_are_exact_and_counter_clockwise(turns: int) -> None:
    images = torch.rand(2, 3, 24, 20, generator=generator(0))
    masks = torch.randint(0, 9, (2, 24, 20), generator=generator(1))
    angle = torch.full((2, 1), turns * np.pi / 2, dtype=torch.float64)
    view, labels = turned(images, masks, angle.cos(), angle.sin(), (12, 12), 255)
    middle = (..., slice(6, 18), slice(4, 16))
    assert torch.equal(labels, torch.rot90(masks[middle], turns, (1, 2)))
    assert torch.allclose(view, torch.rot90(images[middle], turns, (2, 3)), atol=1e-5)


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("scale", [0.6, 1.0, 1.7])
def test_image_and_mask_turn_together(scale: float, flip: float) -> None:
    """The image holds the column of each pixel, and so does the mask."""
    columns = np.mgrid[0:80, 0:80][1].astype(np.uint8)
    sample = Sample(columns[:, :, None], columns)
    for seed in range(20):
        settings = AugmentConfig(scale=(scale, scale), flip=flip, rotate=180)
        image, mask = augment(sample, CROP, settings, [0], [1], 255, generator(seed))
        inner = (mask != 255)[1:-1, 1:-1]  # away from the border, over which a rotation mixes image and mean colour
        for down in range(3):
            for across in range(3):
                inner = inner & (mask != 255)[down : down + 46, across : across + 38]
        assert inner.any()
        assert (image[0] * 255 - mask).abs()[1:-1, 1:-1][inner].max() <= 1.3 + 0.75 / scale


def test_a_rotation_shows_what_lies_around_the_crop() -> None:
    """In a large image nothing is lost at the corners, whatever the angle."""
    sample = Sample(np.full((200, 200, 1), 9, dtype=np.uint8), np.full((200, 200), 4, dtype=np.uint8))
    shown = [
        augment(sample, (40, 60), AugmentConfig(**FIXED, rotate=180), [0], [1], 255, generator(seed))[1]
        for seed in range(60)
    ]
    inside = [bool((mask == 4).all()) for mask in shown]
    assert np.mean(inside) > 0.6  # else the crop lies at the border of the image
    small = Sample(sample.image[:40, :60], sample.mask[:40, :60])
    image, mask = augment(small, (40, 60), AugmentConfig(**FIXED, rotate=45), [0.1], [1], 255, generator(3))
    assert 0 < int((mask == 255).sum()) < 1200
    assert (image[0, mask == 255] == 0).double().mean() > 0.7


# --- blur -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.8, 2.0])
def test_blur_is_a_gaussian(sigma: float) -> None:
    image = np.zeros((41, 41, 1), dtype=np.float32)
    image[20, 20] = 1
    sample = Sample(image, np.zeros((41, 41), np.uint8))
    settings = AugmentConfig(**FIXED, blur=1.0, blur_sigma=(sigma, sigma))
    blurred, _ = augment(sample, (41, 41), settings, [0], [1], 255, generator(0))
    steps = torch.arange(41) - 20.0
    profile = torch.exp(-steps.square() / (2 * sigma**2))
    profile = profile / profile.sum()
    assert torch.allclose(blurred[0], profile[:, None] * profile, atol=1e-6)


def test_blur_keeps_what_is_constant_up_to_the_border_and_lets_nothing_in() -> None:
    sample = Sample(np.full((20, 30, 2), 0.5, dtype=np.float32), np.zeros((20, 30), np.uint8))
    settings = AugmentConfig(**FIXED, blur=1.0, blur_sigma=(3, 3))
    for image, mask in (
        augment(sample, CROP, settings, [0.1] * 2, [1] * 2, 255, generator(4)),
        [part[0] for part in BatchAugment(CROP, settings, [0.1] * 2, [1] * 2, 255, CPU)(
            [(torch.from_numpy(sample.image), torch.from_numpy(sample.mask))], [generator(4)]
        )],
    ):  # fmt: skip
        assert torch.allclose(image[:, mask == 0], torch.tensor(0.4), atol=1e-6)
        assert (image[:, mask == 255] == 0).all()


def test_what_is_not_to_be_blurred_stays_as_it_is() -> None:
    shown = torch.tensor([[True, True, False, True]])
    assert torch.equal(gaussian(shown, torch.zeros(1, 1))[0], torch.diag(shown[0].float()))


# --- cutout -----------------------------------------------------------------------------------------------------------


def test_cutout_is_a_rectangle_of_the_mean_colour_that_is_ignored() -> None:
    rng = np.random.default_rng(0)
    sample = Sample(rng.integers(1, 255, (60, 60, 3), dtype=np.uint8), rng.integers(0, 5, (60, 60), dtype=np.uint8))
    areas = []
    for seed in range(30):
        plain, cut = (
            augment(sample, CROP, AugmentConfig(cutout=cutout, scale=(1, 1)), [0] * 3, [1] * 3, 99, generator(seed))
            for cutout in (0.0, 1.0)
        )
        hole = cut[1] == 99
        rows, columns = hole.any(1), hole.any(0)
        assert torch.equal(hole, rows[:, None] & columns)
        assert (cut[0][:, hole] == 0).all()
        assert torch.equal(cut[0][:, ~hole], plain[0][:, ~hole])
        assert torch.equal(cut[1][~hole], plain[1][~hole])
        areas.append(float(hole.double().mean()))
    assert 0.005 < min(areas) < max(areas) < 0.26


# --- in the loader ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_loader_looks_at_the_masks_where_classes_are_limited(dtype: Any) -> None:
    """Both ways of making a batch choose the same places, which are not those without a limit."""
    some = [(sample.image, sample.mask.astype(dtype)) for sample in samples()]
    ignore_label = 255 if dtype == np.uint8 else 65535
    shown = []
    for share, device in ((0.17, None), (0.17, CPU), (1.0, CPU)):
        loader = BatchLoader(
            ArrayDataset(some, 7, ignore_label=ignore_label), range(5), 5, crop=(32, 32),
            augment=AugmentConfig(scale=(1.5, 1.5), max_class_share=share), mean=[0] * 3, std=[1] * 3, seed=0,
            stream="train", device=device,
        )  # fmt: skip
        shown.append(torch.stack([masks for _, masks in loader.epoch(0, steps=3)]))
    assert torch.equal(shown[0], shown[1])
    assert not torch.equal(shown[1], shown[2])


@pytest.mark.gpu
@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: "-".join(changes))
def test_batches_of_a_gpu(changes: dict[str, Any]) -> None:
    settings = AugmentConfig(**{"scale": (0.4, 2.5)} | changes)
    assert largest_difference(settings, "uint8", 3, GPU) <= 1.51 * 1.3 * 1.6**2


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "channels"), TYPES)
def test_any_type_and_number_of_channels_on_a_gpu(dtype: str, channels: int) -> None:
    settings = AugmentConfig(scale=(0.4, 2.5), colour=0.3, rotate=20, blur=0.5, cutout=0.5)
    assert largest_difference(settings, dtype, channels, GPU) <= (6.6 if dtype == "uint8" else 1.0)


@pytest.mark.gpu
def test_no_change_waits_for_the_gpu() -> None:
    settings = AugmentConfig(rotate=20, blur=0.5, cutout=0.5, colour=0.3)
    batch = BatchAugment(CROP, settings, [0.0] * 3, [1.0] * 3, 255, GPU)
    tensors = [(torch.from_numpy(sample.image), mask_tensor(sample.mask)) for sample in samples()]
    batch(tensors, [generator(number) for number in range(len(tensors))])  # what is done once
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch(tensors, [generator(number) for number in range(len(tensors))])
    finally:
        torch.cuda.set_sync_debug_mode("default")
