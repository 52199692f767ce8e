"""What tests ask of a user's error: its kind, its code, and what its line names; the wording is free."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from autoseg.errors import AutosegError

LINE = re.compile(r"error: ([^\n]+?)(?: \[([a-z0-9]+(?:-[a-z0-9]+)+)\])?\n?")


@contextmanager
def raises_code(kind: type[AutosegError], code: str, *named: object) -> Iterator[pytest.ExceptionInfo[AutosegError]]:
    """An error of exactly this kind with this code, in one line that has each of `named` in it."""
    with pytest.raises(kind) as caught:
        yield caught
    message = str(caught.value)
    assert type(caught.value) is kind
    assert caught.value.code == code, f"{caught.value.code}: {message}"
    assert "\n" not in message
    missing = [text for text in map(str, named) if text not in message]
    assert not missing, f"{missing} not in: {message}"


def check_line(line: str, code: str, *named: object) -> None:
    """The line with which a command fails: it ends with this code ("" for none) and has each of `named` before it."""
    found = LINE.fullmatch(line)
    assert found is not None, line
    message, its_code = found[1], found[2] or ""
    assert its_code == code, line
    missing = [text for text in map(str, named) if text not in message]
    assert not missing, f"{missing} not in: {message}"
