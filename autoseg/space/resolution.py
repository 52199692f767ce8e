"""How features come back up: the upsamplers and the skip connections that compete, and the places where they do."""

from __future__ import annotations

import difflib
import re
from typing import Literal, NamedTuple

from pydantic import field_validator

from autoseg.config.base import Settings

UPSAMPLERS = (
    "nearest",
    "bilinear",
    "transposed_conv",
    "transposed_conv_bilinear",
    "pixel_shuffle",
    "pixel_shuffle_icnr",
    "pixel_dcl",
    "pixel_dcl_equations",
    "pixel_dcl_average",
    "ipixel_dcl",
    "ipixel_dcl_equations",
    "max_unpool",
    "carafe",
    "dysample",
)
"""Every upsampler; `autoseg.ops.upsample` builds them. The pixel deconvolutions take a kernel: `pixel_dcl_5x5`."""
Skip = Literal["none", "add", "concat"]
PLAIN_UPSAMPLERS = ("bilinear",)
"""Auto-DeepLab's: where these stand alone nothing competes, and there is no gamma."""

GREATEST_KERNEL = 31
"""Of a pixel deconvolution, whose cost grows with its square."""


class UpsamplerName(NamedTuple):
    """A name of `UPSAMPLERS` and the kernel size that a pixel deconvolution was given, 3 unless said."""

    base: str
    kernel_size: int


def parse_upsampler(name: str) -> UpsamplerName:
    """What `dysample` or `pixel_dcl_5x5` means. Raises: ValueError: no such upsampler, an even or huge kernel."""
    match = re.fullmatch(r"(i?pixel_dcl\w*?)_(\d{1,2})x(\d{1,2})", name)
    base, sizes = (match[1], {int(match[2]), int(match[3])}) if match else (name, {3})
    if base not in UPSAMPLERS or len(sizes) > 1:
        near = difflib.get_close_matches(name, UPSAMPLERS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(UPSAMPLERS)}"
        raise ValueError(f"unknown upsampler '{name}' ({hint})")
    size = sizes.pop()
    if size % 2 == 0:
        raise ValueError(
            f"'{name}' has an even kernel, for which a pixel deconvolution is not defined; take {size + 1}x{size + 1}"
        )
    if size > GREATEST_KERNEL:
        raise ValueError(f"'{name}' has too large a kernel; take {GREATEST_KERNEL}x{GREATEST_KERNEL} at most")
    return UpsamplerName(base, size)


def check_upsamplers(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, each known and given once. Raises: ValueError."""
    if len({parse_upsampler(name) for name in names}) != len(names):
        raise ValueError("an upsampler is named twice; name each once")
    if not names:
        raise ValueError("needs at least one upsampler, such as [bilinear]")
    return names


class ResolutionSpec(Settings):
    """What competes on the moves to twice the resolution: upsamplers by gamma, skip connections beside them."""

    upsamplers: tuple[str, ...] = PLAIN_UPSAMPLERS
    shared_by: Literal["level", "arrow"] = "level"
    """One choice for all up moves into a level, or one for each arrow of the trellis."""
    skips: tuple[Skip, ...] = ("none",)
    """Skips from the encoder into each level of the up path; a space with `network.down_layers` only."""

    @field_validator("upsamplers")
    @classmethod
    def _upsamplers_are_known(cls, upsamplers: tuple[str, ...]) -> tuple[str, ...]:
        return check_upsamplers(upsamplers)

    @field_validator("skips")
    @classmethod
    def _skips_are_distinct(cls, skips: tuple[Skip, ...]) -> tuple[Skip, ...]:
        if not skips or len(set(skips)) != len(skips):
            raise ValueError("name one or more of none, add, concat, each once")
        return skips


class GammaSite(NamedTuple):
    """A place where upsamplers compete, a row of gamma."""

    name: str
    """`up_16_8`: the up moves from stride 16 to 8; `layer7_16_8`: that into layer 7; `decoder_8_4`: of the decoder."""
    candidates: tuple[str, ...]
