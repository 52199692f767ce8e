"""Scores of images in bands of rows, so that memory holds all classes of a few rows only, not of a large image."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.config.base import LEAST_INPUT_SIDE
from autoseg.config.inference import InferenceConfig
from autoseg.network.base import SegmentationNetwork
from autoseg.ops.devices import preferred_format

BAND_BYTES = 2**24
"""Most bytes of a band, unless one row needs more."""
WINDOW_PIXELS = 2**20
"""Most pixels of windows in one forward pass, unless one window has more; memory does not grow with the image."""
SIGMA = 1 / 8
"""Standard deviation of a window's weights as a share of its length (nnU-Net, Isensee et al. 2021)."""
PLAIN = InferenceConfig()
"""One pass at the images' own size."""


def score_bands(network: nn.Module, images: Tensor, inference: InferenceConfig = PLAIN) -> Iterator[Tensor]:
    """(N, C, H, W) -> (N, K, rows, W) from top to bottom: logits, or log mean probabilities if there are several views.

    Views are the images at each scale and their mirror images. With `inference.fuse` "max" several views become each
    class's greatest logit (DeepLab v2, section 4.1). Scaled sides are rounded to whole pixels and at least 32; smaller
    images are padded below and to the right with their mean colour, as in training. The scores of a mirror image are
    turned back, and its left and right classes swapped back (`SegmentationNetwork.mirrored_classes`). With
    `inference.window` each view is computed in sliding windows (`sliding_bands`). The CRF is not applied here. The
    network may be in float32 or bf16. Several views hold all classes of all pixels once in memory; a single view does
    not. A band has at most `BAND_BYTES`, unless one row needs more.
    """
    height, width = images.shape[2:]
    if min(height, width) < LEAST_INPUT_SIDE:
        images = F.pad(images, (0, max(0, LEAST_INPUT_SIDE - width), 0, max(0, LEAST_INPUT_SIDE - height)))
    top = 0
    images = images.contiguous(memory_format=preferred_format(images.device))
    for band in _fused(network, images, inference):
        if top < height:
            yield band[:, :, : height - top, :width]
        top += band.shape[2]


def resized_bands(bands: Iterable[Tensor], length: int, size: Sequence[int], align_corners: bool) -> Iterator[Tensor]:
    """Resize bands of scores with `length` rows in all to `size` (H, W), bilinearly, in bands of at most `BAND_BYTES`.

    The result equals F.interpolate of the whole up to rounding; scores of that size already stay unchanged.
    """
    source = iter(bands)
    held, top = next(source), 0
    rows = _band_rows(held, size[1])
    if (length, held.shape[3]) == tuple(size):
        for band in itertools.chain([held], source):
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


def _band_rows(scores: Tensor, width: int) -> int:
    return max(1, BAND_BYTES // (scores.shape[0] * scores.shape[1] * width * scores.element_size()))


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


def _fused(network: nn.Module, images: Tensor, inference: InferenceConfig) -> Iterator[Tensor]:
    """`score_bands` of images of at least 32 pixels each way."""
    count, size = len(inference.scales) * (2 if inference.flip else 1), images.shape[2:]
    greatest = inference.fuse == "max"
    swapped = network.mirrored_classes if isinstance(network, SegmentationNetwork) else None
    fused = images.new_empty(0)
    for number, (view, mirrored) in enumerate(_views(images, inference.scales, inference.flip)):
        answer = _answer(network, view, inference)
        if mirrored:
            answer = (band.flip(3) if swapped is None else band[:, swapped].flip(3) for band in answer)
        bands = resized_bands(answer, view.shape[2], size, align_corners=False)
        if count == 1:
            yield from bands
            return
        top = 0
        for band in bands:
            band = band if greatest else band.softmax(1)
            if number == top == 0:
                fused = band.new_full((*band.shape[:2], *size), -math.inf if greatest else 0.0)
            place = fused[:, :, top : top + band.shape[2]]
            if greatest:
                torch.maximum(place, band, out=place)
            else:
                place += band
            top += band.shape[2]
    for band in torch.split(fused, _band_rows(fused, size[1]), 2):
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


def _answer(network: nn.Module, view: Tensor, inference: InferenceConfig) -> Iterator[Tensor]:
    """A view (N, C, h, w) -> (N, K, rows, w): its logits in bands from top to bottom."""
    view = view.to(next((parameter.dtype for parameter in network.parameters()), view.dtype))
    size = view.shape[2:]
    window = inference.window
    if window is not None and any(part < whole for part, whole in zip(window, size, strict=True)):
        return sliding_bands(network, view, window, inference.overlap)
    logits = network(view, coarse=True) if isinstance(network, SegmentationNetwork) else network(view)
    return resized_bands([logits], logits.shape[2], size, align_corners=True)


# --- windows ----------------------------------------------------------------------------------------------------------


def sliding_bands(network: nn.Module, images: Tensor, window: tuple[int, int], overlap: float) -> Iterator[Tensor]:
    """(N, C, H, W) -> (N, K, rows, W): logits of evenly spread windows, blended where they overlap.

    Bands come from top to bottom, each as soon as no further window covers its rows. Windows overlap by at least
    `overlap` of their length. A pixel's logits are the mean over its windows, weighted by a Gaussian around each
    window's middle, since a network is least certain near the border. A window larger than the image is cut to it.
    Logits are float32 at least.
    """
    height, width = (min(part, whole) for part, whole in zip(window, images.shape[2:], strict=True))
    rows, columns = (
        list(zip(*axis_windows(whole, part, overlap), strict=True))
        for whole, part in zip(images.shape[2:], (height, width), strict=True)
    )
    places = list(itertools.product(rows, columns))
    together = max(1, WINDOW_PIXELS // (len(images) * height * width))
    blended, top = images.new_empty(0), 0
    for first in range(0, len(places), together):
        chosen = places[first : first + together]
        views = [images[:, :, above : above + height, left : left + width] for (above, _), (left, _) in chosen]
        answers = network(torch.cat(views).contiguous(memory_format=preferred_format(images.device)))
        answers = answers.to(torch.promote_types(answers.dtype, torch.float32))
        if first == 0:
            blended = answers.new_zeros(len(images), answers.shape[1], height, images.shape[3])
        for answer, ((above, down), (left, across)) in zip(answers.split(len(images)), chosen, strict=True):
            if above > top:
                yield blended[:, :, : above - top]
                blended, top = F.pad(blended[:, :, above - top :], (0, 0, 0, above - top)), above
            weight = (down[:, None] * across).to(answer)
            blended[:, :, :, left : left + width] += answer * weight
    yield blended


def axis_windows(length: int, window: int, overlap: float) -> tuple[list[int], Tensor]:
    """Windows along one axis: their starts, and their weights of each pixel, (windows, window) float64.

    The fewest evenly spread windows that overlap by at least `overlap` and reach from 0 to the end. A pixel's weights
    sum to 1.
    """
    stride = max(1, int(window * (1 - overlap)))
    last = length - window
    steps = -(-last // stride)
    starts = [(2 * last * number + steps) // (2 * steps) for number in range(steps + 1)] if steps else [0]
    middles = torch.arange(window, dtype=torch.float64) - (window - 1) / 2
    bell = torch.exp(-0.5 * (middles / (SIGMA * window)) ** 2)
    total = torch.zeros(length, dtype=torch.float64)
    for start in starts:
        total[start : start + window] += bell
    return starts, torch.stack([bell / total[start : start + window] for start in starts])
