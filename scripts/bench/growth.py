"""How the fast supernet's cost grows with layers, blocks, pixels and batch: figures and a picture."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from autoseg.viz.style import BLUE, MUTED, ORANGE, SMALL, save, styled
from bench.contenders import Contender, Workload
from bench.measure import saved_bytes, timed

Build = Callable[[Workload], dict[str, Contender]]


class Sweep(NamedTuple):
    """One panel: what is changed, and its values."""

    label: str
    workloads: list[Workload]
    values: list[float]


class Fit(NamedTuple):
    """A straight line; r2 is the share of the variance that it explains."""

    slope: float
    offset: float
    r2: float


def sweeps(base: Workload) -> list[Sweep]:
    """Four sweeps around a workload."""
    layers, blocks, batches = (4, 6, 8, 10, 12), (1, 2, 3, 4, 5), (2, 4, 8, 12, 16)
    # steps of 32 keep the sizes of all levels even, or odd, as the base's
    steps = sorted({max(1, round(base.size // 32 * factor)) for factor in (0.67, 1, 1.33, 1.67, 2)})
    sizes = [32 * step + base.size % 32 for step in steps]
    return [
        Sweep("layers", [base._replace(layers=n) for n in layers], [*map(float, layers)]),
        Sweep("edges of a cell (1 to 5 blocks)", [base._replace(blocks=n) for n in blocks], [*map(edges, blocks)]),
        Sweep("pixels of an image / 1000", [base._replace(size=n) for n in sizes], [n * n / 1000 for n in sizes]),
        Sweep("images of a batch", [base._replace(batch=n) for n in batches], [*map(float, batches)]),
    ]


def edges(blocks: int) -> float:
    """Edges of a cell: each block reads the two inputs and all blocks before it."""
    return blocks * (blocks + 3) / 2


def run(build: Build, base: Workload, repeats: int, file: Path) -> dict[str, Any]:
    """Measure the sweeps, write the picture, and return every figure.

    Raises: ConfigError: a picture of an unknown format. RunError: it cannot be written.
    """
    measured: dict[Workload, dict[str, float]] = {}
    panels, result = [], []
    for sweep in sweeps(base):
        for workload in sweep.workloads:
            if workload not in measured:
                measured[workload] = measure(build(workload)["fast"], repeats)
                figures = measured[workload]
                print(
                    f"{workload}: {figures['seconds']:.3f} s, {figures['saved_bytes'] / 1e6:,.1f} MB saved", flush=True
                )
        points = {key: [measured[workload][key] for workload in sweep.workloads] for key in ("seconds", "saved_bytes")}
        fits = {key: fit(sweep.values, values) for key, values in points.items()}
        panels.append((sweep, points, fits))
        result.append(
            {"sweep": sweep.label, "x": sweep.values, **points, "fits": {k: f._asdict() for k, f in fits.items()}}
        )
    save(draw(base, panels), file)
    for sweep, _, fits in panels:
        lines = (f"{key.replace('_', ' ')} on a straight line with R2 {line.r2:.4f}" for key, line in fits.items())
        print(f"{sweep.label}: {', '.join(lines)}")
    return {"base": base._asdict(), "sweeps": result}


def measure(contender: Contender, repeats: int) -> dict[str, float]:
    """Median seconds of an iteration, weight and architecture step, and saved bytes of the weight step."""

    def iteration() -> None:
        contender.step("weights")
        contender.step("architecture")

    iteration()
    seconds = statistics.median(timed(iteration, contender.device)[0] for _ in range(repeats))
    return {"seconds": seconds, "saved_bytes": float(saved_bytes(contender, "weights"))}


def fit(x: Sequence[float], y: Sequence[float]) -> Fit:
    """The straight line of least squares."""
    xs, ys = np.asarray(x), np.asarray(y)
    slope, offset = np.polyfit(xs, ys, 1)
    residue = float(((ys - slope * xs - offset) ** 2).sum() / ((ys - ys.mean()) ** 2).sum())
    return Fit(float(slope), float(offset), 1 - residue)


@styled
def draw(base: Workload, panels: Sequence[tuple[Sweep, dict[str, list[float]], dict[str, Fit]]]) -> Figure:
    """A panel a sweep: seconds above, saved bytes below, each with its straight line."""
    figure = Figure(figsize=(2.3 * len(panels), 3.6), layout="constrained")
    grid = figure.subplots(2, len(panels), sharex="col", sharey="row", squeeze=False)
    for row, (key, unit, colour) in zip(grid, (("seconds", 1, BLUE), ("saved_bytes", 1e9, ORANGE)), strict=True):
        for (sweep, points, fits), axes in zip(panels, row, strict=True):
            _draw_line(axes, sweep.values, [value / unit for value in points[key]], fits[key], unit, colour)
        row[0].set_ylim(0, 1.05 * max(max(points[key]) for _, points, _ in panels) / unit)
    for (sweep, _, _), axes in zip(panels, grid[1], strict=True):
        axes.set_xlabel(sweep.label)
        axes.set_xlim(0, 1.05 * max(sweep.values))
    grid[0, 0].set_ylabel("seconds an iteration")
    grid[1, 0].set_ylabel("GB saved for backward")
    figure.align_ylabels(grid[:, 0])
    figure.suptitle(f"around {base}", fontsize=SMALL, color=MUTED)
    return figure


def _draw_line(axes: Axes, x: Sequence[float], y: Sequence[float], line: Fit, unit: float, colour: str) -> None:
    ends = np.array([min(x), max(x)])
    axes.plot(ends, (line.slope * ends + line.offset) / unit, color=colour, linewidth=1.2)
    axes.plot(x, y, "o", color=colour, markersize=4)
    axes.set_title(f"straight line, R\u00b2 {line.r2:.4f}", fontsize=SMALL, color=MUTED)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
