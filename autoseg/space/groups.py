"""The groups of settings of a search space."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from autoseg import limits
from autoseg.config.base import Flag, Number, Settings, Whole
from autoseg.registry import DECODERS, OPERATIONS
from autoseg.space.resolution import PLAIN_UPSAMPLERS, CompetingUpsamplers

PAPER_OPERATIONS = (
    "none", "skip_connect", "avg_pool_3x3", "max_pool_3x3",
    "sep_conv_3x3", "sep_conv_5x5", "atrous_conv_3x3", "atrous_conv_5x5",
)  # fmt: skip
"""The operations that compete in Auto-DeepLab (section 3.1)."""

Positive = Annotated[Whole, Field(ge=1, le=4096)]
Rates = Annotated[tuple[Positive, ...], Field(max_length=limits.RATES)]
Temperature = Annotated[Number, Field(gt=0, le=1000)]


class CellSpec(Settings):
    """The cell: blocks, each the sum of its inputs, and the operations that compete on every edge."""

    blocks: Annotated[Whole, Field(ge=1, le=16)] = 5
    operations: Annotated[tuple[str, ...], Field(max_length=limits.NAMES)] = PAPER_OPERATIONS
    up_cell: Flag = False
    """The cells of the up path have an alpha and a cell of their own, as in NAS-Unet (Weng et al. 2019)."""

    @field_validator("operations")
    @classmethod
    def _operations_are_known(cls, operations: tuple[str, ...]) -> tuple[str, ...]:
        for operation in operations:
            if operation not in OPERATIONS:
                raise ValueError(OPERATIONS.unknown(operation))
        if len(set(operations)) != len(operations):
            raise ValueError("an operation is named twice; name each once")
        if not set(operations) - {"none"}:
            raise ValueError("needs at least one operation other than 'none'")
        return operations


class NetworkSpec(Settings):
    """The network level: layers of cells at several strides, and the moves that are legal between them."""

    layers: Annotated[Whole, Field(ge=2, le=limits.LAYERS)] = 12
    strides: Annotated[tuple[Positive, ...], Field(max_length=limits.STEM)] = (4, 8, 16, 32)
    filter_multiplier: Positive = 8
    """F: the filters of a block at the smallest stride; doubled at each further one."""
    moves: Annotated[tuple[Literal["up", "same", "down"], ...], Field(max_length=limits.NAMES)] = ("up", "same", "down")
    down_layers: Positive | None = None
    """Layers of the down path, where no move goes up. No move in a later layer goes down, and the last layer has the
    smallest stride (an hourglass, as U-Net). Default: moves in any order, and any level may be the last."""
    paths: Literal["single", "multi"] = "single"
    """`multi`: beta is a sigmoid of each arrow, and several arrows into and out of a node stay (DiNTS, He 2021)."""

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

    @model_validator(mode="after")
    def _comes_back_up(self) -> NetworkSpec:
        down, levels = self.down_layers, len(self.strides)
        if down is None:
            return self
        if "up" not in self.moves or "down" not in self.moves:
            raise ValueError("a space with down_layers needs the moves up, same and down")
        needed = levels - 1
        if down < needed or self.layers - down < needed:
            raise ValueError(
                f"strides {list(self.strides)} need {needed} layers down and {needed} back up to stride"
                f" {self.strides[0]}, but there are {down} and {max(0, self.layers - down)}; add layers, or take fewer"
                " strides"
            )
        return self


class StemSpec(Settings):
    """3x3 convolutions before the first layer, each with BatchNorm, ReLU between them."""

    channels: Annotated[tuple[Positive, ...], Field(max_length=limits.STEM)] = (64, 64, 128)
    strides: Annotated[tuple[Literal[1, 2], ...], Field(max_length=limits.STEM)] = (2, 1, 2)

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
    """The heads of the supernet, one per stride of the last layer; their score maps are summed."""

    name: Literal["aspp", "classifier"] = "aspp"
    """`aspp`: a small ASPP (1x1, one 3x3 at rate `aspp_rate` / stride, image pooling); `classifier`: only a 1x1."""
    aspp_rate: Positive = 96


class DecoderSpec(Settings):
    """The head of a discrete network."""

    name: str = "deeplabv3plus"
    """A decoder of the registry, see `autoseg.ops.decoders`."""
    filters: Positive = 256
    aspp_rates: Rates = (96, 192, 288)
    """Dilation rates times the output stride: 12, 24 and 36 at stride 8."""
    low_level_filters: Positive = 48
    low_level_stride: Positive = 4
    """The low-level feature is the path's last layer at this stride, or the stem if there is none."""
    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.1

    @field_validator("name")
    @classmethod
    def _name_is_known(cls, name: str) -> str:
        if name not in DECODERS:
            raise ValueError(DECODERS.unknown(name))
        return name


class SpaceDecoderSpec(DecoderSpec):
    """The decoder of a space."""

    upsamplers: CompetingUpsamplers = PLAIN_UPSAMPLERS
    """Upsamplers that compete on each doubling of the decoder; `[bilinear]` alone resizes in one step."""


class BatchNormSpec(Settings):
    """BatchNorm's constants; `momentum` is the weight of the new value (1 - TensorFlow's decay)."""

    eps: Annotated[Number, Field(gt=0, le=1)] = 1e-5
    momentum: Annotated[Number, Field(gt=0, le=1)] = 0.1


class DecodingSpec(Settings):
    """Settings for the decoding of logits to a discrete network."""

    path_prior: Literal["uniform", "paper"] = "uniform"
    """`paper`: Viterbi on the plain probabilities, which favours the border strides, as these have fewer arrows.
    `uniform`: multiplies each probability by the number of arrows leaving its node, so equal logits tie."""
    filter_multiplier: Positive | None = None
    """F of the decoded network, which may be wider (20 for Auto-DeepLab-S). Default: the supernet's."""
    threshold: Annotated[Number, Field(gt=0, lt=1)] = 0.5
    """With `network.paths: multi`, arrows of greater probability stay, if every node keeps an arrow in and out."""
    budget: Annotated[Number, Field(gt=0, le=limits.FACTOR)] | None = None
    """With `network.paths: multi`, the greatest cost of cells and arrows: billions of multiply-adds per megapixel."""


class RelaxationSpec(Settings):
    """Options that change the supernet, and so the search, to save time and memory. Default: all off."""

    pc_darts: Annotated[Whole, Field(ge=1, le=256)] | None = None
    """K of PC-DARTS (Xu et al. 2020): 1/K of a state's channels pass through the operations of an edge, the others
    bypass them, and each edge into a block has a probability (edge normalisation). With 1, only the probabilities."""
    gdas: tuple[Temperature, Temperature] | None = None
    """GDAS (Dong and Yang 2019): each step samples one operation per edge by the Gumbel-softmax trick. The temperatures
    at the first and the last step of a search, such as 10 and 0.1; linear between them."""
    mix_before_cell: Flag = False
    """Mix the arrows into a node by beta before its cell, as Dynamic Routing (Li et al. 2020) does, not after it: one
    evaluation of the cell per node instead of one per arrow."""
