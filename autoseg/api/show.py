"""Descriptions of spaces, genotypes and networks of the literature."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoseg import limits
from autoseg.analysis.evidence import said_of
from autoseg.analysis.flops import count_cost
from autoseg.analysis.receptive_field import receptive_field
from autoseg.config.base import LEAST_INPUT_SIDE
from autoseg.errors import ConfigError, SearchSpaceError
from autoseg.genotype.count import count_cells, count_networks
from autoseg.genotype.design import label_of, macro_of, options_of
from autoseg.genotype.schema import Genotype
from autoseg.genotype.templates import check_templates
from autoseg.registry import CELL, DECODERS
from autoseg.setup.names import look_up, with_changes
from autoseg.space.groups import DecoderSpec
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import Arrow
from autoseg.supernet import build_supernet
from autoseg.viz.graph import stage_labels
from autoseg.zoo.build import build_network, diagram
from autoseg.zoo.match_cost import CostTarget, at_cost
from autoseg.zoo.schema import Architecture, FixedNetwork

SUPERNET_SIZE = (321, 321)
"""The crop of Auto-DeepLab's search."""
COUNTED = 30_000
"""Most candidates of a space whose cost is counted: twice those of Auto-DeepLab's. Counting more takes a minute."""
NETWORK_SIZE = (1025, 2049)
"""The size of Cityscapes' images, at which papers count multiply-adds."""


def describe(
    source: str | Path,
    num_classes: int = 19,
    size: tuple[int, int] | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    match: CostTarget | None = None,
) -> list[dict[str, str]]:
    """Name -> value, ready to print, for each thing that `source` stands for (`unet` is a space and a network).

    `size`: (H, W) in pixels. `overrides`: other options of a network of the literature. `match`: the cost to which a
    network is scaled. Raises: AutosegError: no such space, genotype or network, or too small a size.
    """
    if size is not None and min(size) < LEAST_INPUT_SIDE:
        raise ConfigError(
            f"size {size[0]} {size[1]} is too small; height and width must be at least {LEAST_INPUT_SIDE}",
            code="size-too-small",
        )
    if size is not None and (max(size) > limits.SIDE or size[0] * size[1] > limits.PIXELS):
        raise ConfigError(
            f"size {size[0]} {size[1]} is too large; sides have at most {limits.SIDE:,} pixels, and images"
            f" {limits.PIXELS:,}",
            code="size-too-large",
        )
    if not 2 <= num_classes <= 65535:
        raise ConfigError(f"classes is {num_classes}; it must be 2 to 65535", code="classes-out-of-range")
    shown = []
    for found in look_up(source):
        changed = with_changes(found, overrides or {})
        if isinstance(changed, SearchSpace):
            shown.append(_describe_space(changed, num_classes, size or SUPERNET_SIZE))
            continue
        network = changed if match is None else at_cost(changed, match, num_classes)
        if isinstance(network, FixedNetwork):
            shown.append(_describe_network(network, num_classes, size or NETWORK_SIZE))
        else:
            cost = _cost_and_field(network, num_classes, size or NETWORK_SIZE, "network")
            shown.append({"genotype": network.name, **describe_choices(network), **cost, **_evidence(network)})
    return shown


def _describe_network(network: FixedNetwork, num_classes: int, size: tuple[int, int]) -> dict[str, str]:
    drawn = diagram(network, num_classes)
    with torch.device("meta"):
        modules = build_network(network, num_classes).modules()
    convolutions = sum(isinstance(module, nn.Conv2d | nn.ConvTranspose2d) for module in modules)
    stages = {
        stage.name: f"{stage.channels} channels at stride {stage.stride:g}, {stage.parameters:,} parameters"
        for stage in drawn.stages
    }
    options = {key: value for key, value in network.to_dict().items() if key not in ("name", "plugins")}
    return {
        "network": network.name,
        "paper": network.entry.paper,
        "options": ", ".join(f"{key} {_plain(value)}" for key, value in options.items()),
        "layers": f"{convolutions} convolutions, in stages",
        **stages,
        **_cost_and_field(network, num_classes, size, "cost"),
    }


def _cost_and_field(architecture: Architecture, num_classes: int, size: tuple[int, int], key: str) -> dict[str, str]:
    cost = count_cost(lambda: build_network(architecture, num_classes), size)
    with torch.device("meta"):
        built = build_network(architecture, num_classes)
    field = receptive_field(built)
    return {
        key: f"{cost.parameters / 1e6:.2f}M parameters ({cost.parameters:,}), {_multiply_adds(cost.multiply_adds)} at"
        f" {size[0]}x{size[1]} with {num_classes} classes",
        "field of view": "the whole image" if math.isinf(field) else f"{field:.0f} pixels",
    }


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value).lower()


def _describe_space(space: SearchSpace, num_classes: int, size: tuple[int, int]) -> dict[str, str]:
    choices = describe_levels(space) if space.macro is None else describe_wide(space)
    supernet = f"not counted, as it has {space.candidates:,} candidates (more than {COUNTED:,})"
    if space.candidates <= COUNTED:
        try:
            cost = count_cost(lambda: build_supernet(space, num_classes), size)
            supernet = (
                f"{cost.parameters / 1e6:.2f}M parameters, {_multiply_adds(cost.multiply_adds)} at {size[0]}x{size[1]}"
                f" with {num_classes} classes"
            )
        except SearchSpaceError as reason:  # the networks of some wide spaces are drawn or listed alone
            if space.macro is None:
                raise
            supernet = f"none: {reason}"
    return {
        "space": space.name,
        "description": space.description,
        **choices,
        "supernet": supernet,
        **_decoding(space),
        **_relaxation(space),
    }


def describe_levels(space: SearchSpace) -> dict[str, str]:
    """The candidates of a space: layers, paths, cells, operations, upsamplers, skips and decoder."""
    trellis, cell, down = space.trellis, space.cell, space.network.down_layers
    ways = f", {down} on the way down and {space.network.layers - down} on the way up" if down is not None else ""
    two = ", for the way down and for the way up each" if space.cells == 2 else ""
    return {
        "layers": f"{space.network.layers}, strides {' '.join(map(str, trellis.strides))}{ways}",
        "nodes": f"{len(trellis.nodes)} with a cell, {len(trellis.arrows)} arrows",
        "paths": _many(trellis.count_paths()),
        "cell": f"{cell.blocks} blocks, {len(space.topology.edges)} edges, {len(cell.operations)} operations{two}",
        "cells": f"{count_cells(space):.3g} discrete ones" + (", pairs of two" if two else ""),
        "operations": " ".join(cell.operations),
        **_upsampling(space),
    }


def describe_wide(space: SearchSpace) -> dict[str, str]:
    """The choices of a wide space, and the number of its networks.

    Raises: SearchSpaceError: it is not wide. GenotypeError: a template is unknown.
    """
    check_templates(space)
    macro, each = macro_of(space), {"level": "at each level", "network": "for the network"}
    layers, kinds = macro.layers or (space.network.layers,), macro.paths or (space.network.paths,)
    words = {"single": "one path", "multi": "several paths"}
    networks = f"{' or '.join(words[kind] for kind in kinds)} in {_either(layers)} layers"
    if macro.networks:
        networks = ", ".join(
            f"{one.name} ({' '.join(map(str, one.strides)) or f'{sum(map(len, one.arrows))} arrows'})"
            for one in macro.networks
        )
    widths = f"{_either(macro.widths)} at each level"
    if macro.profiles:
        widths = ", ".join(f"{one.name} ({' '.join(f'{width:g}' for width in one.widths)})" for one in macro.profiles)
    shown = {
        "strides": _either(space.network.strides),
        "paths": networks,
        "stem": ", ".join(map(label_of, macro.stems or (space.stem,))),
        "widths": f"{widths}; F = {space.decoding.filter_multiplier or space.network.filter_multiplier}",
        "blocks": f"{' '.join(macro.blocks)}, {each[macro.shared_by]}",
        "depths": f"{_either(macro.depths)}, {each[macro.shared_by]}",
    }
    if CELL in macro.blocks:
        searched = f"{space.cell.blocks} blocks of {' '.join(space.cell.operations)}: {count_cells(space):.3g} cells"
        shown["cell"] = f"of {', '.join(macro.cells)}" if macro.cells else searched
    decoders = options_of(space)["decoder"] or ()
    shown |= {"decoders": "; ".join(map(_decoder_size, decoders)), "upsamplers": " ".join(macro.upsamplers)}
    if macro.known:
        shown["known"] = ", ".join(design.name for design in macro.known)
    if macro.cost is not None:
        shown["cost"] = f"each is scaled to {macro.cost:g} billion multiply-adds a megapixel"
    total = count_networks(space)
    return {**shown, "networks": "not counted, as topologies are drawn" if total is None else _many(total)}


def _either(options: Sequence[float]) -> str:
    return " ".join(f"{option:g}" for option in options)


def _many(number: int) -> str:
    return f"{number:,}" if number < 10**15 else f"{number:.3g}"


def _upsampling(space: SearchSpace) -> dict[str, str]:
    shown = {}
    if any(space.gamma_row(arrow) is not None for arrow in space.trellis.arrows):
        shown["upsamplers"] = " ".join(space.resolution.upsamplers)
    if space.gamma_sites:
        shown["gamma"] = f"{len(space.gamma_sites)} sites: {' '.join(site.name for site in space.gamma_sites)}"
    if space.resolution.skips != ("none",):
        shown["skips"] = f"{' '.join(space.resolution.skips)}, into each stride of the way up"
    stages = f", upsamplers {' '.join(space.decoder.upsamplers)}" if space.decoder_stages else ""
    return {**shown, "decoder": f"{_decoder_size(space.decoder)}{stages}"}


def _decoder_size(decoder: DecoderSpec) -> str:
    """A decoder's name, and its filters if it has any."""
    return f"{decoder.name}, {decoder.filters} filters" if DECODERS[decoder.name].has_filters else decoder.name


def _decoding(space: SearchSpace) -> dict[str, str]:
    if space.network.paths == "single":
        return {"path prior": space.decoding.path_prior}
    budget = space.decoding.budget
    limit = f", at most {budget:g} billion multiply-adds a megapixel" if budget is not None else ""
    return {"arrows": f"several stay, threshold {space.decoding.threshold:g}{limit}"}


def _relaxation(space: SearchSpace) -> dict[str, str]:
    options = space.relaxation
    shown = []
    if options.pc_darts is not None:
        shown.append(f"pc_darts (1/{options.pc_darts} of the channels)")
    if options.gdas is not None:
        shown.append(f"gdas (temperature {options.gdas[0]:g} to {options.gdas[1]:g})")
    if options.mix_before_cell:
        shown.append("mix_before_cell")
    return {"relaxation": ", ".join(shown)} if shown else {}


def describe_choices(genotype: Genotype) -> dict[str, str]:
    """The choices of a genotype: path or arrows, cells, upsamplers, skips and decoder."""
    network, down = genotype.network, genotype.network.down_layers
    ways = f", {down} on the way down and {genotype.layers - down} on the way up" if down is not None else ""
    if genotype.is_path:
        layers = {"layers": f"{genotype.layers}{ways}, path {' '.join(map(str, network.strides))}"}
    else:
        arrows = " | ".join(" ".join(into) for into in network.arrows)
        layers = {"layers": f"{genotype.layers}{ways}, {len(genotype.arrows)} arrows", "arrows": arrows}
    blocks = {
        f"{prefix}b{number}": " + ".join(f"{edge.operation}({edge.input})" for edge in block)
        for prefix, cell in (("", genotype.cell), ("up ", genotype.up_cell or ()))
        for number, block in enumerate(cell, start=1)
    }
    stages = {
        f"stride {genotype.stride(label.level)}": f"{label.blocks}, {label.channels}"
        for label in stage_labels(genotype)
    }
    channels = stages or {"filters": f"F = {network.filter_multiplier}"}
    return {**layers, **channels, **blocks, **_chosen_upsampling(genotype)}


def _evidence(genotype: Genotype) -> dict[str, str]:
    """What the search's gradients say of the choices, if the genotype has it."""
    said = said_of(genotype)
    return {} if said is None else {"evidence": said}


def _chosen_upsampling(genotype: Genotype) -> dict[str, str]:
    """The upsampler and the skip of each up move, if they are named, and the decoder with its upsamplers."""
    shown: dict[str, str] = {}
    up_moves = genotype.up_arrows
    if genotype.network.upsamplers:
        named = [f"{_up_move(genotype, arrow)}: {genotype.upsampler(arrow)}" for arrow in up_moves]
        shown["upsamplers"] = "; ".join(named)
    if genotype.network.skips:
        shown["skips"] = "; ".join(f"{_up_move(genotype, arrow)}: {_skip(genotype, arrow)}" for arrow in up_moves)
    stages = "".join(
        f", {genotype.stride(level)}->{genotype.stride(level - 1)}: {name}"
        for level, name in zip(genotype.decoder_levels, genotype.decoder.upsamplers, strict=False)
    )
    return {**shown, "decoder": f"{_decoder_size(genotype.decoder)}{stages}"}


def _up_move(genotype: Genotype, arrow: Arrow) -> str:
    source, target = genotype.stride(arrow.source.level), genotype.stride(arrow.target.level)
    return f"layer {arrow.target.layer}, {source}->{target}"


def _skip(genotype: Genotype, arrow: Arrow) -> str:
    """A skip, such as `concat from layer 2`, `add from the stem` or `none`."""
    how = genotype.skip(arrow)
    if how == "none":
        return how
    layer = genotype.encoder_node(arrow.target.level, arrow.target.layer).layer
    return f"{how} from {f'layer {layer}' if layer else 'the stem'}"


def _multiply_adds(count: int) -> str:
    return f"{count / 1e9:.2f}B multiply-adds" if count >= 1e8 else f"{count / 1e6:.2f}M multiply-adds"
