"""Colours of classes, and label maps as pictures. Colours are uint8 red, green, blue."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import ConfigError, DataError

IGNORE_COLOUR = (0, 0, 0)
"""Ignored pixels are black; no class is black or white."""

_FIRST = bytes.fromhex("8A8F98 0072B2 E69F00 009E73 D55E00 56B4E9 CC79A7 F0E442")
"""Grey for class 0, which most data sets use for background or road, then Okabe and Ito's colours."""
_SPREAD = 256
"""Up to this count each colour is the one farthest from those before it; beyond, no eye would see a difference."""


def palette(num_classes: int) -> np.ndarray:
    """Colours of `num_classes` classes, (num_classes, 3) uint8: all different, and the same each time.

    A longer palette begins with the shorter one. Raises: ConfigError: fewer than 1 class, or more than 65,536.
    """
    if not 1 <= num_classes <= 2**16:
        raise ConfigError(f"a palette has 1 to {2**16} colours, not {num_classes}", code="palette-size-out-of-range")
    first = np.array(bytearray(_FIRST), dtype=np.uint8).reshape(-1, 3)
    if num_classes <= len(first):
        return first[:num_classes]
    spread = _spread(first, min(num_classes, _SPREAD))
    return spread if num_classes <= _SPREAD else _bit_trick(spread, num_classes)


def _spread(first: np.ndarray, count: int) -> np.ndarray:
    """`first`, then again and again the candidate that the eye sees farthest from all colours so far."""
    steps = np.linspace(0, 255, 18).round()
    candidates = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    lab = _lab(candidates)
    in_range = (lab[:, 0] > 28) & (lab[:, 0] < 92)  # neither nearly black nor nearly white
    candidates, lab = candidates[in_range], lab[in_range]
    taken = _lab(np.concatenate([first, [[0, 0, 0], [255, 255, 255]]]).astype(float))
    nearest = np.min([((lab - colour) ** 2).sum(-1) for colour in taken], axis=0)
    picked: list[int] = []
    while len(first) + len(picked) < count:
        picked.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, ((lab - lab[picked[-1]]) ** 2).sum(-1))
    return np.concatenate([first, candidates[picked].astype(np.uint8)])


def _lab(colours: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of sRGB colours in 0..255, (count, 3): distances are roughly what the eye sees."""
    srgb = colours / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], -1)


def _bit_trick(colours: np.ndarray, count: int) -> np.ndarray:
    """Continue as PASCAL VOC does: the bits of a number go to red, green and blue in turn, highest bit first."""
    place, channel = np.arange(8)[:, None], np.arange(3)
    numbers = np.arange(1, count + len(colours) + 2)[:, None, None]
    bits = numbers >> (3 * place + channel) & 1
    dealt = (bits << (7 - place)).sum(1)
    used = {tuple(colour) for colour in [*colours.tolist(), [0, 0, 0], [255, 255, 255]]}
    fresh = [colour for colour in dealt.tolist() if tuple(colour) not in used]
    return np.concatenate([colours, np.array(fresh[: count - len(colours)], dtype=np.uint8)])


def colour(mask: np.ndarray, palette: np.ndarray, ignore_label: int | None = None) -> np.ndarray:
    """A label map (H, W) as a picture, (H, W, 3) uint8; ignored pixels are black.

    palette: (classes, 3) uint8. Raises: DataError: a mask that is not (H, W) integers, or a label without a colour.
    """
    if mask.ndim != 2 or not np.issubdtype(mask.dtype, np.integer):
        message = f"a label map has integers (H, W), not {mask.dtype} {list(mask.shape)}"
        raise DataError(message, code="mask-not-label-map")
    ignored = np.zeros(mask.shape, dtype=bool) if ignore_label is None else mask == ignore_label
    labels = np.where(ignored, 0, mask).astype(np.int64)
    wrong = labels[(labels < 0) | (labels >= len(palette))]
    if wrong.size:
        message = f"label {int(wrong[0])} has no colour: there are {len(palette)} classes (0..{len(palette) - 1})"
        raise DataError(message, code="label-out-of-range")
    picture = palette[labels]
    picture[ignored] = IGNORE_COLOUR
    return np.asarray(picture, dtype=np.uint8)


def overlay(
    image: np.ndarray, mask: np.ndarray, palette: np.ndarray, opacity: float = 0.5, ignore_label: int | None = None
) -> np.ndarray:
    """An image (H, W, 3) uint8 tinted by its label map (H, W), as (H, W, 3) uint8; ignored pixels do not change.

    Raises: DataError: sizes that differ, or as `colour`. ConfigError: an opacity not from 0 (image) to 1 (labels).
    """
    if not 0 <= opacity <= 1:
        raise ConfigError(f"opacity must be between 0 and 1, not {opacity}", code="opacity-out-of-range")
    if image.shape != (*mask.shape, 3) or image.dtype != np.uint8:
        raise DataError(
            f"an overlay needs a uint8 image (H, W, 3) and a mask (H, W) of one size, not {image.dtype}"
            f" {list(image.shape)} and {list(mask.shape)}",
            code="overlay-input-invalid",
        )
    colours = colour(mask, palette, ignore_label).astype(np.float64)
    mixed = np.rint(image * (1 - opacity) + colours * opacity).astype(np.uint8)
    return mixed if ignore_label is None else np.where((mask == ignore_label)[..., None], image, mixed)


def as_picture(image: np.ndarray) -> NDArray[np.uint8]:
    """(H, W, C) as (H, W, 3) uint8: uint8 stays, other numbers are stretched from 1st to 99th percentile.

    One or two channels are shown as grey; of more than three, the first three are shown.
    """
    channels = image[:, :, [0, 1, 2]] if image.shape[2] > 2 else image[:, :, [0, 0, 0]]
    if channels.dtype == np.uint8:
        return np.asarray(channels, dtype=np.uint8)
    low, high = np.percentile(channels, (1, 99))
    shares = (channels.astype(np.float64) - low) / max(float(high - low), 1e-12)
    return np.asarray(np.rint(shares.clip(0, 1) * 255), dtype=np.uint8)
