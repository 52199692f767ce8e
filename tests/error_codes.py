"""What tests ask of a user's error: its kind, its code, and what its line names; the wording is free."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from autoseg.errors import AutosegError


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
