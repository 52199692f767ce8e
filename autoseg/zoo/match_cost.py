"""The width at which a network of the literature has a given cost, and the channels at which a genotype has it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from autoseg.analysis.flops import count_cost
from autoseg.errors import ConfigError
from autoseg.files import read_yaml, short, user_path
from autoseg.genotype.flops import PER_BILLION_A_MEGAPIXEL
from autoseg.genotype.scale import STEPS, channels_of, neighbours, rounded, with_channels
from autoseg.genotype.schema import Genotype
from autoseg.zoo.build import build_network
from autoseg.zoo.schema import Architecture, FixedNetwork, load_architecture

Unit = Literal["parameters", "multiply_adds"]
UNITS: tuple[Unit, ...] = ("parameters", "multiply_adds")
SIZE = (256, 256)
"""(H, W) at which multiply-adds are counted; the ratio of two networks hardly depends on it."""
TOLERANCE = 0.02
ENOUGH = 0.002
"""Relative differences from the target: the largest allowed, and one that ends the search for a width."""
WIDTHS, FACTORS = (1e-3, 8.0), (1e-3, 512.0)
"""Least and greatest width of a network of the literature, and factor of a genotype's channels."""
ROUNDS = 8
"""Parts of a genotype that are changed one after the other, at most."""
SUFFIXES = {"k": 1e3, "M": 1e6, "B": 1e9, "G": 1e9}


@dataclass(frozen=True)
class CostTarget:
    """The cost that a network shall have: that of another one, or a number."""

    reference: Architecture | float
    unit: Unit = "parameters"
    retrain: Mapping[str, Any] = field(default_factory=dict)
    """The other one's settings of training: a fair comparison trains both alike."""

    def count(self, num_classes: int) -> float:
        """Parameters, or multiply-adds at 256x256."""
        if isinstance(self.reference, Genotype | FixedNetwork):
            return _count(self.reference, num_classes, self.unit)
        return self.reference

    def __str__(self) -> str:
        if isinstance(self.reference, Genotype | FixedNetwork):
            return self.reference.name
        return f"{self.reference:,.0f}"


def cost_target(source: str | Path, unit: str = "parameters") -> CostTarget:
    """The cost of a genotype, network or run, or a number (`2.5B`). Raises: AutosegError: unknown source or unit."""
    if unit not in UNITS:
        raise ConfigError(f"a cost is of {' or '.join(UNITS)}, not {unit}", code="unknown-cost-unit")
    number = _number(str(source))
    if number is not None:
        return CostTarget(number, unit)
    reference = load_architecture(source)
    retrain = dict(reference.retrain) if isinstance(reference, Genotype) else {}
    settings = user_path(source) / "config.yaml"
    if settings.is_file():
        retrain = read_yaml(settings, ConfigError).get("retrain", retrain)
    return CostTarget(reference, unit, retrain)


def megapixel_target(billions: float) -> CostTarget:
    """The target of some billions of multiply-adds a megapixel, the unit of a space's `macro.cost`."""
    return CostTarget(billions * PER_BILLION_A_MEGAPIXEL * math.prod(SIZE), "multiply_adds")


def billions_a_megapixel(architecture: Architecture, num_classes: int) -> float:
    """The multiply-adds of a whole network, in billions a megapixel."""
    return _count(architecture, num_classes, "multiply_adds") / (PER_BILLION_A_MEGAPIXEL * math.prod(SIZE))


def at_cost(architecture: Architecture, target: CostTarget, num_classes: int) -> Architecture:
    """A network of the literature or a genotype at the target's cost, within 2%. Raises: ConfigError: none is."""
    if isinstance(architecture, Genotype):
        return scale_to_cost(architecture, target, num_classes)
    return match_cost(architecture, target, num_classes)


def match_cost(network: FixedNetwork, target: CostTarget, num_classes: int) -> FixedNetwork:
    """The network at the width whose cost is nearest to the target's, within 2%.

    Cost grows nearly with the square of the width: a few steps by that rule, between widths known to be too small and
    too large. Raises: ConfigError: no width comes within 2%.
    """
    wanted = target.count(num_classes)

    def cost(width: float) -> float:
        return _count(network.model_copy(update={"width": width}), num_classes, target.unit)

    width, found = _solve(cost, wanted)
    if abs(found / wanted - 1) > TOLERANCE:
        raise ConfigError(
            f"{network.name} cannot have the {target.unit.replace('_', '-')} of {target}, {wanted:,.0f}: the nearest"
            f" width, {width:g}, has {found:,.0f}; take another network or another cost",
            code="cost-unreachable",
        )
    return network.model_copy(update={"width": width})


def scale_to_cost(genotype: Genotype, target: CostTarget, num_classes: int) -> Genotype:
    """The genotype with the channels of all of its parts scaled to the target's cost, within 2%.

    One factor for all, and channels rounded to multiples of 8, 4, 2 or 1: the largest that is at most a quarter of the
    narrowest level. Where this misses, single parts go a step further, each time the one that comes nearest.
    Raises: ConfigError: no scale comes within 2%.
    """
    wanted, proportions = target.count(num_classes), channels_of(genotype)

    @cache
    def cost(channels: tuple[int, ...]) -> float:
        return _count(with_channels(genotype, channels), num_classes, target.unit)

    def distance(channels: tuple[int, ...]) -> float:
        return abs(cost(channels) / wanted - 1)

    def nearest(step: int, start: float = 1.0) -> float:
        return _solve(lambda factor: cost(rounded(proportions, factor, step)), wanted, start, FACTORS)[0]

    factor = nearest(1)
    best = rounded(proportions, factor)
    narrowest = min(stage.filters for stage in with_channels(genotype, best).stages)
    for step in (step for step in STEPS if step == 1 or 4 * step <= narrowest):
        channels = rounded(proportions, nearest(step, factor), step)
        for _ in range(ROUNDS):
            if distance(channels) <= TOLERANCE:
                return with_channels(genotype, channels)
            nearer = min(neighbours(channels, step, up=cost(channels) < wanted), key=distance, default=channels)
            if distance(nearer) >= distance(channels):
                break
            channels = nearer
        best = min(best, channels, key=distance)
    raise ConfigError(
        f"{genotype.name} cannot have the {target.unit.replace('_', '-')} of {target}, {wanted:,.0f}: the nearest that"
        f" was tried has {cost(best):,.0f}; take another network or another cost",
        code="cost-unreachable",
    )


def _solve(
    cost: Callable[[float], float], wanted: float, width: float = 1.0, among: tuple[float, float] = WIDTHS
) -> tuple[float, float]:
    """The tried width (four digits) whose cost is nearest to `wanted`, and its cost. width: the first that is tried."""
    low, high = among
    best = (width, math.inf)
    for _ in range(24):
        found = cost(width)
        if abs(found - wanted) < abs(best[1] - wanted):
            best = (width, found)
        if abs(found / wanted - 1) < ENOUGH:
            break
        low, high = (width, high) if found < wanted else (low, width)
        width = width * math.sqrt(wanted / found)
        if not low < width < high:
            width = math.sqrt(low * high)
        width = float(f"{width:.4g}")
        if not low < width < high:
            break
    return best


def _count(architecture: Architecture, num_classes: int, unit: Unit) -> float:
    cost: int = getattr(count_cost(lambda: build_network(architecture, num_classes), SIZE), unit)
    return cost


def _number(text: str) -> float | None:
    factor = SUFFIXES.get(text[-1:], 1.0)
    try:
        number = float(text[:-1] if text[-1:] in SUFFIXES else text) * factor
    except ValueError:
        return None
    if not (math.isfinite(number) and number >= 1):
        raise ConfigError(f"a cost is a number of at least 1, not {short(text)}", code="cost-out-of-range")
    return number
