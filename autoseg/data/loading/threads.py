"""Work on every sample in several threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Progress = Callable[[int, int], None]
"""Called with (done, total)."""
Result = TypeVar("Result")


def in_threads(work: Callable[[int], Result], total: int, progress: Progress | None = None) -> list[Result]:
    """`work(index)` of 0..total-1, done in several threads; calls `progress(done, total)` after each.

    All results are kept, so `work` must not return whole images. Raises: the exception of the lowest index that fails;
    later work is cancelled. After Ctrl-C, work under way is not waited for.
    """
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    results: list[Result] = []
    try:
        for result in pool.map(work, range(total)):
            results.append(result)
            if progress is not None:
                progress(len(results), total)
    except BaseException as reason:
        pool.shutdown(wait=isinstance(reason, Exception), cancel_futures=True)
        raise
    pool.shutdown()
    return results
