"""Random search and evolution on a table, and their regret."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.errors import raises_code
from helpers.tables import planted

from autoseg.errors import TableError
from autoseg.space.schema import SearchSpace
from autoseg.tabular.search import evolution, random_search, regret
from autoseg.tabular.table import Table

EFFECTS = np.add.outer(np.add.outer([0.0, 0.3], [0.0, 0.2]), [0.0, 0.1]).ravel()
"""Of network, block and upsampler: the best is member 7."""


def twice(noise: float = 0.0, seed: int = 0) -> Table:
    return planted(EFFECTS + noise * np.random.default_rng(seed).normal(size=(2, 8)))


@pytest.mark.parametrize("search", [random_search, evolution])
def test_a_search_asks_for_each_member_once_and_is_repeatable(search: object) -> None:
    table = twice()
    orders = [
        search(table, EFFECTS, 8, np.random.default_rng(3))  # type: ignore[operator]
        for _ in range(2)
    ]
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == list(range(8))
    assert search(table, EFFECTS, 3, np.random.default_rng(3)) == orders[0][:3]  # type: ignore[operator]


def test_random_search_draws_members_uniformly() -> None:
    rng, table = np.random.default_rng(0), twice()
    first = [random_search(table, EFFECTS, 1, rng)[0] for _ in range(1600)]
    assert np.all(np.abs(np.bincount(first, minlength=8) - 200) < 5 * (1600 * 7 / 64) ** 0.5)


def test_evolution_climbs_where_random_search_does_not() -> None:
    rng = np.random.default_rng(1)
    sizes = (6, 3, 2, 3, 2)  # of table_216
    effects = sum(np.meshgrid(*(rng.normal(size=size) for size in sizes), indexing="ij")).ravel()  # type: ignore[union-attr]
    table = planted(np.stack([effects, effects]), SearchSpace.load("table_216"))
    left = {search: regret(table, search, 40, repeats=60).mean[-1] for search in (random_search, evolution)}
    assert 0 <= left[evolution] < left[random_search] / 2


def test_regret_falls_to_zero_without_noise() -> None:
    found = regret(twice(), random_search, 8, repeats=50)
    assert found.curves.shape == (50, 8)
    assert np.all(np.diff(found.mean) <= 1e-12)
    assert found.mean[-1] == pytest.approx(0)
    assert found.mean[0] == pytest.approx(EFFECTS.max() - EFFECTS.mean(), abs=0.1)
    low, high = found.interval
    assert np.all(low <= found.mean)
    assert np.all(found.mean <= high)


def test_what_one_seed_finds_is_judged_by_the_other() -> None:
    scores = np.array([EFFECTS, EFFECTS[::-1]])  # what is best for one seed is worst for the other
    found = regret(planted(scores), random_search, 8, repeats=20)
    assert found.mean[-1] == pytest.approx(EFFECTS.max() - EFFECTS.min())


def test_a_table_of_one_seed_has_no_regret() -> None:
    lacking = np.array([EFFECTS, EFFECTS])
    lacking[1, 0] = np.nan
    for table in (planted(EFFECTS[None]), planted(lacking)):
        with raises_code(TableError, "table-too-small", "1 complete seed,"):
            regret(table, random_search, 4)
