"""What every network that is trained, measured and exported has in common, whether searched or of the literature."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autoseg.config.base import Settings
from autoseg.ops.heads import logits_of
from autoseg.ops.resize import Size, resize


class SegmentationNetwork(nn.Module):
    """(N, Cin, H, W) normalised images -> logits (N, K, H, W), for any height and width from 32 up."""

    architecture: Settings
    """The settings from which it is rebuilt: a genotype, or a network of the literature with its options."""
    num_classes: int
    in_channels: int = 3
    single_output: bool = False
    """One output for two classes."""
    stages: tuple[str, ...] = ()
    """Names of the submodules, each called once, that a picture shows."""

    def forward(self, images: Tensor, coarse: bool = False) -> Tensor:
        """See the class. `coarse`: the logits at the size of `scores`, which the caller is to enlarge."""
        scores = self.scores(images)
        like = scores if coarse else images
        return enlarge(scores, (like.shape[-2], like.shape[-1]))

    def scores(self, images: Tensor) -> Tensor:
        """What the last layer says, (N, K, h, w), or (N, 1, h, w) of a single output, at any size up to the images'."""
        raise NotImplementedError

    def forward_with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits, and in training those of an auxiliary head where there is one; both (N, K, H, W)."""
        logits: Tensor = self(images)
        return logits, None

    def set_drop_path(self, greatest: float, progress: float) -> None:
        """Scheduled drop path, for networks that have branches to drop."""


def enlarge(logits: Tensor, size: Size) -> Tensor:
    """Logits at the images' size, in float32 at least: in bf16 classes that differ by less than 1/256 would tie."""
    return logits_of(resize(logits if logits.dtype in (torch.float32, torch.float64) else logits.float(), size))
