"""Work on every sample in several threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


def in_threads(work: Callable[[int], object], total: int, progress: Progress | None = None) -> None:
    """Call `work(index)` for 0..total-1 in several threads, and `progress(done, total)` after each.

    Raises: the exception of the lowest index that fails; later work is cancelled.
    """
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))

    def silent(index: int) -> None:
        work(index)  # drop the result at once: all results together may exceed the memory

    try:
        for done, _ in enumerate(pool.map(silent, range(total)), start=1):
            if progress is not None:
                progress(done, total)
    finally:
        pool.shutdown(cancel_futures=True)
