"""What a card's tests may do, without a card: `scripts/gpu/run.sh check --dry` runs them and knows what must come out.

They are no tests of autoseg, and lie where pytest does not look.
"""

from __future__ import annotations

import os
import signal
import time

import pytest

pytestmark = pytest.mark.gpu


def test_that_passes() -> None:
    assert os.getpid() > 0


def test_that_fails() -> None:
    expected = 4.0
    assert expected == 4.5, "a failure that must be recorded with its traceback"


def test_that_kills_the_process() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def test_after_it() -> None:
    """Runs in a new process."""


def test_that_hangs() -> None:
    time.sleep(600)


@pytest.mark.parametrize("which", ["first", "second"])
def test_that_breaks_the_device(which: str) -> None:
    raise RuntimeError(f"CUDA error: an illegal memory access was encountered ({which} stand-in)")


def test_that_is_last() -> None:
    """Runs before the second of the ones above, which cost a process each."""
