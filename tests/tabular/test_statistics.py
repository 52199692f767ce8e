"""Statistics of tables against planted truths and plain loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from autoseg.metrics.confusion import ConfusionMatrix
from autoseg.tabular.statistics import (
    bootstrap,
    correlation,
    kendall,
    miou_of_counts,
    rank_correlation,
    reliability,
    spread,
    variance_shares,
)


def test_the_spread_of_planted_scores_comes_back() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 0.3, 4000)[None] + rng.normal(0, 0.1, (3, 4000))
    found = spread(scores)
    assert found.between == pytest.approx(0.3, rel=0.05)
    assert found.within == pytest.approx(0.1, rel=0.05)
    assert found.reliability == pytest.approx(0.9, abs=0.01)


def test_the_spread_is_that_of_the_textbook() -> None:
    scores = np.array([[1.0, 2.0, 4.0], [2.0, 2.0, 5.0]])
    # Shrout and Fleiss: MSB = 2 * sum (mean - grand)^2 / 2, MSW = sum of squares within / 3
    means, grand = [1.5, 2.0, 4.5], 8 / 3
    between = 2 * sum((mean - grand) ** 2 for mean in means) / 2
    within = (0.25 + 0.25 + 0 + 0 + 0.25 + 0.25) / 3
    assert spread(scores).reliability == pytest.approx((between - within) / (between + within))
    assert spread(scores).within == pytest.approx(within**0.5)


def test_noise_alone_has_no_reliability() -> None:
    rng = np.random.default_rng(1)
    found = reliability(rng.normal(size=(2, 300)))
    assert found.value < 0.1
    assert found.low <= found.value <= found.high
    assert spread(np.ones((2, 4))) == (0.0, 0.0, 0.0)


def test_the_interval_of_the_reliability_covers_the_truth() -> None:
    rng, covered = np.random.default_rng(2), 0
    for trial in range(20):
        scores = rng.normal(0, 1, 60)[None] + rng.normal(0, 0.5, (2, 60))
        found = reliability(scores, trial)
        covered += found.low <= 0.8 <= found.high
    assert covered >= 16


def test_kendall_is_tau_b_by_pairs() -> None:
    rng = np.random.default_rng(3)
    one, other = rng.integers(0, 6, 30).astype(float), rng.integers(0, 4, 30).astype(float)
    agree = disagree = ties_one = ties_other = 0
    for (a, b), (c, d) in itertools.combinations(zip(one, other, strict=True), 2):
        agree += (a - c) * (b - d) > 0
        disagree += (a - c) * (b - d) < 0
        ties_one += a == c
        ties_other += b == d
    pairs = 30 * 29 / 2
    expected = (agree - disagree) / ((pairs - ties_one) * (pairs - ties_other)) ** 0.5
    assert kendall(one, other) == pytest.approx(expected)
    assert kendall(one, one) == pytest.approx(1)
    assert kendall(one, -one) == pytest.approx(-1)
    assert np.isnan(kendall(np.ones(5), np.arange(5.0)))


def test_rank_correlation_has_an_interval_around_it_that_narrows() -> None:
    rng = np.random.default_rng(4)
    widths = []
    for count in (20, 200):
        truth = rng.normal(size=count)
        found = rank_correlation(truth, truth + rng.normal(size=count))
        assert found.low < found.value < found.high
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2
    assert str(found) == f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def test_correlation_is_pearsons() -> None:
    rng = np.random.default_rng(5)
    one = rng.normal(size=50)
    other = one * 2 + rng.normal(size=50)
    assert correlation(one, other).value == pytest.approx(np.corrcoef(one, other)[0, 1])


def test_bootstrap_draws_networks() -> None:
    values = np.random.default_rng(6).normal(3, 1, 400)
    found = bootstrap(lambda drawn: float(values[drawn].mean()), 400)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.15)


def test_variance_shares_of_a_planted_sum_come_back() -> None:
    places = np.array(list(itertools.product(range(3), range(2), range(4))))
    first, second = np.array([0.0, 1.0, 5.0]), np.array([[0.0, 2.0, 0.0, 1.0], [1.0, 0.0, 3.0, 0.0]])
    scores = first[places[:, 0]] + second[places[:, 1], places[:, 2]]
    shares = variance_shares(scores, places, ["path", "width", "block"])
    assert sum(shares.values()) == pytest.approx(1)
    total = scores.var()
    assert shares["path"] == pytest.approx(first.var() / total)
    assert shares["width"] == pytest.approx(second.mean(1).var() / total)
    assert shares["block"] == pytest.approx(second.mean(0).var() / total)
    both = second - second.mean(0) - second.mean(1)[:, None] + second.mean()
    assert shares["width x block"] == pytest.approx((both**2).mean() / total)
    assert shares["path x width"] == pytest.approx(0, abs=1e-12)
    assert shares["others"] == pytest.approx(0, abs=1e-12)


def test_scores_of_counts_are_those_of_the_confusion_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    true, predicted = (torch.randint(0, 4, (6, 8, 9), generator=generator) for _ in range(2))
    true[true == 2] = 3  # a class that is only predicted
    confusion = ConfusionMatrix(5, 255)  # the fifth class does not occur
    confusion.update(predicted, true)
    scores = confusion.scores(tuple("abcde"))
    assert scores.images is not None
    counts, of_true = scores.images[:, [0, 2]], scores.images[:, 1]
    assert miou_of_counts(counts, of_true) == pytest.approx(scores.miou)
    chosen = np.array([0, 0, 3])
    again = ConfusionMatrix(5, 255)
    again.update(predicted[chosen], true[chosen])
    both = miou_of_counts(np.stack([counts, counts]), of_true, chosen)
    assert both == pytest.approx([again.scores(tuple("abcde")).miou] * 2)
