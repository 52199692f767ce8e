"""Supernets of small spaces, and what tests compare of them: logits, gradients, losses, numbers of operations."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from autoseg.losses.losses import SegmentationLoss
from autoseg.space.schema import SearchSpace
from autoseg.supernet import Supernet, build_supernet


def supernet_of(space: SearchSpace, num_classes: int = 3, seed: int = 0) -> Supernet:
    """In float64, with architecture logits that are far apart."""
    torch.manual_seed(seed)
    return build_supernet(space, num_classes, arch_init_std=1.0).double()


def results(supernet: Supernet, images: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits, and the gradient of every parameter that wants one."""
    supernet.zero_grad(set_to_none=True)
    logits = supernet(images)
    direction = torch.randn(logits.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (logits * direction.to(logits)).sum().backward()
    return logits.detach(), {name: p.grad for name, p in supernet.named_parameters() if p.grad is not None}


def loss_of(supernet: Supernet, images: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """The cross-entropy with random masks."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, supernet.num_classes, (len(images), *images.shape[2:]), generator=generator)
    return SegmentationLoss(255)(supernet(images), masks.to(images.device))


class OperationCounter(TorchDispatchMode):
    """Counts the aten operations that reach the dispatcher's end: the kernels and views of a forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def count_operations(network: nn.Module, images: torch.Tensor) -> int:
    with OperationCounter() as counter:
        network(images)
    return counter.count
