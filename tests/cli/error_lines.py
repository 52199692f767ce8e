"""What tests ask of the line with which a command fails: its code, and what it names; the wording is free."""

from __future__ import annotations

import re

LINE = re.compile(r"error: ([^\n]+?)(?: \[([a-z0-9]+(?:-[a-z0-9]+)+)\])?\n?")


def check_line(line: str, code: str, *named: object) -> None:
    """One line, which ends with this code ("" for none) and has each of `named` before it."""
    found = LINE.fullmatch(line)
    assert found is not None, line
    message, its_code = found[1], found[2] or ""
    assert its_code == code, line
    missing = [text for text in map(str, named) if text not in message]
    assert not missing, f"{missing} not in: {message}"
