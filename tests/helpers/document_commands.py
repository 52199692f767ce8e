"""The commands that a document tells its reader to run, and running them with fewer steps."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from autoseg.cli.main import run
from helpers.plugins import nothing_stays

FEWER = {
    "search": [
        "search.epochs=2", "search.arch_start_epoch=1", "search.max_steps_per_epoch=1", "search.batch_size=2",
        "search.crop=[32, 32]", "search.val_images=2",
    ],
    "retrain": [
        "retrain.epochs=2", "retrain.max_steps_per_epoch=1", "retrain.batch_size=2", "retrain.crop=[32, 32]",
        "retrain.val_images=2",
    ],
    "plan": ["space.network.layers=2", "space.network.strides=[2, 4]", "space.cell.operations=[skip_connect]"],
}  # fmt: skip
"""Settings that make a command quick, by its name."""
SMALLER_TINY = ["space.network.layers=3", "space.cell.blocks=2"]
"""Settings that make the space `tiny` smaller still."""


def blocks(document: Path, language: str) -> list[str]:
    """The code blocks of a language. Blocks of `sh` and without a language are not run."""
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(document: Path) -> list[list[str]]:
    """The arguments of each `autoseg` command in a document's bash blocks, and each `python -c` with its code.

    A command may go on after a backslash.
    """
    lines = "".join(blocks(document, "bash")).replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True) for line in lines]
    kept = [words for words in found if words[:1] == ["autoseg"] or words[:2] == ["python", "-c"]]
    return [words[1:] if words[0] == "autoseg" else words for words in kept]


def run_all(all_commands: list[list[str]], replacements: Mapping[str, str]) -> list[str]:
    """Run each with its words replaced and fewer steps; returns the names of the commands."""
    pattern = "|".join(map(re.escape, replacements))
    with nothing_stays():  # of the plugins that a document shows
        for words in all_commands:
            if replacements:
                words = [re.sub(pattern, lambda found: replacements[found[0]], word) for word in words]
            if words[0] == "python":
                exec(words[2], {})
                continue
            settings = FEWER.get(words[0], []) + (SMALLER_TINY if words[0] == "search" and "tiny" in words else [])
            fewer = [word for setting in settings for word in ("--set", setting)]
            assert run([*words, *fewer]) == 0, " ".join(words)
    return [words[0] for words in all_commands]
