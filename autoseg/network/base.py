"""Base of all networks that are trained, measured and exported, searched or of the literature."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autoseg.config.base import Settings
from autoseg.ops.heads import logits_of
from autoseg.ops.resize import Size, resize


class SegmentationNetwork(nn.Module):
    """(N, Cin, H, W) normalised images -> logits (N, K, H, W), for any height and width from 32 up."""

    architecture: Settings
    """The settings that rebuild it: a genotype, or a network of the literature with its options."""
    num_classes: int
    in_channels: int = 3
    single_output: bool = False
    """One output for two classes."""
    mirrored_classes: list[int] | None = None
    """(K,): the class that each class is in a mirrored image. None: all stay what they are."""
    stages: tuple[str, ...] = ()
    """Names of the submodules that a picture shows; each is called once."""

    def forward(self, images: Tensor, coarse: bool = False) -> Tensor:
        """See the class. `coarse`: logits at the size of `scores`, which the caller enlarges."""
        scores = self.scores(images)
        like = scores if coarse else images
        return enlarge(scores, (like.shape[-2], like.shape[-1]))

    def scores(self, images: Tensor) -> Tensor:
        """The last layer's output, (N, K, h, w), or (N, 1, h, w) for a single output, at most as large as images."""
        raise NotImplementedError

    def forward_with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits, and in training those of an auxiliary head if there is one; both (N, K, H, W)."""
        logits: Tensor = self(images)
        return logits, None

    def set_drop_path(self, greatest: float, progress: float) -> None:
        """Set scheduled drop path in networks that have branches to drop."""


def enlarge(logits: Tensor, size: Size) -> Tensor:
    """Logits at the images' size, in float32 at least: bf16 would make classes within 1/256 tie."""
    return logits_of(resize(logits if logits.dtype in (torch.float32, torch.float64) else logits.float(), size))
