"""Sliding windows: what is seen, how it is blended, how much at once. Scores: test_whole_images.py."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from autoseg.engine.evaluate import Details
from autoseg.engine.sliding_window import axis_windows, sliding_bands
from autoseg.metrics.confusion import ConfusionMatrix


def sliding_logits(
    network: nn.Module, images: torch.Tensor, window: tuple[int, int], overlap: float = 0.5, **how: int
) -> torch.Tensor:
    return torch.cat(list(sliding_bands(network, images, window, overlap, **how)), 2)


class Watched(nn.Module):
    """Doubles its input, and keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Size] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images.shape)
        return 2 * images


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize(("length", "window"), [(32, 32), (33, 32), (100, 32), (2048, 769), (97, 48)])
def test_windows_cover_an_axis_with_the_overlap_and_their_shares_sum_to_one(
    length: int, window: int, overlap: float
) -> None:
    starts, shares = axis_windows(length, window, overlap)
    assert starts[0] == 0
    assert starts[-1] == length - window
    gaps = [second - first for first, second in pairwise(starts)]
    assert all(0 < gap <= max(1, window * (1 - overlap)) for gap in gaps)
    assert not gaps or max(gaps) - min(gaps) <= 1
    total = torch.zeros(length, dtype=torch.float64)
    for start, share in zip(starts, shares, strict=True):
        total[start : start + window] += share
        assert (share > 0).all()
    assert torch.allclose(total, torch.ones_like(total), atol=1e-14)


@pytest.mark.parametrize(("length", "window"), [(48, 32), (100, 33)])
def test_shares_are_those_of_a_gaussian_of_an_eighth_of_the_window(length: int, window: int) -> None:
    """Isensee et al. 2021: sigma is 1/8 of the length, and the greatest weight lies in the middle."""

    def weight(start: int, pixel: int) -> float:
        distance = pixel + 0.5 - (start + window / 2)
        return math.exp(-(distance**2) / (2 * (window / 8) ** 2)) if start <= pixel < start + window else 0.0

    starts, shares = axis_windows(length, window, 0.5)
    assert len(starts) > 1
    for start, share in zip(starts, shares, strict=True):
        for place, found in enumerate(share.tolist()):
            total = sum(weight(other, start + place) for other in starts)
            assert found == pytest.approx(weight(start, start + place) / total, rel=1e-12)


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("size", [(40, 56), (32, 90), (70, 33)])
def test_a_network_that_sees_a_pixel_alone_answers_as_without_windows(channels: int, size: tuple[int, int]) -> None:
    images = torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(0))
    for overlap in (0.0, 0.5):
        answer = sliding_logits(Watched(), images, (32, 32), overlap)
        assert torch.allclose(answer, 2 * images, atol=1e-5)
    once = sliding_logits(Watched(), images[:, :, :32, :32], (32, 32))
    assert torch.equal(once, 2 * images[:, :, :32, :32])


def test_a_pixel_seen_once_has_the_very_logits_of_its_window() -> None:
    class Corner(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images * images[:, :, :1, :1]

    images = torch.randn(1, 3, 40, 40)
    answer = sliding_logits(Corner(), images, (32, 32), 0.0)
    corner = Corner()(images[:, :, :32, :32])
    assert torch.equal(answer[:, :, :8, :8], corner[:, :, :8, :8])
    assert not torch.allclose(answer[:, :, 8:32, 8:32], corner[:, :, 8:32, 8:32])


def test_an_image_smaller_than_the_window_is_seen_as_it_is() -> None:
    network = Watched()
    for size, seen in (((40, 50), (40, 50)), ((40, 80), (40, 64)), ((90, 33), (64, 33))):
        network.seen.clear()
        assert sliding_logits(network, torch.zeros(1, 3, *size), (64, 64)).shape == (1, 3, *size)
        assert {shape[2:] for shape in network.seen} == {seen}


def test_windows_come_together_up_to_a_number_of_pixels() -> None:
    """And the answer is the same."""
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    network = Watched()
    expected = sliding_logits(network, images, (32, 32))
    assert [shape[0] for shape in network.seen] == [30]
    for pixels, batches in ((1, [2] * 15), (4 * 32 * 32 * 2, [8, 8, 8, 6])):
        network.seen.clear()
        assert torch.equal(sliding_logits(network, images, (32, 32), window_pixels=pixels), expected)
        assert [shape[0] for shape in network.seen] == batches


def test_windows_of_a_network_in_bf16_are_blended_in_float32() -> None:
    images = torch.ones(1, 3, 48, 48, dtype=torch.bfloat16)
    answer = sliding_logits(Watched(), images, (32, 32))
    assert answer.dtype == torch.float32
    assert torch.allclose(answer, torch.full_like(answer, 2.0), atol=1e-6)


def test_bands_come_as_soon_as_no_further_window_sees_them() -> None:
    """Two rows of windows at most are seen before a band comes; the bands are those of `axis_windows`."""
    network = Watched()
    images = torch.randn(1, 3, 132, 40, generator=torch.Generator().manual_seed(0))
    starts, _ = axis_windows(132, 32, 0.5)
    heights, seen = [], []
    for band in sliding_bands(network, images, (32, 32), window_pixels=1):
        heights.append(band.shape[2])
        seen.append(len(network.seen))
    assert heights == [second - first for first, second in pairwise([*starts, 132])]
    assert seen[:-1] == [2 * number + 1 for number in range(1, len(starts))]


@pytest.mark.gpu
def test_on_a_gpu_windows_and_every_score_are_those_of_the_cpu() -> None:
    generator = torch.Generator().manual_seed(0)
    conv = nn.Conv2d(4, 5, 5, padding=2).double().requires_grad_(False)
    images = torch.randn(2, 4, 50, 70, dtype=torch.float64, generator=generator)
    masks = torch.randint(0, 5, (2, 50, 70), generator=generator).masked_fill(torch.rand(2, 50, 70) < 0.1, 255)
    found = []
    for device in ("cpu", "cuda"):
        logits = sliding_logits(conv.to(device), images.to(device), (32, 40))
        confusion, details = ConfusionMatrix(5, 255), Details(5, 255)
        confusion.update(logits.argmax(1), masks.to(device))
        details.boundary.update(logits.argmax(1), masks.to(device))
        details.calibration.update(logits, masks.to(device))
        found.append((logits.cpu(), confusion.scores(tuple("abcde")), details.to_dict("abcde")))
    (logits, scores, values), (gpu_logits, gpu_scores, gpu_values) = found
    assert torch.allclose(logits, gpu_logits, atol=1e-12)
    assert (scores.confusion == gpu_scores.confusion).all()
    assert scores.miou_interval == gpu_scores.miou_interval
    for name in ("boundary_f", "expected_calibration_error", "brier_score"):
        assert gpu_values[name] == pytest.approx(values[name], abs=1e-12)
