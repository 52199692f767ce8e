"""Scores of images in bands of rows, so that memory holds all classes of a few rows only, not of a large image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.config.base import LEAST_INPUT_SIDE
from autoseg.config.inference import InferenceConfig
from autoseg.engine.sliding_window import sliding_bands
from autoseg.network.base import SegmentationNetwork
from autoseg.ops.devices import preferred_format

BAND_BYTES = 2**24
"""Most bytes of a band, unless one row needs more."""
PLAIN = InferenceConfig()
"""One pass at the images' own size."""


def score_bands(
    network: nn.Module, images: Tensor, inference: InferenceConfig = PLAIN, band_bytes: int = BAND_BYTES
) -> Iterator[Tensor]:
    """(N, C, H, W) -> (N, K, rows, W) from top to bottom: logits, or log mean probabilities if there are several views.

    Views are the images at each scale and their mirror images. With `inference.fuse` "max" several views become each
    class's greatest logit (DeepLab v2, section 4.1). Scaled sides are rounded to whole pixels and at least 32; smaller
    images are padded below and to the right with their mean colour, as in training. The scores of a mirror image are
    turned back, and its left and right classes swapped back (`SegmentationNetwork.mirrored_classes`). With
    `inference.window` each view is computed in sliding windows (`sliding_bands`). The CRF is not applied here. The
    network may be in float32 or bf16. Several views hold all classes of all pixels once in memory; a single view does
    not. A band has at most `band_bytes`, unless one row needs more.
    """
    height, width = images.shape[2:]
    if min(height, width) < LEAST_INPUT_SIDE:
        images = F.pad(images, (0, max(0, LEAST_INPUT_SIDE - width), 0, max(0, LEAST_INPUT_SIDE - height)))
    top = 0
    images = images.contiguous(memory_format=preferred_format(images.device))
    for band in _fused(network, images, inference, band_bytes):
        if top < height:
            yield band[:, :, : height - top, :width]
        top += band.shape[2]


def resized_bands(
    bands: Iterable[Tensor], length: int, size: Sequence[int], align_corners: bool, band_bytes: int = BAND_BYTES
) -> Iterator[Tensor]:
    """Resize bands of scores with `length` rows in all to `size` (H, W), bilinearly, in bands of at most `band_bytes`.

    The result equals F.interpolate of the whole up to rounding; scores of that size already stay unchanged.
    """
    source = iter(bands)
    held, top = next(source), 0
    rows = _band_rows(held, size[1], band_bytes)
    if (length, held.shape[3]) == tuple(size):
        yield from torch.split(held, rows, 2)
        for band in source:
            yield from torch.split(band, rows, 2)
        return
    lower, share = _source_rows(length, size[0], align_corners, held)
    for above, part in zip(torch.split(lower, rows), torch.split(share, rows), strict=True):
        first, stop = int(above[0]), min(int(above[-1]) + 2, length)
        while top + held.shape[2] < stop:
            kept = held[:, :, max(0, first - top) :]
            top += held.shape[2] - kept.shape[2]
            held = torch.cat([kept, next(source)], 2)
        near = held[:, :, first - top : stop - top]
        near = F.interpolate(near, (stop - first, size[1]), mode="bilinear", align_corners=align_corners)
        above = (above - first).to(held.device)
        below = (above + 1).clamp_max(stop - first - 1)
        yield torch.lerp(near[:, :, above], near[:, :, below], part.to(held.device).unsqueeze(1))


def _band_rows(scores: Tensor, width: int, band_bytes: int) -> int:
    return max(1, band_bytes // (scores.shape[0] * scores.shape[1] * width * scores.element_size()))


def _source_rows(length: int, target: int, align_corners: bool, like: Tensor) -> tuple[Tensor, Tensor]:
    """For each of `target` rows: the source row above it and the weight of the next one, 0 to 1.

    Computed in the precision of PyTorch's own interpolation, so that positions agree.
    """
    numbers = torch.arange(target, dtype=torch.promote_types(like.dtype, torch.float32))
    if align_corners:
        places = numbers * (numbers.new_tensor(length - 1) / max(1, target - 1))
    else:
        places = ((numbers + 0.5) * (numbers.new_tensor(length) / target) - 0.5).clamp_min(0)
    lower = places.floor().clamp_max(length - 1)
    return lower.long(), (places - lower).to(like.dtype)


def _fused(network: nn.Module, images: Tensor, inference: InferenceConfig, band_bytes: int) -> Iterator[Tensor]:
    """`score_bands` of images of at least 32 pixels each way."""
    count, size = len(inference.scales) * (2 if inference.flip else 1), images.shape[2:]
    greatest = inference.fuse == "max"
    swapped = network.mirrored_classes if isinstance(network, SegmentationNetwork) else None
    fused = images.new_empty(0)
    for number, (view, mirrored) in enumerate(_views(images, inference.scales, inference.flip)):
        answer = _answer(network, view, inference, band_bytes)
        if mirrored:
            answer = (band.flip(3) if swapped is None else band[:, swapped].flip(3) for band in answer)
        bands = resized_bands(answer, view.shape[2], size, align_corners=False, band_bytes=band_bytes)
        if count == 1:
            yield from bands
            return
        top = 0
        for band in bands:
            band = band if greatest else band.softmax(1)
            if number == top == 0:
                fused = band.new_empty(*band.shape[:2], *size)
            place = fused[:, :, top : top + band.shape[2]]
            if number == 0:
                place.copy_(band)
            elif greatest:
                torch.maximum(place, band, out=place)
            else:
                place += band
            top += band.shape[2]
    for band in torch.split(fused, _band_rows(fused, size[1], band_bytes), 2):
        yield band if greatest else (band / count).clamp_min_(1e-12).log_()


def _views(images: Tensor, scales: Sequence[float], flip: bool) -> Iterator[tuple[Tensor, bool]]:
    """Each scale's images and, with `flip`, their mirror images; with each view whether it is mirrored."""
    for scale in scales:
        size = [max(LEAST_INPUT_SIDE, round(length * scale)) for length in images.shape[-2:]]
        scaled = images
        if size != list(images.shape[-2:]):
            scaled = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=scale < 1)
        yield scaled, False
        if flip:
            yield scaled.flip(3), True


def _answer(network: nn.Module, view: Tensor, inference: InferenceConfig, band_bytes: int) -> Iterator[Tensor]:
    """A view (N, C, h, w) -> (N, K, rows, w): its logits in bands from top to bottom."""
    view = view.to(next((parameter.dtype for parameter in network.parameters()), view.dtype))
    size = view.shape[2:]
    window = inference.window
    if window is not None and any(part < whole for part, whole in zip(window, size, strict=True)):
        return sliding_bands(network, view, window, inference.overlap)
    logits = network(view, coarse=True) if isinstance(network, SegmentationNetwork) else network(view)
    return resized_bands([logits], logits.shape[2], size, align_corners=True, band_bytes=band_bytes)
