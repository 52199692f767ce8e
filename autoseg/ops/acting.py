"""The device whose way a computation takes, where CPUs and GPUs take different ones.

Memory is predicted on tensors without data. They lie on the CPU, since PyTorch makes no backward pass on those of a GPU
that is not there: 2.11 with CUDA raises an error, 2.13 without CUDA ends the process. `acting_as` makes them take the
GPU's way all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_acted: ContextVar[str | None] = ContextVar("acted", default=None)


def device_type(tensor: Tensor) -> str:
    """`cpu`, `cuda` or `mps`: where a tensor lies, or what `acting_as` says instead."""
    return _acted.get() or tensor.device.type


@contextmanager
def acting_as(kind: str) -> Iterator[None]:
    """While it lasts, `device_type` says `kind` of every tensor."""
    token = _acted.set(kind)
    try:
        yield
    finally:
        _acted.reset(token)
