import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from autoseg.config.training import AugmentConfig
from autoseg.data.augment.sample import augment, to_tensor
from autoseg.data.base import Sample

ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ramp(height: int, width: int) -> Sample:
    """Each label is the column, the image says column and row: red = column, green = row."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.uint8)
    return Sample(np.stack([columns, rows, 0 * rows], axis=-1), columns)


def test_to_tensor_normalises() -> None:
    sample = Sample(np.array([[[0, 255, 51]]], dtype=np.uint8), np.array([[7]], dtype=np.uint8))
    image, mask = to_tensor(sample, MEAN, STD)
    expected = (np.array([0, 1, 0.2]) - MEAN) / STD
    assert image.shape == (3, 1, 1)
    assert image.dtype == torch.float32
    assert image.flatten().numpy() == pytest.approx(expected, abs=1e-6)
    assert mask.dtype == torch.int64
    assert mask.tolist() == [[7]]


def test_to_tensor_leaves_the_sample_alone() -> None:
    sample = ramp(8, 8)
    image, mask = to_tensor(sample, MEAN, STD)
    image.zero_()
    mask.zero_()
    assert np.array_equal(sample.image, ramp(8, 8).image)
    assert np.array_equal(sample.mask, ramp(8, 8).mask)


@given(st.integers(0, 10**6), st.floats(0.3, 3), st.sampled_from([0.0, 1.0]), st.sampled_from([(32, 48), (96, 64)]))
@settings(max_examples=60, deadline=None)
def test_image_and_mask_move_together(seed: int, scale: float, flip: float, crop: tuple[int, int]) -> None:
    """At every pixel the image, which holds the column, agrees with the mask, which holds it too."""
    image, mask = augment(
        ramp(60, 80), crop, AugmentConfig(scale=(scale, scale), flip=flip), ZERO, ONE, 255, generator(seed)
    )
    assert image.shape == (3, *crop)
    assert mask.shape == crop
    shown = mask != 255
    # half a pixel of the mask's grid, half a grey level, and what the filter loses at the image's border
    assert ((image[0] * 255 - mask)[shown].abs() <= 1.01 + 0.25 / scale).all()
    columns = mask.amin(0)[mask.amin(0) != 255]
    assert ((columns.diff() <= 0) if flip else (columns.diff() >= 0)).all()


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.5, 0.75, 1.0, 1.5, 2.0])
def test_a_crop_is_a_window_of_the_whole_scaled_image(scale: float) -> None:
    rng = np.random.default_rng(0)
    sample = Sample(
        rng.integers(0, 256, (80, 96, 3), dtype=np.uint8), np.arange(96, dtype=np.uint8)[None].repeat(80, 0)
    )
    size = (round(96 * scale), round(80 * scale))
    whole = np.asarray(Image.fromarray(sample.image).resize(size, Image.Resampling.BILINEAR)).astype(np.float32)
    settings = AugmentConfig(scale=(scale, scale), flip=0)
    image, _ = augment(sample, (32, 32), settings, ZERO, ONE, 255, generator(3))
    crop = image.permute(1, 2, 0).numpy() * 255
    windows = np.lib.stride_tricks.sliding_window_view(whole, (32, 32, 3))[:, :, 0]
    distance = np.abs(windows - crop).max(axis=(2, 3, 4))
    assert distance.min() <= 2.01  # grey levels: rounded twice
    assert np.count_nonzero(distance <= 2.01) == 1


def test_labels_are_never_interpolated() -> None:
    labels = np.where(np.random.default_rng(1).random((50, 70)) < 0.5, 3, 200).astype(np.uint8)
    sample = Sample(np.zeros((50, 70, 3), dtype=np.uint8), labels)
    for seed in range(40):
        _, mask = augment(sample, (64, 64), AugmentConfig(scale=(0.4, 2.5)), MEAN, STD, 255, generator(seed))
        assert set(mask.unique().tolist()) <= {3, 200, 255}


def test_padding_is_the_mean_colour_and_ignored() -> None:
    sample = Sample(np.full((20, 30, 3), 255, dtype=np.uint8), np.full((20, 30), 4, dtype=np.uint8))
    places = set()
    for seed in range(20):
        image, mask = augment(sample, (40, 50), AugmentConfig(scale=(1, 1)), MEAN, STD, 99, generator(seed))
        shown = mask == 4
        assert int(shown.sum()) == 20 * 30
        assert set(mask.unique().tolist()) == {4, 99}
        assert (image[:, ~shown] == 0).all()
        assert (image[:, shown] > 2).all()
        places.add(tuple(shown.nonzero()[0].tolist()))
    assert len(places) > 10


def test_every_place_of_the_crop_occurs() -> None:
    sample = Sample(np.zeros((34, 33, 3), dtype=np.uint8), np.arange(34 * 33, dtype=np.uint16).reshape(34, 33))
    settings = AugmentConfig(scale=(1, 1), flip=0)
    corners = {
        int(augment(sample, (32, 32), settings, MEAN, STD, 65535, generator(seed))[1][0, 0]) for seed in range(100)
    }
    assert corners == {0, 1, 33, 34, 66, 67}


def test_one_generator_state_gives_one_result() -> None:
    settings = AugmentConfig(colour=0.4)
    first, again, other = (
        augment(ramp(60, 80), (48, 48), settings, MEAN, STD, 255, generator(seed)) for seed in (5, 5, 6)
    )
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_colour_changes_the_image_alone() -> None:
    rng = np.random.default_rng(0)
    sample = Sample(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8), rng.integers(0, 9, (40, 40), dtype=np.uint8))
    plain, strong = (
        augment(sample, (32, 32), AugmentConfig(scale=(1, 1), colour=colour), ZERO, ONE, 255, generator(2))
        for colour in (0.0, 0.5)
    )
    assert torch.equal(plain[1], strong[1])
    assert (plain[0] - strong[0]).abs().mean() > 0.02
    assert strong[0].min() >= 0
    assert strong[0].max() <= 1


def test_colour_strength_bounds_the_brightness() -> None:
    """A grey image stays grey, and contrast has nothing to change: only the brightness moves, by half at most."""
    sample = Sample(np.full((40, 40, 3), 100, dtype=np.uint8), np.zeros((40, 40), dtype=np.uint8))
    brightness = []
    for seed in range(50):
        image, _ = augment(sample, (32, 32), AugmentConfig(scale=(1, 1), colour=0.5), ZERO, ONE, 255, generator(seed))
        assert torch.allclose(image[0], image[2], atol=1e-5)
        brightness.append(float(image.mean() * 255))
    assert 50 <= min(brightness) < 65
    assert 135 < max(brightness) <= 150


def test_the_sample_is_not_changed() -> None:
    sample = ramp(40, 40)
    augment(sample, (40, 40), AugmentConfig(scale=(1, 1), colour=1), MEAN, STD, 255, generator(0))
    assert np.array_equal(sample.image, ramp(40, 40).image)
