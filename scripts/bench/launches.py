"""The kernels that a GPU runs in a step, counted on tensors without data: how many, what they move and compute.

An operation is a kernel; some are several in PyTorch's CUDA code, see `LAUNCHES`. Views, and what only makes room, are
none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from autoseg.analysis.memory_tracker import LiveStorages
from autoseg.engine.config import SearchConfig
from autoseg.engine.optim import StepGuard
from autoseg.engine.search import HALVES
from autoseg.planning.memory import (
    CPU,
    STEPS,
    Step,
    follow_streams,
    followed,
    make_state,
    random_batch,
    stand_in_task,
    take_step,
)
from autoseg.supernet.fast.elementwise import Plain
from autoseg.supernet.fast.kernels import KernelChoice
from bench.measure import FORMULAS, tensors_in, touched_bytes

DEPTHWISE, POINTWISE, ATROUS, PREPROCESSING, REST = (
    "depthwise convolutions",
    "grouped 1x1 convolutions",
    "atrous convolutions",
    "other 1x1 convolutions",
    "stem and head convolutions",
)
PRODUCTS, NORM, COPIES, ELEMENTWISE, SUMS, POOLING, OPTIMIZER, OTHER = (
    "matrix products",
    "BatchNorm",
    "copies and fills",
    "elementwise",
    "sums",
    "pooling",
    "optimizers",
    "others",
)
KINDS = (
    DEPTHWISE, POINTWISE, ATROUS, PREPROCESSING, REST, PRODUCTS, NORM, ELEMENTWISE, COPIES, SUMS, POOLING, OPTIMIZER,
    OTHER,
)  # fmt: skip
NAMES = {
    NORM: {"native_batch_norm", "native_batch_norm_backward"},
    PRODUCTS: {"mm", "bmm", "addmm", "baddbmm"},
    COPIES: {
        "cat", "stack", "clone", "copy_", "_to_copy", "constant_pad_nd", "zeros", "zeros_like", "ones_like",
        "new_zeros", "fill_", "zero_",
    },
    ELEMENTWISE: {
        "add", "add_", "sub", "mul", "mul_", "div", "relu", "relu_", "threshold_backward", "addcmul_", "pow", "rsqrt",
    },
    SUMS: {"sum", "mean"},
    POOLING: {
        "avg_pool2d", "avg_pool2d_backward", "max_pool2d_with_indices", "max_pool2d_with_indices_backward",
    },
}  # fmt: skip
"""Kind -> operations; those that are in none are others."""
KIND_OF = {name: kind for kind, names in NAMES.items() for name in names}
NO_KERNEL = {
    "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "_unsafe_view", "promote_types", "device",
    "_local_scalar_dense", "is_same_size", "set_", "resize_", "lift_fresh",
}  # fmt: skip
"""Besides views: what touches no element on the device. Scalars are read of Adam's counts, which are on the CPU."""
LAUNCHES = {
    "native_batch_norm": 3,  # statistics, running statistics, normalising
    "native_batch_norm_backward": 2,  # two sums, the gradient
    "max_pool2d_with_indices_backward": 2,  # zeros first
    "constant_pad_nd": 2,  # the frame, the features
    "nll_loss2d_backward": 2,
}
"""Kernels of an operation that launches several; of a convolution's backward pass, one for each gradient."""
FOREACH_TENSORS, FOREACH_BLOCKS, FOREACH_CHUNK = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}, 320, 65536
"""Of one launch of a `_foreach_` operation: tensors by the number of its lists, blocks; elements of a block."""


class Launch(NamedTuple):
    """One kernel."""

    kind: str
    moved_bytes: int
    """Read and written; what it reads twice counts twice."""
    flops: int
    """Of convolutions and matrix products, two a multiply-add."""
    dtype: torch.dtype
    level: int | None = None
    """Of the cell that it belongs to, whose stream it runs on; None outside cells."""


class Kernels(TorchDispatchMode):
    """Notes the kernels of everything that is computed while it lasts. Enter it within a `FakeTensorMode`."""

    def __init__(self, live: LiveStorages) -> None:
        """live: knows on which stream, that of a level, something is computed (`follow_streams`)."""
        super().__init__()
        self.launches: list[Launch] = []
        self._live, self._held = live, False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        name = function.overloadpacket.__name__
        if not self._held and not function.is_view and name not in NO_KERNEL and function.namespace == "aten":
            found = launches_of(function, name, args, kwargs, result)
            self.launches += [launch._replace(level=self._live.stream) for launch in found]
        return result

    def fused(self, work: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """`work` as one kernel, which reads its arguments once and writes its result."""

        def run(*arguments: Any) -> Tensor:
            self._held = True
            result = work(*arguments)
            self._held = False
            moved = sum(map(touched_bytes, tensors_in((arguments, result))))
            self.launches.append(Launch(ELEMENTWISE, moved, 0, result.dtype, self._live.stream))
            return result

        return run


def launches_of(function: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> list[Launch]:
    """The kernels of one operation."""
    if name == "convolution_backward":
        return _backward_of_convolution(function, args, result)
    read = [value for key, value in kwargs.items() if key != "out"]  # which is the result as well
    tensors = list(tensors_in((args, read, result)))
    if not tensors:
        return []
    formula = FORMULAS.get(function.overloadpacket)
    flops = formula(*args, **kwargs, out_val=result) if formula else 0
    moved = sum(map(touched_bytes, tensors))
    kind, count, dtype = KIND_OF.get(name, OTHER), LAUNCHES.get(name, 1), tensors[0].dtype
    if name == "convolution":
        kind = _kind_of_convolution(args[1], args[5], args[8])
    elif kind == NORM:
        moved += touched_bytes(args[0])  # the statistics read the features before they are normalised
        moved += touched_bytes(args[1]) if name.endswith("backward") else 0
    elif name.startswith("_foreach_"):
        kind, count = OPTIMIZER, _launches_of_foreach(args)
    return [Launch(kind, moved // count, flops // count, dtype)] * count


def _backward_of_convolution(function: Any, args: Sequence[Any], result: Any) -> list[Launch]:
    """The gradients that are asked for, each by a kernel of its own."""
    grad, features, weight = args[:3]
    kind, mask = _kind_of_convolution(weight, args[6], args[9]), args[10]
    flops = FORMULAS[function.overloadpacket](*args, out_val=result) // max(1, sum(mask[:2]))
    read = ((grad, weight), (grad, features), (grad,))
    return [
        Launch(kind, sum(map(touched_bytes, (*of_one, found))), flops if number < 2 else 0, grad.dtype)
        for number, (of_one, found, wanted) in enumerate(zip(read, result, mask, strict=True))
        if wanted
    ]


def _kind_of_convolution(weight: Tensor, dilation: Sequence[int], groups: int) -> str:
    size = weight.shape[-1]
    if groups > 1 and weight.shape[:2] == (groups, 1):
        return DEPTHWISE
    if size == 1:
        return POINTWISE if groups > 1 else PREPROCESSING
    return ATROUS if dilation[0] == 2 else REST


def _launches_of_foreach(args: Sequence[Any]) -> int:
    """As PyTorch's `multi_tensor_apply` cuts the work."""
    lists = [value for value in args if isinstance(value, list | tuple) and value and isinstance(value[0], Tensor)]
    blocks = sum(-(-tensor.numel() // FOREACH_CHUNK) for tensor in lists[0])
    return max(-(-len(lists[0]) // FOREACH_TENSORS[min(len(lists), 5)]), -(-blocks // FOREACH_BLOCKS))


# --- a step of a search -----------------------------------------------------------------------------------------------


def count_steps(config: SearchConfig, kernels: KernelChoice | None = None) -> dict[Step, list[Launch]]:
    """The kernels of a weight step and of an architecture step of a search on a GPU, in their order.

    kernels: other ones than the default. Triton's depthwise kernels read and write what a convolution does, so they
    are counted as one; compiled parts are one kernel each.
    """
    kernels = kernels or KernelChoice()
    device = torch.device("cuda")
    with torch.random.fork_rng([]):
        task = stand_in_task(config, CPU)
    task.scalers |= {half: StepGuard(CPU, scales=False, enabled=False) for half in HALVES}  # there are no data to check
    task.supernet.use_kernels(kernels._replace(depthwise="convolution"))
    with followed(task, device) as (copy, live):
        follow_streams(copy.supernet, live)
        for optimizer in (copy.optimizer, copy.arch_optimizer):
            make_state(optimizer, device)
        batch, found = random_batch(copy), {}
        for step in STEPS:
            counted = Kernels(live)
            with counted, compiled_parts(counted) if kernels.compile else counted_plainly():
                take_step(copy, step, [batch])
            found[step] = counted.launches
    return found


@contextmanager
def counted_plainly() -> Iterator[None]:
    """Every operation is a kernel."""
    yield


@contextmanager
def compiled_parts(counted: Kernels) -> Iterator[None]:
    """The parts of a cell that `torch.compile` makes one kernel of count as one."""
    names = ("sum_operations", "sum_copies", "normalise", "join_gradients")
    parts = {name: staticmethod(counted.fused(getattr(Plain, name))) for name in names}
    with patch.multiple(Plain, **parts):
        yield
