"""What a search's architecture owes to its gradients' direction, and what noise would do as well. No torch.

The recorded gradients go once more through the optimizer, many times, each time with one random sign for each step and
table. Such replays have every magnitude of the run, and none of its direction. If the run's logits are no farther apart
than those of the replays, then nothing shows that the architecture was chosen. `docs/evidence.md` explains it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from autoseg.analysis.choices import Choice, Table, legal_logits, node_name
from autoseg.analysis.gradient_file import GradientFile
from autoseg.config.training import OptimizerConfig
from autoseg.genotype.decode import decode_network, with_decoding
from autoseg.genotype.schema import Genotype
from autoseg.space.snapshot import ArchProbs

LEVEL = 0.05
"""Greatest p of a choice that counts as decided, after Holm's correction over the choices of its table."""
RANGE = (2.5, 97.5)
"""Percentiles of the replays that are shown as the range of noise."""
FEWEST, PER_CHOICE, MOST_VALUES = 499, 40, 4_000_000
"""Replays of a table: the first number, or the second for each choice, so that p can fall below `LEVEL` / choices; but
no more than make so many values."""
AGREEMENT = 0.01
"""By how much of its greatest value a replayed table may miss the run's: rounding is far below."""
SEED = 20_180_625
EPSILON = 1e-8
"""PyTorch's constant of Adam and AdamW."""


class ChoiceEvidence(NamedTuple):
    """What speaks for one choice."""

    name: str
    margin: float
    """Logits by which the winner is ahead."""
    p: float
    """Share of the replays with such a margin, after Holm's correction."""
    decided: bool


class TableEvidence(NamedTuple):
    """What speaks for the choices of one table."""

    ratio: float
    """R: the spread of the run's logits over the replays' median; NaN if no replay has moved."""
    noise: tuple[float, float]
    """The range of R in which 95% of the replays lie."""
    p: float
    """Share of the replays that are spread as widely as the run."""
    persistence: float
    """Correlation of an epoch's mean gradient with that of the epoch before; NaN without two epochs."""
    mean_persistence: float
    """The mean over all pairs of epochs; NaN without any."""
    gradient_mean: float
    """Root mean square of the epoch's mean gradient."""
    gradient_spread: float
    """Root mean square of the deviations from it."""
    choices: Sequence[ChoiceEvidence]
    noun: str
    """What the choices are called."""

    @property
    def undecided(self) -> list[str]:
        """The names of the choices that are ties."""
        return [choice.name for choice in self.choices if not choice.decided]

    def figures(self) -> dict[str, float]:
        """The numbers of an epoch, for metrics.jsonl."""
        margins = [choice.margin for choice in self.choices]
        return {
            "ratio": self.ratio,
            "ratio_low": self.noise[0],
            "ratio_high": self.noise[1],
            "p": self.p,
            "persistence": self.persistence,
            "gradient_mean": self.gradient_mean,
            "gradient_spread": self.gradient_spread,
            "choices": len(self.choices),
            "decided": len(self.choices) - len(self.undecided),
            **({"margin_least": min(margins), "margin_median": float(np.median(margins))} if margins else {}),
        }


Evidence = Mapping[str, TableEvidence]
"""The evidence of each table of a space."""


class Replays:
    """One table's steps with the run's own signs (row 0) and with random signs (the others)."""

    def __init__(self, start: np.ndarray, optimizer: OptimizerConfig, number: int, seed: Sequence[int]) -> None:
        """start: logits (P,) before the first step."""
        self.logits = np.tile(start.astype(np.float32), (number + 1, 1))
        self._optimizer, self._random, self._steps = optimizer, np.random.default_rng(seed), 0
        self._first, self._second = np.zeros_like(self.logits), np.zeros_like(self.logits)

    def step(self, gradient: np.ndarray, lr: float) -> None:
        """One step on a gradient (P,). One that is not finite is skipped, as in the run."""
        signs = np.ones((len(self.logits), 1), np.float32)
        signs[1:, 0] -= 2 * self._random.integers(0, 2, len(signs) - 1, dtype=np.int8)
        if not np.isfinite(gradient).all():
            return
        optimizer, gradients = self._optimizer, signs * gradient.astype(np.float32)
        self._steps += 1
        if optimizer.name == "adamw":
            self.logits *= 1 - lr * optimizer.weight_decay
        elif optimizer.weight_decay:
            gradients += optimizer.weight_decay * self.logits
        if optimizer.name == "sgd":
            self._sgd(gradients, lr)
        else:
            self._adam(gradients, lr)

    def _sgd(self, gradients: np.ndarray, lr: float) -> None:
        momentum = self._optimizer.momentum
        if momentum:
            self._first *= momentum
            self._first += gradients
            gradients = gradients + momentum * self._first if self._optimizer.nesterov else self._first
        self.logits -= lr * gradients

    def _adam(self, gradients: np.ndarray, lr: float) -> None:
        """Kingma and Ba 2015, algorithm 1, in the order of PyTorch's operations."""
        first, second = self._optimizer.betas
        self._first += (1 - first) * (gradients - self._first)
        self._second *= second
        gradients *= gradients
        gradients *= 1 - second
        self._second += gradients
        scale = np.sqrt(self._second)
        scale /= (1 - second**self._steps) ** 0.5
        scale += EPSILON
        np.divide(self._first, scale, out=scale)
        scale *= lr / (1 - first**self._steps)
        self.logits -= scale


@dataclass(eq=False)
class ReplayedTable:
    """A table's replays, and the mean gradients of its epochs."""

    table: Table
    replays: Replays
    mean: np.ndarray | None = None
    """The centred mean gradient (P,) of the last epoch that had a step."""
    spread: float = float("nan")
    persistences: list[float] = field(default_factory=list)

    def take_epoch(self, gradients: np.ndarray, rates: np.ndarray) -> None:
        """The steps of an epoch: gradients (n, P), learning rates (n,)."""
        for gradient, lr in zip(gradients, rates.tolist(), strict=True):
            self.replays.step(gradient, lr)
        centred = self.table.centred(gradients[np.isfinite(gradients).all(1)].astype(np.float64))
        before, self.mean = self.mean, centred.mean(0) if len(centred) else None
        self.spread = _rms(centred.std(0)) if len(centred) else float("nan")
        self.persistences.append(_correlation(before, self.mean))

    def evidence(self) -> TableEvidence:
        """The evidence after the steps so far."""
        spreads = self.table.spreads(self.replays.logits)
        noise = spreads[1:]
        middle = float(np.median(noise))
        low, high = (float(end) / middle if middle else float("nan") for end in np.percentile(noise, RANGE))
        known = [value for value in self.persistences if np.isfinite(value)]
        return TableEvidence(
            ratio=float(spreads[0]) / middle if middle else float("nan"),
            noise=(low, high),
            p=_p(spreads),
            persistence=self.persistences[-1] if self.persistences else float("nan"),
            mean_persistence=float(np.mean(known)) if known else float("nan"),
            gradient_mean=_rms(self.mean) if self.mean is not None else float("nan"),
            gradient_spread=self.spread,
            choices=decide(self.table.choices, self.replays.logits),
            noun=self.table.noun,
        )


class Replayed:
    """The replays of a run, epoch by epoch, as far as its file goes."""

    def __init__(self, file: GradientFile) -> None:
        self.file, self.epochs, self.columns = file, 0, file.columns()
        start = file.start()
        self.tables = {
            name: ReplayedTable(
                table, Replays(start[self.columns[name]], file.optimizer, replays_of(table), (SEED, number))
            )
            for number, (name, table) in enumerate(file.tables.items())
        }

    def take_epochs(self, epochs: int) -> None:
        """Go on until so many epochs with architecture steps are replayed. Raises: RunError: the file lacks them."""
        steps = self.file.steps_per_epoch
        for epoch in range(self.epochs, epochs):
            records = self.file.read(epoch * steps, (epoch + 1) * steps)
            for name, table in self.tables.items():
                table.take_epoch(records["values"][:, self.columns[name]], records["lr"])
            self.epochs = epoch + 1

    def evidence(self) -> Evidence:
        """The evidence of each table."""
        return {name: table.evidence() for name, table in self.tables.items()}


def replays_of(table: Table) -> int:
    """Number of random replays of a table."""
    return min(max(FEWEST, PER_CHOICE * len(table.choices)), max(FEWEST, MOST_VALUES // max(1, len(table.legal))))


def decide(choices: Sequence[Choice], logits: np.ndarray) -> list[ChoiceEvidence]:
    """Which choices are decided. logits (1 + n, P): the run's, then the replays'.

    A choice is decided if few replays have its margin (p below `LEVEL`, corrected by Holm 1979 for the number of
    choices), and if its margin exceeds 95% of theirs.
    """
    margins = [choice.margins(logits) for choice in choices]
    corrected = holm([_p(margin) for margin in margins])
    return [
        ChoiceEvidence(
            choice.name, float(margin[0]), p,
            p < LEVEL and bool(margin[0] > np.percentile(margin[1:], 100 * (1 - LEVEL))),
        )
        for choice, margin, p in zip(choices, margins, corrected, strict=True)
    ]  # fmt: skip


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's correction for several tests: the k-th smallest p times the number of those not smaller, at most 1."""
    corrected, highest = [0.0] * len(ps), 0.0
    for rank, number in enumerate(np.argsort(ps, kind="stable").tolist()):
        highest = max(highest, min(1.0, ps[number] * (len(ps) - rank)))
        corrected[number] = highest
    return corrected


def _p(values: np.ndarray) -> float:
    """Share of all values, the first included, that are as great as the first."""
    return (1 + int((values[1:] >= values[0]).sum())) / len(values)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))


def _correlation(one: np.ndarray | None, other: np.ndarray | None) -> float:
    """Cosine of two centred vectors; NaN without both, or if one is 0."""
    if one is None or other is None or not (size := float(np.linalg.norm(one) * np.linalg.norm(other))):
        return float("nan")
    return float(one @ other) / size


# --- a run's evidence, in words and in a genotype -----------------------------------------------------------------


def evidence_after(epoch: int, probs: ArchProbs, file: GradientFile) -> Evidence:
    """The evidence for a run's architecture after an epoch with architecture steps.

    Raises: RunError: the file is damaged, or its steps do not lead to the logits of `probs`.
    """
    replayed = Replayed(file)
    replayed.take_epochs(epoch + 1 - file.arch_start_epoch)
    for name, table in replayed.tables.items():
        found, expected = (
            table.table.centred(logits[None]) for logits in (table.replays.logits[0], legal_logits(probs, table.table))
        )
        if np.abs(found - expected).max() > AGREEMENT * np.abs(expected).max() + 1e-4:
            raise file.of_other_run(f"its steps do not lead to {name} after epoch {epoch}")
    return replayed.evidence()


def verdict(evidence: Evidence, probs: ArchProbs, path_prior: str | None = None) -> str:
    """The evidence in words: for each table how far it moved, how many choices are decided, and whether the path is."""
    said = [_sentence(name, table) for name, table in evidence.items()]
    space = probs.space
    if space.network.paths == "single":
        arrows = decode_network(probs, with_decoding(space, path_prior=path_prior))
        nodes = {node_name(arrow.source, space.network.strides) for arrow in arrows}
        said[list(evidence).index("beta")] += f", the path is{' not' if nodes & {*evidence['beta'].undecided} else ''}"
    return "; ".join(said)


def _sentence(name: str, table: TableEvidence) -> str:
    if not np.isfinite(table.ratio):
        return f"{name} has not moved"
    low, high = table.noise
    count, number = len(table.choices) - len(table.undecided), len(table.choices)
    moved = f"{name} moved {table.ratio:.1f} times as far as noise alone would ({low:.1f} to {high:.1f})"
    if number == 1:
        return f"{moved}, and is {'decided' if count else 'not decided'}"
    return f"{moved}, {count} of {number} {table.noun} {'is' if count == 1 else 'are'} decided"


def to_source(evidence: Evidence, said: str) -> dict[str, Any]:
    """The evidence as plain data for the `source` of a genotype. said: the verdict."""
    tables: dict[str, Any] = {
        name: {
            "ratio": _rounded(table.ratio),
            "noise": [_rounded(end) for end in table.noise],
            "p": _rounded(table.p),
            "persistence": _rounded(table.mean_persistence),
            "choices": len(table.choices),
            "undecided": table.undecided,
        }
        for name, table in evidence.items()
    }
    return {"verdict": said, **tables}


def _rounded(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None


def said_of(genotype: Genotype) -> str | None:
    """The verdict that a genotype carries; None without evidence."""
    said = _group(genotype).get("verdict")
    return said if isinstance(said, str) else None


def undecided_in(genotype: Genotype) -> dict[str, frozenset[str]]:
    """Table -> names of its choices that are ties, as a genotype says; empty without evidence."""
    tables = {
        name: table["undecided"]
        for name, table in _group(genotype).items()
        if isinstance(table, dict) and isinstance(table.get("undecided"), list)
    }
    return {name: frozenset(map(str, names)) for name, names in tables.items()}


def _group(genotype: Genotype) -> dict[str, Any]:
    """The evidence in a genotype's source. People may write anything there."""
    group = genotype.source.get("evidence")
    return group if isinstance(group, dict) else {}
