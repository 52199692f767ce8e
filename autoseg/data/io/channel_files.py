"""Images that several files make up, one for each channel or for some channels each.

Such an image goes by one path, as an image of one file does; only reading it, and asking when it changed, look at its
files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.files import file_state

if TYPE_CHECKING:
    _Base = Path
else:
    _Base = type(Path())  # before Python 3.12, Path itself cannot be derived from

_WORD = re.compile(r"[^\W_]+|[\W_]")


class ChannelFiles(_Base):
    """A path that stands for several files: `case_{0000,0001}.png`. `of` makes one."""

    files: tuple[Path, ...] = ()
    """The files, in the order of their channels."""

    @classmethod
    def of(cls, files: Sequence[Path]) -> ChannelFiles:
        """The path that stands for `files`."""
        words = [_WORD.findall(file.as_posix()) for file in files]
        first = shared_length(words)
        last = shared_length(way[first:][::-1] for way in words)
        parts = ",".join("".join(way[first : len(way) - last]) for way in words)
        ends = "".join(words[0][:first]), "".join(words[0][len(words[0]) - last :])
        path = cls(f"{ends[0]}{{{parts}}}{ends[1]}")
        path.files = tuple(files)
        return path

    def __reduce__(self) -> tuple[object, ...]:
        return (ChannelFiles.of, (self.files,)) if self.files else (Path, (str(self),))

    def with_segments(self, *parts: str | os.PathLike[str]) -> Path:
        """Paths made from this one, such as its parent, stand for themselves."""
        return Path(*parts)


def files_of(path: Path) -> tuple[Path, ...]:
    """The files of an image, in the order of their channels: `path` itself unless it stands for several."""
    return (isinstance(path, ChannelFiles) and path.files) or (path,)


def state_of(path: Path) -> str:
    """Size in bytes and time of the last change in nanoseconds of each file, as `file_state`."""
    return " ".join(f"{size} {changed}" for size, changed in map(file_state, files_of(path)))


def shared_length(sequences: Iterable[Sequence[str]]) -> int:
    """Length of the beginning that all sequences share; 0 if there are fewer than two."""
    alike = takewhile(lambda column: len(column) > 1 and len(set(column)) == 1, zip(*sequences, strict=False))
    return sum(1 for _ in alike)
