"""Cut the power at every write of a run, in every order that a disk may have, and go on from what is left.

Usage: python scripts/power_cuts.py [--kind search|retrain] [--most 400]

A disk keeps what was flushed (fsync). Of anything later it may keep all, nothing, names without contents or contents
without names. Each such state of the run directory is built, the run is resumed in it, and its end is compared with
that of the whole run. The exit status is 1 if any end differs, or a resumption fails. States that are alike count once.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from helpers.tiny_runs import SETTINGS, difference, write_config

from autoseg.cli.main import run as command

Names = dict[str, int]
"""Path in the run directory -> number of the file."""
State = dict[str, bytes]
"""Path in the run directory -> contents."""
FOLDER = -1
WAYS = ("nothing", "names alone", "contents alone", "all")
"""What a disk has written of all that was not flushed."""


class Disk:
    """What a run has written, and what of it would survive a power cut."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.numbers: dict[tuple[int, int], int] = {}
        self.held: list[int] = []
        """Open files: a number of a file that is removed is then not given to another."""
        self.flushed: dict[int, bytes] = {}
        self.flushed_names: Names = {}
        self.states: dict[str, tuple[str, State]] = {}
        """Digest -> what happened last and how the disk has kept it, and the state; each state once."""

    def names(self) -> Names:
        found: Names = {}
        for path in sorted(self.root.rglob("*")):
            if path.is_dir():
                found[f"{path.relative_to(self.root)}/"] = FOLDER
            elif path.is_file() and "tensorboard" not in path.parts and path.suffix != ".lock":
                status = path.stat()
                key = status.st_dev, status.st_ino
                if key not in self.numbers:
                    self.numbers[key] = len(self.numbers)
                    self.held.append(os.open(path, os.O_RDONLY))
                found[str(path.relative_to(self.root))] = self.numbers[key]
        return found

    def note(self, event: str) -> None:
        """Keep each state in which a power cut now may leave the disk."""
        now = self.names()
        contents = {number: (self.root / name).read_bytes() for name, number in now.items() if number != FOLDER}
        for way in WAYS:
            names = now if way in ("names alone", "all") else self.flushed_names
            state = {
                name: (contents.get(number, b"") if way in ("contents alone", "all") else self.flushed.get(number, b""))
                for name, number in names.items()
                if number != FOLDER and {f"{folder}/" for folder in Path(name).parents if folder.name} <= names.keys()
                if way != "contents alone" or number in contents
            }
            text = repr(sorted((name, hashlib.sha256(content).hexdigest()) for name, content in state.items()))
            self.states.setdefault(hashlib.sha256(text.encode()).hexdigest(), (f"{event}, {way} kept", state))

    def flush(self, path: Path) -> None:
        """A file or a folder is on the disk."""
        now = self.names()
        if path.is_dir():
            place = "" if path == self.root else f"{path.relative_to(self.root)}/"
            self.flushed_names = {name: one for name, one in self.flushed_names.items() if not _is_in(name, place)}
            self.flushed_names |= {name: one for name, one in now.items() if _is_in(name, place)}
        elif path.is_relative_to(self.root) and path.exists():
            self.flushed[now[str(path.relative_to(self.root))]] = path.read_bytes()


def _is_in(name: str, place: str) -> bool:
    return name.startswith(place) and "/" not in name[len(place) : -1]


@contextlib.contextmanager
def watched(disk: Disk) -> Iterator[None]:
    """Note the state of the disk before and after each flush, and after each change of a name."""
    fsync, is_on = os.fsync, True

    def noted_fsync(file: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{file}"))
        is_own = path.is_relative_to(disk.root)
        if is_own:
            disk.note(f"before {path.name} is flushed")
        fsync(file)
        if is_own:
            disk.flush(path)
            disk.note(f"after {path.name} is flushed")

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if is_on and event in ("os.rename", "os.link", "os.remove", "os.truncate"):
            path = str(arguments[0])
            if path.startswith(str(disk.root)) and "tensorboard" not in path:
                disk.note(f"before {event} of {Path(path).name}")

    sys.addaudithook(audit)
    os.fsync = noted_fsync
    try:
        yield
    finally:
        os.fsync, is_on = fsync, False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("search", "retrain"), default="search")
    parser.add_argument("--most", type=int, default=400, help="states to try, spread over all")
    options = parser.parse_args()
    kind, failed = options.kind, 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve()
        config = write_config(folder / "settings.yaml", SETTINGS[kind], {kind: {"epochs": 2}})
        disk = Disk(folder / "whole")
        with watched(disk):
            _call(kind, "--config", str(config), "--out", str(folder / "whole"))
        states = list(disk.states.values())
        states = states[:: max(1, -(-len(states) // options.most))]
        for number, (event, state) in enumerate(states):
            out = folder / "cut"
            shutil.rmtree(out, ignore_errors=True)
            for name, content in state.items():
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                (out / name).write_bytes(content)
            status, said = _call(kind, "--config", str(config), "--out", str(out), "--resume")
            found = difference(folder / "whole", out) if status == 0 else f"status {status}: {said}"
            failed += bool(found)
            if found:
                print(f"state {number}, {event}: {found[:200]}", flush=True)
        counts = f"{len(states) - failed} of {len(states)} states ({len(disk.states)} in all)"
        print(f"{kind}: {counts} end equal to the whole run")
    raise SystemExit(failed > 0)


def _call(*arguments: str) -> tuple[int, str]:
    """The status of a command, and the last line of its errors."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
        status = command(list(arguments))
    return status, (errors.getvalue().splitlines() or [""])[-1]


if __name__ == "__main__":
    main()
