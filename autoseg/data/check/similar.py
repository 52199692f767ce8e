"""Images that look nearly alike, by the signs of differences in a tiny picture (a difference hash)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Look: TypeAlias = NDArray[np.int8]
"""(128,): sign of each of 64 differences to the right and 64 down, in a grey picture of 9x9; 0 where it is flat."""
SIDE = 9
"""Pixels of the tiny picture, each way."""
LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Pillow's weights of red, green and blue in grey."""
FLAT = 1 / 64
"""A difference below this share of the picture's range is 0."""
LEAST_SIGNS = 32
"""A picture with fewer differences is flat, and like no other."""
LEAST_ALIKE = 0.875
"""Two pictures are alike if this share of their differences agrees, less those that are opposite. Copies of CamVid's
frames in other quality, size or brightness agree by 0.9 or more, and frames of different places by 0.65 or less."""
MOST_ALIKE, MOST_ALIKE_SHARE = 5, 0.05
"""A picture that is like more training images than both this number and this share of them is like all of them."""
AT_ONCE = 256
"""Images to compare with all training images at once."""


def look_of(image: Image.Image | NDArray[Any]) -> Look:
    """The look of an image (H, W) of 8 bits a channel, or of an array (H, W, C)."""
    if isinstance(image, Image.Image):
        grey = image.convert("L")
    else:
        weights = LUMINANCE if image.shape[2] == 3 else np.full(image.shape[2], 1 / image.shape[2], dtype=np.float32)
        grey = Image.fromarray(np.nan_to_num(image.astype(np.float32) @ weights, posinf=0, neginf=0))
    tiny = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32)
    steps = np.concatenate([np.diff(tiny, axis=1)[:-1].ravel(), np.diff(tiny, axis=0)[:, :-1].ravel()])
    steps[np.abs(steps) <= FLAT * np.ptp(tiny)] = 0
    signs: Look = np.sign(steps).astype(np.int8)
    return signs


def alike(looks: Sequence[Look], training: Sequence[Look]) -> list[int | None]:
    """For each of `looks`, the index of the training image that it looks nearly like; None if there is none."""
    if not looks or not training:
        return [None] * len(looks)
    known = np.stack(training).astype(np.float32)
    signs_known = np.abs(known).sum(1)
    found: list[int | None] = []
    for start in range(0, len(looks), AT_ONCE):
        some = np.stack(looks[start : start + AT_ONCE]).astype(np.float32)
        agree, signs = some @ known.T, np.maximum(np.abs(some).sum(1), LEAST_SIGNS)
        best: list[int | None] = [None] * len(some)
        for row in np.flatnonzero(agree.max(1) >= LEAST_ALIKE * signs):
            share = agree[row] / np.maximum(signs[row], signs_known)
            if 0 < np.count_nonzero(share >= LEAST_ALIKE) <= max(MOST_ALIKE, MOST_ALIKE_SHARE * len(training)):
                best[row] = int(share.argmax())
        found += best
    return found
