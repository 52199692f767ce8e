"""What the networks of a wide space choose beside cell, path and upsamplers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from autoseg import limits
from autoseg.config.base import Number, Settings, Whole
from autoseg.registry import BLOCKS, CELL
from autoseg.space.groups import DecoderSpec, Positive, StemSpec
from autoseg.space.resolution import CompetingUpsamplers

NETWORK = "network"
"""The one row of a table whose choice all levels share."""


class MacroTable(NamedTuple):
    """A table of logits in a wide space: a choice among the same options at each level, or one for the network."""

    rows: Sequence[str]
    """`stride 8` for each level, or NETWORK alone."""
    options: Sequence[Any]

    @property
    def names(self) -> list[Any]:
        """The options in a word: the names of profiles, others as they are."""
        return [getattr(option, "name", option) for option in self.options]


def filters_at_width(filter_multiplier: int, width: float, relative_stride: float) -> int:
    """Filters of a block: F times the width at the smallest stride, doubled at each further one, rounded."""
    return max(1, round(filter_multiplier * width * relative_stride))


Width = Annotated[Number, Field(ge=1 / 16, le=16)]
Name = Annotated[str, Field(min_length=1, max_length=80)]


class NamedNetwork(Settings):
    """A path or a topology by name."""

    name: Name
    strides: Annotated[tuple[Positive, ...], Field(max_length=limits.LAYERS)] = ()
    """For a path: the output stride of each layer."""
    arrows: Annotated[
        tuple[Annotated[tuple[str, ...], Field(max_length=limits.NAMES)], ...], Field(max_length=limits.LAYERS)
    ] = ()
    """For several paths, instead of `strides`: the arrows into each layer, such as `4->8`."""

    @model_validator(mode="after")
    def _path_or_arrows(self) -> NamedNetwork:
        if bool(self.strides) == bool(self.arrows):
            raise ValueError("needs either 'strides', a path, or 'arrows', several")
        return self


class Profile(Settings):
    """The widths of all levels by name."""

    name: Name
    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=limits.STEM)]


class KnownDesign(Settings):
    """A network of the literature, or one like it, as a member of a wide space."""

    name: Name
    strides: Annotated[tuple[Positive, ...], Field(max_length=limits.LAYERS)] = ()
    arrows: Annotated[
        tuple[Annotated[tuple[str, ...], Field(max_length=limits.NAMES)], ...], Field(max_length=limits.LAYERS)
    ] = ()
    """Its path or topology, if the space has no named networks."""
    genes: Annotated[
        dict[Name, Name | Annotated[Number, Field(gt=0, le=limits.BLOCKS)]], Field(max_length=limits.NAMES)
    ]
    """Its option of every other gene, in words; `depth` is of all levels, `depth 8` of that at stride 8 alone."""


class MacroSpec(Settings):
    """The choices of a wide space. An empty list leaves a part as the space's other groups say it."""

    networks: Annotated[tuple[NamedNetwork, ...], Field(max_length=limits.NAMES)] = ()
    """Paths and topologies. Default: every one of the space's trellis, with a number of layers of `layers`."""
    layers: Annotated[tuple[Annotated[Whole, Field(ge=2, le=limits.LAYERS)], ...], Field(max_length=limits.NAMES)] = ()
    """Numbers of layers. Default: `network.layers`."""
    paths: Annotated[tuple[Literal["single", "multi"], ...], Field(max_length=2)] = ()
    """Whether networks have one path or several. Default: `network.paths`."""
    stems: Annotated[tuple[StemSpec, ...], Field(max_length=limits.NAMES)] = ()
    """Default: `stem`. The levels of a network begin at its stem's stride."""
    blocks: Annotated[tuple[str, ...], Field(max_length=limits.NAMES)] = (CELL,)
    """Blocks of a stage (`autoseg.ops.blocks`); `cell` is the space's cell."""
    depths: Annotated[tuple[Annotated[Whole, Field(ge=1, le=limits.BLOCKS)], ...], Field(max_length=limits.NAMES)] = (
        1,
    )
    """Blocks in a row. A stage of the cell has one."""
    widths: Annotated[tuple[Width, ...], Field(max_length=limits.NAMES)] = (1.0,)
    """Factors of a level's channels. At factor 1 they are F at the smallest stride, doubled at each further one."""
    profiles: Annotated[tuple[Profile, ...], Field(max_length=limits.NAMES)] = ()
    """Instead of `widths`: the factors of all levels together, from fine to coarse."""
    shared_by: Literal["level", "network"] = "level"
    """Blocks and depths: one choice for each level, or one for the network."""
    cells: Annotated[tuple[str, ...], Field(max_length=limits.NAMES)] = ()
    """Genotypes whose cell is a template. Default: cells are searched, or drawn at random."""
    decoders: Annotated[tuple[DecoderSpec, ...], Field(max_length=limits.NAMES)] = ()
    """Default: `decoder`."""
    upsamplers: CompetingUpsamplers = ("bilinear",)
    """The upsampler of every up move and doubling of a network."""
    known: Annotated[tuple[KnownDesign, ...], Field(max_length=limits.NAMES)] = ()
    """Known designs that are members."""
    cost: Annotated[Number, Field(gt=0, le=limits.FACTOR)] | None = None
    """The cost that every network is scaled to, in billions of multiply-adds a megapixel. Default: none is scaled."""

    @field_validator("blocks")
    @classmethod
    def _blocks_are_known(cls, blocks: tuple[str, ...]) -> tuple[str, ...]:
        for block in blocks:
            if block not in (*BLOCKS, CELL):
                raise ValueError(BLOCKS.unknown(block, more=(CELL,)))
        return blocks

    @model_validator(mode="after")
    def _options_are_distinct(self) -> MacroSpec:
        for key in (
            "networks",
            "layers",
            "paths",
            "stems",
            "blocks",
            "depths",
            "widths",
            "profiles",
            "cells",
            "decoders",
        ):
            options = getattr(self, key)
            names = [getattr(option, "name", option) for option in options] if key != "decoders" else list(options)
            if any(option in names[:place] for place, option in enumerate(names)):
                raise ValueError(f"{key} names an option twice; name each once")
        for key in ("blocks", "depths", "widths"):
            if not getattr(self, key):
                raise ValueError(f"{key} needs at least one option")
        if self.networks and (self.layers or self.paths):
            raise ValueError("networks name every path; leave layers and paths out")
        return self
