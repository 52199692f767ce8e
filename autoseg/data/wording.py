"""Words in messages."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, noun: str) -> str:
    """`1 image`, `2,975 images`, `19 classes`, `3 boxes`."""
    ending = "" if number == 1 else "es" if noun.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{number:,} {noun}{ending}"


def first_of(words: Sequence[str], most: int) -> str:
    """`a, b, c`, or `a, b, ...` if there are more than `most`."""
    return ", ".join(words[:most]) + ", ..." * (len(words) > most)
