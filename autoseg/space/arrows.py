"""The arrows of one network as text: `4->8` is that from stride 4 to stride 8; a path is its strides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from autoseg.space.trellis import STEM_NODE, Arrow, Move, Node

GREATEST = 32
"""The greatest stride, since inputs may be 32 pixels wide."""


def network_arrows(strides: Sequence[int], arrows: Sequence[Sequence[str]], stem_stride: int) -> tuple[Arrow, ...]:
    """The arrows of a path by its strides, or of several paths by their arrows. Raises: ValueError: illegal ones."""
    return parse_arrows(arrows, stem_stride) if arrows else path_arrows(strides, stem_stride)


def path_arrows(strides: Sequence[int], stem_stride: int) -> tuple[Arrow, ...]:
    """The arrows of a path. Raises: ValueError: a stride out of range, or no neighbour of the one before it."""
    for layer, (source, target) in enumerate(pairwise((stem_stride, *strides)), start=1):
        if target not in (source // 2, source, source * 2):
            message = f"the path steps from stride {source} to {target} at layer {layer}; it may halve or double"
            raise ValueError(message)
        if not stem_stride <= target <= GREATEST:
            raise ValueError(f"the path has stride {target} at layer {layer}; it may be {stem_stride} to {GREATEST}")
    levels = [(stride // stem_stride).bit_length() - 1 for stride in strides]
    nodes = [STEM_NODE, *(Node(layer, level) for layer, level in enumerate(levels, start=1))]
    return tuple(Arrow(source, target, Move(target.level - source.level + 1)) for source, target in pairwise(nodes))


def write_arrows(arrows: Sequence[Arrow], strides: Sequence[int]) -> tuple[tuple[str, ...], ...]:
    """The arrows into each layer, by the strides that they connect."""
    layers: list[tuple[str, ...]] = [()] * max(arrow.target.layer for arrow in arrows)
    for source, target, _ in sorted(arrows):
        layers[target.layer - 1] += (f"{strides[source.level]}->{strides[target.level]}",)
    return tuple(layers)


def parse_arrows(layers: Sequence[Sequence[str]], stem_stride: int) -> tuple[Arrow, ...]:
    """Inverse of `write_arrows`. Raises: ValueError: no arrow, an illegal stride, a node without an arrow in or out."""
    arrows: list[Arrow] = []
    reached = {STEM_NODE}
    for layer, texts in enumerate(layers, start=1):
        into = sorted({_parse(text, layer, stem_stride) for text in texts})
        if len(into) != len(texts):
            raise ValueError(f"an arrow into layer {layer} is named twice; name each once")
        left = {arrow.source for arrow in into}
        for node in sorted(reached ^ left):
            what = "no way in" if node in left else "no way out"
            raise ValueError(
                f"the node of layer {node.layer} at stride {stem_stride << node.level} has {what}; add an arrow,"
                " or leave out those that touch it"
            )
        arrows += into
        reached = {arrow.target for arrow in into}
    return tuple(arrows)


def _parse(text: str, layer: int, stem_stride: int) -> Arrow:
    match = re.fullmatch(r"(\d{1,4}) *-> *(\d{1,4})", text)
    strides = [int(match[1]), int(match[2])] if match else [0, 0]
    legal = [stem_stride << level for level in range(6) if stem_stride << level <= GREATEST]
    if any(stride not in legal for stride in strides) or max(strides) > 2 * min(strides):
        raise ValueError(
            f"'{text}' into layer {layer} is no arrow; write two of the strides {legal} that are equal or neighbours,"
            " such as '4->8'"
        )
    source, target = (legal.index(stride) for stride in strides)
    return Arrow(Node(layer - 1, source), Node(layer, target), Move(target - source + 1))
