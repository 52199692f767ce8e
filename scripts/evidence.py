"""What searches of one space owe to their gradients' direction: several seeds on several data sets, as a table.

    python scripts/evidence.py --out runs/evidence --seeds 0,1
    python scripts/evidence.py --out runs/evidence --seeds 0,1,2 --data generated --data data_sets/camvid.yaml \
        --set data.root=/data/camvid
    python scripts/evidence.py --out runs/evidence --seeds 0 --figures docs/images

For each data set and seed a search of `--space`, with the settings of `--set`; then for each table of logits R with the
range of noise, p, the persistence of the gradients from epoch to epoch, and how many choices are decided
(docs/evidence.md); and for each pair of seeds the correlation of their final logits. Settings of `data.generated.` are
those of "generated", and others of `data.` those of the other data sets. Everything goes to --out; started again it
goes on where it stopped. `--figures` draws the first run: how far its logits went beside replays with random signs, and
its margins beside theirs.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from one_line import Parser

from autoseg import search
from autoseg.analysis.choices import Table, legal_logits
from autoseg.analysis.evidence import RANGE, Evidence, Replayed
from autoseg.analysis.gradient_file import NAME, GradientFile
from autoseg.api.decode import arch_of, evidence_of
from autoseg.config.base import parse_assignments
from autoseg.engine.run_directory import Run
from autoseg.errors import AutosegError, Interrupted, RunError
from autoseg.files import write_text
from autoseg.space.snapshot import ArchProbs
from autoseg.viz import style

COLOURS = {"alpha": style.PURPLE, "beta": style.BLUE}


class Found(NamedTuple):
    """A search and what is known of it."""

    run: Run
    seed: int
    probs: ArchProbs
    file: GradientFile
    evidence: Evidence


def searched(space: str, data: str, seed: int, out: Path, overrides: Mapping[str, Any]) -> Found:
    """Search, or go on with it, and read its evidence. Raises: RunError: it has none."""
    is_generated = data == "generated"
    of_data = {key: value for key, value in overrides.get("data", {}).items() if (key == "generated") == is_generated}
    fitting = {**overrides, "data": of_data}
    out = out / f"{Path(data).stem}-{seed}"
    if (out / "config.yaml").is_file():
        search(out=out, resume=True, show_progress=False)
    else:
        search(space, data, out, overrides={**fitting, "seed": seed}, show_progress=False)
    run = Run.open(out)
    probs, config, epoch = arch_of(run)
    evidence, schedule = evidence_of(out, probs, config, epoch), config.search
    if evidence is None:
        raise RunError(f"{out} has no evidence; give another --out", code="evidence-missing")
    file = GradientFile(out / "arch" / NAME, config.space, schedule.arch_optimizer, schedule.arch_start_epoch)
    return Found(run, seed, probs, file, evidence)


def table_of(found: Mapping[str, Sequence[Found]]) -> str:
    """The results as a table in Markdown, by data set."""
    lines = ["| data | seed | table | R (noise) | p | persistence | decided |", "|---|---|---|---|---|---|---|"]
    for data, runs in found.items():
        for one in runs:
            for name, table in one.evidence.items():
                low, high = table.noise
                decided = len(table.choices) - len(table.undecided)
                lines.append(
                    f"| {data} | {one.seed} | {name} | {table.ratio:.2f} ({low:.2f} to {high:.2f}) | {table.p:.3f} |"
                    f" {table.mean_persistence:.2f} | {decided} of {len(table.choices)} |"
                )
    lines += ["", "| data | table | correlation of the final logits of two seeds |", "|---|---|---|"]
    for data, runs in found.items():
        for name, pairs in correlations(runs).items():
            lines.append(f"| {data} | {name} | {', '.join(f'{value:.2f}' for value in pairs) or 'one seed alone'} |")
    return "\n".join(lines)


def correlations(runs: Sequence[Found]) -> dict[str, list[float]]:
    """Table -> the correlation of the centred final logits of each pair of runs."""
    found: dict[str, list[float]] = {name: [] for name in runs[0].file.tables}
    for pair in itertools.combinations(runs, 2):
        for name, table in runs[0].file.tables.items():
            one, other = (table.centred(legal_logits(run.probs, table)[None])[0] for run in pair)
            found[name].append(float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other))))
    return found


# --- pictures ---------------------------------------------------------------------------------------------------------


@style.styled
def draw_walks(found: Found) -> Figure:
    """The spread of the run's logits after each step, over that of the replays."""
    replayed, steps = Replayed(found.file), epochs_of(found) * found.file.steps_per_epoch
    records = found.file.read(0, steps)
    figure = Figure(figsize=(6.4, 2.6), layout="constrained")
    panels = figure.subplots(1, len(replayed.tables), squeeze=False)[0]
    for axes, (name, table) in zip(panels, replayed.tables.items(), strict=True):
        spreads = []
        for gradient, lr in zip(records["values"][:, replayed.columns[name]], records["lr"].tolist(), strict=True):
            table.replays.step(gradient, lr)
            spreads.append(table.table.spreads(table.replays.logits))
        walks = np.array(spreads)  # [step, replay]
        low, middle, high = np.percentile(walks[:, 1:], [RANGE[0], 50, RANGE[1]], axis=1)
        places = np.arange(1, steps + 1)
        axes.fill_between(places, low, high, color=style.PALE, alpha=0.6, linewidth=0, label="95% of the replays")
        axes.plot(places, middle, color=style.MUTED, linewidth=1, label="their median")
        axes.plot(places, walks[:, 0], color=COLOURS.get(name, style.GREEN), linewidth=1.8, label="this search")
        axes.set(title=name, xlabel="architecture step", xlim=(0, steps), ylim=(0, None))
        axes.legend(loc="upper left")
    panels[0].set_ylabel("spread of the logits")
    return figure


@style.styled
def draw_margins(found: Found) -> Figure:
    """The margin of each choice, beside the margin below which 95% of the replays stay."""
    replayed = Replayed(found.file)
    replayed.take_epochs(epochs_of(found))
    tables: list[tuple[str, Table, np.ndarray]] = [
        (name, table.table, table.replays.logits) for name, table in replayed.tables.items()
    ]
    heights = [len(table.choices) for _, table, _ in tables]
    figure = Figure(figsize=(5.4, 0.9 + 0.17 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(tables), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (name, table, logits) in zip(panels, tables, strict=True):
        for row, choice in enumerate(table.choices):
            margins, place = choice.margins(logits), len(table.choices) - row
            decided = choice.name not in found.evidence[name].undecided
            axes.barh(place, np.percentile(margins[1:], 95), color=style.PALE, height=0.7)
            colour = COLOURS.get(name, style.GREEN)
            look: Any = {"color": colour, "markerfacecolor": colour if decided else "white"}
            axes.plot([margins[0]], [place], "o", markersize=5, **look)
        axes.set_yticks(range(len(table.choices), 0, -1), [choice.name for choice in table.choices])
        axes.set(title=name, ylim=(0.4, len(table.choices) + 0.6), xlim=(0, None))
    panels[-1].set_xlabel("margin in logits (circle; full: decided), and 95% of the replays (bar)")
    return figure


def epochs_of(found: Found) -> int:
    """Number of epochs with architecture steps."""
    return arch_of(found.run)[2] + 1 - found.file.arch_start_epoch


# --- command line -----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the searches, print the table and draw. Returns the exit status."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and of evidence.md")
    parser.add_argument("--space", default="tiny", help="search space")
    parser.add_argument("--data", action="append", help="data set, as autoseg search takes it; repeat it for several")
    parser.add_argument("--seeds", default="0", help="seeds, with commas")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE, a setting of the searches")
    parser.add_argument("--figures", type=Path, help="folder for pictures of the first run")
    given = parser.parse_args(arguments)
    try:
        seeds = [int(seed) for seed in given.seeds.split(",")]
    except ValueError:
        parser.error(f"--seeds should be whole numbers with commas, not {given.seeds!r}")
    try:
        overrides = parse_assignments(given.set)
        found = {
            Path(data).stem: [searched(given.space, data, seed, given.out, overrides) for seed in seeds]
            for data in given.data or ["generated"]
        }
        text = table_of(found)
        write_text(given.out / "evidence.md", text + "\n")
        print(text)
        if given.figures is not None:
            first = next(iter(found.values()))[0]
            for name, figure in (("walks", draw_walks(first)), ("margins", draw_margins(first))):
                print(*style.save(figure, given.figures / f"evidence-{name}", ["png"]))
    except AutosegError as reason:
        print(f"error: {reason}", file=sys.stderr)
        return 2
    except Interrupted as reason:
        print(reason, file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
