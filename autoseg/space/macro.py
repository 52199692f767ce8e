"""What the networks of a wide space choose beside cell, path and upsamplers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from autoseg import limits
from autoseg.config.base import Number, Settings, Whole
from autoseg.registry import BLOCKS, CELL
from autoseg.space.arrows import network_arrows
from autoseg.space.groups import DecoderSpec, NetworkSpec, Positive, StemSpec
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


OPTIONS = (
    "networks", "layers", "paths", "stems", "blocks", "depths", "widths", "profiles", "cells", "decoders"
)  # fmt: skip
"""Keys of `macro` that are lists of options. Those of NAMED differ by their names."""
NAMED = ("networks", "profiles")
MOST_FILTERS = 4096


class Wiring(Settings):
    """A name, and a path or a topology."""

    name: Name
    strides: Annotated[tuple[Positive, ...], Field(max_length=limits.LAYERS)] = ()
    """For a path: the output stride of each layer."""
    arrows: Annotated[
        tuple[Annotated[tuple[str, ...], Field(max_length=limits.NAMES)], ...], Field(max_length=limits.LAYERS)
    ] = ()
    """For several paths, instead of `strides`: the arrows into each layer, such as `4->8`."""


class NamedNetwork(Wiring):
    """A path or a topology by name."""

    @model_validator(mode="after")
    def _path_or_arrows(self) -> NamedNetwork:
        if bool(self.strides) == bool(self.arrows):
            raise ValueError("needs either 'strides', a path, or 'arrows', several")
        if len(self.strides or self.arrows) < 2:
            raise ValueError(f"'{self.name}' needs at least two layers")
        return self


class Profile(Settings):
    """The widths of all levels by name."""

    name: Name
    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=limits.STEM)]


class KnownDesign(Wiring):
    """A network of the literature, or one like it, as a member of a wide space.

    Strides or arrows are given if the space has no named networks.
    """

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
        for key in OPTIONS:
            options = getattr(self, key)
            named = [getattr(option, "name", option) if key in NAMED else option for option in options]
            twice = next((option for place, option in enumerate(named) if option in named[:place]), None)
            if twice is not None:
                shown = getattr(twice, "name", twice if isinstance(twice, str | int | float) else "the same")
                raise ValueError(f"{key} names {shown} twice; name each option once")
        for key in ("blocks", "depths", "widths"):
            if not getattr(self, key):
                raise ValueError(f"{key} needs at least one option")
        if self.networks and (self.layers or self.paths):
            raise ValueError("networks name every path; leave layers and paths out")
        return self

    def check(self, stem: StemSpec, network: NetworkSpec, filter_multiplier: int) -> None:
        """Refuse choices that do not fit a space's other groups. Raises: ValueError: in one line, which.

        stem: the space's, if none is named here. filter_multiplier: F of the space's networks.
        """
        for stride in sorted({option.stride for option in self.stems or (stem,)}):
            if stride > network.strides[-1]:
                raise ValueError(
                    f"macro.stems: a stem ends at stride {stride}, but network.strides end at {network.strides[-1]};"
                    " take another stem, or add strides"
                )
            levels = (network.strides[-1] // stride).bit_length()
            if self.networks:
                levels = max(_levels(named, stride, network) for named in self.networks)
            profiles = [(f"profiles: '{profile.name}'", profile.widths) for profile in self.profiles]
            for name, widths in profiles or [("widths:", (max(self.widths),) * levels)]:
                if len(widths) < levels:
                    raise ValueError(
                        f"macro.{name} has {len(widths)} widths, but networks have up to {levels} levels; give one for"
                        " each"
                    )
                strides = [stride << level for level in range(levels)]
                most = max(width * at for width, at in zip(widths, strides, strict=False))
                if (filters := round(filter_multiplier * most / network.strides[0])) > MOST_FILTERS:
                    raise ValueError(
                        f"macro.{name} with F = {filter_multiplier} makes {filters:,} channels of a level, but at most"
                        f" {MOST_FILTERS:,} are built; take a smaller F or width"
                    )


def _levels(named: NamedNetwork, stem_stride: int, network: NetworkSpec) -> int:
    """Levels of a named network. Raises: ValueError: it is not legal behind the stem or within the space."""
    try:
        arrows = network_arrows(named.strides, named.arrows, stem_stride)
    except ValueError as reason:
        raise ValueError(f"macro.networks: '{named.name}' behind a stem of stride {stem_stride}: {reason}") from None
    levels = 1 + max(arrow.target.level for arrow in arrows)
    if (stride := stem_stride << levels - 1) > network.strides[-1]:
        raise ValueError(
            f"macro.networks: '{named.name}' goes to stride {stride}, but network.strides end at {network.strides[-1]};"
            " add strides there, or take another path"
        )
    for arrow in arrows:
        if (move := arrow.move.name.lower()) not in network.moves:
            raise ValueError(
                f"macro.networks: '{named.name}' moves {move} at layer {arrow.target.layer}, but network.moves are"
                f" {', '.join(network.moves)}; add the move, or take another path"
            )
    return levels
