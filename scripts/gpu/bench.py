"""What a step of a search costs on a card, by variant, beside what the card can do at all."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autoseg.errors import RunError
from gpu.bench_rows import Row, all_rows, chosen, predicted_settings
from gpu.output import Output, in_one_line, refuse, stage_parser, table
from gpu.supervisor import Child, Event, Supervisor

SECONDS = 90.0
START_SECONDS, DRY_START_SECONDS = 60.0, 60.0
START_ESTIMATE = 15.0
DRY_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "TORCH_COMPILE_DISABLE": "1"}
"""A C++ compiler would take a minute of a CPU for what says nothing of a card; compiled parts are plain calls then."""
FILES = ("bench.json", "bench.md", "profile.txt", "bench.log")
Result = Mapping[str, Any]


class NoCardError(Exception):
    """torch finds no GPU."""


class Stage:
    """Measures the rows and writes `bench.json`, `bench.md` and `profile.txt` after each."""

    def __init__(self, output: Output, seconds: float, dry: bool) -> None:
        self.output, self.dry = output, dry
        self.began = time.monotonic()
        self.seconds = seconds
        self.environment: dict[str, Any] = {}
        self.planned: list[str] = []
        self.rows: list[Event] = []
        self.predictions: dict[str, Event] = {}
        self.restarts: list[str] = []
        self.notes: list[str] = []

    def run(self, patterns: Sequence[str], genotype: str | None) -> None:
        """Measure the rows whose names have one of the patterns; without patterns, all."""
        limits = {row.name: row.limit for row in all_rows(self.dry)}
        command = [sys.executable, "-X", "faulthandler", "-m", "gpu.bench_child", *(["--dry"] if self.dry else [])]
        command += ["--end", str(time.time() + self.seconds - (time.monotonic() - self.began))]
        hidden = DRY_ENVIRONMENT if self.dry else {}
        log = self.output.path("bench.log")
        with tempfile.TemporaryDirectory() as folder:
            # predicting takes the CPU some ten seconds a setting: a process of its own does it meanwhile
            events = Path(folder) / "predicted.jsonl"
            self._predictor = Child(
                [*command, "--predict", "--events", str(events), "--state", str(events)], events, log, hidden
            )
            try:
                supervisor = Supervisor(
                    [*command, "--only", json.dumps(patterns), *(["--genotype", genotype] if genotype else [])],
                    self.take,
                    Path(folder),
                    log,
                    self.began + self.seconds,
                    limits.__getitem__,
                    START_SECONDS,
                    hidden,
                    lambda: {"results": [_short(row) for row in self.rows]},
                )
                supervisor.run()
                self._await_predictions(bool(patterns))
                self.restarts = supervisor.restarts
                self.notes += [supervisor.gave_up] if supervisor.gave_up else []
                self.write()
            finally:
                self._predictor.kill()

    def take(self, event: Event) -> None:
        """Keep what came, print a line, write the files."""
        kind = event.pop("event")
        if kind == "environment":
            self.environment = event
            if not event["cuda"] and not self.dry:
                raise NoCardError
        elif kind == "planned":
            self.planned += [name for name in event["names"] if name not in self.planned]
        elif kind == "end":
            self.rows.append(event)
            print(line_of(event), flush=True)
            self.write()

    def _await_predictions(self, partial: bool) -> None:
        """Until all are there or the time is over; where only some rows were asked for, as many as there are."""
        while not partial and len(self.predictions) < len(predicted_settings()):
            if self._predictor.process.poll() is not None or time.monotonic() > self.began + self.seconds:
                break
            self._take_predictions()
            time.sleep(0.1)
        self._take_predictions()

    def _take_predictions(self) -> None:
        for event in self._predictor.new_events():
            self.predictions[event["name"]] = event

    def write(self) -> None:
        """The files as of now."""
        self._take_predictions()
        data = {
            "stage": "bench",
            "dry": self.dry,
            "seconds": round(time.monotonic() - self.began, 1),
            "environment": self.environment,
            "rows": self.rows,
            "predictions": list(self.predictions.values()),
            "not_run": self.not_run(),
            "restarts": self.restarts,
            "notes": self.notes,
        }
        self.output.json("bench.json", data)
        self.output.text("bench.md", self.report())
        self.output.text("profile.txt", profiles(self.rows))

    def not_run(self) -> list[str]:
        """Names of rows that were planned and have no result."""
        there = {row["name"] for row in self.rows}
        return [name for name in self.planned if name not in there]

    def report(self) -> str:
        """All tables."""
        done = {row["name"]: row for row in self.rows if row["outcome"] == "done"}
        parts = [f"# Measured on {in_one_line(self.environment)}\n", *(f"**{note}**\n" for note in self.notes)]
        parts += [text for make in TABLES if (text := make(done))]
        if compared := memory_table(done, self.predictions):
            parts += ["## Memory, predicted and measured\n", compared]
        others = [(row["name"], row["outcome"], reason_of(row)) for row in self.rows if row["outcome"] != "done"]
        others += [(name, "not run", "") for name in self.not_run()]
        if others:
            parts += ["## Rows without figures\n", table(("row", "outcome", "why"), others)]
        return "\n".join(parts)


def _short(row: Event) -> Event:
    """What later rows need of one."""
    return {key: row[key] for key in ("name", "iteration_ms") if key in row}


# --- tables -----------------------------------------------------------------------------------------------------------


def limits_table(done: Mapping[str, Result]) -> str:
    """What the card reaches."""
    if (row := done.get("limits")) is None:
        return ""
    rows = [
        (f"product of {row['side']}x{row['side']} in {name}", f"{row[f'{key}_flops_per_s'] / 1e12:.4g} TFLOP/s")
        for name, key in (("bf16", "bf16"), ("float32 (TF32)", "tf32"), ("float32", "ieee"))
    ]
    rows.append(
        (f"copy of {row['copied_bytes'] / 1e6:.4g} MB, read and written", f"{row['bytes_per_s'] / 1e9:.4g} GB/s")
    )
    return "## The card's limits\n\n" + table(("what", "rate"), rows)


SEARCH_NOTE = """
Iteration: a weight step and an architecture step. x: how many times as fast as the first row. Kernels, their time and
the host's waits are of an iteration. Gradient: its length, of weights and architecture, in the first step and in one
after the graphs were recorded; rows of one space, precision and crop must agree, but for rounding. 40 epochs: the
space's schedule on 2,975 images, from the steps alone.
"""


def search_table(done: Mapping[str, Result]) -> str:
    """Steps of a search, a line a row, and how they compare with the first."""
    heads = (
        "row", "weight step, ms", "architecture step, ms", "iteration, ms", "x", "peak allocated, GB", "reserved, GB",
        "kernels", "kernel time, ms", "syncs", "gradient, first", "later", "40 epochs, h",
    )  # fmt: skip
    rows = [row for row in done.values() if "iteration_ms" in row]
    if not rows:
        return ""
    first = next((row for row in rows if row["name"] == "W1 eager"), rows[0])["iteration_ms"]
    lines = [
        (
            row["name"] + (" (eager!)" if _fell_back(row) else ""),
            *(f"{row[f'{step}_ms']:.2f}" for step in ("weight", "architecture", "iteration")),
            f"{first / row['iteration_ms']:.2f}",
            *(_giga(row.get(f"peak_{kind}_bytes")) for kind in ("allocated", "reserved")),
            _sum(row.get("kernels")),
            f"{row['kernel_ms']:.1f}" if "kernel_ms" in row else None,
            _sum(row.get("syncs")),
            *("/".join(f"{norm:.4g}" for norm in row[f"{which}gradient_norms"]) for which in ("", "later_")),
            f"{row['paper_hours']:.3f}",
        )
        for row in rows
    ]
    warned = [f"- {row['name']}: {line}" for row in rows for line in row.get("lines", [])]
    return (
        "## Steps of a search\n\n"
        + table(heads, lines)
        + SEARCH_NOTE
        + ("\n".join(["", *warned, ""]) if warned else "")
    )


def _fell_back(row: Result) -> bool:
    return any("CUDA graphs" in line for line in row.get("lines", []))


def network_table(done: Mapping[str, Result]) -> str:
    """Training and inference of networks."""
    heads = ("row", "genotype", "training step, ms", "inference of one image, images/s")
    rows = [
        (
            f"{row['name']}, batch {row['train_batch']}",
            row["genotype"],
            ", ".join(f"{variant} {ms:.2f}" for variant, ms in row["training_ms"].items()),
            ", ".join(f"{variant} {rate:.1f}" for variant, rate in row["images_per_s"].items()),
        )
        for row in done.values()
        if "training_ms" in row
    ]
    return "## Networks\n\n" + table(heads, rows) if rows else ""


TABLES: tuple[Callable[[Mapping[str, Result]], str], ...] = (limits_table, search_table, network_table)


ALLOCATED, RESERVED = "peak_allocated_bytes", "peak_reserved_bytes"
MEMORY_NOTE = """
Measured: of eager steps what tensors had (allocated), of recorded ones what the allocator had taken (reserved).
"""


def memory_table(done: Mapping[str, Result], predictions: Mapping[str, Result]) -> str:
    """Predicted peaks beside the measured ones."""
    settings = predicted_settings()
    lines = []
    for row in all_rows():
        measured = done.get(row.name, {})
        plain = row.kind == "search" and row.search.streams and not row.search.kernels
        for name, prediction in predictions.items():
            if not plain or row.search.memory_key() != settings[name].memory_key() or measured.get(ALLOCATED) is None:
                continue
            predicted = prediction["eager_bytes"] + (prediction["graph_bytes"] if row.search.graphs else 0)
            kept = measured[RESERVED if row.search.graphs else ALLOCATED]
            sizes = (_giga(size) for size in (predicted, measured[ALLOCATED], measured[RESERVED]))
            lines.append((row.name, *sizes, f"{predicted / kept:.3f}"))
    if not lines:
        return ""
    return table(("row", "predicted, GB", "allocated, GB", "reserved, GB", "predicted / measured"), lines) + MEMORY_NOTE


def profiles(rows: Iterable[Event]) -> str:
    """The slowest kernels of each row, as text."""
    parts = []
    for row in rows:
        if row.get("profile"):
            lines = [f"{ms:10.3f} {calls:7d}  {name}" for name, calls, ms in row["profile"]]
            parts.append("\n".join([f"== {row['name']}", f"{'ms':>10} {'calls':>7}  name", *lines]))
    return "\n\n".join(parts) + "\n"


def _giga(value: float | None) -> str | None:
    return None if value is None else f"{value / 1e9:.3f}"


def _sum(values: Sequence[int] | None) -> int | None:
    return None if values is None else sum(values)


def reason_of(row: Event) -> str:
    """In a line, why a row has no figures."""
    return str(row.get("reason") or row.get("detail", "").splitlines()[0])[:200]


def line_of(row: Event) -> str:
    """What is printed as soon as a row is there."""
    if row["outcome"] != "done":
        text = f"{row['outcome']}: {reason_of(row)}"
    elif "iteration_ms" in row:
        text = f"{row['iteration_ms']:.2f} ms = {row['weight_ms']:.2f} + {row['architecture_ms']:.2f}"
    elif "training_ms" in row:
        text = ", ".join(f"{variant} {ms:.1f} ms" for variant, ms in row["training_ms"].items())
    else:
        text = "done"
    return f"{row['name']:<60} {text}  [{row['seconds']:.1f} s]"


# --- command ----------------------------------------------------------------------------------------------------------


def estimate(rows: Sequence[Row]) -> str:
    """What the stage would take on a card."""
    expected, limit = sum(row.estimate for row in rows), sum(row.limit for row in rows)
    parts = " + ".join(f"{row.estimate:g}" for row in rows)
    return (
        f"on a card: {START_ESTIMATE:g} s for the process + {parts} s for {len(rows)} rows ="
        f" {START_ESTIMATE + expected:g} s expected; at their hard limits {START_ESTIMATE + limit:g} s; a row that has"
        f" not begun when less than its limit is left is skipped (default --seconds {SECONDS:g})"
    )


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Those of the stage. A wrong one ends the process with status 2."""
    parser = stage_parser("bench", SECONDS, __doc__ or "")
    parser.add_argument("--only", nargs="+", default=[], metavar="PATTERN", help="parts of rows' names")
    parser.add_argument("--genotype", help="of the searched network: a file or a run (default: a random one of tiny)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 where the stage ran, 2 for what was given wrong."""
    options = parse_arguments(arguments)
    rows = chosen(all_rows(options.dry), options.only)
    if not rows:
        return refuse(f"--only {' '.join(options.only)}: no row has such a name; --dry prints all names")
    if options.genotype is not None and not Path(options.genotype).exists():
        return refuse(f"--genotype {options.genotype}: there is no such file or run")
    try:
        stage = Stage(Output(FILES), options.seconds, options.dry)
        stage.run(options.only, options.genotype)
    except NoCardError:
        return refuse("torch finds no CUDA GPU here; --dry runs the stage in miniature on a CPU")
    except (OSError, RunError) as reason:
        return refuse(f"the output folder cannot be used ({reason}); set OUT to another one")
    print(f"\n{stage.report()}\nwritten: {stage.output.folder}/{', '.join(FILES)}"[-11000:])
    if options.dry:
        print(estimate(chosen(all_rows(), options.only)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
