"""Every command where the machine has too little: a full, small or read-only disk, few file descriptors, little memory.

Usage: python scripts/small_container.py [--only WORD ...]

Prints a table: `done`, the code of the one line that a command ended with (status 2), or FAULT, whose output follows.
The exit status is 1 if there is a fault. Linux alone. The disks are mounted in a namespace of the command's own
(`unshare`), which some containers forbid: the script then says so and leaves them out.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LINE = re.compile(r"error: [^\n]+ \[([a-z0-9-]+)\]")
TINY = (
    "--data generated --set data.generated.train=16 --set data.generated.val=4 --set data.generated.size=[64,64]"
    " --set {0}.epochs=2 --set {0}.max_steps_per_epoch=2 --set {0}.batch_size=2 --set {0}.crop=[64,64]"
    " --set {0}.checkpoint_seconds=0 --device cpu"
)
COMMANDS = {
    "search": f"search --space tiny --out OUT/run {TINY.format('search')} --set search.arch_start_epoch=1",
    "retrain": f"retrain GIVEN/search/genotype.yaml --out OUT/run {TINY.format('retrain')}",
    "evaluate": "evaluate GIVEN/retrain --out OUT/scores.json --plot",
    "predict": "predict GIVEN/retrain GIVEN/photos --out OUT/predictions --probabilities",
    "decode": "decode GIVEN/search --out OUT/genotype.yaml",
    "export onnx": "export GIVEN/retrain --format onnx --out OUT/a.onnx",
    "export pt2": "export GIVEN/retrain --format pt2 --out OUT/a.pt2",
    "export safetensors": "export GIVEN/retrain --format safetensors --out OUT/a.safetensors",
    "export json": "export GIVEN/search --format json --out OUT/a.json",
    "plot": "plot GIVEN/search --out OUT/figures",
    "check-data": "check-data GIVEN/data --out OUT/checked",
    "convert": "convert GIVEN/data OUT/converted",
    "plan": "plan --space tiny --crop 64 64 --batch 2",
    "show": "show GIVEN/search/genotype.yaml",
    "demo": "demo --out OUT/demo --set search.epochs=4 --set search.max_steps_per_epoch=1 --set retrain.epochs=1",
}
DISKS = {
    "50 MB disk": "mount -t tmpfs -o size=50m none OUT",
    "300 kB disk": "mount -t tmpfs -o size=300k none OUT",
    "full disk": "mount -t tmpfs -o size=64k none OUT; head -c 1m /dev/zero > OUT/filled 2>/dev/null",
    "read-only disk": "mount -t tmpfs -o size=50m none OUT; mount -o remount,ro OUT",
}
"""Conditions and what makes them; OUT is where the command writes, and its cache."""
LIMITS = {
    "24 descriptors": (resource.RLIMIT_NOFILE, 24),
    "2 GB of addresses": (resource.RLIMIT_AS, 2**31),
}
STDOUT_FULL = "output to /dev/full"
CONDITIONS = (*DISKS, *LIMITS, STDOUT_FULL)


def autoseg(command: str, given: Path, out: Path) -> list[str]:
    filled = command.replace("GIVEN", str(given)).replace("OUT", str(out))
    return [sys.executable, "-m", "autoseg", *shlex.split(filled)]


def prepare(given: Path) -> None:
    """A search with its genotype, a retraining, a data set and photos, made without limits."""
    for name, command in (
        ("search", COMMANDS["search"].replace("OUT/run", "GIVEN/search")),
        ("search", "decode GIVEN/search"),
        ("retrain", COMMANDS["retrain"].replace("OUT/run", "GIVEN/retrain")),
    ):
        print(f"preparing: {name}", file=sys.stderr)
        subprocess.run(autoseg(command, given, given), check=True, stdout=subprocess.DEVNULL)
    import numpy as np
    from PIL import Image

    numbers = np.random.default_rng(0)
    for split in ("train", "val"):
        for index in range(4):
            for kind, shape in (("images", (96, 96, 3)), ("masks", (96, 96))):
                file = given / "data" / split / kind / f"{index}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                high = 255 if kind == "images" else 2
                Image.fromarray(numbers.integers(0, high, shape).astype(np.uint8)).save(file)
    photos = given / "photos"
    photos.mkdir()
    for index in range(8):
        Image.fromarray(numbers.integers(0, 255, (120, 160, 3)).astype(np.uint8)).save(photos / f"{index}.png")


def run(command: str, condition: str, given: Path) -> tuple[str, str]:
    """A cell of the table, and the output of a fault."""
    with tempfile.TemporaryDirectory(prefix="autoseg-small-") as folder:
        out = Path(folder) / "out"
        out.mkdir()
        words = autoseg(command, given, out)
        if condition in DISKS:
            mount = DISKS[condition].replace("OUT", str(out))
            words = ["unshare", "-m", "sh", "-c", f'{mount}; exec "$@"', "sh", *words]

        def limit() -> None:
            if condition in LIMITS:
                which, most = LIMITS[condition]
                resource.setrlimit(which, (most, most))

        cache = out if condition in DISKS else Path(folder)
        settings = {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(cache / "cache"), "TMPDIR": str(cache)}
        began = time.monotonic()
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                words, env={**os.environ, **settings}, preexec_fn=limit, text=True, errors="replace",
                stdout=full if condition == STDOUT_FULL else subprocess.PIPE, stderr=subprocess.PIPE, timeout=600,
            )  # fmt: skip
        lines = done.stderr.strip().splitlines()
        seconds = f" ({time.monotonic() - began:.0f} s)"
        found = LINE.fullmatch(lines[-1]) if lines else None
        if done.returncode == 0 and "Traceback" not in done.stderr:
            return "done" + seconds, ""
        if done.returncode == 2 and found and "Traceback" not in done.stderr:
            return found[1] + seconds, lines[-1]
        return "FAULT" + seconds, f"status {done.returncode}\n{done.stderr[-3000:]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], help="commands or conditions with one of these words")
    parser.add_argument("--lines", action="store_true", help="print the lines that commands ended with")
    asked = parser.parse_args()
    conditions = [one for one in CONDITIONS if any(word in one for word in asked.only)] or list(CONDITIONS)
    commands = [one for one in COMMANDS if any(word in one for word in asked.only)] or list(COMMANDS)
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        print("no disks can be mounted here; left out: " + ", ".join(DISKS), file=sys.stderr)
        conditions = [one for one in conditions if one not in DISKS]
    faults = 0
    with tempfile.TemporaryDirectory(prefix="autoseg-given-") as folder:
        prepare(Path(folder))
        print(f"| command | {' | '.join(conditions)} |\n|---|{'---|' * len(conditions)}", flush=True)
        for name in commands:
            cells = []
            for condition in conditions:
                cell, output = run(COMMANDS[name], condition, Path(folder))
                cells.append(cell)
                faults += cell.startswith("FAULT")
                if output and (asked.lines or cell.startswith("FAULT")):
                    print(f"{name}, {condition}: {output}", file=sys.stderr, flush=True)
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
