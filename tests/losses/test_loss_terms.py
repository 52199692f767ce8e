"""Every term of a loss against its formula, pixel by pixel in plain Python and NumPy, in float64."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from autoseg.config.base import parse
from autoseg.config.training import RetrainSchedule
from autoseg.losses.functions import boundary_closeness
from autoseg.losses.losses import SegmentationLoss, sample_pixels

WEIGHTS = (0.5, 2.0, 0.0, 1.25)
CLASSES = len(WEIGHTS)
TERMS: list[dict[str, Any]] = [
    {"name": "cross_entropy"},
    {"name": "ohem", "keep": 0.3},
    {"name": "ohem", "keep": 0.0, "min_kept": 7},
    {"name": "ohem", "keep": 0.1, "threshold": 0.4},
    {"name": "focal"},
    {"name": "focal", "gamma": 0.5},
    {"name": "boundary", "w0": 4.0, "sigma": 0.7},
    {"name": "dice"},
    {"name": "dice", "smooth": 0.0},
    {"name": "lovasz"},
    {"name": "lovasz", "per_image": True},
]
IDS = ["-".join(str(value) for value in term.values()) for term in TERMS]
every_term = pytest.mark.parametrize("term", TERMS, ids=IDS)


def loss_of(*terms: Any, weights: Any = None, smoothing: float = 0.0, ignore_label: int = 255) -> SegmentationLoss:
    """The loss that settings describe."""
    loss = parse(RetrainSchedule, {"loss": list(terms)}).loss
    return SegmentationLoss(ignore_label, None if weights is None else torch.tensor(weights), smoothing, loss)


def batch(
    ignore_label: int = 255, size: tuple[int, int] = (9, 12), dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, 4, H, W) and masks in patches, with about a quarter ignored; class 3 is in the first image alone."""
    generator = torch.Generator().manual_seed(3)
    logits = 2 * torch.randn(2, CLASSES, *size, generator=generator, dtype=torch.float64)
    coarse = torch.randint(0, CLASSES, (2, -(-size[0] // 3), -(-size[1] // 3)), generator=generator)
    masks = coarse.repeat_interleave(3, 1).repeat_interleave(3, 2)[:, : size[0], : size[1]].contiguous()
    masks[1][masks[1] == 3] = 0
    masks[torch.rand(masks.shape, generator=generator) < 0.25] = ignore_label
    return logits.to(dtype), masks


# --- the formulas -----------------------------------------------------------------------------------------------------


def log_softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return scores - np.log(np.exp(scores).sum())


def pixels(logits: torch.Tensor, masks: torch.Tensor, ignore_label: int) -> list[tuple[Any, int, NDArray[np.float64]]]:
    """(place, label, log-probabilities) of every pixel that is not ignored."""
    values = logits.double().numpy()
    return [
        (place, int(label), log_softmax(values[place[0], :, place[1], place[2]]))
        for place, label in np.ndenumerate(masks.numpy())
        if label != ignore_label
    ]


def smoothed(label: int, logs: NDArray[np.float64], weights: Any, smoothing: float) -> float:
    """-sum over classes of w_c q_c log p_c, q the smoothed target."""
    even = sum(-weights[other] * logs[other] for other in range(CLASSES)) / CLASSES
    return (1 - smoothing) * -weights[label] * logs[label] + smoothing * even


def cross_entropy(all_pixels: Any, masks: Any, ignore: int, weights: Any, smoothing: float) -> float:
    total = sum(smoothed(label, logs, weights, smoothing) for _, label, logs in all_pixels)
    return total / sum(weights[label] for _, label, _ in all_pixels)


def ohem(
    all_pixels: Any, masks: Any, ignore: int, weights: Any, smoothing: float, keep: float = 0.25, min_kept: int = 1,
    threshold: float = 0.0,
) -> float:  # fmt: skip
    number = max(math.ceil(keep * len(all_pixels)), min_kept)
    ranked = sorted(all_pixels, key=lambda pixel: pixel[2][pixel[1]])
    kept = [pixel for rank, pixel in enumerate(ranked) if rank < number or math.exp(pixel[2][pixel[1]]) < threshold]
    return cross_entropy(kept, masks, ignore, weights, smoothing)


def focal(all_pixels: Any, masks: Any, ignore: int, weights: Any, smoothing: float, gamma: float = 2.0) -> float:
    total = sum(weights[label] * (1 - math.exp(logs[label])) ** gamma * -logs[label] for _, label, logs in all_pixels)
    return total / sum(weights[label] for _, label, _ in all_pixels)


def nearness(masks: NDArray[np.int64], ignore: int, sigma: float) -> NDArray[np.float64]:
    """exp(-d^2 / (2 sigma^2)) by looking at all pairs of pixels; 0 where d is over 3 sigma along an axis."""
    edges = []
    for (image, row, column), label in np.ndenumerate(masks):
        for down, across in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            place = (image, row + down, column + across)
            if all(0 <= at < length for at, length in zip(place, masks.shape, strict=True)) and ignore not in (
                label,
                masks[place],
            ):
                edges += [(image, row, column)] * int(label != masks[place])
    near = np.zeros(masks.shape)
    for image, row, column in np.ndindex(masks.shape):
        for _, other_row, other_column in (edge for edge in edges if edge[0] == image):
            steps = abs(row - other_row), abs(column - other_column)
            if max(steps) <= math.ceil(3 * sigma):
                value = math.exp(-(steps[0] ** 2 + steps[1] ** 2) / (2 * sigma**2))
                near[image, row, column] = max(near[image, row, column], value)
    return near


def boundary(
    all_pixels: Any, masks: Any, ignore: int, weights: Any, smoothing: float, w0: float, sigma: float
) -> float:
    factors = 1 + w0 * nearness(masks.numpy(), ignore, sigma)
    total = sum(factors[place] * smoothed(label, logs, weights, smoothing) for place, label, logs in all_pixels)
    return total / sum(factors[place] * weights[label] for place, label, _ in all_pixels)


def dice(all_pixels: Any, masks: Any, ignore: int, weights: Any, smoothing: float, smooth: float = 1.0) -> float:
    losses = []
    for label in {label for _, label, _ in all_pixels}:
        overlap = sum(math.exp(logs[label]) for _, true, logs in all_pixels if true == label)
        sizes = sum(math.exp(logs[label]) + (true == label) for _, true, logs in all_pixels)
        losses.append(1 - (2 * overlap + smooth) / (sizes + smooth))
    return sum(losses) / len(losses)


def lovasz(all_pixels: Any, masks: Any, ignore: int, weights: Any, smoothing: float, per_image: bool = False) -> float:
    """By the definition: sum of the sorted errors times what each adds to the Jaccard loss of the set of mistakes."""
    if per_image:
        groups = [list(group) for _, group in itertools.groupby(all_pixels, lambda pixel: pixel[0][0])]
        return sum(lovasz(group, masks, ignore, weights, smoothing) for group in groups) / len(groups)
    losses = []
    for label in {label for _, label, _ in all_pixels}:
        own = {place for place, true, _ in all_pixels if true == label}
        errors = {place: abs((true == label) - math.exp(logs[label])) for place, true, logs in all_pixels}
        loss, before, mistakes = 0.0, 0.0, set()
        for place in sorted(errors, key=errors.__getitem__, reverse=True):
            mistakes.add(place)
            jaccard = len(mistakes) / len(own | mistakes)
            loss, before = loss + errors[place] * (jaccard - before), jaccard
        losses.append(loss)
    return sum(losses) / len(losses)


FORMULAS = {
    "cross_entropy": cross_entropy, "ohem": ohem, "focal": focal, "boundary": boundary, "dice": dice, "lovasz": lovasz
}  # fmt: skip


def formula(
    term: dict[str, Any], logits: torch.Tensor, masks: torch.Tensor, ignore: int, weights: Any, smoothing: float = 0.0
) -> float:
    options = {key: value for key, value in term.items() if key not in ("name", "weight")}
    shown = pixels(logits, masks, ignore)
    return FORMULAS[term["name"]](shown, masks, ignore, weights or (1.0,) * CLASSES, smoothing, **options)


# --- values -----------------------------------------------------------------------------------------------------------


@every_term
@pytest.mark.parametrize("ignore_label", [255, -1, 1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_a_term_equals_its_formula(term: dict[str, Any], weights: Any, ignore_label: int) -> None:
    logits, masks = batch(ignore_label)
    loss = loss_of(term, weights=weights, ignore_label=ignore_label)(logits, masks)
    assert loss.item() == pytest.approx(formula(term, logits, masks, ignore_label, weights), abs=1e-10)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("term", [TERMS[number] for number in (0, 1, 3, 6)], ids=lambda term: term["name"])
def test_label_smoothing(term: dict[str, Any], weights: Any) -> None:
    logits, masks = batch()
    loss = loss_of(term, weights=weights, smoothing=0.2)(logits, masks)
    assert loss.item() == pytest.approx(formula(term, logits, masks, 255, weights, 0.2), abs=1e-10)
    assert loss.item() != pytest.approx(formula(term, logits, masks, 255, weights), abs=1e-3)


def test_the_sum_of_terms() -> None:
    logits, masks = batch()
    terms = [{"name": "cross_entropy", "weight": 0.7}, {"name": "dice", "weight": 0.5}, "lovasz"]
    expected = sum(
        weight * formula(term, logits, masks, 255, None)
        for weight, term in zip((0.7, 0.5, 1.0), (TERMS[0], TERMS[7], TERMS[9]), strict=True)
    )
    assert loss_of(*terms)(logits, masks).item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_the_default_is_plain_cross_entropy_to_the_bit(weights: Any, dtype: torch.dtype) -> None:
    logits, masks = batch(dtype=dtype)
    settings = RetrainSchedule()
    class_weights = None if weights is None else torch.tensor(weights)
    gradients = []
    default = SegmentationLoss(255, class_weights, settings.label_smoothing, settings.loss)
    for loss in (default, SegmentationLoss(255, class_weights)):
        given = logits.clone().requires_grad_()
        value = loss(given, masks)
        value.backward()
        gradients.append((value.detach(), given.grad))
    plain = (
        torch.nn.functional.cross_entropy(logits.float(), masks, class_weights, ignore_index=255, reduction="sum")
        / (
            masks != 255 if class_weights is None else class_weights[masks.where(masks != 255, 0)] * (masks != 255)
        ).sum()
    )
    assert torch.equal(gradients[0][0], gradients[1][0])
    assert torch.equal(gradients[0][0], plain)
    assert torch.equal(gradients[0][1], gradients[1][1])


@pytest.mark.slow
@every_term
def test_gradients(term: dict[str, Any]) -> None:
    logits, masks = batch(size=(6, 5))
    loss = loss_of(term, weights=WEIGHTS)
    assert torch.autograd.gradcheck(lambda given: loss(given, masks), logits.requires_grad_())


# --- what is ignored, precision, extremes -----------------------------------------------------------------------------


@every_term
def test_ignored_pixels_neither_count_nor_learn(term: dict[str, Any]) -> None:
    logits, masks = batch()
    changed = logits.clone()
    changed[(masks == 255).unsqueeze(1).expand_as(logits)] = 50.0
    changed[:, 2][masks == 255] = -80.0
    loss = loss_of(term)
    changed.requires_grad_()
    value = loss(changed, masks)
    value.backward()
    assert value.item() == pytest.approx(loss(logits, masks).item(), abs=1e-12)
    assert (changed.grad.abs().sum(1)[masks == 255] == 0).all()
    assert changed.grad.abs().sum() > 0


@every_term
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("ignore_label", [255, 1])
def test_nothing_to_learn_from_is_no_loss_and_no_gradient(term: Any, weights: Any, ignore_label: int) -> None:
    logits = torch.randn(2, CLASSES, 5, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    masks = torch.full((2, 5, 4), ignore_label)
    loss = loss_of(term, weights=weights, ignore_label=ignore_label)(logits, masks)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_an_image_that_is_all_ignored_does_not_count_for_lovasz() -> None:
    logits, masks = batch()
    masks[1] = 255
    loss = loss_of({"name": "lovasz", "per_image": True})
    assert loss(logits, masks).item() == pytest.approx(loss(logits[:1], masks[:1]).item(), abs=1e-12)


@every_term
def test_bfloat16_logits_are_computed_in_float32(term: dict[str, Any]) -> None:
    logits, masks = batch(dtype=torch.bfloat16)
    exact = loss_of(term, weights=WEIGHTS)(logits.double(), masks).item()
    logits.requires_grad_()
    loss = loss_of(term, weights=WEIGHTS)(logits, masks)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, rel=1e-5)
    assert logits.grad.dtype == torch.bfloat16
    assert bool(logits.grad.isfinite().all())


@every_term
@pytest.mark.parametrize("size", [1.0, 30.0, 1e4])
def test_certain_networks_have_finite_gradients(term: dict[str, Any], size: float) -> None:
    """Right everywhere in one image, wrong everywhere in the other."""
    _, masks = batch()
    labels = masks.where(masks != 255, 0)
    labels[1] = (labels[1] + 1) % CLASSES
    logits = (size * torch.nn.functional.one_hot(labels, CLASSES).permute(0, 3, 1, 2).float()).requires_grad_()
    loss = loss_of(term)(logits, masks)
    loss.backward()
    assert bool(loss.isfinite())
    assert bool(logits.grad.isfinite().all())


def test_certain_answers_make_lovasz_and_dice_what_they_stand_for() -> None:
    """1 - mean IoU and 1 - mean F1 over the classes that occur."""
    _, masks = batch()
    masks[masks == 2] = 255
    answers = torch.randint(0, CLASSES, masks.shape, generator=torch.Generator().manual_seed(1))
    logits = 1e3 * torch.nn.functional.one_hot(answers, CLASSES).permute(0, 3, 1, 2).double()
    counted, ious, f1s = masks != 255, [], []
    for label in (0, 1, 3):
        true, found = (masks == label) & counted, (answers == label) & counted
        both = float((true & found).sum())
        ious.append(both / float((true | found).sum()))
        f1s.append(2 * both / float(true.sum() + found.sum()))
    assert loss_of("lovasz")(logits, masks).item() == pytest.approx(1 - np.mean(ious), abs=1e-10)
    assert loss_of({"name": "dice", "smooth": 0})(logits, masks).item() == pytest.approx(1 - np.mean(f1s), abs=1e-10)


def test_lovasz_keeps_its_digits_in_float32() -> None:
    """What a pixel adds to the Jaccard loss is about 1e-5 here; as a difference in float32 it would be off by 1%."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 200, 200, generator=generator)
    masks = torch.randint(0, 3, (1, 200, 200), generator=generator)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        given = logits.to(dtype, copy=True).requires_grad_()
        loss_of("lovasz")(given, masks).backward()
        gradients.append(given.grad.double())
    # pixels whose errors are equal in float32 may change places, so a few are compared with another's
    error = (gradients[0] - gradients[1]).abs() / gradients[1].abs().mean()
    assert error.median() < 1e-6
    assert error.quantile(0.999) < 1e-3


# --- one by one -------------------------------------------------------------------------------------------------------


def test_pixels_that_are_equally_hard_are_all_kept() -> None:
    """As at the very first step of a network that begins with zeros."""
    _, masks = batch()
    logits = torch.zeros(2, CLASSES, *masks.shape[1:], dtype=torch.float64, requires_grad=True)
    loss_of({"name": "ohem", "keep": 0.1})(logits, masks).backward()
    assert torch.equal(logits.grad.abs().sum(1) > 0, masks != 255)


@pytest.mark.parametrize(
    ("keep", "min_kept", "expected"), [(0.25, 1, 25), (0.251, 1, 26), (0, 40, 40), (0.5, 999, 100)]
)
def test_how_many_pixels_are_kept(keep: float, min_kept: int, expected: int) -> None:
    logits = torch.randn(1, CLASSES, 10, 11, generator=torch.Generator().manual_seed(0), requires_grad=True)
    masks = torch.ones(1, 10, 11, dtype=torch.int64)
    masks[:, :, 10] = 255
    loss_of({"name": "ohem", "keep": keep, "min_kept": min_kept})(logits, masks).backward()
    assert int((logits.grad.abs().sum(1) > 0).sum()) == expected


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5])
def test_how_near_a_boundary_is(sigma: float) -> None:
    masks = batch(size=(13, 17))[1]
    near = boundary_closeness(masks, 255, sigma, torch.float64)
    expected = nearness(masks.numpy(), 255, sigma)
    assert np.abs(near.numpy() - expected).max() < 1e-12
    assert near.max() == 1
    flat = torch.full((1, 1, 40), 2)
    flat[..., 20:] = 3
    row = boundary_closeness(flat, 255, sigma, torch.float64)[0, 0]
    assert row[19] == row[20] == 1
    assert row[16].item() == pytest.approx(math.exp(-9 / (2 * sigma**2)) * (math.ceil(3 * sigma) >= 3), abs=1e-15)
    assert boundary_closeness(torch.zeros(1, 5, 5, dtype=torch.int64), 255, sigma).sum() == 0


def test_boundaries_are_those_of_the_whole_masks_where_pixels_are_sampled() -> None:
    logits, masks = batch()
    torch.manual_seed(0)
    drawn = sample_pixels(masks, 0.3, 255)
    term = {"name": "boundary", "w0": 5.0, "sigma": 1.5}
    factors = 1 + 5 * nearness(masks.numpy(), 255, 1.5)
    shown = pixels(logits, drawn, 255)
    total = sum(factors[place] * -logs[label] for place, label, logs in shown)
    expected = total / sum(factors[place] for place, _, _ in shown)
    assert loss_of(term)(logits, drawn, masks).item() == pytest.approx(expected, abs=1e-10)
    assert loss_of(term)(logits, drawn).item() != pytest.approx(expected, abs=1e-3)


@every_term
def test_nothing_waits_for_the_device(term: dict[str, Any]) -> None:
    """Reading a value of a meta tensor raises, as do shapes that depend on one; either would end a CUDA graph."""
    logits = torch.empty(2, CLASSES, 8, 8, device="meta", requires_grad=True)
    masks = torch.empty(2, 8, 8, device="meta", dtype=torch.int64)
    loss = SegmentationLoss(255, torch.ones(CLASSES, device="meta"), 0.1, loss_of(term).terms)(logits, masks)
    loss.backward()
    assert loss.shape == ()
    assert logits.grad.shape == logits.shape


@pytest.mark.gpu
@every_term
def test_a_cuda_graph_holds_each_term(term: dict[str, Any]) -> None:
    loss = loss_of(term, weights=WEIGHTS)
    loss.class_weights = loss.class_weights.cuda()
    logits, masks = (part.cuda() for part in batch(dtype=torch.float32))
    logits.requires_grad_()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            logits.grad = None
            loss(logits, masks).backward()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    logits.grad = None
    with torch.cuda.graph(graph):
        value = loss(logits, masks)
        value.backward()
    new_logits, new_masks = torch.randn_like(logits), masks.flip(0)
    with torch.no_grad():
        logits.copy_(new_logits)
        masks.copy_(new_masks)
    graph.replay()
    given = new_logits.cpu().requires_grad_()
    expected = loss_of(term, weights=WEIGHTS)(given, masks.cpu())
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-4)
    assert torch.allclose(logits.grad.cpu(), given.grad, rtol=1e-3, atol=1e-6)
