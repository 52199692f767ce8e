import numpy as np
import pytest
from helpers.errors import raises_code

from autoseg.data.loading.splits import halve
from autoseg.errors import DataError


@pytest.mark.parametrize(("length", "fraction", "expected"), [(10, 0.5, 5), (367, 0.5, 184), (7, 0.3, 2), (3, 0.5, 2)])
def test_halves_cover_everything_once(length: int, fraction: float, expected: int) -> None:
    first, second = halve(length, fraction, seed=3)
    assert len(first) == expected
    assert sorted([*first, *second]) == list(range(length))
    assert (np.diff(first) > 0).all()
    assert (np.diff(second) > 0).all()


def test_the_seed_decides() -> None:
    assert np.array_equal(halve(100, 0.5, 1)[0], halve(100, 0.5, 1)[0])
    assert not np.array_equal(halve(100, 0.5, 1)[0], halve(100, 0.5, 2)[0])


@pytest.mark.parametrize(("length", "fraction"), [(1, 0.5), (10, 0.01), (10, 0.99), (0, 0.5)])
def test_an_empty_half_is_an_error(length: int, fraction: float) -> None:
    with raises_code(DataError, "too-few-images", f"{length} training image", fraction, "search.train_a_fraction"):
        halve(length, fraction, 0)
