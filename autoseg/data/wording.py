"""Words in messages."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """`1 image`, `2,975 images`, `19 classes`, `3 boxes`."""
    ending = "" if number == 1 else "es" if noun.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{number:,} {noun}{ending}"
