"""All operations on all edges that read the same states, forward and backward, evaluated together and exactly.

The sums and gradients are those of one module an edge, operation and arrow (Auto-DeepLab, eq. 3); only the number of
calls and the tensors kept for the backward pass differ.

Letters: G groups (copies of a state, one for each arrow into the node), E edges that read a state, C channels of a
block, B blocks, M stacked channels, k (the greatest) kernel size; S, D and A operations of a kind (`weights.Kernels`),
F operations without weights.
A feature is an (N, G*E*C, H, W) tensor: groups and edges are groups of channels. BatchNorm then keeps separate
statistics for every arrow and edge, and one convolution serves them all. A tensor with groups and edges as axes is
"grouped" by them: (N, H, W, G, E, C), or (N, G, E, C, H, W) in channels_first memory (`channel_groups.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.supernet.fast.channel_groups import LaidOut
from autoseg.supernet.fast.convolutions import Conv, Depthwise, Product
from autoseg.supernet.fast.elementwise import elementwise
from autoseg.supernet.fast.kernels import KernelChoice
from autoseg.supernet.fast.parameter_free_ops import FreeOperations
from autoseg.supernet.fast.weights import EdgeGroup, EdgeGroupWeights, Factors, Kernels

BN_EPS, BN_MOMENTUM = 1e-5, 0.1
RATE = 2
"""Dilation of the atrous and the dilated separable convolutions."""

aten = torch.ops.aten


@contextmanager
def frozen_statistics() -> Iterator[None]:
    """Within it, forward passes in training do not change the running statistics of `StackedNorm`."""
    StackedNorm.frozen = True
    try:
        yield
    finally:
        StackedNorm.frozen = False


def checkpoint_contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """For a checkpointed cell and its second evaluation, which must not update the running statistics again."""
    return nullcontext(), frozen_statistics()


class NormInput(NamedTuple):
    """What a `StackedNorm` normalised, (N, M, H, W), and the batch's mean and 1 / deviation, (M,) each."""

    features: Any = None
    mean: Any = None
    inverse: Any = None


class StackedNorm(nn.Module):
    """BatchNorm of stacked channels, each times a factor (alpha); not affine, as in DARTS (Auto-DeepLab is silent)."""

    running_mean: Tensor
    running_var: Tensor
    frozen = False

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, features: Tensor) -> Tensor:
        """(N, channels, H, W) -> the same, normalised."""
        return self.normalise(features)[0]

    def normalise(self, features: Tensor, factors: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(N, channels, H, W) normalised and times factors (channels,), and the batch's mean and 1 / deviation."""
        momentum = 0.0 if self.frozen else BN_MOMENTUM
        return torch.native_batch_norm(
            features, factors, None, self.running_mean, self.running_var, self.training, momentum, BN_EPS
        )

    def moments(self, taken: NormInput) -> tuple[Tensor, Tensor]:
        """Mean and variance that `normalise` took, (channels,) each."""
        if not self.training:
            return self.running_mean, self.running_var
        return taken.mean, taken.inverse.pow(-2) - BN_EPS

    def backward(
        self, grad: Tensor, taken: NormInput, factors: Tensor | None, of_factors: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Gradients of features and factors."""
        grad_features, grad_factors, _ = aten.native_batch_norm_backward(
            grad, taken.features, factors, self.running_mean, self.running_var, taken.mean, taken.inverse,
            self.training, BN_EPS, [True, of_factors, False],
        )  # fmt: skip
        return grad_features, grad_factors if of_factors else None


# --- one group of edges -----------------------------------------------------------------------------------------------


class Kept(NamedTuple):
    """The inputs of the two BatchNorms, for the backward pass; empty without such an operation, or if not needed."""

    inner: NormInput = NormInput()
    outer: NormInput = NormInput()


class EdgeTensors(NamedTuple):
    """The weights and factors of an edge group, or their gradients: of the same shapes, None if not requested."""

    weights: EdgeGroupWeights
    atrous: Sequence[Any]
    """By kernel size: a tensor with groups and edges repeated; in the backward pass one for each run of groups."""
    factors: Factors


class Needs(NamedTuple):
    """The requested gradients: those of alpha in an architecture step, those of the weights in a weight step."""

    weights: bool
    alpha: bool


class MixedEdges(LaidOut):
    """Every edge of one group: sum over the operations o of alpha_o * O_o(state) (Auto-DeepLab, eq. 3).

    Outside autograd: `run` is the forward pass. `backward` recomputes what is cheap (ReLU, BatchNorm, pooling, copies,
    depthwise convolutions) from the inputs of the BatchNorms, which are kept.
    """

    def __init__(self, group: EdgeGroup, channels: int, operations: Sequence[str]) -> None:
        super().__init__()
        self.groups, self.edges, self.channels = len(group.groups), len(group.groups[0]), channels
        self.kernels = Kernels.of(operations)
        self.free = FreeOperations(self.groups, self.edges, channels, operations, len(set(group.groups)) == 1)
        self.width = self.groups * self.edges * channels
        separable = len(self.kernels.separable)
        self.inner_norm = StackedNorm(separable * self.width) if separable else None
        self.norm = StackedNorm(self.kernels.weighted * self.width) if self.kernels.weighted else None
        self.use_kernels(KernelChoice())

    def use_kernels(self, choice: KernelChoice) -> None:
        """Compute with these kernels from now on."""
        super().use_kernels(choice)
        self.free.layout = self.layout
        self._separable = Depthwise(self.kernels.separable, 1, choice.depthwise, self.layout)
        self._dilated = Depthwise(self.kernels.dilated, RATE, choice.depthwise, self.layout)
        self._atrous = Conv(RATE, self.groups, self.layout)
        self._product = choice.pointwise == "product"
        self._compile = choice.compile

    def run(self, state: Tensor, tensors: EdgeTensors, onto: Tensor | None = None) -> tuple[Tensor, Kept]:
        """state: (N, G*C, H, W) -> grouped by G, E and C, added in place to `onto` if given."""
        weights, atrous, factors = tensors
        kept, total = Kept(), onto
        if self.norm is not None:
            activated = F.relu(state)
            parts = [self._atrous(activated, weight) for weight in atrous]
            if self.kernels.depthwise:
                last, kept = self._depthwise(activated, weights)
                parts.insert(0, self._pointwise(self.kernels.depthwise)(last, given(weights.pointwise2)))
            outer = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
            normal, mean, inverse = self.norm.normalise(outer, factors.weighted)
            kept = kept._replace(outer=NormInput(outer, mean, inverse))
            normal = self._split(normal, self.kernels.weighted)
            total = elementwise(self._compile).sum_operations(normal, self.layout, total)
        return self.free.run(state, total, factors.free), kept

    def backward(
        self, grad: Tensor, state: Tensor, kept: Kept, tensors: EdgeTensors, needs: Needs
    ) -> tuple[Tensor, EdgeTensors]:
        """The gradients of the state and of `tensors`, from that of the result of `run`, grouped."""
        weights, atrous, factors = tensors
        grad_weights, grad_weighted = EdgeGroupWeights(), None
        grad_state: Tensor | None = None
        grad_atrous: list[list[Tensor | None]] = []
        if self.norm is not None:
            activated = F.relu(state)
            stacked = torch.cat([self.layout.join(grad.contiguous())] * self.kernels.weighted, 1)
            stacked, grad_weighted = self.norm.backward(stacked, kept.outer, factors.weighted, needs.alpha)
            depthwise = self.kernels.depthwise * self.width
            of_last, *of_atrous = torch.split(stacked, [depthwise, *[self.width] * len(atrous)], 1)
            if depthwise:
                grad_state, grad_weights = self._depthwise_backward(of_last, activated, kept, weights, needs)
            if of_atrous:
                of_activated, grad_atrous = self._atrous_backward(of_atrous, activated, atrous, needs)
                grad_state = of_activated if grad_state is None else grad_state.add_(of_activated)
        of_state, grad_free = self.free.backward(grad, state, factors.free, needs.alpha)
        if grad_state is not None:
            grad_state = elementwise(self._compile).join_gradients(grad_state, activated, of_state, self.layout)
        else:
            grad_state, *others = of_state  # a search space has an operation other than none
            for other in others:
                grad_state.add_(other)
        return grad_state, EdgeTensors(grad_weights, grad_atrous, Factors(grad_weighted, grad_free))

    def _atrous_backward(
        self, grads: Sequence[Tensor], activated: Tensor, weights: Sequence[Sequence[Tensor]], needs: Needs
    ) -> tuple[Tensor, list[list[Tensor | None]]]:
        """Gradients of `activated` and, by kernel size, of the weights of each run of groups.

        The groups of a run are stacked along the batch, so weights need no copies and gradients no sum afterwards.
        """
        conv, runs = Conv(RATE, 1, self.layout), len(weights[0])
        states, parts = activated.chunk(self.groups, 1), [grad.chunk(self.groups, 1) for grad in grads]
        of_states: list[Tensor] = []
        of_weights: list[list[Tensor | None]] = [[] for _ in weights]
        for number in range(runs):
            run = slice(number, number + 1 if number + 1 < runs else self.groups)
            state, total = torch.cat(states[run]), None
            for part, of_size, found in zip(parts, weights, of_weights, strict=True):
                of_state, of_weight = conv.backward(torch.cat(part[run]), state, of_size[number], needs.weights)
                total = of_state if total is None else total.add_(of_state)
                found.append(of_weight)
            of_states += given(total).chunk(len(states[run]))
        return torch.cat(of_states, 1), of_weights

    # --- [ReLU, depthwise, 1x1, BN] twice, and its dilated form that has it once, up to the last 1x1 ------------------

    def _depthwise(self, activated: Tensor, weights: EdgeGroupWeights) -> tuple[Tensor, Kept]:
        """Input of the last 1x1 convolutions, ((S+D)*G*E*C channels)."""
        kept, parts = Kept(), []
        if self.inner_norm is not None:
            features = self._separable(self._copies(activated, self._separable.sizes), given(weights.depthwise1))
            inner = self._pointwise(len(self._separable.sizes))(features, given(weights.pointwise1))
            normal, mean, inverse = self.inner_norm.normalise(inner)
            parts.append(self._separable(normal.relu_(), given(weights.depthwise2)))
            kept = Kept(NormInput(inner, mean, inverse))
        if self._dilated.sizes:
            parts.append(self._dilated(self._copies(activated, self._dilated.sizes), given(weights.dilated)))
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0], kept

    def _depthwise_backward(
        self, grad: Tensor, activated: Tensor, kept: Kept, weights: EdgeGroupWeights, needs: Needs
    ) -> tuple[Tensor, EdgeGroupWeights]:
        """Gradient of `activated` and of the weights."""
        read, parts = [], []
        if self.inner_norm is not None:
            moments = self.inner_norm.moments(kept.inner)
            read.append(elementwise(self._compile).normalise(kept.inner.features, *moments, BN_EPS, self.layout))
            parts.append((self._separable, given(weights.depthwise2)))
        if self._dilated.sizes:
            read.append(self._copies(activated, self._dilated.sizes))
            parts.append((self._dilated, given(weights.dilated)))
        last = grad  # without weight gradients, any tensor of its shape will do
        if needs.weights:
            made = [conv(one, weight) for one, (conv, weight) in zip(read, parts, strict=True)]
            last = torch.cat(made, 1) if len(made) > 1 else made[0]
        pointwise = self._pointwise(self.kernels.depthwise)
        grad, pointwise2 = pointwise.backward(grad, last, given(weights.pointwise2), needs.weights)
        grads = torch.split(grad, [one.shape[1] for one in read], 1)
        convs = zip(grads, read, parts, strict=True)
        found = [conv.backward(of_one, one, weight, needs.weights) for of_one, one, (conv, weight) in convs]
        total, of_dilated = None, None
        if self._dilated.sizes:
            of_copies, of_dilated = found[-1]
            total = self._of_copies(of_copies, self._dilated.sizes)
        result = EdgeGroupWeights(None, None, None, of_dilated, pointwise2)
        if self.inner_norm is not None:
            grad = aten.threshold_backward(found[0][0], read[0], 0)
            grad, _ = self.inner_norm.backward(grad, kept.inner, None, False)
            part, depthwise1, pointwise1 = self._first_backward(grad, activated, weights, needs)
            total = part if total is None else total.add_(part)
            result = EdgeGroupWeights(depthwise1, pointwise1, found[0][1], of_dilated, pointwise2)
        return self.layout.join(given(total)), result

    def _first_backward(
        self, grad: Tensor, activated: Tensor, weights: EdgeGroupWeights, needs: Needs
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Gradients of `activated` (by G and C) and of the first depthwise and 1x1 weights."""
        copies = self._copies(activated, self._separable.sizes) if needs.weights else grad  # any tensor of its shape
        before = self._separable(copies, given(weights.depthwise1)) if needs.weights else grad
        pointwise = self._pointwise(len(self._separable.sizes))
        grad, pointwise1 = pointwise.backward(grad, before, given(weights.pointwise1), needs.weights)
        grad, depthwise1 = self._separable.backward(grad, copies, given(weights.depthwise1), needs.weights)
        return self._of_copies(grad, self._separable.sizes), depthwise1, pointwise1

    def _copies(self, activated: Tensor, sizes: Sequence[int]) -> Tensor:
        """One copy of its group for each kernel size and edge: (N, sizes*G*E*C, H, W)."""
        parts = activated.chunk(self.groups, 1) if self.groups > 1 and self.edges > 1 else (activated,)
        return torch.cat([part for part in parts for _ in range(self.edges)] * len(sizes), 1)

    def _of_copies(self, grad: Tensor, sizes: Sequence[int]) -> Tensor:
        """The backward pass of `_copies`, grouped by G and C."""
        return elementwise(self._compile).sum_copies(self._split(grad, len(sizes)), self.layout)

    def _split(self, features: Tensor, operations: int) -> Tensor:
        return self.layout.split(features, operations, self.groups, self.edges, self.channels)

    def _pointwise(self, operations: int) -> Conv | Product:
        groups = operations * self.groups * self.edges
        return Product(groups, self.layout) if self._product else Conv(1, groups, self.layout)


T = TypeVar("T")


def given(value: T | None) -> T:
    """A value that cannot be None here."""
    assert value is not None
    return value
