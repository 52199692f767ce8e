"""A network as a graph of stages, to be listed and drawn. Loads without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Join = Literal["add", "concat", "unpool"]
"""How an input of a stage meets its other inputs: summed, concatenated, or compared, as max-unpooling does with the
feature whose maxima it uses."""

IMAGE, LOGITS = "image", "logits"
"""Names of both ends of a diagram."""

Reads = dict[str, Join | None]
"""What is read, a stage or the image, and how it first meets another one, if it does."""


@dataclass(frozen=True)
class Stage:
    """A part of a network with one output, (N, channels, H / stride, W / stride), and what it reads directly.

    `stride` is below 1 for an output larger than the image. `parameters` counts those used between what it reads and
    its output, in the stage or before it, each in the stage that uses it first.
    """

    name: str
    channels: int
    stride: float
    parameters: int
    reads: Reads


@dataclass(frozen=True)
class Diagram:
    """Stages as they run, and what the logits (N, classes, H, W) read. `other_parameters`: those that no stage uses."""

    stages: tuple[Stage, ...]
    output: Reads
    in_channels: int
    classes: int
    other_parameters: int

    @property
    def parameters(self) -> int:
        """Number of parameters of the whole network."""
        return sum(stage.parameters for stage in self.stages) + self.other_parameters
