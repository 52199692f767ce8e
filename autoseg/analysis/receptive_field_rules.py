"""What the results of PyTorch's operations see of the image, by what their inputs see: a rule for each operation.

Pointwise operations (PyTorch marks them) need no rule. Of what is not known here, a result sees all that its inputs
do: too much, never too little.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from autoseg.analysis.receptive_field import (
    Span,
    concatenate,
    nothing,
    regroup,
    shares,
    transposed_window,
    window,
)

aten = torch.ops.aten


class Call:
    """One operation: its arguments by name, defaults included, what they see, and the shapes of its results."""

    def __init__(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any, spans: Any) -> None:
        names = [argument.name for argument in func._schema.arguments]
        defaults = {each.name: each.default_value for each in func._schema.arguments if each.has_default_value()}
        self._arguments = {**defaults, **dict(zip(names, args, strict=False)), **kwargs}
        self._spans: Mapping[Tensor, Span] = spans
        self.shapes = [tuple(leaf.shape) for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]

    def __getitem__(self, name: str) -> Any:
        return self._arguments[name]

    def get(self, *names: str) -> Any:
        """The first argument that is there under one of these names."""
        return next((self._arguments[name] for name in names if name in self._arguments), None)

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors among the arguments."""
        return [leaf for leaf in tree_leaves(self._arguments) if isinstance(leaf, Tensor)]

    def span(self, tensor: Tensor) -> Span:
        """What a tensor sees; weights see nothing."""
        return self._spans.get(tensor) or nothing(tensor.dim())

    @property
    def first(self) -> Span:
        """What the first tensor sees."""
        return self.span(self.tensors[0])


def results(call: Call, func: Any) -> list[Span]:
    """What each result of an operation sees; a rule gives all of them, or the first alone."""
    rule = RULES.get(func.overloadpacket, _pointwise if torch.Tag.pointwise in func.tags else _unknown)
    found = rule(call)
    return found if isinstance(found, list) else [found]


Rule = Callable[[Call], "Span | list[Span]"]


def _pointwise(call: Call) -> Span:
    return reduce(Span.union, map(call.span, call.tensors), nothing(len(call.shapes[0])))


def _same(call: Call) -> Span:
    return call.first


def _unknown(call: Call) -> list[Span]:
    seen = [call.span(tensor).over().reshape(()) for tensor in call.tensors]
    everything = reduce(Span.union, seen, nothing(0))
    return [everything.reshape([1] * len(shape)) for shape in call.shapes]


def _no_result(call: Call) -> list[Span]:
    return []


# --- the same elements in other places --------------------------------------------------------------------------------


def _view(call: Call) -> Span:
    return regroup(call.first, call.tensors[0].shape, call.shapes[0])


def _permute(call: Call) -> Span:
    return call.first.transpose(call["dims"])


def _transpose(call: Call) -> Span:
    axes = list(range(call.tensors[0].dim()))
    one, other = call.get("dim0") or 0, 1 if call.get("dim1") is None else call["dim1"]  # `t` names none
    axes[one], axes[other] = axes[other], axes[one]
    return call.first.transpose(axes)


def _expand(call: Call) -> Span:
    return call.first.reshape([1] * (len(call.shapes[0]) - len(call.first.shape)) + list(call.first.shape))


def _slice(call: Call) -> Span:
    return call.first.part(call["dim"], slice(call["start"], call["end"], call["step"]))


def _select(call: Call) -> Span:
    axis, index = call["dim"] % call.tensors[0].dim(), call["index"] % call.tensors[0].shape[call["dim"]]
    picked = call.first.part(axis, slice(index, index + 1))
    return picked.reshape([length for number, length in enumerate(picked.shape) if number != axis])


def _split(call: Call) -> list[Span]:
    axis, parts, start = call["dim"], [], 0
    for shape in call.shapes:
        parts.append(call.first.part(axis, slice(start, start + shape[axis])))
        start += shape[axis]
    return parts


def _unbind(call: Call) -> list[Span]:
    axis = call["dim"] % call.tensors[0].dim()
    parts = [call.first.part(axis, slice(index, index + 1)) for index in range(len(call.shapes))]
    return [part.reshape([*part.shape[:axis], *part.shape[axis + 1 :]]) for part in parts]


def _cat(call: Call) -> Span:
    """Channels see, each, what any of them does; other dimensions keep what each part sees."""
    tensors = [tensor for tensor in call.tensors if tensor.dim() == len(call.shapes[0])]  # PyTorch skips empty ones
    spans, axis = [call.span(tensor) for tensor in tensors], call["dim"] % len(call.shapes[0])
    if axis == 1 and all(span.shape[1] == 1 for span in spans):
        return reduce(Span.union, spans)
    return concatenate(spans, axis, [tensor.shape[axis] for tensor in tensors])


def _stack(call: Call) -> Span:
    axis = call["dim"] % len(call.shapes[0])
    spans = [call.span(tensor) for tensor in call.tensors]
    layers = [span.reshape([*span.shape[:axis], 1, *span.shape[axis:]]) for span in spans]
    return concatenate(layers, axis, [1] * len(layers))


def _pad(call: Call) -> Span:
    """With a constant; a negative padding cuts."""
    span, pad = call.first, call["pad"]
    for number in range(len(pad) // 2):
        axis, before, after = len(span.shape) - 1 - number, pad[2 * number], pad[2 * number + 1]
        length = call.tensors[0].shape[axis]
        span = span.gather(axis, window(length, length + before + after, 1, 1, before, 1))
    return span


def _pixel_shuffle(call: Call) -> Span:
    factor, span = call["upscale_factor"], call.first
    return span.over([len(span.shape) - 3]).repeat(-2, factor).repeat(-1, factor)


def _pixel_unshuffle(call: Call) -> Span:
    span, factor = call.first, call["downscale_factor"]
    for axis in (-2, -1):
        length = call.tensors[0].shape[axis]
        span = span.gather(axis % len(span.shape), window(length, length // factor, factor, factor, 0, 1))
    return span


# --- windows ----------------------------------------------------------------------------------------------------------


def _per_axis(values: int | Sequence[int], axes: int) -> list[int]:
    listed = [values] if isinstance(values, int) else list(values)
    return listed * axes if len(listed) == 1 else listed


def _slide(call: Call, kernel: Sequence[int], stride: Any, padding: Any, rate: Any, transposed: bool = False) -> Span:
    """A window over the last dimensions, one for each length of `kernel`; channels are mixed."""
    axes, before, after = len(kernel), call.tensors[0].shape, call.shapes[0]
    index = transposed_window if transposed else window
    settings = zip(kernel, *(_per_axis(each, axes) for each in (stride, padding, rate)), strict=True)
    span, first = call.first.over([len(before) - axes - 1]), len(before) - axes
    for axis, (taps, step, around, apart) in enumerate(settings, start=first):
        span = span.gather(axis, index(before[axis], after[axis], taps, step, around, apart))
    return span


def _convolution(call: Call) -> Span:
    kernel = call["weight"].shape[2:]
    return _slide(call, kernel, call["stride"], call["padding"], call["dilation"], call["transposed"])


def _pool(call: Call) -> Span:
    kernel = _per_axis(call["kernel_size"], 2)
    return _slide(call, kernel, call["stride"] or kernel, call["padding"], call.get("dilation") or 1)


def _adaptive_pool(call: Call) -> Span:
    span, before, after = call.first, call.tensors[0].shape, call.shapes[0]
    for axis in (len(before) - 2, len(before) - 1):
        span = span.gather(axis, shares(before[axis], after[axis]))
    return span


def _nearest(call: Call) -> Span:
    span, before, after = call.first, call.tensors[0].shape, call.shapes[0]
    for axis in range(2, len(before)):
        span = span.gather(axis, (np.arange(after[axis]) * before[axis] // after[axis])[:, None])
    return span


def _interpolate(call: Call) -> Span:
    span, after = call.first, call.shapes[0]
    for axis in range(2, len(after)):
        span = span.interpolate(axis, after[axis])
    return span


def _sample(call: Call) -> Span:
    """Sampling at places that may be predicted: the nearest to the result's, and what the places, (N, H, W, 2), see."""
    places = call.span(call["grid"]).over([3])
    return _nearest(call).union(places.transpose((0, 3, 1, 2)))


# --- sums -------------------------------------------------------------------------------------------------------------


def _reduce(call: Call) -> Span:
    """Along some dimensions, or all, which are kept or not."""
    dimensions = call.get("dim")
    given = [dimensions] if isinstance(dimensions, int) else dimensions
    axes = [axis % call.tensors[0].dim() for axis in given or range(call.tensors[0].dim())]
    span = call.first.over(axes)
    if len(call.shapes[0]) == len(span.shape):
        return span
    return span.reshape([length for axis, length in enumerate(span.shape) if axis not in axes])


def _along(call: Call) -> Span:
    """What mixes all elements along one dimension and keeps the shape."""
    return call.first.over([call["dim"]])


def _matmul(call: Call) -> Span:
    """Of the last two tensors, (..., I, K) and (..., K, J); what is added before them, if anything, as well."""
    *added, left, right = [call.span(tensor) for tensor in call.tensors]
    return reduce(Span.union, added, left.over([-1]).union(right.over([-2])))


RULES: dict[Any, Rule] = {
    **dict.fromkeys(
        (
            aten.native_batch_norm, aten._native_batch_norm_legit_no_training, aten.cudnn_batch_norm,
            aten.miopen_batch_norm, aten.clone, aten.copy, aten._to_copy, aten.detach, aten.alias, aten.lift_fresh,
            aten.native_dropout,
        ),
        _same,
    ),
    **dict.fromkeys(
        (
            aten.zeros_like, aten.ones_like, aten.full_like, aten.empty_like, aten.new_zeros, aten.new_ones,
            aten.new_full, aten.new_empty, aten.rand_like, aten.randn_like,
        ),
        _no_result,
    ),
    **dict.fromkeys((aten.view, aten._unsafe_view, aten.reshape, aten.unsqueeze, aten.squeeze), _view),
    aten.permute: _permute,
    **dict.fromkeys((aten.transpose, aten.t), _transpose),
    aten.expand: _expand,
    aten.slice: _slice,
    aten.select: _select,
    **dict.fromkeys((aten.split, aten.split_with_sizes), _split),
    aten.unbind: _unbind,
    aten.cat: _cat,
    aten.stack: _stack,
    aten.constant_pad_nd: _pad,
    aten.pixel_shuffle: _pixel_shuffle,
    aten.pixel_unshuffle: _pixel_unshuffle,
    aten.convolution: _convolution,
    **dict.fromkeys((aten.max_pool2d_with_indices, aten.avg_pool2d), _pool),
    **dict.fromkeys((aten._adaptive_avg_pool2d, aten.adaptive_max_pool2d), _adaptive_pool),
    **dict.fromkeys((aten.upsample_nearest1d, aten.upsample_nearest2d), _nearest),
    **dict.fromkeys(
        (aten.upsample_linear1d, aten.upsample_bilinear2d, aten.upsample_bicubic2d), _interpolate,
    ),
    aten.grid_sampler_2d: _sample,
    **dict.fromkeys((aten.mean, aten.sum, aten.amax, aten.amin, aten.var), _reduce),
    **dict.fromkeys((aten._softmax, aten._log_softmax), _along),
    **dict.fromkeys((aten.mm, aten.bmm, aten.addmm, aten.baddbmm), _matmul),
}  # fmt: skip
"""By operation, whatever its overload."""
