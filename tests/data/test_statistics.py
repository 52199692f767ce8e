import numpy as np
import pytest

from autoseg.data.statistics import class_pixel_counts, class_weights, count_classes
from data.samples import ArrayDataset


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
    assert class_pixel_counts(dataset(ignore_label)).tolist() == [12, 2, 4, 0]


def test_an_ignore_label_among_the_classes_counts_nowhere() -> None:
    ignored = ArrayDataset([(np.zeros((1, 4, 3), np.uint8), np.array([[0, 1, 1, 2]]))], 3, ignore_label=0)
    assert count_classes(ignored).pixels.tolist() == [0, 2, 1]


def test_enet_weights() -> None:
    weights = class_weights("enet", count_classes(dataset()))
    assert weights == pytest.approx(
        [1 / np.log(1.02 + 12 / 18), 1 / np.log(1.02 + 2 / 18), 1 / np.log(1.02 + 4 / 18), 0]
    )


def test_median_frequency_weights() -> None:
    weights = class_weights("median_frequency", count_classes(dataset()))
    assert weights == pytest.approx([0.5 / (12 / 18), 0.5 / 0.2, 1, 0])  # frequencies 2/3, 1/5, 1/2: the median is 1/2


def test_no_weights_are_ones() -> None:
    assert class_weights("none", count_classes(dataset())).tolist() == [1, 1, 1, 1]
