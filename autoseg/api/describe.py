"""What a space or a genotype holds, in figures."""

from __future__ import annotations

from pathlib import Path

from autoseg.api.use import space_or_genotype
from autoseg.errors import ConfigError
from autoseg.genotype.schema import Genotype
from autoseg.network import build_network
from autoseg.objectives.cost import count_cost
from autoseg.space.schema import SearchSpace
from autoseg.supernet import build_supernet

SUPERNET_SIZE = (321, 321)
"""The crop of Auto-DeepLab's search."""
NETWORK_SIZE = (1025, 2049)
"""Cityscapes, as published multiply-adds are counted."""


def describe(source: str | Path, num_classes: int = 19, size: tuple[int, int] | None = None) -> dict[str, str]:
    """Name -> value, ready to print. Raises: AutosegError: no such space or genotype, or too small a size."""
    if size is not None and min(size) < 32:
        raise ConfigError(f"size {size[0]} {size[1]} is too small; height and width must be at least 32")
    if not 2 <= num_classes <= 65535:
        raise ConfigError(f"classes is {num_classes}; it must be 2 to 65535")
    found = space_or_genotype(source)
    if isinstance(found, SearchSpace):
        return _describe_space(found, num_classes, size or SUPERNET_SIZE)
    return _describe_genotype(found, num_classes, size or NETWORK_SIZE)


def _describe_space(space: SearchSpace, num_classes: int, size: tuple[int, int]) -> dict[str, str]:
    trellis, cell = space.trellis, space.cell
    cost = count_cost(lambda: build_supernet(space, num_classes), size)
    cells = 1
    for block in range(cell.blocks):
        choices = len(set(cell.operations) - {"none"})
        cells *= (block + 2) * (block + 1) // 2 * choices**2
    return {
        "space": space.name,
        "description": space.description,
        "layers": f"{space.network.layers}, strides {' '.join(map(str, trellis.strides))}",
        "nodes": f"{len(trellis.nodes)} with a cell, {len(trellis.arrows)} arrows",
        "paths": f"{trellis.count_paths():,}",
        "cell": f"{cell.blocks} blocks, {len(space.topology.edges)} edges, {len(cell.operations)} operations",
        "cells": f"{cells:.3g} discrete ones",
        "operations": " ".join(cell.operations),
        "supernet": f"{cost.parameters / 1e6:.2f}M parameters, {_multiply_adds(cost.multiply_adds)} at"
        f" {size[0]}x{size[1]} with {num_classes} classes",
        "path prior": space.decoding.path_prior,
        **_relaxation(space),
    }


def _relaxation(space: SearchSpace) -> dict[str, str]:
    """The options that change the mathematics, if any is on."""
    options = space.relaxation
    shown = []
    if options.pc_darts is not None:
        shown.append(f"pc_darts (1/{options.pc_darts} of the channels)")
    if options.gdas is not None:
        shown.append(f"gdas (temperature {options.gdas[0]:g} to {options.gdas[1]:g})")
    if options.mix_before_cell:
        shown.append("mix_before_cell")
    return {"relaxation": ", ".join(shown)} if shown else {}


def _describe_genotype(genotype: Genotype, num_classes: int, size: tuple[int, int]) -> dict[str, str]:
    cost = count_cost(lambda: build_network(genotype, num_classes), size)
    blocks = {
        f"b{number}": " + ".join(f"{edge.operation}({edge.input})" for edge in block)
        for number, block in enumerate(genotype.cell, start=1)
    }
    return {
        "genotype": genotype.name,
        "layers": f"{len(genotype.network.strides)}, path {' '.join(map(str, genotype.network.strides))}",
        "filters": f"F = {genotype.network.filter_multiplier}",
        **blocks,
        "decoder": f"{genotype.decoder.name}, {genotype.decoder.filters} filters",
        "network": f"{cost.parameters / 1e6:.2f}M parameters, {_multiply_adds(cost.multiply_adds)} at"
        f" {size[0]}x{size[1]} with {num_classes} classes",
    }


def _multiply_adds(count: int) -> str:
    return f"{count / 1e9:.2f}B multiply-adds" if count >= 1e8 else f"{count / 1e6:.2f}M multiply-adds"
