"""What the searched weights are worth: the decoded network trained from them and from scratch, at equal steps.

    python scripts/gap.py --out runs/gap
    python scripts/gap.py --data data_sets/camvid.yaml --set data.root=/data/camvid --set 'data.resize=[120, 160]' \
        --out runs/gap-camvid

For each seed: a search in the space `tiny`, decoding, the networks between (`autoseg.measure_gap` without tuning), and
two trainings with the supernet's width that differ in their first weights alone, on val at their end. Everything goes
to --out: the runs, results.json and results.md. Started again with the same settings it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from bench import machine

import autoseg
from autoseg.config.base import merge, parse_assignments
from autoseg.engine.run_directory import Run
from autoseg.errors import AutosegError, Interrupted
from autoseg.files import make_folder, write_text

SEARCH: dict[str, Any] = {
    "epochs": 12, "arch_start_epoch": 4, "max_steps_per_epoch": 16, "batch_size": 4, "crop": [64, 64],
    "val_images": 16, "augment": {"scale": [1.0, 1.0]},
}  # fmt: skip
RETRAIN: dict[str, Any] = {"batch_size": 8, "crop": [64, 64], "augment": {"scale": [1.0, 1.0]}, "ema_decay": 0.0}
T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Number of seeds -> the 97.5% point of Student's t, for the 95% interval of a mean."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="generated")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3, choices=T95)
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[50, 200], help="of the trainings, one length each, in tens"
    )
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    try:
        given = merge({"search": SEARCH, "retrain": RETRAIN}, parse_assignments(options.settings))
        make_folder(options.out)
        rows = [
            one_seed(options.out / f"seed-{n}", options.data, n, options.steps, given) for n in range(options.seeds)
        ]
    except AutosegError as reason:
        print(f"error: {reason}", file=sys.stderr)
        return 2
    except Interrupted as reason:
        print(f"{reason}; or start this script again", file=sys.stderr)
        return 130
    facts = {"data": options.data, "settings": given, "machine": machine.describe(torch.device("cpu")), "seeds": rows}
    write_text(options.out / "results.json", json.dumps(facts, indent=2) + "\n")
    table = "\n".join(lines(rows, options.steps))
    write_text(options.out / "results.md", f"{table}\n")
    print(table)
    return 0


def one_seed(folder: Path, data: str, seed: int, steps: Sequence[int], given: Mapping[str, Any]) -> dict[str, Any]:
    """What one seed gives; what is there already is not done again."""
    search, common = folder / "search", {"seed": seed, "data": given.get("data", {})}
    if not (search / "gap.json").is_file():
        autoseg.search("tiny", data, search, overrides={**common, "search": given["search"]}, resume=True)
        autoseg.measure_gap(search, autoseg.decode(search, overwrite=True), steps=0, statistics_images=128)
    row: dict[str, Any] = json.loads((search / "gap.json").read_text(encoding="utf-8"))
    width = {"network": {"filter_multiplier": row["filter_multiplier"]}}
    for number in steps:
        for start, first in (("scratch", {}), ("warm", {"warm_start": str(search.absolute())})):
            epochs = {"epochs": number // 10, "max_steps_per_epoch": 10, "validate_every": number}
            schedule = {**given["retrain"], **epochs, "schedule": {"name": "poly", "power": 0.9, "warmup_epochs": 1}}
            overrides = {**common, **first, "retrain": schedule, "genotype": width}
            run: Run = autoseg.retrain(search, data, folder / f"{start}-{number}", overrides=overrides, resume=True)
            row[f"{start}-{number}"] = [row["miou"] for row in run.metrics() if row["kind"] == "val"][-1]
    return row


def mean(values: Sequence[float]) -> str:
    """The mean with half of its 95% interval over the seeds."""
    half = T95[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):.3f} ± {half:.3f}"


def lines(rows: Sequence[Mapping[str, Any]], steps: Sequence[int]) -> list[str]:
    """Two tables: the networks between, and the two starts."""
    table = [f"| network | val mIoU, mean of {len(rows)} seeds, 95% interval |", "|---|---|"]
    for number, network in enumerate(rows[0]["networks"]):
        table.append(f"| {network['what']} | {mean([row['networks'][number]['miou'] for row in rows])} |")
    table += ["", "| steps | from scratch | warm start | warm start less scratch |", "|---|---|---|---|"]
    for number in steps:
        scratch, warm = ([row[f"{start}-{number}"] for row in rows] for start in ("scratch", "warm"))
        gain = mean([after - before for before, after in zip(scratch, warm, strict=True)])
        table.append(f"| {number} | {mean(scratch)} | {mean(warm)} | {gain} |")
    return table


if __name__ == "__main__":
    sys.exit(main())
