"""Watch the memory and the open files of a search of many steps of a tiny supernet.

Usage: python scripts/long_run.py [--steps 10000]

Prints memory (resident, MB) and open files at twenty moments. The exit status is 1 if the last quarter has more of
either than the second quarter, beyond 2% of memory.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from helpers.tiny_runs import SEARCH, write_config

from autoseg.api.search import search
from autoseg.engine.search import SearchTask

MOMENTS = 20


class Watch:
    """Notes memory and open files while a task makes steps."""

    def __init__(self, every: int) -> None:
        self.every, self.steps = every, 0
        self.seen: list[tuple[int, float, int, int]] = []

    def __call__(self) -> None:
        self.steps += 1
        if self.steps % self.every == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            files = len(os.listdir("/proc/self/fd"))
            row = self.steps, pages * os.sysconf("SC_PAGE_SIZE") / 2**20, files, threading.active_count()
            self.seen.append(row)
            print(f"step {row[0]:,}: {row[1]:.1f} MB, {row[2]} files, {row[3]} threads", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    options = parser.parse_args()
    watch, plain = Watch(max(1, options.steps // MOMENTS)), SearchTask.step

    def step(self: SearchTask, *arguments: Any) -> Mapping[str, Any]:
        figures = plain(self, *arguments)
        watch()
        return figures

    SearchTask.step = step  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as place:
        changes = {"epochs": options.steps // 4, "arch_start_epoch": 1, "validate_every": 125, "log_every": 10}
        config = write_config(Path(place) / "c.yaml", SEARCH, {"search": {**changes, "checkpoint_seconds": 60}})
        search(config=config, out=Path(place) / "run", show_progress=False)
    quarter = len(watch.seen) // 4
    grown = []
    for name, column, most in (("memory", 1, 1.02), ("files", 2, 1.0), ("threads", 3, 1.0)):
        early, late = (
            statistics.median(row[column] for row in rows)
            for rows in (watch.seen[quarter : 2 * quarter], watch.seen[-quarter:])
        )
        print(f"{name}: {early:.1f} in the second quarter, {late:.1f} in the last")
        grown += [name] if late > early * most else []
    raise SystemExit(f"grown: {', '.join(grown)}" if grown else 0)


if __name__ == "__main__":
    main()
