"""What the stages share: arguments with one-line errors, and results that are on disk as soon as they are there."""

from __future__ import annotations

import argparse
import json
import os
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from autoseg.files import write_atomically, write_text

ROOT = Path(__file__).resolve().parents[2]
PACKED = ROOT / ".gpu"
"""What `pack.sh` lays out: `wheels` and `camvid`."""
MOST_FILES = 8
"""In the output folder after a call, whatever stages it ran."""
MOST_BYTES = 16 * 2**20
"""Of a file there."""
EARLIER = "earlier.zip"
"""The files of earlier stages, where they and the new ones would be too many."""


class Parser(argparse.ArgumentParser):
    """Its errors are one line, with exit status 2."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments."""
        self.exit(2, f"error: {message}; see --help\n")


def stage_parser(stage: str, seconds: float, description: str) -> Parser:
    """The arguments that all stages have. seconds: the stage's limit where none is given."""
    parser = Parser(
        prog=f"scripts/gpu/run.sh {stage}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--seconds", type=positive, default=seconds, help=f"hard limit of the stage (default {seconds:g})"
    )
    parser.add_argument("--dry", action="store_true", help="everything in miniature, on the CPU")
    return parser


def positive(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"should be a number above 0, not '{text}'")
    return value


class Output:
    """The output folder: the one that the variable OUT names, else runs/gpu."""

    def __init__(self, names: Iterable[str]) -> None:
        """names: the files that the stage will write; what an earlier run of it left is removed.

        Raises: OSError: the folder cannot be made.
        """
        self.folder = Path(os.environ.get("OUT") or ROOT / "runs" / "gpu")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.names = list(names)
        for name in self.names:
            self.path(name).unlink(missing_ok=True)
        make_room(self.folder, len(self.names))

    def path(self, name: str) -> Path:
        """The place of a file."""
        return self.folder / name

    def json(self, name: str, data: Any) -> None:
        """Write a JSON file anew; a reader sees the old one or the new one, never a half."""
        write_text(self.path(name), json.dumps(data, indent=1) + "\n")

    def text(self, name: str, text: str) -> None:
        """Write a text file anew."""
        write_text(self.path(name), text)


def make_room(folder: Path, wanted: int) -> None:
    """Put the files that are there into `earlier.zip` where they and `wanted` new ones are more than MOST_FILES."""
    there = sorted(path for path in folder.rglob("*") if path.is_file())
    if len(there) + wanted <= MOST_FILES:
        return
    zipped = folder / EARLIER

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            if zipped.is_file():
                with zipfile.ZipFile(zipped) as old:
                    for name in old.namelist():
                        archive.writestr(name, old.read(name))
            for path in there:
                if path != zipped:
                    archive.write(path, path.relative_to(folder).as_posix())

    write_atomically(zipped, write)
    for path in there:
        if path != zipped:
            path.unlink()


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A markdown table; an empty string without rows."""
    lines = [f"| {' | '.join(_cell(value) for value in row)} |" for row in rows]
    if not lines:
        return ""
    return "\n".join([f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *lines]) + "\n"


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.replace("|", "\\|").split())


def refuse(message: object) -> int:
    """Print one line on what is wrong, and return the exit status."""
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    return 2


VERSIONS = (
    ("PyTorch", "torch"), ("CUDA", "torch_cuda"), ("cuDNN", "cudnn"), ("Triton", "triton"), ("Python", "python"),
)  # fmt: skip


def in_one_line(environment: Mapping[str, Any]) -> str:
    """Card, driver and versions, from `gpu.environment.describe`."""
    card = environment.get("card") or {}
    parts = [str(environment.get("device", "no CUDA GPU"))]
    parts += [f"driver {card['driver_version']}"] if "driver_version" in card else []
    parts += [f"{name} {environment[key]}" for name, key in VERSIONS if environment.get(key) is not None]
    return ", ".join(parts)
