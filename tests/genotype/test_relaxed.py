"""Decoding wide spaces, what a gradient search of them holds fixed, and which genotypes are in them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from helpers.errors import raises_code
from helpers.relaxed_spaces import KINDS, wide_space
from helpers.spaces import random_probs

from autoseg.analysis.choices import node_name, tables_of
from autoseg.analysis.evidence import ChoiceEvidence, TableEvidence, verdict
from autoseg.config.base import merge
from autoseg.errors import GenotypeError
from autoseg.genotype.contains import check_in_space, fit_channels, stage_choices
from autoseg.genotype.decode import decode, decode_path
from autoseg.genotype.design import genotype_of, sample_genes
from autoseg.genotype.held import held_genes, held_notes
from autoseg.genotype.multi_path import decode_topology
from autoseg.genotype.sample import sample_genotype
from autoseg.genotype.scale import channels_of, rounded, with_channels
from autoseg.genotype.schema import Genotype, write_arrows
from autoseg.network import build_searched
from autoseg.space.schema import SearchSpace
from autoseg.space.snapshot import ArchProbs


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_takes_the_most_probable_option_of_each_table(kind: str) -> None:
    for seed in range(5):
        probs = random_probs(wide_space(kind), seed)
        space, genotype = probs.space, decode(probs)
        macro = space.macro
        assert macro is not None
        for level, stage in enumerate(genotype.stages):
            row = 0 if macro.shared_by == "network" else level
            best = {
                name: 0 if (table := getattr(probs, f"{name}_logits")) is None else table[row % len(table)].argmax()
                for name in ("block", "depth")
            }
            assert stage.block == macro.blocks[best["block"]]
            assert stage.depth == (1 if stage.block == "cell" else macro.depths[best["depth"]])
            if macro.profiles:
                assert probs.width_logits is not None
                width = macro.profiles[probs.width_logits[0].argmax()].widths[level]
            else:
                width = 1.0 if probs.width_logits is None else macro.widths[probs.width_logits[level].argmax()]
            assert stage.filters == round(4 * width * 2**level)
        check_in_space(genotype, space)
        assert genotype.stem == space.stem
        assert Genotype.parse(genotype.to_dict()) == genotype


def test_equal_logits_take_the_first_option() -> None:
    genotype = decode(ArchProbs.zeros(wide_space()))
    assert {(stage.block, stage.depth, stage.filters / stage.stride) for stage in genotype.stages} == {
        ("conv_3x3", 1, 1.0)
    }
    assert decode(ArchProbs.zeros(wide_space("named"))).network.strides == (2, 4, 8)


def test_without_named_networks_paths_and_topologies_are_decoded_as_ever() -> None:
    single, several = random_probs(wide_space()), random_probs(wide_space("several paths"))
    levels = decode_path(single.beta_probs, single.space.trellis)
    assert decode(single).network.strides == tuple(2 << level for level in levels)
    arrows = decode_topology(several.beta_probs, several.space, [])
    assert decode(several).network.arrows == write_arrows(arrows, (2, 4, 8))


@pytest.mark.parametrize("paths", ["single", "multi"])
def test_the_best_named_network_is_decoded(paths: str) -> None:
    named = wide_space("named").macro.networks  # type: ignore[union-attr]
    found = set()
    for seed in range(12):
        probs = random_probs(wide_space("named", network={"paths": paths, "layers": 3, "strides": [2, 4, 8]}), seed)
        beta, scores = probs.beta_probs, {}
        for network in named:
            if network.name == "short":
                continue  # the supernet has 3 layers
            pairs = [[pair] for pair in pairwise((2, *network.strides))]
            if network.arrows:
                pairs = [[tuple(map(int, text.split("->"))) for text in layer] for layer in network.arrows]
            logs = []
            for layer, into in enumerate(pairs):
                for source, target in into:
                    level, move = source.bit_length() - 2, target.bit_length() - source.bit_length() + 1
                    p = beta[layer, level, move]
                    legal = 2 if level in (0, 2) else 3
                    logs.append(np.log(p / (1 - p)) if paths == "multi" else np.log(p * legal))
            scores[network.name] = sum(logs) if paths == "multi" else np.mean(logs)
        best = max(scores, key=lambda name: scores[name])
        genotype = decode(probs)
        assert genotype.source["genes"]["network"] == best
        found.add(best)
    assert len(found) > 1


def test_held_genes_are_the_spaces_own_or_the_first_option() -> None:
    space = wide_space("held")
    genes = held_genes(space)
    assert (genes["stem"], genes["decoder"].name, genes["upsampler"]) == (space.stem, "unet", "carafe")
    own = {"name": "classifier", "dropout": 0.1}
    assert held_genes(SearchSpace.parse({**space.to_dict(), "decoder": own}))["decoder"].name == "classifier"
    genotype = decode(random_probs(space))
    assert genotype.decoder.name == "unet"
    assert set(genotype.network.upsamplers) <= {"carafe"}
    (line,) = held_notes(space)
    for said in (
        "paths, blocks, depths, widths",
        "layers 3 (one of 2)",
        "stems 6/2 (one of 2)",
        "unet 8 (one of 2)",
        "carafe (one of 2)",
    ):
        assert said in line
    assert "networks without 1 of 4" in held_notes(wide_space("named"))[0]
    assert "cells unet_shaped (one of 2)" in held_notes(wide_space("template"))[0]


@pytest.mark.parametrize("kind", KINDS)
def test_random_networks_are_in_their_space_at_any_scale(kind: str) -> None:
    space = wide_space(kind)
    strides = space.network.strides
    for seed in range(6):
        genes = sample_genes(space, np.random.default_rng(seed))
        genotype = genotype_of(space, genes)
        assert sample_genotype(space, seed).stages == genotype.stages
        for factor, step in ((1, 1), (1.7, 1), (12, 8), (3.1, 4)):
            scaled = with_channels(genotype, rounded(channels_of(genotype), factor, step))
            check_in_space(scaled, space)
            if genotype.stem.stride != strides[0] or factor == 1.7:
                continue  # narrow stages are rounded too much to tell widths apart
            choices = stage_choices(scaled, space)
            for row, column in choices.get("width", []):
                table = space.macro_tables["width"]
                gene = genes["width"] if len(table.rows) == 1 else genes[f"width {strides[row]}"]
                assert table.options[column] == gene


def test_networks_of_a_wide_space_are_built() -> None:
    for kind in ("all", "several paths", "held"):
        genotype = sample_genotype(wide_space(kind), 3)
        assert build_searched(genotype, 3).num_classes == 3


BASE: dict[str, Any] = {
    "name": "given",
    "network": {"strides": [2, 4, 8], "filter_multiplier": 4},
    "stages": [
        {"stride": 2, "block": "conv_3x3", "depth": 1, "filters": 40},
        {"stride": 4, "block": "inverted_residual", "depth": 3, "filters": 40},
        {"stride": 8, "block": "conv_3x3", "depth": 3, "filters": 240},
    ],
    "stem": {"channels": [60], "strides": [2]},
    "decoder": {"name": "classifier"},
}


@pytest.mark.parametrize(
    ("changes", "kind", "named"),
    [
        ({"stages": [{**BASE["stages"][0], "block": "residual"}, *BASE["stages"][1:]]}, "all", ("stages", "residual")),
        ({"stages": [{**BASE["stages"][0], "depth": 2}, *BASE["stages"][1:]]}, "all", ("depth 2",)),
        ({"stages": [{**BASE["stages"][0], "filters": 90}, *BASE["stages"][1:]]}, "all", ("channels",)),
        ({}, "shared", ("macro.shared_by",)),
        ({"stem": {"channels": [60, 60], "strides": [2, 1]}}, "all", ("stem 60/2-60/1",)),
        ({"decoder": {"name": "unet", "filters": 80}}, "all", ("decoder unet 80",)),
        ({"network": {"strides": [2, 4, 8, 8], "filter_multiplier": 4}}, "all", ("4 layers", "3")),
        ({"network": {"strides": [2, 4, 8], "filter_multiplier": 4}}, "several paths", ()),
        ({"network": {"strides": [4, 4, 8], "filter_multiplier": 4}}, "named", ("macro.networks", "down, up")),
        (
            {"network": {"strides": [4, 8, 4], "filter_multiplier": 4, "upsamplers": ["carafe"]}},
            "all",
            ("upsamplers", "carafe", "bilinear"),
        ),
    ],
    ids=str,
)
def test_what_is_no_option_is_named(changes: dict[str, Any], kind: str, named: tuple[str, ...]) -> None:
    genotype, space = Genotype.parse({**BASE, **changes}), wide_space(kind)
    if not named:
        check_in_space(genotype, space)
        return
    with raises_code(GenotypeError, "genotype-not-in-space", "'given'", *named):
        check_in_space(genotype, space)


def test_stages_are_in_no_plain_space() -> None:
    plain = SearchSpace.parse({key: value for key, value in wide_space().to_dict().items() if key != "macro"})
    with raises_code(GenotypeError, "genotype-not-in-space", "stages"):
        check_in_space(Genotype.parse(BASE), plain)


def test_one_factor_fits_all_channels() -> None:
    found, lacks = fit_channels(Genotype.parse(BASE), wide_space())
    assert lacks == []
    assert found == {"stem": 0, "decoder": 0, "width 2": 1, "width 4": 0, "width 8": 2}
    twice = merge(BASE, {"stem": {"channels": [30]}})  # the stem tells the factor: all widths are then twice as great
    assert fit_channels(Genotype.parse(twice), wide_space())[1] != []


def test_other_settings_of_decoding_count() -> None:
    probs = random_probs(wide_space("several paths"), 2)
    counts = [sum(map(len, decode(probs, threshold=of).network.arrows)) for of in (0.1, 0.9)]
    assert counts[0] > counts[1]
    with raises_code(GenotypeError, "setting-not-for-space", "path_prior"):
        decode(probs, path_prior="paper")


def test_the_verdict_is_on_the_network_that_is_decoded() -> None:
    """A tie at a node of the named network counts, one at a node of another path does not."""
    probs = random_probs(wide_space("named"), 0)  # whose best path is none of those that have a name
    on_it = {node_name(arrow.source, (2, 4, 8)) for arrow in decode(probs).arrows}
    nodes = [choice.name for choice in tables_of(probs.space)["beta"].choices]
    assert 0 < len(on_it & {*nodes}) < len(nodes)
    for tie in nodes:
        choices = [ChoiceEvidence(node, 1.0, 0.01, node != tie) for node in nodes]
        beta = TableEvidence(2.0, (0.5, 1.5), 0.01, 0.1, 0.1, 0.1, 0.1, choices, "nodes")
        assert verdict({"beta": beta}, probs).endswith(f"the path is{' not' if tie in on_it else ''}")
