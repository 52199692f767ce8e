"""The errors that a user can cause. The command line prints each as one line and exits with status 2.

Each error has a code that names the kind of mistake: a few words in lower case, joined by hyphens. Messages may change
between versions; codes stay. `DataError("label 47 in a.png ...", code="label-out-of-range")`.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

MOST_LETTERS = 2000
"""Letters of a message, which may quote what the user gave; a list of class names fits."""
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0 and C1 controls, which a terminal obeys; marks that turn the direction of writing; line breaks; half letters."""


def printable(text: object) -> str:
    """The text of anything on one line, in which no letter commands a terminal: controls become `\\x1b`, `\\u202e`."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


class AutosegError(Exception):
    """Something that the user gave is wrong.

    Args:
        message: What is wrong, where, and what to do. The middle is left out beyond `MOST_LETTERS`.
        code: The kind of mistake, such as `label-out-of-range`; it stays the same from version to version.
    """

    def __init__(self, message: str, *, code: str) -> None:
        half = MOST_LETTERS // 2
        short = message if len(message) <= MOST_LETTERS else f"{message[:half]} ... {message[-half:]}"
        super().__init__(printable(short))
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), code=self.code), (str(self),)  # worker processes pass errors on by pickling them


class ConfigError(AutosegError):
    """A setting that is unknown or out of range."""


class SearchSpaceError(AutosegError):
    """A search space that cannot be read or makes no sense."""


class GenotypeError(AutosegError):
    """A genotype that cannot be read, or that its space does not hold."""


class DataError(AutosegError):
    """A data set, image or mask that cannot be used as it is."""


class RunError(AutosegError):
    """A run directory that is missing, incomplete, or already in use."""


class CheckpointError(AutosegError):
    """A checkpoint that cannot be read or belongs to another run or architecture."""


class TableError(AutosegError):
    """A table of trained networks that cannot be read, or that lacks what is asked for."""


class ExportError(AutosegError):
    """An export that cannot be made."""


class PluginError(AutosegError):
    """A plugin that cannot be loaded, or whose records are invalid."""


class Interrupted(Exception):  # noqa: N818 - not an error
    """Raised at a step boundary, after a clean save, when the user asked a run to stop."""
