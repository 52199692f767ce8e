"""Searching a table of trained networks: random search and evolution in milliseconds, and their regret.

A search asks for one training of a network after the other. What it sees is the score of one seed; what it finds is
judged by the other seeds, since the best of many noisy scores is partly luck.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from autoseg.data.wording import counted
from autoseg.errors import TableError
from autoseg.tabular.table import Table

Search = Callable[[Table, np.ndarray, int, np.random.Generator], list[int]]
"""Called with a table, the scores (M,) that it sees, a number of trainings and a generator; returns the members that it
trains, in order."""


def random_search(table: Table, seen: np.ndarray, trainings: int, rng: np.random.Generator) -> list[int]:
    """Members drawn without repetition, all members once they are through."""
    order = np.concatenate([rng.permutation(len(table)) for _ in range(1 + trainings // len(table))])
    return [int(member) for member in order[:trainings]]


def evolution(
    table: Table,
    seen: np.ndarray,
    trainings: int,
    rng: np.random.Generator,
    population: int = 10,
    sample: int = 4,
) -> list[int]:
    """Regularised evolution (Real et al. 2019, algorithm 1): the best of a sample is mutated, the oldest dies.

    A member that was trained before costs no training and is not asked for again; after as many mutations in a row
    without a new one as the table has members, the next is drawn at random.

    Args:
        table: The table.
        seen: (M,): the scores that the search sees.
        trainings: Number of trainings that it may ask for.
        rng: Draws everything random.
        population: Number of living members, P.
        sample: Number of them that compete for the next mutation, S.

    Returns:
        The members in the order of their trainings.
    """
    order = random_search(table, seen, min(population, trainings), rng)
    living, trained = deque(order, maxlen=population), set(order)
    while len(order) < min(trainings, len(table)):
        child = _new_child(table, seen, living, trained, rng, sample)
        trained.add(child)
        order.append(child)
        living.append(child)  # the oldest leaves
    return order


def _new_child(
    table: Table, seen: np.ndarray, living: Sequence[int], trained: set[int], rng: np.random.Generator, sample: int
) -> int:
    for _ in range(len(table)):
        competing = [living[int(place)] for place in rng.integers(len(living), size=sample)]
        child = table.mutate(max(competing, key=lambda member: float(seen[member])), rng)
        if child not in trained:
            return child
    others = sorted(set(range(len(table))) - trained)
    return others[int(rng.integers(len(others)))]


class Regret(NamedTuple):
    """Regret after each training, (repeats, trainings): the best score of the table minus that of what was found."""

    curves: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Mean over the repeats, (trainings,)."""
        found: np.ndarray = self.curves.mean(0)
        return found

    @property
    def interval(self) -> np.ndarray:
        """2.5 and 97.5 percent points of the repeats, (2, trainings)."""
        found: np.ndarray = np.percentile(self.curves, [2.5, 97.5], axis=0)
        return found


def regret(table: Table, search: Search, trainings: int, repeats: int = 200, seed: int = 0) -> Regret:
    """Repeat a search on a table, and say how far what it found stays from the best after each training.

    In each repeat a seed is drawn whose scores the search sees; the others judge. After n trainings it has found the
    member with the best seen score.

    Args:
        table: A table with two complete seeds or more.
        search: `random_search`, `evolution` or one's own.
        trainings: Number of trainings of a repeat; more than the table has members count as that many.
        repeats: Number of repeats.
        seed: Seed of everything random.

    Returns:
        The regret in mean IoU.

    Raises:
        TableError: The table has fewer than two complete seeds.
    """
    complete = np.flatnonzero(table.trained.all(1))
    if len(complete) < 2:
        raise TableError(
            f"table '{table.space.name}' has {counted(len(complete), 'complete seed')}, but regret needs one that is"
            " seen and one that judges; take a table with two",
            code="table-too-small",
        )
    trainings = min(trainings, len(table))
    rng, curves = np.random.default_rng(seed), np.empty((repeats, trainings))
    for repeat in range(repeats):
        chosen = complete[int(rng.integers(len(complete)))]
        seen, judged = table.miou[chosen, -1], table.miou[complete[complete != chosen], -1].mean(0)
        order = np.array(search(table, seen, trainings, rng)[:trainings])
        best = np.maximum.accumulate(seen[order])
        found = order[np.searchsorted(best, best, side="left")]  # the first that reached the best so far
        curves[repeat] = judged.max() - judged[found]
    return Regret(curves)
