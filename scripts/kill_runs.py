"""Kill a search and a retraining at random moments, go on with each, and compare its end with that of a whole run.

Usage: python scripts/kill_runs.py [--times 20] [--seed 0]

Prints a line for each kill: when, how many checkpoints there were, and what differs. The exit status is 1 if any does.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from helpers.tiny_runs import SETTINGS, difference, start, write_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance, failed = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as place:
        for kind in ("search", "retrain"):
            folder = Path(place) / kind
            folder.mkdir()
            config = write_config(folder / "settings.yaml", SETTINGS[kind], {kind: {"epochs": 6}})
            process = start(kind, "--config", config, "--out", folder / "whole")
            seconds = _seconds_of_run(process, folder / "whole")
            for number in range(options.times):
                failed += _kill(kind, config, folder, number, chance.uniform(0, 1) * seconds)
    print(f"{2 * options.times - failed} of {2 * options.times} ends are equal to the whole run's")
    raise SystemExit(failed > 0)


def _seconds_of_run(process: subprocess.Popen[str], out: Path) -> float:
    """From the moment that the run directory is there to the end. Raises: RuntimeError: the run fails."""
    _wait_for(process, out)
    began = time.monotonic()
    _, err = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(err)
    return time.monotonic() - began


def _wait_for(process: subprocess.Popen[str], out: Path) -> None:
    while process.poll() is None and not (out / "config.yaml").exists():
        time.sleep(0.01)


def _kill(kind: str, config: Path, folder: Path, number: int, seconds: float) -> bool:
    """Whether the run that was killed some seconds after its begin ends otherwise than the whole one. Prints a line."""
    out = folder / f"killed_{number}"
    process = start(kind, "--config", config, "--out", out)
    _wait_for(process, out)
    time.sleep(seconds)
    ended = process.poll() is not None
    process.kill()
    process.communicate()
    there = sorted(path.name for path in out.rglob("*") if path.is_file()) if out.is_dir() else []
    begun = "config.yaml" in there
    resumed = start(kind, "--config", config, "--out", out, "--resume")
    _, err = resumed.communicate()
    found = err.strip() if resumed.returncode else difference(folder / "whole", out)
    state = f"{sum(name.endswith('.pt') for name in there)} checkpoints" if begun else "before the run"
    what = "after its end" if ended else f"{state}, {sum(name.endswith('.tmp') for name in there)} unfinished files"
    print(f"{kind} {number}: killed after {seconds:.2f} s, {what}: {found or 'equal'}", flush=True)
    return bool(found)


if __name__ == "__main__":
    main()
