"""Which rows (or columns) of the image every element of a tensor depends on, and how that passes through operations.

The arrays of a span have the dimensions of its tensor, each in full or of length 1 where nothing changes along it, so
that those of (N, C, H, W) features are (1, 1, H, 1) for rows. Everything is exact but for interpolation: `interpolate`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

NOTHING, EVERYTHING = -1, slice(None)
"""`NOTHING`: in an index of `gather`, zeros that stand for no element."""


@dataclass(frozen=True)
class Span:
    """`first` to `last`, both included, in pixels of the image; infinity to minus infinity where nothing is seen."""

    first: np.ndarray
    last: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Of both arrays: the tensor's, or 1 in a dimension along which nothing changes."""
        return self.first.shape

    def widest(self) -> float:
        """The most pixels that any element sees."""
        return max(0.0, float((self.last - self.first).max()) + 1)

    def union(self, other: Span) -> Span:
        """What either sees; the arrays are broadcast."""
        return Span(np.minimum(self.first, other.first), np.maximum(self.last, other.last))

    def over(self, axes: Sequence[int] | None = None) -> Span:
        """What is seen together along `axes`, all where it is None; they keep the length 1."""
        axes = None if axes is None else tuple(axes)
        return Span(self.first.min(axes, keepdims=True), self.last.max(axes, keepdims=True))

    def reshape(self, shape: Sequence[int]) -> Span:
        """The same elements, in as many."""
        return Span(self.first.reshape(shape), self.last.reshape(shape))

    def transpose(self, axes: Sequence[int]) -> Span:
        """The dimensions in another order."""
        return Span(self.first.transpose(axes), self.last.transpose(axes))

    def part(self, axis: int, index: slice) -> Span:
        """A part along an axis, or the same where nothing changes along it."""
        if self.shape[axis] == 1:
            return self
        where = (*[EVERYTHING] * (axis % len(self.shape)), index)
        return Span(self.first[where], self.last[where])

    def repeat(self, axis: int, times: int) -> Span:
        """Every element along an axis several times."""
        if self.shape[axis] == 1:
            return self
        return Span(self.first.repeat(times, axis), self.last.repeat(times, axis))

    def gather(self, axis: int, index: np.ndarray) -> Span:
        """What element j of the result sees along an axis: elements `index[j]` (results, reads), none at `NOTHING`."""
        if self.shape[axis] == 1:
            return self
        nothing = np.expand_dims(index == NOTHING, tuple(range(2, len(self.shape) - axis + 1)))
        first = np.where(nothing, np.inf, self.first.take(index, axis)).min(axis + 1)
        return Span(first, np.where(nothing, -np.inf, self.last.take(index, axis)).max(axis + 1))

    def interpolate(self, axis: int, length: int) -> Span:
        """Resized along an axis: moved to between its neighbours, but no wider, by the ratio of the sizes alone.

        Aligned corners or not, the places are those of pixels' centres; the other convention moves what is seen, not
        how much.
        """
        before = self.shape[axis]
        if before == 1:
            return self
        place = np.clip((np.arange(length) + 0.5) * before / length - 0.5, 0, before - 1)
        left = np.floor(place).astype(int)
        right = np.minimum(left + 1, before - 1)
        share = (place - left).reshape(-1, *(1 for _ in self.shape[axis + 1 :]))
        return Span(
            _between(self.first.take(left, axis), self.first.take(right, axis), share, np.minimum),
            _between(self.last.take(left, axis), self.last.take(right, axis), share, np.maximum),
        )


def nothing(dimensions: int) -> Span:
    """Of a tensor that does not depend on the image."""
    return Span(np.full((1,) * dimensions, np.inf), np.full((1,) * dimensions, -np.inf))


def along(axis: int, length: int) -> Span:
    """Of the image itself, (1, C, H, W): each row, or column, sees itself."""
    own = np.arange(length, dtype=np.float64).reshape([length if each == axis else 1 for each in range(4)])
    return Span(own, own)


def concatenate(spans: Sequence[Span], axis: int, lengths: Sequence[int]) -> Span:
    """One after the other along an axis, along which they have these lengths."""
    whole = [_full(span, axis, length) for span, length in zip(spans, lengths, strict=True)]
    others = [max(sizes) for sizes in zip(*(span.shape for span in whole), strict=True)]
    shapes = [(*others[:axis], span.shape[axis], *others[axis + 1 :]) for span in whole]
    return Span(
        np.concatenate([np.broadcast_to(span.first, shape) for span, shape in zip(whole, shapes, strict=True)], axis),
        np.concatenate([np.broadcast_to(span.last, shape) for span, shape in zip(whole, shapes, strict=True)], axis),
    )


def regroup(span: Span, before: Sequence[int], after: Sequence[int]) -> Span:
    """Of a tensor of the shape `before` that is read, element by element, as one of the shape `after`."""
    full, shape = list(span.shape), [1] * len(after)
    for old, new in _groups(before, after):
        if any(length > 1 for length in span.shape[old]):
            full[old], shape[new] = before[old], after[new]
    return Span(np.broadcast_to(span.first, full).reshape(shape), np.broadcast_to(span.last, full).reshape(shape))


def window(length: int, results: int, kernel: int, stride: int, padding: int, rate: int) -> np.ndarray:
    """The index, for `Span.gather`, of what a convolution or pooling reads, (results, kernel)."""
    index = np.arange(results)[:, None] * stride - padding + np.arange(kernel) * rate
    return np.where((index < 0) | (index >= length), NOTHING, index)


def transposed_window(length: int, results: int, kernel: int, stride: int, padding: int, rate: int) -> np.ndarray:
    """`window` of a transposed convolution: result j reads i wherever i * stride - padding + tap * rate is j."""
    scaled = np.arange(results)[:, None] + padding - np.arange(kernel) * rate
    index = scaled // stride
    return np.where((scaled % stride != 0) | (index < 0) | (index >= length), NOTHING, index)


def shares(length: int, results: int) -> np.ndarray:
    """`window` of adaptive pooling: result j reads from floor(j n / m) to before ceil((j + 1) n / m)."""
    number = np.arange(results)
    start, end = number * length // results, -(-(number + 1) * length // results)
    index = start[:, None] + np.arange((end - start).max())
    return np.where(index >= end[:, None], NOTHING, index)


def _full(span: Span, axis: int, length: int) -> Span:
    if span.shape[axis] == length:
        return span
    return Span(span.first.repeat(length, axis), span.last.repeat(length, axis))


def _between(left: np.ndarray, right: np.ndarray, share: np.ndarray, widest: np.ufunc) -> np.ndarray:
    """Linear, where both see something; else what either sees."""
    with np.errstate(invalid="ignore"):
        inner = left + share * (right - left)
    seen: np.ndarray = np.where(np.isfinite(left) & np.isfinite(right), inner, widest(left, right))
    return seen


def _groups(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """The fewest neighbouring dimensions of both shapes that hold equally many elements."""
    old = new = 0
    while old < len(before) or new < len(after):
        old_end, new_end = min(old + 1, len(before)), min(new + 1, len(after))
        while (short := math.prod(before[old:old_end]) - math.prod(after[new:new_end])) != 0:
            if short < 0:
                old_end += 1
            else:
                new_end += 1
        yield slice(old, old_end), slice(new, new_end)
        old, new = old_end, new_end
