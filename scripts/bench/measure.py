"""Figures of one step: operations, bytes, multiply-adds, seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import conv_flop_count, flop_registry

from autoseg.analysis.memory_tracker import LiveStorages, SavedStorages
from bench.contenders import Contender, Half


def _convolution_backward(grad: Tensor, images: Tensor, weight: Tensor, *rest: Any, **_: Any) -> int:
    """Each of the two gradients costs what the forward pass did; PyTorch's own formula forgets the groups.

    rest: bias sizes, stride, padding, dilation, transposed, output padding, groups, output mask.
    """
    forward = conv_flop_count(list(images.shape), list(weight.shape), list(grad.shape), transposed=rest[4])
    return int(sum(rest[7][:2])) * forward


FORMULAS = {**flop_registry, torch.ops.aten.convolution_backward: _convolution_backward}


class Watch(LiveStorages):
    """Counts what reaches the dispatcher's end: aten operations, their FLOPs, bytes read and written, bytes alive.

    `flops`: of convolutions and matrix products as they are run, two a multiply-add; computed twice, they count twice.
    `peak_bytes`: the most bytes of tensors that were alive at once, those alive at the start included. What a kernel
    allocates and frees within itself is not seen, nor what an allocator rounds up.
    `moved_bytes`: of each operation that is no view, its arguments and results, each once.
    """

    def __init__(self, device: torch.device, alive: Iterable[Tensor]) -> None:
        """alive: the tensors of before that count."""
        super().__init__(device)
        self.operations = self.convolutions = self.flops = self.moved_bytes = 0
        self.add(alive)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = super().__torch_dispatch__(function, types, args, kwargs)
        self.operations += 1
        self.convolutions += "convolution" in function.__name__
        if formula := FORMULAS.get(function.overloadpacket):
            self.flops += formula(*args, **kwargs, out_val=result)
        if not function.is_view and "empty" not in function.__name__:
            self.moved_bytes += sum(map(touched_bytes, tensors_in((args, tuple(kwargs.values()), result))))
        return result


def tensors_in(values: Any) -> Iterator[Tensor]:
    """The tensors among the arguments and results of an operation."""
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def touched_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor's elements; what an expansion repeats counts once."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def held_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the distinct storages behind some tensors."""
    return sum({tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}.values())


def saved_bytes(contender: Contender, half: Half) -> int:
    """Bytes that a forward pass keeps for the backward one: distinct storages, without parameters and buffers."""
    contender.train(half)
    network = contender.network
    saved = SavedStorages((*network.parameters(), *network.buffers()))
    with saved:
        contender.logits()
    return saved.total_bytes


def observe(contender: Contender, half: Half) -> dict[str, int]:
    """One watched step: operations of its forward pass, FLOPs, bytes moved, peak memory (on a GPU by its allocator)."""
    contender.train(half)
    with Watch(contender.device, contender.held()) as watch:
        logits = contender.logits()
        forward = {"operations": watch.operations, "convolutions": watch.convolutions}
        contender.update(half, logits)
    return {
        **forward,
        "flops": watch.flops,
        "moved_bytes": watch.moved_bytes,
        "peak_bytes": _allocated_peak(contender, half) if contender.device.type == "cuda" else watch.peak_bytes,
    }


def _allocated_peak(contender: Contender, half: Half) -> int:
    """The CUDA allocator's peak in a step, without what others have there (other contenders, the libraries)."""
    torch.cuda.synchronize()
    of_others = torch.cuda.memory_allocated() - held_bytes(contender.held())
    torch.cuda.reset_peak_memory_stats()
    contender.step(half)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - of_others


def timed(work: Callable[[], None], device: torch.device) -> tuple[float, float]:
    """Seconds by the clock, and CPU-seconds of the process (user and system, all threads), of one call."""
    if device.type != "cuda":
        clock, cpu = time.perf_counter(), time.process_time()
        work()
        return time.perf_counter() - clock, time.process_time() - cpu
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    cpu = time.process_time()
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000, time.process_time() - cpu
