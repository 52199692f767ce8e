"""A device mps:0 that computes on the CPU and has no more than Apple's: no float64, no uint16, no pinned memory.

A tensor on it holds one of the CPU. Where an operation would leave float64 on it, that fails as it does there; so does
one that reads tensors of both devices.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CPU, MPS = torch.device("cpu"), torch.device("mps", 0)
MISSING = (torch.float64, torch.complex128, torch.uint16, torch.uint32, torch.uint64)
DEVICE = Tensor.device.__get__  # type: ignore[attr-defined]
TO_OTHERS = (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default)
"""Operations that may read one device and write the other."""


class OnMps(Tensor):
    """A tensor that says that it lies on mps; PyTorch's own code takes it for one of the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnMps:
        if held.dtype in MISSING:
            raise TypeError(f"Cannot convert a MPS Tensor to {held.dtype}, which the MPS framework does not have")
        made: OnMps = Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device=CPU
        )
        made.held = held
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == DEVICE:
            return MPS if isinstance(args[0], OnMps) else CPU
        if func is Tensor.cpu:
            return Fetch.apply(args[0])
        if func is Tensor.to:
            return moved(*args, **kwargs)
        if func is Tensor.numpy:
            raise TypeError("can't convert mps:0 device type tensor to numpy. Use Tensor.cpu() first.")
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.__reduce_ex__(protocol)

    def __deepcopy__(self, memo: Any) -> Tensor:
        copy = OnMps(self.held.clone())
        return torch.nn.Parameter(copy, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copy


class Fetch(torch.autograd.Function):
    """From mps to the CPU."""

    @staticmethod
    def forward(ctx: Any, tensor: OnMps) -> Tensor:
        return tensor.held.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return OnMps(grad)


def moved(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """`Tensor.to` where one of the tensors lies on mps."""
    found = dict(kwargs)
    for value in args:
        if isinstance(value, Tensor):
            found |= {"device": value.device, "dtype": value.dtype}
        elif isinstance(value, torch.device | str):
            found["device"] = torch.device(value)
        elif isinstance(value, torch.dtype):
            found["dtype"] = value
    target = torch.device(found.pop("device", None) or tensor.device)
    if isinstance(tensor, OnMps) and target.type == "cpu":
        tensor = Fetch.apply(tensor)
    elif not isinstance(tensor, OnMps):
        found["device"] = target
    with torch._C.DisableTorchFunctionSubclass():
        return Tensor.to(tensor, **found)


class Numbered(TorchFunctionMode):
    """Gives `mps` its number, without which PyTorch asks for Apple's, and lets `torch.tensor` make tensors there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(numbered, (args, kwargs or {}))
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == MPS:
            return func(*args, **{**kwargs, "device": CPU}).to(MPS)
        return func(*args, **kwargs)


def numbered(leaf: Any) -> Any:
    return MPS if isinstance(leaf, torch.device) and leaf.type == "mps" else leaf


class Mode(TorchDispatchMode):
    """Lets functions make tensors on mps."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation of PyTorch, done on the CPU."""
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = any(isinstance(tensor, OnMps) for tensor in given)
    if not there and kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]).type == "mps"
    if "device" in kwargs:
        kwargs = {**kwargs, "device": CPU}
    if there and kwargs.pop("pin_memory", False):
        raise RuntimeError("Pinned memory is not for mps")
    if func is torch.ops.aten.copy_.default:
        there = isinstance(args[0], OnMps)
    elif func not in TO_OTHERS and there and any(is_foreign(tensor) for tensor in given):
        raise RuntimeError(f"Expected all tensors to be on the same device, but found mps:0 and cpu in {func}")
    result = func(*tree_map(held, args), **tree_map(held, kwargs))
    known = {id(tensor.held): tensor for tensor in given if isinstance(tensor, OnMps)}

    def wrapped(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or isinstance(leaf, OnMps):
            return leaf
        return known.get(id(leaf)) if id(leaf) in known else OnMps(leaf) if there else leaf

    return tree_map(wrapped, result)


def is_foreign(tensor: Tensor) -> bool:
    """Is it of the CPU, and neither a number nor the zeros that autograd makes where there is no gradient?"""
    return not isinstance(tensor, OnMps) and tensor.dim() > 0 and bool(tensor.any())


def held(leaf: Any) -> Any:
    return leaf.held if isinstance(leaf, OnMps) else leaf


@contextmanager
def pretended_mps() -> Iterator[torch.device]:
    """In here there is a device mps:0."""
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with Mode(), Numbered():
            yield MPS
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)
