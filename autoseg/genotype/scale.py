"""The channels of a genotype's parts, and the genotype with others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from autoseg.genotype.schema import Genotype
from autoseg.registry import DECODERS

STEPS = (8, 4, 2, 1)
"""Multiples to which channels are rounded. A GPU prefers the larger ones."""
MOST = 4096
"""Most channels of a part."""


def channels_of(genotype: Genotype) -> tuple[int, ...]:
    """The channels of the stem's convolutions, of each level, and of the decoder if it has filters."""
    decoder = genotype.decoder
    of_decoder = (decoder.filters, decoder.low_level_filters) if DECODERS[decoder.name].has_filters else ()
    return (*genotype.stem.channels, *(stage.filters for stage in genotype.all_stages), *of_decoder)


def with_channels(genotype: Genotype, channels: Sequence[int]) -> Genotype:
    """The same network with other channels, in the order of `channels_of`; it gets a stage for each level."""
    left: Iterator[int] = iter(channels)
    stem = genotype.stem.model_copy(update={"channels": tuple(islice(left, len(genotype.stem.channels)))})
    changed = tuple(stage.model_copy(update={"filters": next(left)}) for stage in genotype.all_stages)
    of_decoder = dict(zip(("filters", "low_level_filters"), left, strict=False))
    decoder = genotype.decoder.model_copy(update=of_decoder)
    return genotype.model_copy(update={"stem": stem, "stages": changed, "decoder": decoder})


def rounded(channels: Sequence[int], factor: float, step: int = 1) -> tuple[int, ...]:
    """Channels times a factor, each the nearest multiple of `step` and at least that."""
    return tuple(min(MOST, max(1, round(one * factor / step)) * step) for one in channels)


def neighbours(channels: Sequence[int], step: int, up: bool) -> Iterator[tuple[int, ...]]:
    """The channels with one part a step wider, or narrower, for each part that can be."""
    for place, here in enumerate(channels):
        there = here + (step if up else -step)
        if step <= there <= MOST:
            yield (*channels[:place], there, *channels[place + 1 :])
