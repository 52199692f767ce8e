"""The operations without weights of an edge group, pooled once a state; outside autograd (see `mixed_op.py`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.supernet.fast.channel_groups import LAYOUTS, Layout
from autoseg.supernet.fast.weights import FREE, fused_form, of_kind

aten = torch.ops.aten


class _Skip:
    """The identity."""

    def __init__(self, kernel_size: int) -> None:
        self.size, self.padding = kernel_size, kernel_size // 2

    def forward(self, state: Tensor) -> Tensor:
        return state

    def backward(self, grad: Tensor, state: Tensor, again: bool) -> tuple[Tensor, Tensor | None]:
        """The gradient of the state, and the result of `forward` if `again` asks for it or it is at hand."""
        return grad, state


class _AvgPool(_Skip):
    """At the border, the mean of the existing pixels."""

    def forward(self, state: Tensor) -> Tensor:
        return F.avg_pool2d(state, self.size, 1, self.padding, count_include_pad=False)

    def backward(self, grad: Tensor, state: Tensor, again: bool) -> tuple[Tensor, Tensor | None]:
        size, padding = [self.size] * 2, [self.padding] * 2
        of_state = aten.avg_pool2d_backward(grad, state, size, [1, 1], padding, False, False, None)
        return of_state, self.forward(state) if again else None


class _MaxPool(_Skip):
    def forward(self, state: Tensor) -> Tensor:
        return F.max_pool2d(state, self.size, 1, self.padding)

    def backward(self, grad: Tensor, state: Tensor, again: bool) -> tuple[Tensor, Tensor | None]:
        size, padding = [self.size] * 2, [self.padding] * 2
        result, where = aten.max_pool2d_with_indices(state, size, [1, 1], padding)
        of_state = aten.max_pool2d_with_indices_backward(grad, state, size, [1, 1], padding, [1, 1], False, where)
        return of_state, result


def free_operation(name: str) -> _Skip:
    """An operation without weights, which runs once for all edges that read a state."""
    form = fused_form(name)
    return {"skip": _Skip, "avg_pool": _AvgPool, "max_pool": _MaxPool}[form.kind](form.kernel_size)


class FreeOperations:
    """sum over the operations o without weights of alpha_o * O_o(state).

    The factors are one (E, F) matrix if all groups read the same edges, else a (G, E, 1) tensor for each operation.
    """

    def __init__(self, groups: int, edges: int, channels: int, operations: Sequence[str], shared: bool) -> None:
        """shared: all groups read the same edges."""
        self.groups, self.edges, self.channels, self.shared = groups, edges, channels, shared
        self.layout: Layout = LAYOUTS["channels_last"]
        self.operations = [free_operation(name) for name in of_kind(operations, *FREE)]

    def run(self, state: Tensor, total: Tensor | None, factors: Sequence[Tensor]) -> Tensor:
        """state: (N, G*C, H, W) -> grouped by G, E and C, added in place to `total` if given."""
        results = [operation.forward(state) for operation in self.operations]
        if self.shared and results:
            product = self._product(factors[0], results)
            return product.contiguous() if total is None else total.add_(product)
        for result, factor in zip(results, factors, strict=True):
            result, factor = self.layout.split(result, self.groups, 1, self.channels), self.layout.spread(factor)
            total = result * factor if total is None else total.addcmul_(result, factor)
        assert total is not None  # a search space has an operation other than none
        return total

    def backward(
        self, grad: Tensor, state: Tensor, factors: Sequence[Tensor], of_factors: bool
    ) -> tuple[list[Tensor], tuple[Tensor | None, ...]]:
        """Gradients of the state, one per operation, and of the factors or None. grad: grouped by G, E and C."""
        if not self.operations:
            return [], ()
        layout, place = self.layout, self.layout.axis(0)
        rest = (*grad.shape[:place], *grad.shape[place + 2 :])
        grads = self._as_rows(grad)
        matrix = factors[0].expand(self.groups, -1, -1) if self.shared else torch.cat(list(factors), 2)
        of_results = torch.bmm(matrix.transpose(1, 2), grads).view(self.groups, -1, *rest)
        of_results = of_results.movedim(0, layout.axis(1)).contiguous()  # operations, then grouped by G and C
        parts = zip(self.operations, of_results, strict=True)
        found = [operation.backward(layout.join(part), state, of_factors) for operation, part in parts]
        of_state = [pair[0] for pair in found]
        if not of_factors:
            return of_state, (None,) * len(factors)
        results = [layout.split(again, self.groups, self.channels) for _, again in found if again is not None]
        stacked = self._as_rows(torch.stack(results, layout.axis(1)))
        product = torch.bmm(grads, stacked.transpose(1, 2))
        return of_state, (product.sum(0),) if self.shared else torch.split(product, 1, 2)

    def _as_rows(self, grouped: Tensor) -> Tensor:
        """Grouped by G, any and C -> (G, any, pixels and channels)."""
        first, second = self.layout.axis(0), self.layout.axis(1)
        return grouped.movedim((first, second), (0, 1)).reshape(self.groups, grouped.shape[second], -1)

    def _product(self, matrix: Tensor, results: Sequence[Tensor]) -> Tensor:
        """matrix: (E, F); each result (N, G*C, H, W) -> grouped by G, E and C, a permuted view."""
        stacked = self.layout.arrange(torch.cat(list(results)))
        product = matrix @ self.layout.as_matrix(stacked, len(results))
        return self.layout.of_matrix(product, results[0].shape, self.groups)
