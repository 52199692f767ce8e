"""A search space as data: YAML in, a validated and frozen `SearchSpace` out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cached_property
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from autoseg.errors import AutosegError, GenotypeError, SearchSpaceError
from autoseg.files import read_yaml
from autoseg.settings import Flag, Number, Settings, Whole, parse
from autoseg.space.cell import CellTopology
from autoseg.space.trellis import Trellis

SPACE_VERSION = 1

PAPER_OPERATIONS = (
    "none",
    "skip_connect",
    "avg_pool_3x3",
    "max_pool_3x3",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "atrous_conv_3x3",
    "atrous_conv_5x5",
)
"""The operations that compete in Auto-DeepLab (section 3.1)."""
OPERATIONS = (*PAPER_OPERATIONS, "dil_conv_3x3", "dil_conv_5x5")
"""Every operation that a cell may choose, those of DARTS included; `autoseg.ops.registry` builds them."""

Positive = Annotated[Whole, Field(ge=1, le=4096)]
Temperature = Annotated[Number, Field(gt=0, le=1000)]


def check_version(version: int, newest: int, what: str) -> int:
    """Refuse a file that a newer autoseg wrote."""
    if version > newest:
        raise ValueError(f"this {what} has version {version}, but this autoseg reads up to {newest}; update autoseg")
    if version < 1:
        raise ValueError(f"there is no version {version}; the newest is {newest}")
    return version


def refuse_newer(data: Mapping[str, Any], newest: int, what: str, where: str, error: type[AutosegError]) -> None:
    """Refuse data of a newer version before its unknown keys are found, of which a newer version may have some."""
    version = data.get("version")
    if isinstance(version, int) and version > newest:
        raise error(
            f"{where or f'this {what}'} has version {version}, but this autoseg reads up to {newest}; update autoseg"
        )


class CellSpec(Settings):
    """The cell: blocks, each the sum of its inputs, and the operations that compete on every edge."""

    blocks: Annotated[Whole, Field(ge=1, le=16)] = 5
    operations: tuple[str, ...] = PAPER_OPERATIONS

    @field_validator("operations")
    @classmethod
    def _operations_are_known(cls, operations: tuple[str, ...]) -> tuple[str, ...]:
        for operation in operations:
            if operation not in OPERATIONS:
                near = difflib.get_close_matches(operation, OPERATIONS, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(OPERATIONS)}"
                raise ValueError(f"unknown operation '{operation}' ({hint})")
        if len(set(operations)) != len(operations):
            raise ValueError("an operation is named twice; name each once")
        if not set(operations) - {"none"}:
            raise ValueError("needs at least one operation other than 'none'")
        return operations


class NetworkSpec(Settings):
    """The network level: layers of cells at several strides, and the moves that are legal between them."""

    layers: Annotated[Whole, Field(ge=2, le=256)] = 12
    strides: tuple[Positive, ...] = (4, 8, 16, 32)
    filter_multiplier: Positive = 8
    """F: the filters of a block at the smallest stride; doubled at each further one."""
    moves: tuple[Literal["up", "same", "down"], ...] = ("up", "same", "down")

    @field_validator("strides")
    @classmethod
    def _strides_are_adjacent(cls, strides: tuple[int, ...]) -> tuple[int, ...]:
        if not strides or strides[0] & (strides[0] - 1):
            raise ValueError("strides must be powers of two, such as [4, 8, 16, 32]")
        if any(coarse != 2 * fine for fine, coarse in pairwise(strides)):
            raise ValueError(f"strides must double from one to the next, such as [4, 8, 16, 32], not {list(strides)}")
        if strides[-1] > 32:
            raise ValueError(f"the greatest stride is 32, since inputs may be 32 pixels wide, not {strides[-1]}")
        return strides

    @field_validator("moves")
    @classmethod
    def _same_is_legal(cls, moves: tuple[str, ...]) -> tuple[str, ...]:
        if "same" not in moves:
            raise ValueError("must contain 'same', or a path could not reach the last layer")
        return tuple(move for move in ("up", "same", "down") if move in moves)


class StemSpec(Settings):
    """3x3 convolutions before the first layer, each with BatchNorm, ReLU between them."""

    channels: tuple[Positive, ...] = (64, 64, 128)
    strides: tuple[Literal[1, 2], ...] = (2, 1, 2)

    @model_validator(mode="after")
    def _one_stride_each(self) -> StemSpec:
        if len(self.channels) != len(self.strides) or not self.channels:
            raise ValueError("'channels' and 'strides' need one number a convolution, and at least one convolution")
        return self

    @cached_property
    def stride(self) -> int:
        """Output stride of the stem's last convolution."""
        return 1 << self.strides.count(2)


class HeadSpec(Settings):
    """The heads of the supernet: a small ASPP a stride (1x1, one 3x3 at rate `aspp_rate` / stride, image pooling)."""

    aspp_rate: Positive = 96


class DecoderSpec(Settings):
    """The head of a discrete network: ASPP, then the DeepLabv3+ decoder (Chen et al. 2018) or none."""

    name: Literal["deeplabv3plus", "aspp"] = "deeplabv3plus"
    filters: Positive = 256
    aspp_rates: tuple[Positive, ...] = (96, 192, 288)
    """Divided by the output stride: 12, 24 and 36 at stride 8."""
    low_level_filters: Positive = 48
    low_level_stride: Positive = 4
    """The low-level feature is the path's last layer at this stride, or the stem's where there is none."""
    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.1


class BatchNormSpec(Settings):
    """BatchNorm's constants; `momentum` is the share of the new value (1 - TensorFlow's decay)."""

    eps: Annotated[Number, Field(gt=0)] = 1e-5
    momentum: Annotated[Number, Field(gt=0, le=1)] = 0.1


class DecodingSpec(Settings):
    """How logits become a discrete network."""

    path_prior: Literal["uniform", "paper"] = "uniform"
    """`paper`: Viterbi on the probabilities as they are, which favours the border strides, as these have fewer arrows.
    `uniform`: each probability is multiplied by the number of arrows leaving its node, so that equal logits tie."""
    filter_multiplier: Positive | None = None
    """F of the decoded network, which may be wider (20 for Auto-DeepLab-S); left out, the supernet's."""


class RelaxationSpec(Settings):
    """Options that change what the supernet computes, and so the search, to save time and memory: all off."""

    pc_darts: Annotated[Whole, Field(ge=1, le=256)] | None = None
    """K of PC-DARTS (Xu et al. 2020): 1/K of a state's channels pass through the operations of an edge, the others
    bypass them; a probability for each edge into a block (edge normalisation). With 1 the latter alone."""
    gdas: tuple[Temperature, Temperature] | None = None
    """GDAS (Dong and Yang 2019): of each edge one operation a step, sampled by the Gumbel-softmax trick; the
    temperature at the first and at the last step of a search, such as 10 and 0.1, linear between them."""
    mix_before_cell: Flag = False
    """Mix the arrows into a node by beta before its cell, as FasterSeg (Chen et al. 2020) does, instead of after it:
    one evaluation of the cell a node instead of one an arrow."""


class SearchSpace(Settings):
    """Everything that defines a search space. `SearchSpace.load("auto_deeplab")` reads one."""

    version: Whole = SPACE_VERSION
    name: Annotated[str, Field(min_length=1)]
    description: str = ""
    cell: CellSpec = CellSpec()
    network: NetworkSpec = NetworkSpec()
    stem: StemSpec = StemSpec()
    head: HeadSpec = HeadSpec()
    decoder: DecoderSpec = DecoderSpec()
    network_batch_norm: BatchNormSpec = BatchNormSpec()
    """Of the decoded network; the supernet's has no affine parameters and the usual constants."""
    decoding: DecodingSpec = DecodingSpec()
    relaxation: RelaxationSpec = RelaxationSpec()

    @field_validator("version")
    @classmethod
    def _version_is_known(cls, version: int) -> int:
        return check_version(version, SPACE_VERSION, "search space")

    @model_validator(mode="after")
    def _stem_reaches_first_stride(self) -> SearchSpace:
        if self.stem.stride != self.network.strides[0]:
            raise ValueError(
                f"stem.strides {list(self.stem.strides)} reach stride {self.stem.stride}, but network.strides"
                f" starts at {self.network.strides[0]}; make the two equal"
            )
        return self

    @model_validator(mode="after")
    def _channels_can_be_shared_out(self) -> SearchSpace:
        share = self.relaxation.pc_darts or 1
        if self.network.filter_multiplier % share:
            raise ValueError(
                f"relaxation.pc_darts {share} must divide network.filter_multiplier {self.network.filter_multiplier},"
                " as 1/pc_darts of the channels pass through the operations"
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain data for YAML; `relaxation` where anything in it is on, so that older checkpoints still fit."""
        data = super().to_dict()
        if self.relaxation == RelaxationSpec():
            del data["relaxation"]
        return data

    @cached_property
    def trellis(self) -> Trellis:
        """The legal nodes and arrows."""
        return Trellis(self.network.layers, self.network.strides, self.network.moves)

    @cached_property
    def topology(self) -> CellTopology:
        """The edges of the cell."""
        return CellTopology(self.cell.blocks)

    @classmethod
    def parse(cls, data: Mapping[str, Any], where: str = "") -> SearchSpace:
        """A space from plain data. Raises: SearchSpaceError: one line on what is wrong."""
        refuse_newer(data, SPACE_VERSION, "search space", where, SearchSpaceError)
        return parse(cls, data, where, SearchSpaceError)

    @classmethod
    def load(cls, name_or_path: str | Path) -> SearchSpace:
        """A space by name or path. Raises: SearchSpaceError: unknown, unreadable or wrong."""
        space, _ = load_space(name_or_path)
        return space


def load_space(name_or_path: str | Path) -> tuple[SearchSpace, dict[str, Any]]:
    """A space, and the schedules which its file recommends: `{"search": {...}, "retrain": {...}}`, each optional."""
    path = find_file(name_or_path, "search space", SearchSpaceError)
    data = read_yaml(path, SearchSpaceError)
    schedules: dict[str, Any] = {key: data.pop(key) for key in ("search", "retrain") if key in data}
    for key, schedule in schedules.items():
        if not isinstance(schedule, dict):
            raise SearchSpaceError(f"{key} must be a mapping of settings in {path}")
    return SearchSpace.parse(data, str(path)), schedules


# --- files that are found by name ----------------------------------------------------------------------------------


def _library() -> Path:
    """The folder `search_spaces/`: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(str(resources.files("autoseg")))
    installed = package / "search_spaces"
    return installed if installed.is_dir() else package.parent / "search_spaces"


def space_names() -> list[str]:
    """The spaces that ship with autoseg."""
    return sorted(path.stem for path in _library().glob("*.yaml"))


def genotype_names() -> list[str]:
    """The published networks that ship with autoseg as genotypes."""
    return sorted(path.stem for path in (_library() / "genotypes").glob("*.yaml"))


def find_file(name_or_path: str | Path, what: str, error: type[AutosegError]) -> Path:
    """The YAML file of a shipped space or genotype by its name, or the path itself.

    Raises: `error`: neither a known name nor a file.
    """
    text = str(name_or_path)
    folder, names = (
        (_library() / "genotypes", genotype_names()) if error is GenotypeError else (_library(), space_names())
    )
    if text in names:
        return folder / f"{text}.yaml"
    path = Path(text).expanduser()
    if path.is_file():
        return path
    near = difflib.get_close_matches(text, names, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(names)}; or give the path of a YAML file"
    raise error(f"unknown {what} {text!r} ({hint})")
