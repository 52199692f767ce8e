"""Arrows of a network of several paths as text: `4->8` is the arrow from stride 4 to stride 8."""

from __future__ import annotations

import re
from collections.abc import Sequence

from autoseg.space.trellis import STEM_NODE, Arrow, Move, Node


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
    legal = [stem_stride << level for level in range(6) if stem_stride << level <= 32]
    if any(stride not in legal for stride in strides) or max(strides) > 2 * min(strides):
        raise ValueError(
            f"'{text}' into layer {layer} is no arrow; write two of the strides {legal} that are equal or neighbours,"
            " such as '4->8'"
        )
    source, target = (legal.index(stride) for stride in strides)
    return Arrow(Node(layer - 1, source), Node(layer, target), Move(target - source + 1))
