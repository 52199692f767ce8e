"""The figures of one workload as a table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple

Figures = Mapping[str, Any]


class Row(NamedTuple):
    """A line of the table: what it says, where the figure is, how it is printed."""

    label: str
    keys: str
    unit: float = 1.0
    form: str = ",.0f"


MEGA, GIGA, PERCENT = 1e6, 1e9, 0.01

ROWS = (
    Row("weight step, s", "seconds.weights", form=".3f"),
    Row("architecture step, s", "seconds.architecture", form=".3f"),
    Row("iteration (both), s", "seconds.iteration", form=".3f"),
    Row("iteration, CPU-s", "cpu_seconds.iteration", form=".3f"),
    Row("step with nothing frozen, s", "seconds.everything", form=".3f"),
    Row("saved for backward, MB: weight step", "saved_bytes.weights", MEGA, ",.1f"),
    Row("  architecture step", "saved_bytes.architecture", MEGA, ",.1f"),
    Row("  step with nothing frozen", "saved_bytes.everything", MEGA, ",.1f"),
    Row("parameters, gradients, optimisers, MB", "held_bytes", MEGA, ",.1f"),
    Row("saved and held, MB (the greater half)", "training_bytes", MEGA, ",.1f"),
    Row("peak memory, MB (the greater half)", "peak_bytes.iteration", MEGA, ",.1f"),
    Row("aten operations forward", "operations"),
    Row("convolutions forward", "convolutions"),
    Row("an iteration's GFLOP", "flops.iteration", GIGA, ",.1f"),
    Row("GFLOP/s", "flops_per_s", GIGA, ",.1f"),
    Row("  share of a matrix product's, %", "share_of_product", PERCENT, ".1f"),
    Row("GB/s read and written", "bytes_per_s", GIGA, ",.1f"),
    Row("  share of a copy's, %", "share_of_copy", PERCENT, ".1f"),
)


def figure(figures: Figures, keys: str) -> float:
    """`seconds.weights` of nested mappings."""
    for key in keys.split("."):
        figures = figures[key]
    return figures  # type: ignore[return-value]


def table(contenders: Mapping[str, Figures]) -> str:
    """A line a figure, a column a contender, and how many times the fast one's each other one's is."""
    names = list(contenders)
    others = [name for name in names if name != "fast"]
    heads = [*names, *(f"{name}/fast" for name in others)]
    lines = [f"{'':<40}" + "".join(f"{head:>15}" for head in heads)]
    for row in ROWS:
        values = {name: figure(contenders[name], row.keys) for name in names}
        cells = [f"{value / row.unit:{row.form}}" for value in values.values()]
        cells += [_ratio(values[name], values["fast"]) for name in others]
        lines.append(f"{row.label:<40}" + "".join(f"{cell:>15}" for cell in cells))
    return "\n".join(lines)


def _ratio(value: float, fast: float) -> str:
    return f"{value / fast:.2f}" if fast else "-"


def frozen_savings(figures: Figures) -> dict[str, tuple[float, float]]:
    """Half -> the shares of seconds (median of the rounds) and of saved bytes that freezing the other half saves."""
    seconds, saved = figures["seconds_of_rounds"], figures["saved_bytes"]
    return {
        half: (
            statistics.median(1 - a / b for a, b in zip(seconds[half], seconds["everything"], strict=True)),
            1 - saved[half] / saved["everything"],
        )
        for half in ("weights", "architecture")
    }
