"""The elementwise parts of a reading, each as the calls that PyTorch has for it or as one compiled kernel.

Letters: N images, H height, W width, M channels, G groups, E edges of a reading, C channels of a block, S operations;
P and Z: what lies before the groups in memory and what they hold, N*H*W and C in channels_last memory, N and C*H*W in
channels_first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import _get_current_dispatch_mode

from autoseg.files import one_line
from autoseg.supernet.layout import Layout

aten = torch.ops.aten
_log = logging.getLogger(__name__)


class Plain:
    """One call after the other."""

    @staticmethod
    def sum_operations(stacked: Tensor, layout: Layout, onto: Tensor | None) -> Tensor:
        """stacked: grouped by S, G, E and C -> by G, E and C, added in place to `onto` where that is given."""
        summed = stacked.sum(layout.axis(0))
        return summed if onto is None else onto.add_(summed)

    @staticmethod
    def sum_copies(stacked: Tensor, layout: Layout) -> Tensor:
        """stacked: grouped by S, G, E and C -> by G and C.

        Edge by edge: on a CPU, one sum over both axes takes ten times as long.
        """
        first, *others = stacked.sum(layout.axis(0)).unbind(layout.axis(1))
        total = first + others[0] if others else first.contiguous()
        for other in others[1:]:
            total.add_(other)
        return total

    @staticmethod
    def normalise(features: Tensor, mean: Tensor, variance: Tensor, epsilon: float, layout: Layout) -> Tensor:
        """ReLU of (features - mean) / sqrt(variance + epsilon), (N, M, H, W); mean and variance (M,)."""
        return F.batch_norm(features, mean, variance, None, None, False, 0.0, epsilon).relu_()

    @staticmethod
    def join_gradients(grad: Tensor, activated: Tensor, others: Sequence[Tensor], layout: Layout) -> Tensor:
        """The gradient of a state, from that of its ReLU and from others of itself; all (N, M, H, W)."""
        total: Tensor = aten.threshold_backward(grad, activated, 0)
        for other in others:
            total.add_(other)
        return total


class Compiled(Plain):
    """Each by one kernel that torch.compile makes, for any sizes. Where it can make none, as `Plain`.

    torch.compile makes another kernel for each axis of length 1 and each two of equal length: so axes are merged before
    they come here, and a search needs about eight.
    """

    @staticmethod
    def sum_operations(stacked: Tensor, layout: Layout, onto: Tensor | None) -> Tensor:
        """See `Plain`."""
        edges = layout.axis(1)
        whole = onto is None or onto.stride(edges) == onto.shape[layout.last :].numel()  # not with partial channels
        if _watched() or not whole:
            return Plain.sum_operations(stacked, layout, onto)
        if onto is None:
            return _sum(stacked, layout).view(_without(stacked, layout.axis(0)))
        _SUM_ONTO(_flat(stacked, layout).flatten(3).unbind(1), _flat(onto, layout).flatten(2))
        return onto

    @staticmethod
    def sum_copies(stacked: Tensor, layout: Layout) -> Tensor:
        """See `Plain`."""
        if _watched():
            return Plain.sum_copies(stacked, layout)
        alone = stacked.shape[layout.axis(2)] == 1
        total = _sum(stacked, layout) if alone else _SUM_COPIES(_flat(stacked, layout).unbind(1))
        return total.view(_without(stacked, layout.axis(0), layout.axis(2)))

    @staticmethod
    def normalise(features: Tensor, mean: Tensor, variance: Tensor, epsilon: float, layout: Layout) -> Tensor:
        """See `Plain`."""
        if _watched():
            return Plain.normalise(features, mean, variance, epsilon, layout)
        grouped = layout.split(features, features.shape[1], 1)
        normal = _NORMALISE(_flat(grouped, layout), mean.unsqueeze(1), (variance + epsilon).rsqrt().unsqueeze(1))
        return layout.join(normal.view(grouped.shape))

    @staticmethod
    def join_gradients(grad: Tensor, activated: Tensor, others: Sequence[Tensor], layout: Layout) -> Tensor:
        """See `Plain`."""
        if _watched():
            return Plain.join_gradients(grad, activated, others, layout)
        grouped = layout.split(grad, grad.shape[1])
        rows = [layout.split(other, grad.shape[1]).flatten() for other in others]
        total = _JOIN(grouped.flatten(), layout.split(activated, grad.shape[1]).flatten(), rows)
        return layout.join(total.view(grouped.shape))


def _watched() -> bool:
    """Whether something follows every operation (a count, a prediction of memory): compiled code would hide them."""
    return _get_current_dispatch_mode() is not None


def _flat(grouped: Tensor, layout: Layout) -> Tensor:
    """Grouped -> a view (P, groups, Z)."""
    shape, first, last = grouped.shape, layout.first, layout.last + grouped.dim()
    return grouped.view(shape[:first].numel(), *shape[first:last], shape[last:].numel())


def _sum(stacked: Tensor, layout: Layout) -> Tensor:
    """Grouped by S and any -> their sum, (P, any)."""
    return _SUM(_flat(stacked, layout).flatten(2).unbind(1))


def _without(grouped: Tensor, *axes: int) -> list[int]:
    return [size for axis, size in enumerate(grouped.shape) if axis not in axes]


# --- what is compiled -------------------------------------------------------------------------------------------------


class _Kernel:
    """A function, compiled when it is first called; as it is from the first time on that this fails."""

    def __init__(self, plain: Callable[..., Tensor]) -> None:
        self._plain = plain
        self._call: Callable[..., Tensor] | None = None

    def __call__(self, *arguments: Any) -> Tensor:
        if self._call is None:
            self._call = torch.compile(self._plain, dynamic=True)
        try:
            return self._call(*arguments)
        except Exception as reason:  # whatever the compilers raise; the function itself cannot fail
            said = one_line(str(reason).split("\n\n")[0])
            _log.warning(f"torch.compile failed ({said}); {self._plain.__name__.strip('_')} goes on without")
            self._call = self._plain
        return self._plain(*arguments)


def _sum_operations(parts: Sequence[Tensor]) -> Tensor:
    """S tensors (P, G*E*Z) -> their sum."""
    return sum(parts[1:], parts[0]).contiguous()


def _sum_operations_onto(parts: Sequence[Tensor], onto: Tensor) -> Tensor:
    """S tensors (P, G, E*Z), added in place to another."""
    return onto.add_(sum(parts[1:], parts[0]))


def _sum_copies(parts: Sequence[Tensor]) -> Tensor:
    """S tensors (P, G, E, Z) -> (P, G, Z)."""
    return sum(parts[1:], parts[0]).sum(2)


def _normalise(values: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
    """(P, M, any), and (M, 1) each."""
    return ((values - mean) * inverse).relu().to(values.dtype)


def _join_gradients(grad: Tensor, activated: Tensor, others: Sequence[Tensor]) -> Tensor:
    """(any,) each."""
    return sum(others, grad.where(activated > 0, 0))


_SUM, _SUM_ONTO, _SUM_COPIES = _Kernel(_sum_operations), _Kernel(_sum_operations_onto), _Kernel(_sum_copies)
_NORMALISE, _JOIN = _Kernel(_normalise), _Kernel(_join_gradients)
