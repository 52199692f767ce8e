"""The terms of a loss: functions of logits (N, K, H, W), float32 or float64, and a target; records: `losses.terms`."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.losses.target import Target
from autoseg.ops.boundaries import on_boundary
from autoseg.ops.devices import float64_device

# --- weighted means of the pixels' cross-entropies --------------------------------------------------------------------


def cross_entropy(logits: Tensor, target: Target) -> Tensor:
    """Mean over the pixels that are not ignored, by the weights of their classes; a scalar."""
    return _cross_entropies(logits, target, "sum") / target.pixel_weights().sum().clamp_min(1e-6)


def ohem(logits: Tensor, target: Target, keep: float, min_kept: int, threshold: float | None) -> Tensor:
    """Cross-entropy over the hardest pixels alone: online hard example mining (Shrivastava et al. 2016).

    It keeps the share `keep` of the batch's pixels that are not ignored, at least `min_kept`, and those that tie with
    the last of them. With a `threshold` it also keeps every pixel whose true class has a lower probability. `min_kept`
    and `threshold` alone keep the pixels that mmsegmentation's sampler takes.
    """
    kept = _hardest(-_true_log_probs(logits.detach(), target), target.counted, keep, min_kept, threshold)
    return _mean(_cross_entropies(logits, target) * kept, target.pixel_weights() * kept)


def focal(logits: Tensor, target: Target, gamma: float) -> Tensor:
    """(1 - p) ** gamma times the cross-entropy, p the probability of the true class (Lin et al. 2017, eq. 4 and 5).

    The class weights are the paper's alpha. The weights of the pixels give the mean, so gamma 0 is cross-entropy. The
    paper, which detects objects, divides by their number.
    """
    log_probs = _true_log_probs(logits, target)
    # below 1 the power has no slope at 0, which a learned pixel reaches: clamped, it gets no gradient there
    missing = (-torch.expm1(log_probs)).clamp_min(torch.finfo(logits.dtype).tiny)
    weights = target.pixel_weights()
    return _mean(-(missing**gamma) * log_probs * weights, weights)


def boundary(logits: Tensor, target: Target, w0: float, sigma: float) -> Tensor:
    """Cross-entropy in which a pixel counts 1 + w0 * exp(-d^2 / (2 sigma^2)) times, d as in `boundary_closeness`.

    Two departures from U-Net's weights (Ronneberger et al. 2015, eq. 2): d is the distance to the nearest boundary
    between labels, while U-Net separates cells and adds the distances to two of them; and the factor multiplies the
    weight of the class, so a class of weight 0 keeps it.
    """
    factors = _boundary_factors(target, w0, sigma, logits.dtype)
    return _mean(_cross_entropies(logits, target) * factors, target.pixel_weights() * factors)


def boundary_weights(target: Target, w0: float, sigma: float) -> Tensor:
    """(N, H, W): the weights of the mean in `boundary`."""
    return target.pixel_weights() * _boundary_factors(target, w0, sigma, torch.float32)


def _boundary_factors(target: Target, w0: float, sigma: float, dtype: torch.dtype) -> Tensor:
    masks = target.masks if target.whole is None else target.whole
    return 1 + w0 * boundary_closeness(masks, target.ignore_label, sigma, dtype)


def boundary_closeness(masks: Tensor, ignore_label: int, sigma: float, dtype: torch.dtype | None = None) -> Tensor:
    """exp(-d^2 / (2 sigma^2)) of each pixel of (N, H, W) masks, d the Euclidean distance to the nearest boundary pixel.

    `on_boundary` says which pixels these are. Beyond three sigma along an axis the result is 0 (instead of less than
    0.012). The exponential of a sum is a product and falls with the distance, so a maximum along the rows and then
    along the columns finds the nearest pixel: exactly, without a distance transform, in a number of operations that
    depends on sigma alone. float32 unless a dtype is given.
    """
    closeness = on_boundary(masks, ignore_label).to(dtype or torch.float32)
    for axis in (1, 2):
        length = closeness.shape[axis]
        spread = closeness.clone()
        for step in range(1, min(math.ceil(3 * sigma), length - 1) + 1):
            fallen = closeness * math.exp(-(step**2) / (2 * sigma**2))
            for first, second in ((0, step), (step, 0)):
                reached = spread.narrow(axis, first, length - step)
                torch.maximum(reached, fallen.narrow(axis, second, length - step), out=reached)
        closeness = spread
    return closeness


def _hardest(hardness: Tensor, counted: Tensor, keep: float, min_kept: int, threshold: float | None) -> Tensor:
    """(N, H, W) bool: which pixels `ohem` keeps, by their -log p of the true class."""
    total = counted.sum()
    share = (keep * total.to(float64_device(total.device)).double()).ceil().long()
    number = share.to(total.device).clamp_min(min_kept).minimum(total)
    ranked = hardness.masked_fill(~counted, -math.inf).flatten().sort(descending=True).values
    # gather: indexing with a tensor would fetch it from the device
    kept = hardness >= ranked.gather(0, (number - 1).clamp_min(0).view(1))
    if threshold is not None:
        kept |= hardness > -math.log(threshold)
    return kept & counted


def _true_log_probs(logits: Tensor, target: Target) -> Tensor:
    """(N, H, W): log p of the true class, 0 for an ignored pixel."""
    return -F.cross_entropy(logits, target.masks, ignore_index=target.ignore_label, reduction="none")


def _cross_entropies(logits: Tensor, target: Target, reduction: str = "none") -> Tensor:
    """(N, H, W): each pixel's cross-entropy times the weight of its class, 0 for an ignored pixel; or their sum."""
    return F.cross_entropy(
        logits, target.masks, target.class_weights, ignore_index=target.ignore_label, reduction=reduction,
        label_smoothing=target.label_smoothing,
    )  # fmt: skip


def _mean(losses: Tensor, weights: Tensor) -> Tensor:
    """Mean of losses that contain their weights; 0 if all weights are 0."""
    return losses.sum() / weights.sum().clamp_min(1e-6)


# --- the regions of a class as wholes ---------------------------------------------------------------------------------
# Each is a mean over the classes that are present: an absent class would push its probabilities down with the weight
# of a present one.


def dice(logits: Tensor, target: Target, smooth: float) -> Tensor:
    """1 - (2 sum(p y) + smooth) / (sum(p) + sum(y) + smooth) of each class over the batch; mean over those present.

    p: probabilities, y: 0 or 1, over the pixels that are not ignored. Milletari et al. 2016 (section 3) square both in
    the denominator; the plain sums are those of Drozdzal et al. 2016.
    """
    labels = target.one_hot(logits.shape[1])
    probs = logits.softmax(1) * target.counted.unsqueeze(1)
    overlap, size, true = (part.sum((0, 2, 3)) for part in (probs * labels, probs, labels))
    score = (2 * overlap + smooth) / (size + true + smooth).clamp_min(1e-6)
    return _mean_of_counted(1 - score, true > 0)


def lovasz(logits: Tensor, target: Target, per_image: bool) -> Tensor:
    """Lovász-softmax (Berman et al. 2018): mean over the classes present, of the batch or of each image.

    An image whose pixels are all ignored does not count. Sorts the pixels once for each class.
    """
    labels = target.one_hot(logits.shape[1])
    counted = target.counted
    errors = (labels.to(logits.dtype) - logits.softmax(1)).abs() * counted.unsqueeze(1)
    losses, present = [], []
    for error, label in zip(errors.unbind(1), labels.unbind(1), strict=True):
        groups = [part.flatten(1) if per_image else part.reshape(1, -1) for part in (error, label, counted)]
        losses.append((groups[0] * _jaccard_gradient(*groups)).sum(1))
        present.append(groups[1].any(1))
    return _mean_of_counted(_mean_of_counted(torch.stack(losses), found := torch.stack(present), 0), found.any(0))


def _jaccard_gradient(errors: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
    """The factor of each error, (groups, pixels) like the arguments: one class's errors, truth, pixels that count.

    This is the gradient of the Lovász extension of the Jaccard loss (Berman et al. 2018, algorithm 1). The loss of the
    i greatest errors is 1 - intersection / union. The next error adds 1 / union for a pixel of the class and
    intersection / (union (union - 1)) for another. The difference of two losses would lose most digits in float32.
    """
    order = errors.detach().masked_fill(~counted, -1).argsort(1, descending=True)  # ignored pixels last
    true = labels.gather(1, order)
    missed, total = true.cumsum(1), labels.sum(1, keepdim=True)
    wrong = counted.gather(1, order).cumsum(1) - missed
    union = (total + wrong).to(errors.dtype)
    of_others = (total - missed) / (union * (union - 1)).clamp_min(1)
    steps = torch.where(true, 1 / union.clamp_min(1), of_others)
    return torch.empty_like(errors).scatter_(1, order, steps)


def _mean_of_counted(values: Tensor, counted: Tensor, axis: int = -1) -> Tensor:
    """Mean of the counted values along an axis; 0 if none counts."""
    return (values * counted).sum(axis) / counted.sum(axis).clamp_min(1)
