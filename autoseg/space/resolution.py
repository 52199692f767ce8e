"""Upsampling: the upsamplers and skip connections that compete, and the places where they do."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field, field_validator

from autoseg import limits
from autoseg.config.base import Settings
from autoseg.registry import UPSAMPLERS, Upsampler

Skip = Literal["none", "add", "concat"]
PLAIN_UPSAMPLERS = ("bilinear",)
"""Auto-DeepLab's upsampler. With it alone nothing competes, and there is no gamma."""

GREATEST_KERNEL = 31
"""Greatest kernel size of a pixel deconvolution, whose cost grows with its square."""


class UpsamplerName(NamedTuple):
    """A name of the registry and the kernel size of a pixel deconvolution (default: 3)."""

    base: str
    kernel_size: int


def parse_upsampler(name: str) -> UpsamplerName:
    """Parse `dysample` or `pixel_dcl_5x5`. Raises: ValueError: an unknown upsampler, an even or huge kernel."""
    if name in UPSAMPLERS:
        return UpsamplerName(name, 3)
    match = re.fullmatch(r"(\w+?)_(\d{1,2})x(\d{1,2})", name)
    known = match is not None and match[1] in UPSAMPLERS and UPSAMPLERS[match[1]].takes_kernel_size
    if match is None or not known or int(match[2]) != int(match[3]):
        raise ValueError(UPSAMPLERS.unknown(name))
    size = int(match[2])
    if size % 2 == 0:
        raise ValueError(
            f"'{name}' has an even kernel, for which a pixel deconvolution is not defined; take {size + 1}x{size + 1}"
        )
    if size > GREATEST_KERNEL:
        raise ValueError(f"'{name}' has too large a kernel; take {GREATEST_KERNEL}x{GREATEST_KERNEL} at most")
    return UpsamplerName(match[1], size)


def find_upsampler(name: str) -> Upsampler:
    """The record of `dysample`, or of `pixel_dcl_5x5` with its kernel size. Raises: see `parse_upsampler`."""
    base, size = parse_upsampler(name)
    record = UPSAMPLERS[base]
    if name == base:
        return record
    cost, build = (partial(function, kernel_size=size) for function in (record.multiply_adds, record.build))
    return replace(record, name=name, label=f"{record.label} {size}x{size}", multiply_adds=cost, build=build)


def check_upsamplers(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, if each is known and given once. Raises: ValueError: else, or for no name."""
    if len({parse_upsampler(name) for name in names}) != len(names):
        raise ValueError("an upsampler is named twice; name each once")
    if not names:
        raise ValueError("needs at least one upsampler, such as [bilinear]")
    return names


CompetingUpsamplers = Annotated[tuple[str, ...], Field(max_length=limits.NAMES), AfterValidator(check_upsamplers)]
"""At least one known upsampler, each once."""


class ResolutionSpec(Settings):
    """The competition on moves to twice the resolution: upsamplers by gamma, and skip connections."""

    upsamplers: CompetingUpsamplers = PLAIN_UPSAMPLERS
    shared_by: Literal["level", "arrow"] = "level"
    """One choice for all up moves into a level, or one for each arrow of the trellis."""
    skips: Annotated[tuple[Skip, ...], Field(max_length=limits.NAMES)] = ("none",)
    """Skips from the encoder into each level of the up path; a space with `network.down_layers` only."""

    @field_validator("skips")
    @classmethod
    def _skips_are_distinct(cls, skips: tuple[Skip, ...]) -> tuple[Skip, ...]:
        if not skips or len(set(skips)) != len(skips):
            raise ValueError("name one or more of none, add, concat, each once")
        return skips


class GammaSite(NamedTuple):
    """A place where upsamplers compete, a row of gamma."""

    name: str
    """`up_16_8`: the up moves from stride 16 to 8; `layer7_16_8`: that into layer 7; `decoder_8_4`: the decoder's."""
    candidates: tuple[str, ...]
