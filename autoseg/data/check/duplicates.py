"""Finding files with the same bytes."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

HEAD_BYTES = 2**16


def same_files(paths: Sequence[Path]) -> list[list[int]]:
    """Sorted groups of two or more indices into `paths` whose files hold the same bytes.

    Files of one length are compared by a hash of their first 64 KiB, and if it is equal, of all bytes. Files that are
    empty or cannot be read are in no group.
    """
    groups: list[list[int]] = [list(range(len(paths)))]
    for key in (_length, _head, _whole):
        groups = [part for group in groups for part in _parted(group, paths, key)]
    return sorted(groups)


def _parted(group: Iterable[int], paths: Sequence[Path], key: Callable[[Path], Hashable]) -> list[list[int]]:
    """Split a group by `key`; parts of one file are dropped."""
    parts: dict[Hashable, list[int]] = {}
    for index in group:
        with contextlib.suppress(OSError):
            if found := key(paths[index]):
                parts.setdefault(found, []).append(index)
    return [part for part in parts.values() if len(part) > 1]


def _length(path: Path) -> int:
    return path.stat().st_size


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.blake2b(file.read(HEAD_BYTES)).digest()


def _whole(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
