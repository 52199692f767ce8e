"""Batches made at once, on any device, against `augment`, which makes sample after sample with Pillow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from helpers.data_sets import ArrayDataset

from autoseg.config.training import AugmentConfig
from autoseg.data.augment.batch import BatchAugment
from autoseg.data.augment.sample import augment
from autoseg.data.base import Sample
from autoseg.data.loading.cache import keep_samples
from autoseg.data.loading.loader import BatchLoader
from autoseg.data.loading.packed import mask_tensor

CPU, GPU = torch.device("cpu"), torch.device("cuda")
ZERO, GREY_LEVEL = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)
"""As mean and std they leave the values in 0..255."""
ROUNDING = 1.01
"""Grey levels: Pillow rounds to whole ones twice, and takes places in the image in single precision."""
SIZES = [(40, 48), (64, 90), (20, 130), (33, 33), (90, 25)]
"""Larger and smaller than the crop, in one axis or both."""
CROP = (48, 40)


def samples(dtype: Any = np.uint8, labels: int = 19, sizes: list[tuple[int, int]] = SIZES) -> list[Sample]:
    """Noise, in which every mistake of place or weight shows."""
    rng = np.random.default_rng(0)
    return [
        Sample(rng.integers(0, 256, (*size, 3), dtype=np.uint8), rng.integers(0, labels, size).astype(dtype))
        for size in sizes
    ]


def generators(seed: int) -> Iterator[torch.Generator]:
    return (torch.Generator().manual_seed(1000 * seed + number) for number in range(len(SIZES)))


def both(
    settings: AugmentConfig, seed: int, some: list[Sample], ignore_label: int = 255, device: torch.device = CPU
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images and masks of `augment`, then of a batch made at once."""
    common = settings, ZERO, GREY_LEVEL, ignore_label
    pairs = [augment(sample, CROP, *common, one) for sample, one in zip(some, generators(seed), strict=True)]
    tensors = [(torch.from_numpy(sample.image), mask_tensor(sample.mask)) for sample in some]
    at_once = BatchAugment(CROP, *common, device)(tensors, list(generators(seed)))
    expected = torch.stack([image for image, _ in pairs]), torch.stack([mask for _, mask in pairs])
    return *expected, *(part.cpu() for part in at_once)


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("scale", [0.3, 0.5, 0.77, 1.0, 1.31, 2.0, 3.7])
def test_a_batch_is_what_pillow_makes_up_to_rounding(scale: float, flip: float) -> None:
    settings = AugmentConfig(scale=(scale, scale), flip=flip)
    for seed in range(4):
        images, masks, images_at_once, masks_at_once = both(settings, seed, samples())
        assert torch.equal(masks_at_once, masks)
        assert (images_at_once - images).abs().max() <= (1e-3 if scale == 1 else ROUNDING)
        assert (images_at_once.dtype, images_at_once.is_contiguous()) == (torch.float32, True)


def test_scales_of_one_batch_differ() -> None:
    settings = AugmentConfig(scale=(0.4, 2.5))
    for seed in range(20):
        images, masks, images_at_once, masks_at_once = both(settings, seed, samples())
        assert torch.equal(masks_at_once, masks)
        assert (images_at_once - images).abs().max() <= ROUNDING


@pytest.mark.parametrize("colour", [0.2, 1.0])
def test_colour_jitter(colour: float) -> None:
    """Brightness enlarges a difference 1 + colour times, contrast and saturation 1 + 2 colour times each at most."""
    settings = AugmentConfig(scale=(0.4, 2.5), colour=colour)
    for seed in range(10):
        images, masks, images_at_once, masks_at_once = both(settings, seed, samples())
        assert torch.equal(masks_at_once, masks)
        assert (images_at_once - images).abs().max() <= ROUNDING * (1 + colour) * (1 + 2 * colour) ** 2
        assert (images_at_once - images).abs().mean() < 0.5
    exact = AugmentConfig(scale=(1, 1), colour=colour)
    images, _, images_at_once, _ = both(exact, 0, samples())
    assert (images_at_once - images).abs().max() < 1e-2


def test_around_the_image_is_the_mean_colour_and_the_ignore_label() -> None:
    settings = AugmentConfig(scale=(0.2, 0.5), colour=0.5)
    images, masks, images_at_once, masks_at_once = both(settings, 3, samples(), ignore_label=99)
    outside = masks == 99
    assert outside.any(0).any()
    assert torch.equal(masks_at_once == 99, outside)
    assert (images_at_once.permute(0, 2, 3, 1)[outside] == 0).all()
    assert (images.permute(0, 2, 3, 1)[outside] == 0).all()


def test_labels_above_255() -> None:
    _, masks, _, masks_at_once = both(AugmentConfig(), 1, samples(np.uint16, 65535), ignore_label=65535)
    assert int(masks.max()) > 32768
    assert torch.equal(masks_at_once, masks)


def test_the_samples_are_not_changed() -> None:
    some = samples()
    both(AugmentConfig(scale=(1, 1), colour=1.0), 0, some)
    assert all(
        np.array_equal(one.image, other.image) and np.array_equal(one.mask, other.mask)
        for one, other in zip(some, samples(), strict=True)
    )


# --- in the loader ----------------------------------------------------------------------------------------------------


def loader(dataset: ArrayDataset, device: torch.device | None, workers: int = 0) -> BatchLoader:
    return BatchLoader(
        dataset, range(len(dataset)), 3, crop=CROP, augment=AugmentConfig(), mean=ZERO, std=GREY_LEVEL, seed=1,
        stream="train", workers=workers, device=device,
    )  # fmt: skip


def mixed(**settings: Any) -> ArrayDataset:
    return ArrayDataset([tuple(sample) for sample in samples()], 19, **settings)


@pytest.mark.parametrize("kept", [False, True])
def test_the_loader_shows_the_same_views(kept: bool) -> None:
    dataset = mixed()
    if kept:
        keep_samples(dataset)
    expected = loader(mixed(), None).epoch(2, steps=6)
    for batch, other in zip(loader(dataset, CPU).epoch(2, steps=6), expected, strict=True):
        assert torch.equal(batch[1], other[1])
        assert (batch[0] - other[0]).abs().max() <= ROUNDING


def test_a_batch_depends_on_its_step_alone() -> None:
    whole = list(loader(mixed(), CPU).epoch(2, steps=6))
    rest = list(loader(mixed(), CPU).epoch(2, start_step=4, steps=6))
    assert len(rest) == 2
    for batch, other in zip(whole[4:], rest, strict=True):
        assert torch.equal(batch[0], other[0])
        assert torch.equal(batch[1], other[1])


def test_workers_stand_in_for_a_data_set_that_is_not_kept() -> None:
    """They make the batches with Pillow: bit for bit those of the CPU."""
    dataset = mixed()
    for batch, other in zip(
        loader(dataset, CPU, workers=2).epoch(0, steps=3), loader(mixed(), None).epoch(0, steps=3), strict=True
    ):
        assert torch.equal(batch[0], other[0])
        assert torch.equal(batch[1], other[1])
    keep_samples(dataset)
    images, _ = next(iter(loader(dataset, CPU, workers=2).epoch(0)))
    at_once, _ = next(iter(loader(mixed(), CPU).epoch(0)))
    assert torch.equal(images, at_once)


# --- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("labels", [19, 65535])
def test_batches_of_a_gpu(labels: int) -> None:
    settings = AugmentConfig(scale=(0.4, 2.5), colour=0.2)
    some = samples(np.uint8 if labels < 256 else np.uint16, labels)
    for seed in range(5):
        images, masks, images_at_once, masks_at_once = both(settings, seed, some, 65535, GPU)
        assert torch.equal(masks_at_once, masks)
        assert (images_at_once - images).abs().max() <= (ROUNDING + 0.5) * 1.2 * 1.4**2


@pytest.mark.gpu
@pytest.mark.parametrize("place", ["device", "memory"])
def test_making_a_batch_does_not_wait_for_the_gpu(place: Any) -> None:
    dataset = mixed()
    assert keep_samples(dataset, place, GPU) == place
    batches = loader(dataset, GPU)
    expected = list(loader(mixed(), None).epoch(0, steps=4))
    next(iter(batches.epoch(1)))  # what is done once
    torch.cuda.set_sync_debug_mode("error")
    try:
        made = list(batches.epoch(0, steps=4))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for batch, other in zip(made, expected, strict=True):
        assert batch[0].is_cuda
        assert torch.equal(batch[1].cpu(), other[1])
        assert (batch[0].cpu() - other[0]).abs().max() <= ROUNDING + 0.5
