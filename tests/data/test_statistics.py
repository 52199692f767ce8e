import numpy as np
import pytest
from helpers.data_sets import ArrayDataset

from autoseg.data.statistics import channel_statistics, class_weights, count_classes, repeat_factors


def dataset(ignore_label: int = 255) -> ArrayDataset:
    """Two images of 10 pixels: 8 of class 0 and 2 of class 1; 4 of class 0, 4 of class 2 and 2 ignored. No class 3."""
    masks = [[0] * 8 + [1] * 2, [0] * 4 + [2] * 4 + [ignore_label] * 2]
    image = np.zeros((2, 5, 3), np.uint8)
    return ArrayDataset([(image, np.array(mask).reshape(2, 5)) for mask in masks], 4, ignore_label=ignore_label)


@pytest.mark.parametrize("ignore_label", [255, 4, 1000])
def test_counts(ignore_label: int) -> None:
    counts = count_classes(dataset(ignore_label))
    assert counts.pixels.tolist() == [12, 2, 4, 0]
    assert counts.pixels_where_present.tolist() == [18, 10, 8, 0]
    assert count_classes(dataset(ignore_label)).pixels.tolist() == [12, 2, 4, 0]


def test_an_ignore_label_among_the_classes_counts_nowhere() -> None:
    ignored = ArrayDataset([(np.zeros((1, 4, 3), np.uint8), np.array([[0, 1, 1, 2]]))], 3, ignore_label=0)
    assert count_classes(ignored).pixels.tolist() == [0, 2, 1]


def test_enet_weights() -> None:
    weights = class_weights("enet", count_classes(dataset()))
    assert weights == pytest.approx(
        [1 / np.log(1.02 + 12 / 18), 1 / np.log(1.02 + 2 / 18), 1 / np.log(1.02 + 4 / 18), 0]
    )


def test_inverse_weights() -> None:
    weights = class_weights("inverse", count_classes(dataset()))
    assert weights == pytest.approx([18 / (3 * 12), 18 / (3 * 2), 18 / (3 * 4), 0])
    assert (weights * [12, 2, 4, 0]).sum() / 18 == pytest.approx(1)
    nothing = ArrayDataset([(np.zeros((1, 2, 3), np.uint8), np.full((1, 2), 255, np.uint8))], 3)
    assert class_weights("inverse", count_classes(nothing)).tolist() == [0, 0, 0]


def test_median_frequency_weights() -> None:
    weights = class_weights("median_frequency", count_classes(dataset()))
    assert weights == pytest.approx([0.5 / (12 / 18), 0.5 / 0.2, 1, 0])  # frequencies 2/3, 1/5, 1/2: the median is 1/2


def test_no_weights_are_ones() -> None:
    assert class_weights("none", count_classes(dataset())).tolist() == [1, 1, 1, 1]


def test_repeat_factors_are_of_the_rarest_class_among_the_given_images() -> None:
    masks = [[0, 0], [0, 1], [0, 1], [0, 2], [255, 255]]
    images = ArrayDataset([(np.zeros((1, 2, 3), np.uint8), np.array([mask], np.uint8)) for mask in masks], 4)
    expected = [(5 / 4) ** 0.5, (5 / 2) ** 0.5, (5 / 2) ** 0.5, 5**0.5, 1]
    assert repeat_factors(images, range(5)) == pytest.approx(expected)
    assert repeat_factors(images, [3, 0]) == pytest.approx([2**0.5, 1])
    assert repeat_factors(images, [4]).tolist() == [1]


@pytest.mark.parametrize(("dtype", "full"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_channel_statistics(dtype: type, full: int) -> None:
    """Over the pixels of all images, whatever their sizes; a channel that never varies has spread 1."""
    rng = np.random.default_rng(0)
    images = [(rng.random((*size, 4)) * full).astype(dtype) for size in ((3, 5), (8, 2), (1, 1))]
    for image in images:
        image[:, :, 3] = 0.5 * full
    images = ArrayDataset([(image, np.zeros(image.shape[:2], np.uint8)) for image in images], 2)
    mean, std = channel_statistics(images, pixels_at_once=7)
    values = np.concatenate([image.reshape(-1, 4) for image, _ in images.samples]).astype(np.float64) / full
    assert mean == pytest.approx(values.mean(0), abs=1e-9)
    assert std == pytest.approx([*values.std(0)[:3], 1], abs=1e-7)
    assert all(isinstance(value, float) for value in (*mean, *std))


def test_channel_statistics_of_many_images_are_of_some_that_are_evenly_spaced() -> None:
    samples = [(np.full((1, 1, 1), value, np.uint8), np.zeros((1, 1), np.uint8)) for value in range(10)]
    images = ArrayDataset(samples, 2)
    mean, std = channel_statistics(images, 3)
    assert [int(reads > 0) for reads in images.reads] == [1, 0, 0, 1, 0, 0, 1, 0, 0, 0]
    assert (mean, std) == (pytest.approx([3 / 255]), pytest.approx([6**0.5 / 255]))
