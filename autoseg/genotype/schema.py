"""A genotype: one discrete architecture, complete enough to rebuild the network, as YAML or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from autoseg.errors import GenotypeError
from autoseg.files import read_yaml, to_yaml, write_text
from autoseg.settings import Settings, Whole, parse
from autoseg.space.cell import state_index
from autoseg.space.schema import (
    OPERATIONS,
    BatchNormSpec,
    DecoderSpec,
    Positive,
    SearchSpace,
    StemSpec,
    check_version,
    find_file,
    refuse_newer,
)
from autoseg.space.trellis import Move

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
            raise ValueError(f"unknown operation '{operation}' (known: {', '.join(OPERATIONS[1:])})")
        return operation

    @property
    def state(self) -> int:
        """The input as a state number: 0 prev_prev, 1 prev, 2 the first block."""
        return state_index(self.input)


class PathSpec(Settings):
    """The path: the output stride of each layer, and F."""

    strides: Annotated[tuple[Positive, ...], Field(min_length=2)]
    filter_multiplier: Positive


class Genotype(Settings):
    """A discrete architecture. `Genotype.load(name_or_path)`, `genotype.save(path)`."""

    version: Whole = GENOTYPE_VERSION
    name: Annotated[str, Field(min_length=1)]
    cell: Annotated[tuple[tuple[Edge, ...], ...], Field(min_length=1)]
    """Edges of each block; a block is the sum of its edges, the cell concatenates its blocks."""
    network: PathSpec
    stem: StemSpec = StemSpec()
    decoder: DecoderSpec = DecoderSpec()
    batch_norm: BatchNormSpec = BatchNormSpec()
    source: dict[str, Any] = Field(default_factory=dict)
    """Where it came from: a paper, or the space, run, epoch and path prior."""
    retrain: dict[str, Any] = Field(default_factory=dict)
    """The schedule with which its space recommends to train it; `autoseg retrain` starts from it."""

    @field_validator("version")
    @classmethod
    def _version_is_known(cls, version: int) -> int:
        return check_version(version, GENOTYPE_VERSION, "genotype")

    @field_validator("cell")
    @classmethod
    def _inputs_exist(cls, cell: tuple[tuple[Edge, ...], ...], _: ValidationInfo) -> tuple[tuple[Edge, ...], ...]:
        for number, block in enumerate(cell):
            if not block:
                raise ValueError(f"block b{number + 1} has no inputs; give it at least one")
            for edge in block:
                if edge.state >= number + 2:
                    raise ValueError(f"block b{number + 1} reads '{edge.input}', which does not come before it")
        return cell

    @model_validator(mode="after")
    def _path_is_connected(self) -> Genotype:
        strides = (self.stem.stride, *self.network.strides)
        for layer, (source, target) in enumerate(pairwise(strides), start=1):
            if target not in (source // 2, source, source * 2):
                raise ValueError(
                    f"the path steps from stride {source} to {target} at layer {layer}; it may halve or double"
                )
            if target < strides[0] or target > 32:
                raise ValueError(f"the path has stride {target} at layer {layer}; it may be {strides[0]} to 32")
        return self

    @classmethod
    def of_space(
        cls,
        space: SearchSpace,
        name: str,
        cell: tuple[tuple[Edge, ...], ...],
        levels: Sequence[int],
        source: Mapping[str, Any],
        retrain: Mapping[str, Any] | None = None,
    ) -> Genotype:
        """A genotype with what its space fixes: stem, decoder, BatchNorm and width; levels: of layers 1..L."""
        return cls(
            name=name,
            cell=cell,
            network=PathSpec(
                strides=tuple(space.network.strides[level] for level in levels),
                filter_multiplier=space.decoding.filter_multiplier or space.network.filter_multiplier,
            ),
            stem=space.stem,
            decoder=space.decoder,
            batch_norm=space.network_batch_norm,
            source={"space": space.name, **source},
            retrain=dict(retrain or {}),
        )

    # --- what follows from it -----------------------------------------------------------------------------------------

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """Level of each layer: 0 at the stem's stride, one more at each doubling."""
        return tuple((stride // self.stem.stride).bit_length() - 1 for stride in self.network.strides)

    @cached_property
    def moves(self) -> tuple[Move, ...]:
        """The move into each layer, from the stem on."""
        levels = (0, *self.levels)
        return tuple(Move(after - before + 1) for before, after in pairwise(levels))

    def filters(self, layer: int) -> int:
        """Filters of a block at `layer` (1..L): F at the stem's stride, doubled at each further one."""
        return self.network.filter_multiplier << self.levels[layer - 1]

    # --- files --------------------------------------------------------------------------------------------------------

    @classmethod
    def parse(cls, data: Mapping[str, Any], where: str = "") -> Genotype:
        """A genotype from plain data. Raises: GenotypeError: one line on what is wrong."""
        refuse_newer(data, GENOTYPE_VERSION, "genotype", where, GenotypeError)
        return parse(cls, data, where, GenotypeError)

    @classmethod
    def load(cls, name_or_path: str | Path) -> Genotype:
        """A genotype by name (a published one), by file (YAML or JSON), or of a run directory.

        Raises: GenotypeError: unknown, unreadable, of a newer version, or wrong.
        """
        path = Path(name_or_path).expanduser()
        if path.is_dir():
            path = path / "genotype.yaml"
            if not path.is_file():
                raise GenotypeError(f"{path.parent} holds no genotype.yaml; run `autoseg decode {path.parent}` first")
        else:
            path = find_file(name_or_path, "genotype", GenotypeError)
        return cls.parse(read_yaml(path, GenotypeError), str(path))

    def save(self, path: str | Path, format: Literal["yaml", "json"] = "yaml") -> None:
        """Write it atomically as YAML or JSON."""
        data = self.to_dict()
        text = json.dumps(data, indent=2, ensure_ascii=False) + "\n" if format == "json" else to_yaml(data)
        write_text(Path(path), text)
