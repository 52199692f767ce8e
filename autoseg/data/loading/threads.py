"""Some work on every sample, in several threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


def in_threads(work: Callable[[int], object], total: int, progress: Progress | None = None) -> None:
    """`work(index)` for 0..total-1, some at a time. What it raises first in this order is raised, and the rest left.

    `progress(done, total)` is called after each.
    """
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))

    def silent(index: int) -> None:
        work(index)  # results are dropped at once: together they may be larger than memory

    try:
        for done, _ in enumerate(pool.map(silent, range(total)), start=1):
            if progress is not None:
                progress(done, total)
    finally:
        pool.shutdown(cancel_futures=True)
