# ruff: noqa: D102 - the docstrings of `Plain` hold for `Compiled`
"""The elementwise parts of mixed operations, each as plain PyTorch calls or as one compiled kernel.

Letters as in `mixed_op.py`, but S operations; P elements before the groups in memory, Z in each: N*H*W and C in
channels_last, N and C*H*W in channels_first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import _get_current_dispatch_mode

from autoseg.files import one_line
from autoseg.supernet.fast.channel_groups import Layout

aten = torch.ops.aten
_log, _torch_log = logging.getLogger(__name__), logging.getLogger("torch._inductor.scheduler")


class Plain:
    """Plain PyTorch calls."""

    @staticmethod
    def sum_operations(stacked: Tensor, layout: Layout, onto: Tensor | None) -> Tensor:
        """stacked: grouped by S, G, E and C -> by G, E and C, added in place to `onto` where that is given."""
        summed = stacked.sum(layout.axis(0))
        return summed if onto is None else onto.add_(summed)

    @staticmethod
    def sum_copies(stacked: Tensor, layout: Layout) -> Tensor:
        """stacked: by S, G, E and C -> by G and C, edge by edge: on a CPU one sum over both takes ten times as long."""
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
    """One kernel of torch.compile for each part, for any sizes; falls back to `Plain` if compilation fails.

    torch.compile makes another kernel for each axis of length 1 and for each two lengths that happen to be equal. So
    axes are merged before the call, and a search needs about eight kernels.
    """

    @staticmethod
    def sum_operations(stacked: Tensor, layout: Layout, onto: Tensor | None) -> Tensor:
        if onto is not None and onto.stride(layout.axis(1)) != onto.shape[layout.last :].numel():
            # partial channels: edges and channels do not merge
            return Plain.sum_operations(stacked, layout, onto)
        if onto is None:
            return _sum(stacked, layout)
        _SUM_ONTO(_static(_flat(stacked, layout).flatten(3)), _bare(_flat(onto, layout).flatten(2)))
        return onto

    @staticmethod
    def sum_copies(stacked: Tensor, layout: Layout) -> Tensor:
        edges = layout.axis(2)
        if stacked.shape[edges] == 1:
            return _sum(stacked.squeeze(edges), layout)
        return _SUM_COPIES(_static(_flat(stacked, layout))).view(_without(stacked, layout.axis(0), edges))

    @staticmethod
    def normalise(features: Tensor, mean: Tensor, variance: Tensor, epsilon: float, layout: Layout) -> Tensor:
        grouped = layout.split(features, features.shape[1], 1)
        normal = _NORMALISE(_bare(_flat(grouped, layout)), mean, (variance + epsilon).rsqrt())
        return layout.join(normal.view(grouped.shape))

    @staticmethod
    def join_gradients(grad: Tensor, activated: Tensor, others: Sequence[Tensor], layout: Layout) -> Tensor:
        grouped, *rest = (layout.split(each, grad.shape[1]) for each in (grad, activated, *others))
        total = _JOIN(_bare(grouped.flatten()), *(_bare(each.flatten()) for each in rest))
        return layout.join(total.view(grouped.shape))


def elementwise(compiled: bool) -> type[Plain]:
    """`Plain` also if something follows every operation (a count, a memory prediction): compiled code would hide it."""
    return Compiled if compiled and _get_current_dispatch_mode() is None else Plain


def _sum(stacked: Tensor, layout: Layout) -> Tensor:
    """Grouped by S and any -> by any."""
    summed = _SUM(_static(_flat(stacked, layout).flatten(2)))
    return summed.view(_without(stacked, layout.axis(0)))


def _flat(grouped: Tensor, layout: Layout) -> Tensor:
    """Grouped -> a view (P, groups, Z)."""
    shape, first, last = grouped.shape, layout.first, layout.last + grouped.dim()
    return grouped.view(shape[:first].numel(), *shape[first:last], shape[last:].numel())


def _without(grouped: Tensor, *axes: int) -> list[int]:
    return [size for axis, size in enumerate(grouped.shape) if axis not in axes]


def _bare(tensor: Tensor) -> Tensor:
    """The same without its base: torch.compile would guard on the sizes of a view's base."""
    return tensor.detach()


def _static(stacked: Tensor) -> Tensor:
    """(P, S, ...) for a kernel with a fixed S, which is the same throughout a space."""
    stacked = _bare(stacked)
    torch._dynamo.mark_static(stacked, 1)
    return stacked


# --- compiled functions -----------------------------------------------------------------------------------------------


class _Kernel:
    """A function, compiled at its first call; after a failure, the plain function."""

    def __init__(self, plain: Callable[..., Tensor]) -> None:
        self._plain = plain
        self._call: Callable[..., Tensor] | None = None

    def __call__(self, *tensors: Tensor) -> Tensor:
        if self._call is None:
            self._call = torch.compile(self._plain, dynamic=True)
        try:
            with _quiet():
                return self._call(*tensors)
        except Exception as reason:  # compilers raise anything; the function itself cannot fail
            said = one_line(str(reason).split("\n\n")[0])
            _log.warning(f"torch.compile failed ({said}); {self._plain.__name__.strip('_')} goes on without")
            self._call = self._plain
        return self._plain(*tensors)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without PyTorch's long message about a failed compilation; one line is enough."""
    before, _torch_log.disabled = _torch_log.disabled, True
    try:
        yield
    finally:
        _torch_log.disabled = before


def _sum_operations(stacked: Tensor) -> Tensor:
    """(P, S, any) -> (P, any)."""
    return stacked.sum(1)


def _sum_operations_onto(stacked: Tensor, onto: Tensor) -> Tensor:
    """(P, S, G, E*Z), summed and added in place to (P, G, E*Z)."""
    return onto.add_(stacked.sum(1))


def _sum_copies(stacked: Tensor) -> Tensor:
    """(P, S, G, E, Z) -> (P, G, Z)."""
    return stacked.sum((1, 3))


def _normalise(values: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
    """(P, M, any), and (M,) each."""
    return ((values - mean.unsqueeze(1)) * inverse.unsqueeze(1)).relu().to(values.dtype)


def _join_gradients(grad: Tensor, activated: Tensor, *others: Tensor) -> Tensor:
    """(any,) each."""
    return sum(others, grad.where(activated > 0, 0))


_SUM, _SUM_ONTO, _SUM_COPIES = _Kernel(_sum_operations), _Kernel(_sum_operations_onto), _Kernel(_sum_copies)
_NORMALISE, _JOIN = _Kernel(_normalise), _Kernel(_join_gradients)
