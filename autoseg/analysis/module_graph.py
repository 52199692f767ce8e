"""A network as the stages that it is made of, to be listed and drawn. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Join = Literal["add", "concat", "unpool"]
"""How what a stage reads meets what else it reads: summed, concatenated, or only compared, as max-unpooling does with
the feature that says where its maxima were."""

IMAGE, LOGITS = "image", "logits"
"""Both ends of a diagram, as if they were stages."""


@dataclass(frozen=True)
class Read:
    """A stage, or the image, that is read, and how it first meets another one; None where it meets none."""

    source: str
    how: Join | None = None


@dataclass(frozen=True)
class Stage:
    """A part of a network with one output, (N, channels, H / stride, W / stride), and what it reads directly.

    `stride` is below 1 where the output is larger than the image; `parameters` are all those used on the way from what
    it reads to its output, in the stage or before it, each counted where it is used first.
    """

    name: str
    channels: int
    stride: float
    parameters: int
    reads: tuple[Read, ...]


@dataclass(frozen=True)
class Diagram:
    """Stages in the order in which they run, and what the logits (N, classes, H, W) read.

    `other_parameters` are those that no stage uses, on the way to the logits or not at all.
    """

    stages: tuple[Stage, ...]
    output: tuple[Read, ...]
    in_channels: int
    classes: int
    other_parameters: int

    @property
    def parameters(self) -> int:
        """Of the whole network."""
        return sum(stage.parameters for stage in self.stages) + self.other_parameters
