"""Independent parts of a network on separate CUDA streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

T = TypeVar("T")


def run_side_by_side(tasks: Sequence[Callable[[], T]], streams: Sequence[torch.cuda.Stream]) -> list[T]:
    """The results of some tasks, each on its own stream, or one after the other without streams.

    The streams start after the current stream's work, and the current stream waits for them at the end. There must be
    at least as many streams as tasks. A stream reuses its memory as soon as no tensor refers to it, even if another
    stream still reads it. So the caller must keep all inputs and results until the streams are joined after the
    backward pass. Autograd runs that on the streams of the forward pass; it protects the gradients that cross streams,
    but not the saved tensors.
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
