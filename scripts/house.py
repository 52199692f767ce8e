"""How large the packages are: lines, functions, and how long these are, of this checkout or of several side by side.

Usage: python scripts/house.py [CHECKOUT ...]
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Size(NamedTuple):
    """Lines of a package, and the lines of the body of each of its functions, docstrings left out."""

    lines: int
    bodies: list[int]

    def __str__(self) -> str:
        mean, p90, longest = np.mean(self.bodies), np.percentile(self.bodies, 90), max(self.bodies)
        functions = f"{len(self.bodies):>5,} functions of {mean:4.1f} lines (p90 {p90:2.0f}, max {longest})"
        return f"{self.lines:>6,} lines  {functions}"


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """From the first statement behind the docstring to the last line."""
    statements = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return statements[-1].end_lineno - statements[0].lineno + 1 if statements else 0  # type: ignore[operator]


def measure(files: list[Path]) -> Size:
    """The size of some files together."""
    sources = [file.read_text(encoding="utf-8") for file in files]
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [body_lines(node) for text in sources for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    return Size(sum(text.count("\n") for text in sources), bodies or [0])


def packages(checkout: Path) -> dict[str, Size]:
    """Each package of autoseg, the modules beside them, and all together."""
    root = checkout / "autoseg"
    parts = {
        path.name: sorted(path.rglob("*.py")) for path in sorted(root.iterdir()) if (path / "__init__.py").is_file()
    }
    parts["(modules)"] = sorted(root.glob("*.py"))
    parts["all"] = sorted(root.rglob("*.py"))
    return {name: measure(files) for name, files in parts.items()}


def main(checkouts: list[str]) -> None:
    """Print a table a checkout."""
    for checkout in checkouts or ["."]:
        print(checkout)
        for name, size in packages(Path(checkout)).items():
            print(f"  {name:<12}{size}")


if __name__ == "__main__":
    main(sys.argv[1:])
