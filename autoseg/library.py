"""The YAML files that ship with autoseg and are found by their names: search spaces, genotypes, known data sets.

It needs no torch and no other module, so that settings can name what a layer above reads.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path


def library(folder: str) -> Path:
    """`search_spaces` or `data_sets`: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(str(resources.files("autoseg")))
    installed = package / folder
    return installed if installed.is_dir() else package.parent / folder


def names_in(folder: Path) -> list[str]:
    """The names of the YAML files in a folder, in the order of the alphabet."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def hint(name: str, known: Sequence[str], otherwise: str = "") -> str:
    """What to say of an unknown name: the one that is near, or else all that are known, and `otherwise`."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}{otherwise}"
