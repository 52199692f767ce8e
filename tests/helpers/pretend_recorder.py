"""CUDA graphs without a GPU, and a watch over what a step moves between devices."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autoseg.engine.cuda_graphs import CudaGraphs
from autoseg.engine.search import HALVES, Gradients, Half
from autoseg.supernet import Supernet


class StandIn(CudaGraphs):
    """Records on a CPU: recording leaves no values, and replaying does the work again and touches what it wrote."""

    streams: Sequence[Any] = ()

    def __init__(self, supernet: Supernet) -> None:
        self.supernet = supernet
        self.runs = self.records = self.replays = 0

    def run(self, work: Callable[[], Any]) -> Any:
        self.runs += 1
        return work()

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        self.records += 1
        before = copy.deepcopy(self.supernet.state_dict())
        with torch.random.fork_rng([]):
            loss = work()
        self.supernet.load_state_dict(before)
        trained = [parameter for parameter in self.supernet.parameters() if parameter.requires_grad]
        written = [loss, *(parameter.grad for parameter in trained)]
        for tensor in written:
            tensor.fill_(torch.nan)

        def replay() -> None:
            self.replays += 1
            flags = [parameter.requires_grad for parameter in self.supernet.parameters()]
            grads = [parameter.grad for parameter in self.supernet.parameters()]
            results = [work(), *(parameter.grad for parameter in trained)]
            for tensor, result in zip(written, results, strict=True):
                tensor.copy_(result)
            for parameter, flag, grad in zip(self.supernet.parameters(), flags, grads, strict=True):
                parameter.requires_grad_(flag)
                parameter.grad = grad

        return loss, replay


def freeze_other_half(gradients: Gradients, half: Half) -> None:
    """As `SearchTask.step` does before it takes the gradients of a half."""
    gradients.freeze(HALVES[half == "weights"])


class Watch(TorchDispatchMode):
    """Collects the operations that would move data between a GPU, here the meta device, and the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: set[str] = set()
        self.mixed: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        devices = {leaf.device.type for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)}
        if devices != {"cpu"}:  # what stays on the CPU waits for nothing
            self.operations.add(func.overloadpacket.__name__)
        if "cpu" in devices and len(devices) > 1:
            self.mixed.add(str(func))
        return result
