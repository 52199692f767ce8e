"""The YAML files that ship with autoseg and are found by their names: search spaces, genotypes, known data sets.

This module imports neither torch nor other modules of autoseg, so that settings can check such names.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path


def library(folder: str) -> Path:
    """The folder `search_spaces` or `data_sets`: inside the package if installed from a wheel, else beside it."""
    package = Path(str(resources.files("autoseg")))
    installed = package / folder
    return installed if installed.is_dir() else package.parent / folder


def names_in(folder: Path) -> list[str]:
    """The names of the YAML files in a folder, in alphabetical order."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def hint(name: str, known: Sequence[str], suffix: str = "", otherwise: str = "") -> str:
    """Suggest the known name nearest to an unknown one; without one, `otherwise`, or all known names and `suffix`."""
    if near := difflib.get_close_matches(name, known, n=1):
        return f"did you mean '{near[0]}'?"
    return otherwise or f"known: {', '.join(known)}{suffix}"
