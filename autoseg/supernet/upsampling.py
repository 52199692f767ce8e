"""Up moves with competing upsamplers and skip connections, and the doublings of the decoder.

Letters: C channels of a block, U competing upsamplers, S ways in which a skip connection may join.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.ops.resize import Size, resize
from autoseg.ops.upsample import build_upsampler, to_width
from autoseg.space.resolution import PLAIN_UPSAMPLERS, ResolutionSpec, find_upsampler
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import Arrow, Move, Node
from autoseg.supernet.arch_parameters import ArchParameters, weighted_sum
from autoseg.supernet.fast.channel_groups import LaidOut
from autoseg.supernet.fast.mixed_op import StackedNorm, given

UNPOOLING = "max_unpool"


class Feature(NamedTuple):
    """The output of a node, (N, channels, H, W), and the same after a ReLU, which most of its consumers need."""

    plain: Tensor
    activated: Tensor


class EncoderFeatures(NamedTuple):
    """The encoder features that the up path reads at a level."""

    skip: Tensor | None  # that of the skip connection, (N, C, H, W)
    guide: Tensor | None  # (N, any, any, any): an unpooling uses its maxima, without a gradient; else None


class UpsampleInput(NamedTuple):
    """The input of an up move."""

    feature: Feature  # H(l-1)
    encoder: EncoderFeatures
    gamma_probs: Tensor  # (U,)
    skip_probs: Tensor | None  # (S,)


class MixedUpsample(LaidOut):
    """An up move: sum over u of gamma_u * BN(Up_u(1x1(ReLU(H(l-1))))), joined by a skip connection in S ways.

    One 1x1 convolution at low resolution serves all upsamplers. They keep its number of channels, so none can win by
    having more. A skip connection joins by `none` (nothing), `add` (a sum) or `concat` (a 1x1 convolution of both); the
    probabilities of the skip mix the three.
    """

    def __init__(self, in_channels: int, channels: int, resolution: ResolutionSpec) -> None:
        super().__init__()
        self.channels, self.skips, upsamplers = channels, resolution.skips, resolution.upsamplers
        self.conv = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.upsamplers = nn.ModuleList(build_upsampler(name, channels, channels) for name in upsamplers)
        self.norm = StackedNorm(len(upsamplers) * channels)
        self.join = nn.Conv2d(2 * channels, channels, 1, bias=False) if "concat" in self.skips else None

    def forward(self, inputs: UpsampleInput, size: Size) -> list[Tensor]:
        """The upsampled feature (N, C, H, W) with `size` = (H, W), as a list of one."""
        low = self.conv(inputs.feature.activated)
        skip, guide = inputs.encoder
        guide = None if guide is None else resize(guide, size)
        layout, results = self.layout, [upsampler(low, size, guide) for upsampler in self.upsamplers]
        # an upsampler may change the precision and the memory layout
        candidates = torch.cat([layout.arrange(result.to(low.dtype)) for result in results], 1)
        factors = inputs.gamma_probs.repeat_interleave(self.channels)
        normal = self.norm.normalise(candidates, factors)[0]
        grouped = layout.as_groups(normal, len(self.upsamplers), self.channels)
        summed = layout.as_channels(grouped.sum(layout.axis(0)))
        if skip is None or inputs.skip_probs is None:
            return [summed]
        return [self._join(summed, skip, inputs.skip_probs)]

    def _join(self, features: Tensor, skip: Tensor, probs: Tensor) -> Tensor:
        ways: dict[str, Callable[[], Tensor]] = {
            "none": lambda: features,
            "add": lambda: features + skip,
            "concat": lambda: self.join(torch.cat([features, skip], 1)),  # type: ignore[misc]  # there, with concat
        }
        return weighted_sum(probs, (ways[name]() for name in self.skips))


class SkipFeature(nn.Module):
    """A level's skip feature: BN of the expected 1x1(ReLU(H(node))) over the nodes where a path may leave downwards."""

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width, channels, 1, bias=False) for width in widths)
        self.norm = StackedNorm(channels)

    def forward(self, features: Sequence[Feature], probs: Tensor) -> Tensor:
        """Features of the nodes, (N, width, H, W) each, and their probabilities (nodes,) -> (N, C, H, W)."""
        weights = [prob * weight for prob, weight in zip(probs.unbind(), self.convs.parameters(), strict=True)]
        parts = [F.conv2d(of.activated, weight) for of, weight in zip(features, weights, strict=True)]
        return self.norm(sum(parts[1:], parts[0]))


class ScoreUpsample(nn.Module):
    """A doubling of the decoder: sum over u of gamma_u * Up_u(scores), (N, K, h, w) -> (N, K, H, W)."""

    def __init__(self, num_classes: int, upsamplers: Sequence[str]) -> None:
        super().__init__()
        self.upsamplers = nn.ModuleList(build_upsampler(name, num_classes, num_classes) for name in upsamplers)

    def forward(self, scores: Tensor, size: Size, guide: Tensor, gamma_probs: Tensor) -> Tensor:
        """guide: (N, any, H, W), whose maxima an unpooling uses."""
        return weighted_sum(gamma_probs, (upsampler(scores, size, guide) for upsampler in self.upsamplers))


class UpsamplingChoices(NamedTuple):
    """The probabilities of one forward pass, split by place."""

    gamma: Sequence[Tensor]  # (U,) for each site of the space
    certain: Tensor | None  # a single 1: gamma if skips compete, but only one upsampler is there
    skip_probs: Sequence[Tensor]  # (S,) for each level; empty if no skip connections compete
    descent_probs: Sequence[Tensor]  # for each level, those of its `Trellis.skip_sources`
    encoder: dict[int, EncoderFeatures]  # by level; empty until the encoder has run


class Upsampling(nn.Module):
    """Upsampling outside the cells of a supernet: skip features and the decoder's doublings; empty in plain spaces."""

    site_index: Tensor

    def __init__(self, space: SearchSpace, width: Callable[[Node], int], num_classes: int) -> None:
        """width: channels of a node's feature."""
        super().__init__()
        self.space, resolution = space, space.resolution
        self.joins, self.unpools = resolution.skips != ("none",), UNPOOLING in resolution.upsamplers
        hourglass = space.network.down_layers is not None and (self.joins or self.unpools)
        levels = range(len(space.network.strides) - 1) if hourglass else ()
        self.sources = {level: space.trellis.skip_sources(level) for level in levels}
        self.skips = nn.ModuleList(
            SkipFeature([width(node) for node in nodes], space.filters(level))
            for level, nodes in self.sources.items()
            if self.joins
        )
        self.stages = nn.ModuleList(ScoreUpsample(num_classes, space.decoder.upsamplers) for _ in space.decoder_stages)
        columns = [[space.upsamplers.index(name) for name in site.candidates] for site in space.gamma_sites]
        entries = [row * len(space.upsamplers) + column for row, of in enumerate(columns) for column in of]
        self.register_buffer("site_index", torch.tensor(entries, dtype=torch.int64), persistent=False)

    def choices(self, arch: ArchParameters) -> UpsamplingChoices:
        """The probabilities of this forward pass."""
        gamma, skips = arch.gamma_probs(), arch.skip_probs()
        sites: Sequence[Tensor] = ()
        if gamma is not None:
            sizes = [len(site.candidates) for site in self.space.gamma_sites]
            sites = torch.split(gamma.flatten().index_select(0, self.site_index), sizes)
        descents: list[Tensor] = []
        if self.sources:
            probs = arch.descent_probs()
            descents = [torch.stack([probs[node] for node in nodes]) for nodes in self.sources.values()]
        rows: Sequence[Tensor] = () if skips is None else skips.unbind()
        return UpsamplingChoices(sites, arch.beta_logits.new_ones(1) if self.joins else None, rows, descents, {})

    def encoder_features(
        self, features: Mapping[Node, Feature], choices: UpsamplingChoices, level: int
    ) -> EncoderFeatures:
        """The features (N, C, H, W) that a complete encoder gives to a level of the up path.

        The guide is the expected feature; means over groups of channels narrow it to C.
        """
        nodes, probs, guide = [features[node] for node in self.sources[level]], choices.descent_probs[level], None
        if self.unpools:
            with torch.no_grad():
                narrow = (to_width(of.plain, self.space.filters(level)) for of in nodes)
                guide = torch.stack([prob * one for prob, one in zip(probs.unbind(), narrow, strict=True)]).sum(0)
        return EncoderFeatures(self.skips[level](nodes, probs) if self.joins else None, guide)

    def arrow_input(
        self, arrow: Arrow, features: Mapping[Node, Feature], choices: UpsamplingChoices
    ) -> Feature | UpsampleInput:
        """The input of an arrow: H(l-1), and for a searched up move the encoder features and probabilities too.

        The guide of an unpooling comes from the encoder of an hourglass, in other spaces from H(l-2).
        """
        source = features[arrow.source]
        if arrow.move is not Move.UP or not competes(self.space):
            return source
        row, level = self.space.gamma_row(arrow), arrow.target.level
        encoder = choices.encoder.get(level)
        if encoder is None:
            before = features[self.space.trellis.prev_prev(arrow.target)].plain.detach()
            encoder = EncoderFeatures(None, before if self.unpools else None)
        gamma = given(choices.certain) if row is None else choices.gamma[row]
        skip_probs = choices.skip_probs[level] if self.joins else None
        return UpsampleInput(source, encoder, gamma, skip_probs)

    def decode(
        self, scores: Mapping[int, Tensor], features: Mapping[Node, Feature], choices: UpsamplingChoices
    ) -> Tensor:
        """Score maps by level, (N, K, h, w) each -> their sum at the finest; coarser ones are doubled in steps."""
        layers = self.space.network.layers
        total = scores[max(scores)]
        for level, stage in zip(self.space.decoder_stages, self.stages, strict=True):
            if level > max(scores):  # the supernet is reduced to a genotype that ends at a finer level
                continue
            guide = features[Node(layers, level - 1)].plain
            gamma = choices.gamma[self.space.decoder_row(level)]
            total = stage(total, (guide.shape[2], guide.shape[3]), guide, gamma)
            if level - 1 in scores:
                total = total + scores[level - 1]
        return total


def competes(space: SearchSpace) -> bool:
    """Whether upsamplers or skip connections compete on up moves."""
    return space.resolution.upsamplers != PLAIN_UPSAMPLERS or space.resolution.skips != ("none",)


def relative_costs(space: SearchSpace, num_classes: int) -> Tensor:
    """[site, upsampler]: multiply-adds per pixel before doubling, relative to the site's most expensive candidate.

    Upsamplers have the filters of the finer level on up moves, and the classes' score maps in the decoder. 0 for
    upsamplers that do not compete at a site, and at sites where none costs anything. float64, on the CPU.
    """
    widths = {space.gamma_row(arrow): space.filters(arrow.target.level) for arrow in space.trellis.arrows}
    widths |= {space.decoder_row(level): num_classes for level in space.decoder_stages}
    rows = []
    for row, site in enumerate(space.gamma_sites):
        costs = {name: find_upsampler(name).multiply_adds(widths[row], widths[row]) for name in site.candidates}
        greatest = max(costs.values())
        rows.append([costs.get(name, 0) / greatest if greatest else 0.0 for name in space.upsamplers])
    return torch.tensor(rows, dtype=torch.float64)
