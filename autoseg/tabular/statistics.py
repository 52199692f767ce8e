"""What a table of trained networks says: spread, reliability, rank correlations and shares of the variance. No torch.

Letters: M networks, S trainings of each.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 1000
COVERAGE = (2.5, 97.5)
"""Percentiles of an interval of 95%."""


class Interval(NamedTuple):
    """A value with its interval of 95%."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(statistic: Callable[[np.ndarray], float], count: int, seed: int = 0) -> Interval:
    """A statistic of `count` networks, and its percentile interval over resamples of the networks.

    statistic: called with the numbers of the networks, (count,).
    """
    rng = np.random.default_rng(seed)
    drawn = [statistic(rng.integers(count, size=count)) for _ in range(RESAMPLES)]
    low, high = np.nanpercentile(drawn, COVERAGE)
    return Interval(statistic(np.arange(count)), float(low), float(high))


class Spread(NamedTuple):
    """Variance components of scores: one-way random effects of networks (Shrout and Fleiss 1979, case 1)."""

    between: float
    """Standard deviation between networks, seeds taken out."""
    within: float
    """Standard deviation between trainings of one network."""
    reliability: float
    """ICC(1): the share of the variance of one training's score that is of networks."""


def spread(scores: np.ndarray) -> Spread:
    """The spread of scores (S, M), S at least 2, without NaN.

    between^2 = (MSB - MSW) / S and within^2 = MSW, with the mean squares between and within networks; negative
    estimates are 0.
    """
    count, networks = scores.shape
    means = scores.mean(0)
    square_between = count * float(((means - means.mean()) ** 2).sum()) / (networks - 1)
    square_within = float(((scores - means) ** 2).sum()) / (networks * (count - 1))
    between = max(0.0, (square_between - square_within) / count)
    total = between + square_within
    return Spread(between**0.5, square_within**0.5, between / total if total else 0.0)


def reliability(scores: np.ndarray, seed: int = 0) -> Interval:
    """ICC(1) of scores (S, M), with an interval over resamples of the networks."""
    return bootstrap(lambda drawn: spread(scores[:, drawn]).reliability, scores.shape[1], seed)


def kendall(one: np.ndarray, other: np.ndarray) -> float:
    """Kendall's tau-b (1945) of two scores (M,): 1 for the same ranking, corrected for ties; NaN if one is constant."""
    first, second = (np.sign(values[:, None] - values[None]) for values in (one, other))
    agreement = float((first * second).sum())
    size = (float((first**2).sum()) * float((second**2).sum())) ** 0.5
    return agreement / size if size else float("nan")


def rank_correlation(one: np.ndarray, other: np.ndarray, seed: int = 0) -> Interval:
    """Kendall's tau-b of two scores (M,), with an interval over resamples of the networks."""

    def tau(drawn: np.ndarray) -> float:
        distinct = np.unique(drawn)  # copies of a network would be ties in both
        return kendall(one[distinct], other[distinct])

    return bootstrap(tau, len(one), seed)


def correlation(one: np.ndarray, other: np.ndarray, seed: int = 0) -> Interval:
    """Pearson's correlation of two scores (M,), with an interval over resamples of the networks."""
    return bootstrap(lambda drawn: float(np.corrcoef(one[drawn], other[drawn])[0, 1]), len(one), seed)


def variance_shares(scores: np.ndarray, places: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """The shares of genes and of their pairs in the variance of scores over a full factorial (analysis of variance).

    In a balanced design the sums of squares of main effects and of interactions are orthogonal and add up; `others` is
    what interactions of three genes and more, and noise, leave.

    Args:
        scores: (M,), of every combination of options.
        places: (M, genes): the number of the option of each gene.
        names: The names of the genes.

    Returns:
        Name, or `name x name` of a pair, -> share. The shares add up to 1.
    """
    total = float(((scores - scores.mean()) ** 2).sum())
    shares: dict[str, float] = {}
    effects: dict[int, np.ndarray] = {}
    for gene, name in enumerate(names):
        effects[gene] = _means(scores, places[:, [gene]]) - scores.mean()
        shares[name] = float((effects[gene] ** 2).sum()) / total
    for one, other in itertools.combinations(range(len(names)), 2):
        both = _means(scores, places[:, [one, other]]) - scores.mean() - effects[one] - effects[other]
        shares[f"{names[one]} x {names[other]}"] = float((both**2).sum()) / total
    return {**shares, "others": 1 - sum(shares.values())}


def _means(scores: np.ndarray, places: np.ndarray) -> np.ndarray:
    """For each network the mean score of those with the same options."""
    _, group = np.unique(places, axis=0, return_inverse=True)
    group = group.ravel()
    means: np.ndarray = (np.bincount(group, scores) / np.bincount(group))[group]
    return means


def miou_of_counts(counts: np.ndarray, true: np.ndarray, images: np.ndarray | None = None) -> np.ndarray:
    """Mean IoU of networks from the counts of their images: (..., I, 2, K) and (I, K) -> (...).

    images: the numbers of the images that count, with repetition. Default: all.
    """
    chosen = slice(None) if images is None else images
    sums, wanted = counts[..., chosen, :, :].sum(-3, dtype=np.int64), true[chosen].sum(0, dtype=np.int64)
    hits, predicted = sums[..., 0, :], sums[..., 1, :]
    union = predicted + wanted - hits
    iou = np.divide(hits, union, out=np.full(hits.shape, np.nan), where=union > 0)
    means: np.ndarray = np.nanmean(iou, -1)
    return means


def summary(values: Mapping[str, float], most: int = 8) -> str:
    """The largest shares in words, such as `network 41%, decoder 22%`."""
    ordered = sorted(values.items(), key=lambda item: -item[1])[:most]
    return ", ".join(f"{name} {share:.0%}" for name, share in ordered)
