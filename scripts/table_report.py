"""What a table of trained networks says, as Markdown, and as a picture.

    python scripts/table_report.py --table table_216
    python scripts/table_report.py --table table_216 --figures docs/images

Prints the spread between networks and between trainings, how reliable a score is after each stop, what predicts the
final score, which genes have which share in its variance, where the known designs stand, and how far random search and
evolution stay from the best after some trainings. Networks that lack a second training count where one is enough.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from one_line import Parser

from autoseg.errors import AutosegError
from autoseg.genotype.design import genotype_of, known_genes
from autoseg.tabular.search import Regret, evolution, random_search, regret
from autoseg.tabular.statistics import (
    correlation,
    kendall,
    rank_correlation,
    reliability,
    spread,
    summary,
    variance_shares,
)
from autoseg.tabular.table import Table
from autoseg.viz import style

SEARCHES = {"random search": random_search, "evolution": evolution}
COLOURS = {"random search": style.ORANGE, "evolution": style.BLUE}
BUDGETS = (3, 9, 27, 54)
CURVE = 80


class Facts:
    """A table, and which of its networks have which trainings."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.once = np.flatnonzero(table.trained[0])
        seeds = [seed for seed in range(table.seeds) if table.trained[seed].any()]
        self.twice = np.flatnonzero(table.trained[seeds[:2]].all(0)) if len(seeds) > 1 else np.array([], np.int64)
        self.complete = len(self.once) == len(table)

    @property
    def means(self) -> np.ndarray:
        """(M,): the mean of the trainings that a network has, at the end; NaN without one."""
        scores = self.table.miou[:, -1]
        there = np.isfinite(scores)
        found: np.ndarray = np.where(there, scores, 0).sum(0) / np.where(there.any(0), there.sum(0), np.nan)
        return found

    def pairs(self, stop: int = -1) -> np.ndarray:
        """(2, networks with two trainings): their scores after a stop."""
        found: np.ndarray = self.table.miou[:2, stop][:, self.twice].astype(np.float64)
        return found


def lines_of(facts: Facts) -> Iterator[str]:
    """All results, line by line."""
    table, once, twice = facts.table, facts.once, facts.twice
    hours = float(np.nansum(table.seconds)) / 3600
    trainings = int(table.trained.sum())
    yield f"{trainings} trainings of {len(once)} networks, {len(twice)} of them twice; {hours:.1f} CPU hours."
    yield f"Final mIoU: {np.nanmin(facts.means):.3f} to {np.nanmax(facts.means):.3f}."
    if len(twice) > 2:
        yield from spread_lines(facts)
    yield from prediction_lines(facts)
    if facts.complete:
        shares = variance_shares(facts.means, table.places, list(table.options))
        yield f"Shares of the variance of final scores: {summary(shares, len(shares))}."
    yield from known_lines(facts)
    if facts.complete and len(twice) == len(table):
        yield from regret_lines(table)


def spread_lines(facts: Facts) -> Iterator[str]:
    """Variance components after each stop."""
    yield ""
    yield from head(
        "after", "sd between networks", "sd between trainings", "reliability", "its root", "tau of two seeds"
    )
    for stop, epochs in enumerate(facts.table.stops):
        scores = facts.pairs(stop)
        parts, icc = spread(scores), reliability(scores)
        yield (
            f"| {epochs} of {facts.table.stops[-1]} epochs | {parts.between:.3f} | {parts.within:.3f} | {icc} |"
            f" {icc.value**0.5:.2f} | {rank_correlation(*scores)} |"
        )
    yield ""


def prediction_lines(facts: Facts) -> Iterator[str]:
    """What is known before or early, against the final score."""
    table, once, twice = facts.table, facts.once, facts.twice
    ends = facts.means[once]
    yield ""
    yield from head("predictor", "networks", "Kendall's tau with the final score", "Pearson's correlation")
    known = {"parameters": table.parameters, "training time": table.seconds[0], **table.inherited}
    for name, values in known.items():
        there = np.isfinite(values[once].astype(np.float64))
        pair = values[once][there].astype(np.float64), ends[there]
        yield predictor(name, *pair)
    for stop, epochs in enumerate(table.stops[:-1]):
        pair = table.miou[0, stop, once].astype(np.float64), table.miou[0, -1, once].astype(np.float64)
        yield predictor(f"score after {epochs} epochs, same training", *pair)
        if len(twice) > 2:
            pair = facts.pairs(stop)[0], facts.pairs()[1]
            yield predictor(f"score after {epochs} epochs, other seed", *pair)
    if len(twice) > 2:
        pair = facts.pairs()[0], facts.pairs()[1]
        yield predictor("final score, other seed", *pair)
    yield ""


def head(*names: str) -> Iterator[str]:
    """The first two lines of a table in Markdown."""
    yield f"| {' | '.join(names)} |"
    yield "|---" * len(names) + "|"


def predictor(name: str, values: np.ndarray, ends: np.ndarray) -> str:
    """A row: how far values (networks,) predict final scores."""
    return f"| {name} | {len(values)} | {rank_correlation(values, ends)} | {correlation(values, ends)} |"


def known_members(table: Table) -> dict[str, int]:
    """The known designs of the table's space and their numbers."""
    return {name: table.member(genotype_of(table.space, genes)) for name, genes in known_genes(table.space).items()}


def known_lines(facts: Facts) -> Iterator[str]:
    """Where the known designs stand."""
    means, there = facts.means, np.isfinite(facts.means)
    yield ""
    yield from head("network", "final mIoU", "place", "parameters")
    best = int(np.nanargmax(means))
    words = ", ".join(facts.table.words(best).values())
    rows = {**known_members(facts.table), f"the best: {words}": best}
    for name, member in sorted(rows.items(), key=lambda row: -np.nan_to_num(means[row[1]])):
        if there[member]:
            place = 1 + int((means[there] > means[member]).sum())
            yield f"| {name} | {means[member]:.3f} | {place} of {there.sum()} | {facts.table.parameters[member]:,} |"
    yield f"| the median | {np.nanmedian(means):.3f} | | |"
    yield ""


def regret_lines(table: Table) -> Iterator[str]:
    """Regret of the searches after some trainings."""
    yield from head("trainings", *(f"regret of {name}" for name in SEARCHES))
    curves = {name: regret(table, search, max(BUDGETS)) for name, search in SEARCHES.items()}
    for budget in (budget for budget in BUDGETS if budget <= len(table)):
        cells = [said(found, budget) for found in curves.values()]
        yield f"| {budget} | " + " | ".join(cells) + " |"


def said(found: Regret, budget: int) -> str:
    """Mean and interval of the repeats."""
    low, high = found.interval[:, budget - 1]
    return f"{found.mean[budget - 1]:.3f} [{low:.3f}, {high:.3f}]"


# --- the picture ------------------------------------------------------------------------------------------------------


@style.styled
def draw(facts: Facts) -> Figure:
    """All networks by final score with the known designs; early against final scores; shares; regret."""
    figure = Figure(figsize=(9.6, 6.4), layout="constrained")
    panels = figure.subplots(2, 2)
    draw_scores(panels[0, 0], facts)
    draw_early(panels[0, 1], facts)
    draw_shares(panels[1, 0], facts)
    draw_regret(panels[1, 1], facts)
    return figure


def draw_scores(axes: Any, facts: Facts) -> None:
    """Every training a dot, networks in the order of their mean."""
    means = facts.means
    order = np.argsort(-np.where(np.isfinite(means), means, -1))[: int(np.isfinite(means).sum())]
    for seed in range(facts.table.seeds):
        axes.plot(
            np.arange(len(order)) + 1, facts.table.miou[seed, -1, order], ".", color=style.PALE, markersize=4, zorder=1
        )
    axes.plot(np.arange(len(order)) + 1, means[order], color=style.MUTED, linewidth=1, zorder=2)
    places = {member: place for place, member in enumerate(order.tolist(), start=1)}
    for name, member in known_members(facts.table).items():
        if member in places:
            axes.plot([places[member]], [means[member]], "o", color=style.PURPLE, markersize=5, zorder=3)
            axes.annotate(name, (places[member], means[member]), (5, 4), textcoords="offset points", fontsize=8)
    axes.set(title="every network, best first", xlabel="place", ylabel="final mIoU")


def draw_early(axes: Any, facts: Facts) -> None:
    """Scores after a third of the schedule against those of its end."""
    early, end = (facts.table.miou[0, stop, facts.once] for stop in (-2, -1))
    axes.plot(early, end, ".", color=style.BLUE, markersize=4)
    axes.set(
        title=f"one training, tau {kendall(early, end):.2f}", ylabel="final mIoU",
        xlabel=f"mIoU after {facts.table.stops[-2]} of {facts.table.stops[-1]} epochs",
    )  # fmt: skip


def draw_shares(axes: Any, facts: Facts) -> None:
    """Shares of genes and pairs in the variance."""
    if not facts.complete:
        axes.set_axis_off()
        return
    shares = variance_shares(facts.means, facts.table.places, list(facts.table.options))
    names = sorted(shares, key=lambda name: shares[name])[-10:]
    axes.barh(names, [100 * shares[name] for name in names], color=style.GREEN, height=0.7)
    axes.set(title="what the variance is of", xlabel="share in %")


def draw_regret(axes: Any, facts: Facts) -> None:
    """Regret of both searches after each training."""
    if not (facts.complete and len(facts.twice) == len(facts.table)):
        axes.set_axis_off()
        return
    for name, search in SEARCHES.items():
        found = regret(facts.table, search, CURVE)
        places = np.arange(1, len(found.mean) + 1)
        axes.plot(places, found.mean, color=COLOURS[name], linewidth=1.6, label=name)
        axes.fill_between(places, *found.interval, color=COLOURS[name], alpha=0.15, linewidth=0)
    axes.set(
        title="mean of 200 searches, with 95% of them", xlabel="trainings", ylabel="regret in mIoU", ylim=(0, None)
    )
    axes.legend()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report and draw. Returns the exit status."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", default="table_216", help="name or path of a table")
    parser.add_argument("--figures", type=Path, help="folder for the picture")
    given = parser.parse_args(arguments)
    try:
        facts = Facts(Table.load(given.table))
        print("\n".join(lines_of(facts)))
        if given.figures is not None:
            print(*style.save(draw(facts), given.figures / "table", ["png"]))
    except AutosegError as reason:
        print(f"error: {reason}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
