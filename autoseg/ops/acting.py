"""The kind of device whose code path a computation takes.

Memory is predicted on tensors without data. They lie on the CPU: PyTorch makes no backward pass on tensors of a missing
GPU (2.11 with CUDA raises an error, 2.13 without CUDA ends the process). `acting_as` makes them take the GPU's path.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_acted: ContextVar[str | None] = ContextVar("acted", default=None)


def device_type(tensor: Tensor) -> str:
    """`cpu`, `cuda` or `mps`: the tensor's device, or that of `acting_as`."""
    return _acted.get() or tensor.device.type


@contextmanager
def acting_as(kind: str) -> Iterator[None]:
    """A context in which `device_type` returns `kind` for every tensor."""
    token = _acted.set(kind)
    try:
        yield
    finally:
        _acted.reset(token)
