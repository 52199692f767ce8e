"""A genotype: one discrete architecture as YAML or JSON, from which the network can be rebuilt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from autoseg import limits
from autoseg.config.base import Settings, Whole
from autoseg.errors import GenotypeError
from autoseg.files import read_yaml, shell_quoted, to_yaml, user_path, write_text
from autoseg.registry import BLOCKS, CELL, DECODERS, OPERATIONS
from autoseg.space.arrows import network_arrows, parse_arrows, path_arrows, write_arrows  # noqa: F401 - for importers
from autoseg.space.cell import state_index
from autoseg.space.groups import BatchNormSpec, DecoderSpec, Positive, StemSpec
from autoseg.space.resolution import Skip, parse_upsampler
from autoseg.space.schema import ArchitectureFile, SearchSpace, find_file, without_defaults, write_plugins
from autoseg.space.trellis import Arrow, Move, Node, filters_at

GENOTYPE_VERSION = 1


class Edge(Settings):
    """One operation applied to one input of a block."""

    input: str
    """`prev_prev` (H(l-2)), `prev` (H(l-1)), or `b1`, `b2`, ...: an earlier block of the same cell."""
    operation: str

    @field_validator("operation")
    @classmethod
    def _operation_is_known(cls, operation: str) -> str:
        if operation not in OPERATIONS or operation == "none":
            raise ValueError(OPERATIONS.unknown(operation, hide=("none",)))
        return operation

    @property
    def state(self) -> int:
        """The input as a state number: 0 prev_prev, 1 prev, 2 the first block."""
        return state_index(self.input)


Block = Annotated[tuple[Edge, ...], Field(max_length=limits.EDGES)]
Cell = Annotated[tuple[Block, ...], Field(max_length=limits.BLOCKS)]
"""The edges of each block."""


def _known(upsamplers: tuple[str, ...]) -> tuple[str, ...]:
    for name in upsamplers:
        parse_upsampler(name)
    return upsamplers


KnownUpsamplers = Annotated[tuple[str, ...], Field(max_length=limits.ARROWS), AfterValidator(_known)]
"""Names of upsamplers, which may repeat."""


class StageSpec(Settings):
    """The stage at every node of one level, in place of a cell that all levels share."""

    stride: Positive
    """The level, by its output stride."""
    block: str
    """A block of the registry (`autoseg.ops.blocks`), or `cell`: the genotype's cell."""
    depth: Annotated[Whole, Field(ge=1, le=limits.BLOCKS)] = 1
    """Blocks in a row."""
    filters: Positive
    """Channels of a block; a cell has as many in each of its blocks."""

    @model_validator(mode="after")
    def _block_is_known(self) -> StageSpec:
        if self.block not in (*BLOCKS, CELL):
            raise ValueError(BLOCKS.unknown(self.block, more=(CELL,)))
        if self.block == CELL and self.depth != 1:
            raise ValueError(f"a stage of the cell has depth 1, not {self.depth}")
        return self


class PathSpec(Settings):
    """The network level: a path, or several arrows a layer, and F."""

    strides: Annotated[tuple[Positive, ...], Field(max_length=limits.LAYERS)] = ()
    """For a path: the output stride of each layer."""
    arrows: Annotated[
        tuple[Annotated[tuple[str, ...], Field(max_length=limits.NAMES)], ...], Field(max_length=limits.LAYERS)
    ] = ()
    """For a network of several paths, instead of `strides`: the arrows into each layer, such as `4->8`."""
    filter_multiplier: Positive
    down_layers: Positive | None = None
    """The encoder's layers in an hourglass. The layers after them are the decoder path and have the cell `up_cell`."""
    upsamplers: KnownUpsamplers = ()
    """The upsampler of each up move, by layer, then by stride. Default: bilinear for all."""
    skips: Annotated[tuple[Skip, ...], Field(max_length=limits.ARROWS)] = ()
    """The skip of each up move: how the encoder feature of that stride joins. Default: none."""

    @model_validator(mode="after")
    def _path_or_arrows(self) -> PathSpec:
        if bool(self.strides) == bool(self.arrows):
            raise ValueError("needs either 'strides', a path, or 'arrows', several")
        if len(self.strides or self.arrows) < 2:
            raise ValueError("strides or arrows: needs at least two layers")
        return self


class GenotypeDecoderSpec(DecoderSpec):
    """The decoder of a discrete network."""

    upsamplers: KnownUpsamplers = ()
    """The upsampler of each doubling, from coarse to fine. Default: bilinear, in one step if nothing joins before."""


def decoder_levels(network: Genotype | SearchSpace, end_level: int) -> tuple[int, ...]:
    """The levels from which the decoder doubles when it begins at `end_level`, from coarse to fine."""
    decoder, first = network.decoder, 0
    if DECODERS[decoder.name].joins == "low_level":
        first = max(0, (decoder.low_level_stride // network.stem.stride).bit_length() - 1)
    return tuple(reversed(range(first + 1, end_level + 1)))


class Genotype(ArchitectureFile):
    """A discrete architecture. `Genotype.load(name_or_path)`, `genotype.save(path)`."""

    what = "genotype"
    newest = GENOTYPE_VERSION
    error = GenotypeError
    version: Whole = GENOTYPE_VERSION
    name: Annotated[str, Field(min_length=1)]
    cell: Cell = ()
    """Edges of each block; a block is the sum of its edges, the cell concatenates its blocks. Empty if no node has it.
    """
    up_cell: Annotated[Cell, Field(min_length=1)] | None = None
    """The cell of the up path if it has its own; only in an hourglass."""
    network: PathSpec
    stages: Annotated[tuple[StageSpec, ...], Field(max_length=limits.STEM)] = ()
    """The stage of each level, from fine to coarse. Default: the cell at every node, with F channels at the stem's
    stride and twice as many at each further one."""
    stem: StemSpec = StemSpec()
    decoder: GenotypeDecoderSpec = GenotypeDecoderSpec()
    batch_norm: BatchNormSpec = BatchNormSpec()
    source: dict[str, Any] = Field(default_factory=dict)
    """The origin: a paper, or the space, run, epoch and path prior."""
    retrain: dict[str, Any] = Field(default_factory=dict)
    """The training schedule that its space recommends; `autoseg retrain` starts from it."""

    @field_validator("cell", "up_cell")
    @classmethod
    def _inputs_exist(cls, cell: Cell | None) -> Cell | None:
        for number, block in enumerate(cell or ()):
            if not block:
                raise ValueError(f"block b{number + 1} has no inputs; give it at least one")
            for edge in block:
                if edge.state >= number + 2:
                    raise ValueError(f"block b{number + 1} reads '{edge.input}', which does not come before it")
        return cell

    @model_validator(mode="after")
    def _whole_is_limited(self) -> Genotype:
        nodes = len(self.network.strides) or sum(map(len, self.network.arrows))
        edges = max(sum(map(len, cell)) for cell in (self.cell, self.up_cell or ()))
        edges = max([edges, *(stage.depth for stage in self.stages)])
        if nodes * edges > limits.OPERATIONS:
            raise ValueError(
                f"{nodes:,} nodes of {edges:,} edges make {nodes * edges:,} operations, but at most"
                f" {limits.OPERATIONS:,} are built; take fewer layers or blocks"
            )
        return self

    @model_validator(mode="after")
    def _path_is_connected(self) -> Genotype:
        network_arrows(self.network.strides, self.network.arrows, self.stem.stride)
        return self

    @model_validator(mode="after")
    def _each_level_has_a_stage(self) -> Genotype:
        if not self.cell and (not self.stages or self.up_cell or CELL in {stage.block for stage in self.stages}):
            raise ValueError("needs a cell with at least one block; give 'cell', or stages of other blocks")
        if self.stages:
            needed = [self.stride(level) for level in range(1 + max(arrow.target.level for arrow in self.arrows))]
            given = [stage.stride for stage in self.stages]
            if given != needed:
                raise ValueError(f"stages are of the strides {given}, but the network has {needed}; give one for each")
        return self

    @model_validator(mode="after")
    def _each_place_has_a_choice(self) -> Genotype:
        up_moves = sum(arrow.move is Move.UP for arrow in self.arrows)
        for key, names in (("upsamplers", self.network.upsamplers), ("skips", self.network.skips)):
            if names and len(names) != up_moves:
                message = f"network.{key} names {len(names)}, but there are {up_moves} up moves; name one for each"
                raise ValueError(message)
        stages, names = len(self.decoder_levels), self.decoder.upsamplers
        if names and len(names) != stages:
            raise ValueError(
                f"decoder.upsamplers names {len(names)}, but decoder '{self.decoder.name}' doubles {stages} times here;"
                " name one for each"
            )
        down = self.network.down_layers
        if down is None and (self.up_cell is not None or self.network.skips):
            raise ValueError("up_cell and network.skips need an up path; set network.down_layers, the layers before it")
        if down is not None and any(
            arrow.move is (Move.UP if arrow.target.layer <= down else Move.DOWN) for arrow in self.arrows
        ):
            raise ValueError(f"no move may go up in the first {down} layers (network.down_layers), and none down after")
        return self

    @classmethod
    def of_space(
        cls,
        space: SearchSpace,
        name: str,
        cells: Sequence[Cell],
        arrows: Sequence[Arrow],
        source: Mapping[str, Any],
        retrain: Mapping[str, Any] | None = None,
        *,
        upsamplers: Sequence[str] = (),
        skips: Sequence[Skip] = (),
        decoder_upsamplers: Sequence[str] = (),
    ) -> Genotype:
        """A genotype with the fixed parts of its space: stem, decoder, BatchNorm and width.

        cells: one, or those of the down and the up path. arrows: of one path or several. Others: see `PathSpec`.
        """
        single = space.network.paths == "single"
        strides = space.network.strides
        decoder = space.decoder.model_dump(exclude={"upsamplers"})
        return cls(
            name=name,
            cell=cells[0],
            up_cell=cells[1] if len(cells) > 1 else None,
            network=PathSpec(
                strides=tuple(strides[arrow.target.level] for arrow in sorted(arrows)) if single else (),
                arrows=() if single else write_arrows(arrows, strides),
                filter_multiplier=space.decoding.filter_multiplier or space.network.filter_multiplier,
                down_layers=space.network.down_layers,
                upsamplers=tuple(upsamplers),
                skips=tuple(skips),
            ),
            stem=space.stem,
            decoder=GenotypeDecoderSpec(**decoder, upsamplers=tuple(decoder_upsamplers)),
            batch_norm=space.network_batch_norm,
            source={"space": space.name, **source},
            retrain=dict(retrain or {}),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for YAML, without options that are off."""
        data = without_defaults(super().to_dict(), self)
        edges = (edge for cell in (self.cell, self.up_cell or ()) for block in cell for edge in block)
        upsamplers = (*self.network.upsamplers, *self.decoder.upsamplers)
        blocks = [stage.block for stage in self.stages]
        write_plugins(data, (edge.operation for edge in edges), upsamplers, [self.decoder.name], blocks)
        if self.up_cell is None:
            del data["up_cell"]
        for key in ("cell", "stages"):
            if not data[key]:
                del data[key]
        if not self.network.strides:
            del data["network"]["strides"]
        return data

    # --- derived facts ------------------------------------------------------------------------------------------------

    @cached_property
    def arrows(self) -> tuple[Arrow, ...]:
        """Every arrow, by layer, then by level."""
        return network_arrows(self.network.strides, self.network.arrows, self.stem.stride)

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.network.strides or self.network.arrows)

    @property
    def is_path(self) -> bool:
        """Whether each layer has one node."""
        return bool(self.network.strides)

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """The level of each layer of a path: 0 at the stem's stride, one more at each doubling."""
        return tuple((stride // self.stem.stride).bit_length() - 1 for stride in self.network.strides)

    @cached_property
    def moves(self) -> tuple[Move, ...]:
        """The move into each layer of a path, from the stem on; empty for several paths."""
        return tuple(arrow.move for arrow in self.arrows) if self.is_path else ()

    def nodes_at(self, layer: int) -> list[Node]:
        """The nodes of layer 1..L, by level."""
        return sorted({arrow.target for arrow in self.arrows if arrow.target.layer == layer})

    def stride(self, level: int) -> int:
        """Output stride of a level."""
        return self.stem.stride << level

    def filters(self, level: int) -> int:
        """Filters of a block at a level: its stage's, or F at the stem's stride, doubled at each further one."""
        return self.stages[level].filters if self.stages else filters_at(level, self.network.filter_multiplier)

    @property
    def all_stages(self) -> tuple[StageSpec, ...]:
        """The stage of each level, from fine to coarse, also where the cell is at every node."""
        levels = range(1 + max(arrow.target.level for arrow in self.arrows))
        return self.stages or tuple(
            StageSpec(stride=self.stride(level), block=CELL, filters=self.filters(level)) for level in levels
        )

    def stage(self, level: int) -> StageSpec | None:
        """The stage of the nodes at a level; None if they hold a cell."""
        stage = self.stages[level] if self.stages else None
        return None if stage is None or stage.block == CELL else stage

    def cell_at(self, layer: int) -> Cell:
        """The cell of layer 1..L."""
        return self.up_cell if self.up_cell is not None and layer > (self.network.down_layers or 0) else self.cell

    @cached_property
    def up_arrows(self) -> tuple[Arrow, ...]:
        """The up moves, in the order of `network.upsamplers` and `network.skips`."""
        return tuple(arrow for arrow in self.arrows if arrow.move is Move.UP)

    def upsampler(self, arrow: Arrow) -> str:
        """The upsampler of an up move."""
        names = self.network.upsamplers
        return names[self.up_arrows.index(arrow)] if names else "bilinear"

    def skip(self, arrow: Arrow) -> Skip:
        """How an encoder feature joins at an up move."""
        return self.network.skips[self.up_arrows.index(arrow)] if self.network.skips else "none"

    def encoder_node(self, level: int, layer: int) -> Node:
        """The last node of `level` before `layer` with a down move. A skip joins its feature; an unpooling reads it.

        It exists for every level that is finer than some node of `layer` - 1.
        """
        left = (arrow.source for arrow in self.arrows if arrow.move is Move.DOWN)
        return max(node for node in left if node.level == level and node.layer < layer)

    @property
    def end_level(self) -> int:
        """The level at which the decoder begins: the finest of the last layer."""
        return self.nodes_at(self.layers)[0].level

    @property
    def decoder_levels(self) -> tuple[int, ...]:
        """The levels from which the decoder doubles, from coarse to fine."""
        return decoder_levels(self, self.end_level)

    # --- files --------------------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, name_or_path: str | Path) -> Genotype:
        """A genotype by name, file or run directory. Raises: GenotypeError: unknown, unreadable, newer or wrong."""
        path = user_path(name_or_path, GenotypeError)
        if path.is_dir():
            path = path / "genotype.yaml"
            if not path.is_file():
                message = (
                    f"{path.parent} holds no genotype.yaml; run `autoseg decode {shell_quoted(str(path.parent))}` first"
                )
                raise GenotypeError(message, code="genotype-missing")
        else:
            path = find_file(name_or_path, "genotype", GenotypeError)
        return cls.parse(read_yaml(path, GenotypeError), str(path))

    def save(self, path: str | Path, format: Literal["yaml", "json"] = "yaml") -> None:
        """Write it atomically as YAML or JSON."""
        data = self.to_dict()
        text = json.dumps(data, indent=2, ensure_ascii=False) + "\n" if format == "json" else to_yaml(data)
        write_text(user_path(path, GenotypeError), text)
