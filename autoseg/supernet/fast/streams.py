"""Parts of a network that do not depend on each other, on CUDA streams of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

T = TypeVar("T")


def run_side_by_side(tasks: Sequence[Callable[[], T]], streams: Sequence[torch.cuda.Stream]) -> list[T]:
    """The results of some tasks: each on one of the streams, at least as many, or in turn where there are none.

    The streams begin with what the current one has done, which waits for them at the end. Memory that a stream
    allocated is that stream's to use again as soon as no tensor refers to it, though another may still be reading it:
    the caller must keep what crosses streams, inputs and results, until all of them have been joined for the last
    time. That is after the way back: autograd goes it on the streams of the way forward, and takes care of the
    gradients that cross them, but not of what was saved for it.
    """
    if not streams:
        return [task() for task in tasks]
    current, results = torch.cuda.current_stream(), []
    for task, stream in zip(tasks, streams[: len(tasks)], strict=True):
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            results.append(task())
    for stream in streams[: len(tasks)]:
        current.wait_stream(stream)
    return results
