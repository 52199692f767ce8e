"""The receptive field: the rows and columns of the image that a pixel of the logits depends on.

The network runs once on meta tensors, and every tensor carries its reach: the last image row (or column) that each
element depends on and, as the second of a batch of two images, minus the first one. Each operation takes maxima in
place of sums and products: a convolution the greatest reach in its window, an addition that of its terms. An operation
that only moves elements moves their reach. Weights reach nothing, minus infinity. An operation without a rule reaches
everything, infinity: too much, never too little.

A reach has the dimensions of its tensor. Each has the full length, or 1 if nothing changes along it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map_only

from autoseg.analysis.trace import Facts, meta_images, meta_weights, run
from autoseg.ops.resize import Size

FAR = 16384
"""Pixels of the image along the followed axis; a field of more than half of it counts as the whole image."""
ACROSS = 32
"""Pixels of the image along the other axis."""

aten = torch.ops.aten


def receptive_field(network: nn.Module) -> float:
    """Pixels of the image that a pixel of the logits (N, K, H, W) may depend on, along the wider of rows and columns.

    It is the widest field of all paths through the network and of all pixels, which differ after a transposed
    convolution; `math.inf` for the whole image, as with image pooling. Padding counts as pixels. The result is exact,
    but interpolation, by convention, moves a field and does not widen it.
    """
    widest = 0.0
    for axis, size in ((2, (FAR, ACROSS)), (3, (ACROSS, FAR))):
        widest = max(widest, float(reach(network, size, axis).sum(0).max()) + 1)
        if 2 * widest > FAR:  # the border may cut off even the field in the middle
            return math.inf
    return float(math.ceil(widest))


def reach(network: nn.Module, size: Size, axis: int) -> Tensor:
    """The reach of the logits in rows (axis 2) or columns (axis 3) of an image: the last one, and minus the first one.

    Returns: (2, K, H, W), each of K, H and W in full or 1. Minus infinity: nothing is seen.
    """
    mode = _Reaches()
    images = meta_images(network, 2, size)
    own = torch.arange(size[axis - 2], dtype=torch.float64).view([-1 if each == axis else 1 for each in range(4)])
    mode.facts[images] = torch.cat([own, -own])
    found = mode.fact(run(network, images, mode, meta_weights(network)))
    return _nothing(4).expand(2, -1, -1, -1) if found is None else found


class _Reaches(Facts[Tensor]):  # type: ignore[no-untyped-call]
    """The reach of each tensor."""

    def carry(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Iterable[Tensor]:
        call = _Call(func, args, kwargs, result, self.fact)
        default = _pointwise if torch.Tag.pointwise in func.tags else _moved if func.is_view else _unknown
        found = RULES.get(func.overloadpacket, default)(call)
        return [found] if isinstance(found, Tensor) else found


class _Call:
    """One operation: its arguments by name, defaults included, their reach, and the shapes of its results."""

    def __init__(
        self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any,
        fact: Callable[[Tensor], Tensor | None],
    ) -> None:  # fmt: skip
        names = [argument.name for argument in func._schema.arguments]
        defaults = {each.name: each.default_value for each in func._schema.arguments if each.has_default_value()}
        self.func, self._fact = func, fact
        self.arguments: dict[str, Any] = {**defaults, **dict(zip(names, args, strict=False)), **kwargs}
        self.tensors = [leaf for leaf in tree_leaves(self.arguments) if isinstance(leaf, Tensor)]
        self.shapes = [tuple(leaf.shape) for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]

    def __getitem__(self, name: str) -> Any:
        return self.arguments.get(name)

    def reach(self, tensor: Tensor) -> Tensor:
        found = self._fact(tensor)
        return _nothing(tensor.dim()) if found is None else found

    @property
    def reaches(self) -> list[Tensor]:
        return [self.reach(tensor) for tensor in self.tensors]


def _nothing(dimensions: int) -> Tensor:
    return torch.full((1,) * dimensions, -math.inf, dtype=torch.float64)


def _pointwise(call: _Call) -> Tensor:
    return reduce(torch.maximum, call.reaches, _nothing(len(call.shapes[0])))


def _unknown(call: _Call) -> list[Tensor]:
    return [-_nothing(len(shape)) for shape in call.shapes]


# --- the same elements in other places --------------------------------------------------------------------------------


def _moved(call: _Call) -> list[Tensor]:
    """The operation itself, on reaches expanded to full size, which takes no memory."""
    whole = tree_map_only(Tensor, lambda tensor: call.reach(tensor).expand(tensor.shape), call.arguments)
    results = tree_leaves(call.func(**whole))
    return [result[tuple(slice(None) if step else slice(1) for step in result.stride())] for result in results]


def _view(call: _Call) -> Tensor:
    """The same elements in the same order, in another shape."""
    before, after, found = call.tensors[0].shape, call.shapes[0], call.reaches[0]
    full, shape = list(found.shape), [1] * len(after)
    for old, new in _groups(before, after):
        if math.prod(found.shape[old]) > 1:
            full[old], shape[new] = before[old], after[new]
    return found.expand(full).reshape(shape)


def _groups(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Pair the fewest neighbouring dimensions of both shapes that hold equally many elements."""
    old = new = 0
    while old < len(before) or new < len(after):
        old_end, new_end = min(old + 1, len(before)), min(new + 1, len(after))
        while (short := math.prod(before[old:old_end]) - math.prod(after[new:new_end])) != 0:
            old_end, new_end = (old_end + 1, new_end) if short < 0 else (old_end, new_end + 1)
        yield slice(old, old_end), slice(new, new_end)
        old, new = old_end, new_end


def _cat(call: _Call) -> Tensor:
    """Along channels of equal reach the greatest of all parts; else each part keeps its own."""
    tensors = [tensor for tensor in call.tensors if tensor.dim() == len(call.shapes[0])]  # PyTorch skips empty ones
    parts, axis = [call.reach(tensor) for tensor in tensors], call["dim"] % len(call.shapes[0])
    if axis == 1 and all(part.shape[1] == 1 for part in parts):
        return reduce(torch.maximum, parts)
    return _joined(parts, axis, [tensor.shape[axis] for tensor in tensors])


def _stack(call: _Call) -> Tensor:
    axis = call["dim"] % len(call.shapes[0])
    return _joined([part.unsqueeze(axis) for part in call.reaches], axis, [1] * len(call.tensors))


def _joined(parts: Sequence[Tensor], axis: int, lengths: Sequence[int]) -> Tensor:
    common = [max(sizes) for sizes in zip(*(part.shape for part in parts), strict=True)]
    sizes = [(*common[:axis], length, *common[axis + 1 :]) for length in lengths]
    return torch.cat([part.expand(size) for part, size in zip(parts, sizes, strict=True)], axis)


def _pad(call: _Call) -> Tensor:
    found, pad = call.reaches[0], call["pad"]
    ends = [length if found.shape[-1 - number // 2] > 1 else 0 for number, length in enumerate(pad)]
    return F.pad(found, ends, value=-math.inf)


def _padded(found: Tensor, axis: int, before: int, after: int) -> Tensor:
    """With what reaches nothing; negative numbers cut."""
    return F.pad(found, (0, 0) * (found.dim() - 1 - axis) + (before, after), value=-math.inf)


def _nearest(found: Tensor, shape: Sequence[int]) -> Tensor:
    for axis, length in enumerate(shape):
        if (before := found.shape[axis]) not in (1, length):
            found = found.index_select(axis, torch.arange(length) * before // length)
    return found


def _interpolate(call: _Call) -> Tensor:
    """A reach between those of the neighbours, by the ratio of the sizes alone.

    Places are those of pixels' centres, with aligned corners or not: the convention moves a field, not its size.
    """
    found = call.reaches[0]
    for axis, length in enumerate(call.shapes[0][2:], start=2):
        if (before := found.shape[axis]) > 1:
            place = ((torch.arange(length) + 0.5).double() * before / length - 0.5).clamp(0, before - 1)
            left = found.index_select(axis, place.long())
            right = found.index_select(axis, (place.long() + 1).clamp(max=before - 1))
            between = torch.lerp(left, right, place.frac().view(-1, *[1] * (found.dim() - 1 - axis)))
            found = torch.where(left.isfinite() & right.isfinite(), between, torch.maximum(left, right))
    return found


def _sample(call: _Call) -> Tensor:
    """Sampling at places (N, H, W, 2): the greater reach of the nearest element and of the places."""
    places = call.reach(call["grid"]).amax(3, keepdim=True).permute(0, 3, 1, 2)
    return torch.maximum(_nearest(call.reaches[0], call.shapes[0]), places)


# --- windows and sums -------------------------------------------------------------------------------------------------


def _slide(
    call: _Call, kernel: Sequence[int], stride: Any = (), padding: Any = 0, rate: Any = 1, transposed: bool = False
) -> Tensor:
    """The greatest reach in a window over the last len(kernel) dimensions; channels are mixed."""
    axes = len(kernel)
    settings = zip(kernel, *(_per_axis(each, axes) for each in (stride or kernel, padding, rate)), strict=True)
    found = call.reaches[0].amax(-axes - 1, keepdim=True)
    for axis, (taps, step, around, apart) in enumerate(settings, start=found.dim() - axes):
        if found.shape[axis] == 1:
            continue
        extent = (taps - 1) * apart + 1
        if transposed:  # a convolution of step 1 over inputs with zeros between them
            found = _padded(found.unsqueeze(axis + 1), axis + 1, 0, step - 1).flatten(axis, axis + 1)
            step, around = 1, extent - 1 - around
        behind = (call.shapes[0][axis] - 1) * step + extent - found.shape[axis] - around
        found = _padded(found, axis, around, behind).unfold(axis, extent, step)[..., ::apart].amax(-1)
    return found


def _per_axis(values: int | Sequence[int], axes: int) -> list[int]:
    listed = [values] if isinstance(values, int) else list(values)
    return listed * axes if len(listed) == 1 else listed


def _convolution(call: _Call) -> Tensor:
    kernel = call["weight"].shape[2:]
    return _slide(call, kernel, call["stride"], call["padding"], call["dilation"], call["transposed"])


def _pool(call: _Call) -> Tensor:
    kernel = _per_axis(call["kernel_size"], 2)
    return _slide(call, kernel, call["stride"], call["padding"], call["dilation"] or 1)


def _reduce(call: _Call) -> Tensor:
    """A reduction of some dimensions or all, which are kept or not; or a mixture along one, which keeps the shape."""
    axes = [call["dim"]] if isinstance(call["dim"], int) else call["dim"] or list(range(call.tensors[0].dim()))
    return call.reaches[0].amax(axes, keepdim=len(call.shapes[0]) == call.tensors[0].dim())


def _matmul(call: _Call) -> Tensor:
    """The last two tensors are (..., I, K) and (..., K, J); a tensor before them is added."""
    *added, left, right = call.reaches
    return reduce(torch.maximum, added, torch.maximum(left.amax(-1, keepdim=True), right.amax(-2, keepdim=True)))


_BY_RULE: dict[Callable[[_Call], Tensor | list[Tensor]], str] = {
    _pointwise: "native_batch_norm _native_batch_norm_legit_no_training cudnn_batch_norm miopen_batch_norm clone copy"
    " _to_copy lift_fresh native_dropout",
    lambda call: []: "zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty rand_like"
    " randn_like",
    _unknown: "as_strided",
    _view: "view _unsafe_view reshape unsqueeze squeeze",
    _cat: "cat",
    _stack: "stack",
    _pad: "constant_pad_nd",
    lambda call: _nearest(call.reaches[0].amax(-3, keepdim=True), call.shapes[0]): "pixel_shuffle",
    lambda call: _slide(call, [call["downscale_factor"]] * 2): "pixel_unshuffle",
    lambda call: _nearest(call.reaches[0], call.shapes[0]): "upsample_nearest1d upsample_nearest2d",
    _interpolate: "upsample_linear1d upsample_bilinear2d upsample_bicubic2d",
    _sample: "grid_sampler_2d",
    _convolution: "convolution",
    _pool: "max_pool2d_with_indices avg_pool2d",
    lambda call: F.adaptive_max_pool2d(
        call.reaches[0], call.shapes[0][-2:]
    ): "_adaptive_avg_pool2d adaptive_max_pool2d",
    _reduce: "mean sum amax amin var _softmax _log_softmax",
    _matmul: "mm bmm addmm baddbmm",
}
RULES = {getattr(aten, name): rule for rule, names in _BY_RULE.items() for name in names.split()}
"""Rule of each operation. Pointwise operations, which PyTorch marks, and other views need none."""
