"""Genes of wide spaces: drawing, changing and listing them, and the networks of the literature among them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from helpers.errors import raises_code

from autoseg.errors import SearchSpaceError
from autoseg.genotype.design import (
    enumerate_genes,
    genotype_of,
    key_of,
    known_genes,
    label_of,
    mutate,
    options_of,
    sample_genes,
)
from autoseg.genotype.node_inputs import node_inputs
from autoseg.genotype.scale import channels_of, with_channels
from autoseg.genotype.schema import Genotype
from autoseg.network import build_searched
from autoseg.ops.heads import DeepLabV3PlusDecoder, UNetDecoder
from autoseg.space.schema import SearchSpace, space_names
from autoseg.zoo.build import build_network
from autoseg.zoo.schema import FixedNetwork

WIDE = [name for name in space_names() if SearchSpace.load(name).macro is not None]
LISTED: dict[str, Any] = {
    "name": "listed",
    "network": {"layers": 2, "strides": [2, 4, 8], "filter_multiplier": 4},
    "stem": {"channels": [4], "strides": [2]},
    "decoder": {"name": "classifier"},
    "macro": {
        "networks": [
            {"name": "down", "strides": [4, 8]},
            {"name": "two", "arrows": [["2->2", "2->4"], ["2->2", "4->4"]]},
        ],
        "widths": [1, 2],
        "blocks": ["conv_3x3", "bottleneck"],
        "depths": [1, 2],
        "shared_by": "network",
        "upsamplers": ["bilinear", "pixel_dcl"],
    },
}  # fmt: skip


def listed(**macro: Any) -> SearchSpace:
    return SearchSpace.parse({**LISTED, "macro": {**LISTED["macro"], **macro}})


def test_wide_spaces_ship_with_autoseg() -> None:
    assert WIDE == ["table_216", "wide", "wide_small"]


@pytest.mark.parametrize("name", WIDE)
def test_drawn_networks_can_be_written_read_and_built(name: str) -> None:
    space, rng = SearchSpace.load(name), np.random.default_rng(0)
    for _ in range(3):
        genes = sample_genes(space, rng)
        genotype = genotype_of(space, genes)
        assert Genotype.parse(genotype.to_dict()) == genotype
        assert set(genes) == set(options_of(space))
        with torch.device("meta"):
            network = build_searched(genotype, 5).eval()
            assert network(torch.empty(1, 3, 64, 48)).shape == (1, 5, 64, 48)


def test_every_option_is_drawn_equally_often() -> None:
    space, rng = listed(), np.random.default_rng(1)
    drawn = [sample_genes(space, rng) for _ in range(2000)]
    for gene, options in options_of(space).items():
        assert options is not None
        counts = Counter(label_of(genes[gene]) for genes in drawn)
        assert set(counts) == {label_of(option) for option in options}
        share = 1 / len(options)
        assert all(abs(count / 2000 - share) <= 5 * (share * (1 - share) / 2000) ** 0.5 for count in counts.values())


def test_paths_are_uniform_over_the_layers_and_then_over_the_paths() -> None:
    space = SearchSpace.parse(
        {
            "name": "free",
            "network": {"layers": 3, "strides": [2, 4], "filter_multiplier": 2},
            "stem": {"channels": [2], "strides": [2]},
            "macro": {"layers": [2, 3], "paths": ["single", "multi"]},
        }
    )
    rng = np.random.default_rng(2)
    names = [sample_genes(space, rng)["network"] for _ in range(3000)]
    paths = Counter(network.strides for network in names if network.strides)
    assert set(map(len, paths)) == {2, 3}
    for length, number in ((2, 4), (3, 8)):
        counts = [count for path, count in paths.items() if len(path) == length]
        assert len(counts) == number  # 2 strides at every layer
        assert all(abs(count - 750 / number) < 5 * (750 / number) ** 0.5 for count in counts)
    assert sum(paths.values()) == pytest.approx(1500, abs=140)


def test_listing_gives_every_combination_once() -> None:
    space = listed()
    found = list(enumerate_genes(space))
    # both networks end at another stride, and the widths are of three levels
    assert len(found) == 2 * 2**3 * 2 * 2 * 2
    assert list(found[0]) == list(options_of(space))
    assert found[0]["upsampler"] == "bilinear"
    assert found[1] == {**found[0], "upsampler": "pixel_dcl"}


def test_the_table_has_216_networks() -> None:
    space = SearchSpace.load("table_216")
    keys = {key_of(genotype_of(space, genes)) for genes in enumerate_genes(space)}
    assert len(keys) == 216


def test_a_mutation_changes_one_gene_and_stays_in_the_space() -> None:
    space, rng = SearchSpace.load("table_216"), np.random.default_rng(3)
    keys = {key_of(genotype_of(space, genes)) for genes in enumerate_genes(space)}
    genes, changed = sample_genes(space, rng), Counter[str]()
    for _ in range(60):
        after = mutate(space, genes, rng)
        (gene,) = [gene for gene in genes if after[gene] != genes[gene]]
        changed[gene] += 1
        assert key_of(genotype_of(space, after)) in keys
        genes = after
    assert set(changed) == {"network", "width", "block", "decoder", "upsampler"}


@pytest.mark.parametrize("name", ["wide_small", "wide"])
def test_mutations_of_wide_spaces_make_other_networks(name: str) -> None:
    space, rng = SearchSpace.load(name), np.random.default_rng(4)
    genes, seen = sample_genes(space, rng), set[str]()
    for _ in range(25):
        after = mutate(space, genes, rng)
        assert key_of(genotype_of(space, after)) != key_of(genotype_of(space, genes))
        seen |= {gene.split()[0] for gene in genes if after[gene] != genes[gene]}
        genes = after
    assert seen >= {"network", "block", "depth", "width"}


def test_filters_follow_the_width_and_the_stride_and_a_cell_has_depth_one() -> None:
    space = SearchSpace.load("wide")
    genes = dict(known_genes(space)["auto_deeplab_s"])
    genes |= {"width 8": 0.5, "block 16": "residual", "depth 16": 3, "depth 8": 6}
    stages = {stage.stride: stage for stage in genotype_of(space, genes).stages}
    assert [stages[stride].filters for stride in (4, 8, 16, 32)] == [20, 20, 80, 160]
    assert [stages[stride].depth for stride in (4, 8, 16, 32)] == [1, 1, 3, 1]
    assert [stages[stride].block for stride in (4, 8, 16, 32)] == ["cell", "cell", "residual", "cell"]


# --- known designs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WIDE)
def test_known_designs_have_options_of_the_space_alone(name: str) -> None:
    space = SearchSpace.load(name)
    known = known_genes(space)
    assert list(known)[:4] == ["unet", "deeplabv3plus", "hrnet_like", "enet_like"]
    for genes in known.values():
        for gene, options in options_of(space).items():
            assert options is None or genes[gene] in options
        network = genes["network"]
        if network.strides and space.macro is not None and not space.macro.networks:
            assert len(network.strides) in space.macro.layers


@pytest.mark.parametrize(("name", "base"), [("wide_small", 4), ("wide", 5)])
def test_u_net_with_batch_norm_is_a_member_to_the_last_bit(name: str, base: int) -> None:
    space = SearchSpace.load(name)
    member = build_searched(genotype_of(space, known_genes(space)["unet"]), 6)
    options = {"batch_norm": True, "upsampler": "bilinear", "width": base / 64}
    published = build_network(FixedNetwork.parse({"name": "unet", **options}), 6)
    for norm in (module for module in member.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.eps = 1e-5  # a setting of the space
    weights = published.state_dict()
    assert [value.shape for value in weights.values()] == [value.shape for value in member.state_dict().values()]
    member.load_state_dict(dict(zip(member.state_dict(), weights.values(), strict=True)))
    images = torch.randn(2, 3, 45, 70, generator=torch.Generator().manual_seed(0))
    assert torch.equal(member.eval()(images), published.eval()(images))


def test_the_published_auto_deeplab_is_a_member_to_the_last_bit() -> None:
    space, published = SearchSpace.load("wide"), Genotype.load("auto_deeplab_s")
    genotype = genotype_of(space, known_genes(space)["auto_deeplab_s"])
    assert key_of(with_channels(published, channels_of(published))) == key_of(genotype)
    narrow = published.model_copy(update={"network": published.network.model_copy(update={"filter_multiplier": 2})})
    networks = []
    for one in (narrow, with_channels(narrow, channels_of(narrow))):  # without stages and with them
        torch.manual_seed(0)
        networks.append(build_searched(one, 4).eval())
    plain, staged = networks
    assert plain.state_dict().keys() == staged.state_dict().keys()
    images = torch.randn(1, 3, 33, 34, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(plain(images), staged(images))


@pytest.mark.parametrize("name", ["wide_small", "wide"])
def test_deeplabv3plus_has_its_decoder_and_output_stride(name: str) -> None:
    space = SearchSpace.load(name)
    genotype = genotype_of(space, known_genes(space)["deeplabv3plus"])
    decoder = build_searched(genotype, 6).decoder
    assert isinstance(decoder, DeepLabV3PlusDecoder)
    assert genotype.stride(genotype.end_level) == 16
    assert genotype.decoder.low_level_stride == 4
    assert {stage.block for stage in genotype.stages} == {"separable"}


@pytest.mark.parametrize("name", WIDE)
def test_hrnet_keeps_its_resolutions_in_parallel_to_the_end(name: str) -> None:
    space = SearchSpace.load(name)
    genotype = genotype_of(space, known_genes(space)["hrnet_like"])
    assert len(genotype.nodes_at(genotype.layers)) >= 3
    fused = [inputs for inputs in node_inputs(genotype) if len(inputs.arrows) == 3]
    assert fused, "a node reads a finer, the same and a coarser resolution"


@pytest.mark.parametrize("name", ["wide_small", "wide"])
def test_enet_leaves_high_resolution_early_and_unpools(name: str) -> None:
    space = SearchSpace.load(name)
    genotype = genotype_of(space, known_genes(space)["enet_like"])
    assert min(genotype.network.strides) == 4
    assert {stage.block for stage in genotype.stages} == {"bottleneck"}
    assert set(genotype.decoder.upsamplers) == {"max_unpool"}
    assert isinstance(build_searched(genotype, 6).decoder, UNetDecoder)


# --- bad input --------------------------------------------------------------------------------------------------------


def test_a_narrow_space_has_no_genes() -> None:
    with raises_code(SearchSpaceError, "space-not-wide", "tiny", "macro"):
        sample_genes(SearchSpace.load("tiny"), np.random.default_rng(0))


def test_a_space_of_every_path_cannot_be_listed() -> None:
    with raises_code(SearchSpaceError, "space-not-listed", "wide_small", "network", "macro.networks"):
        list(enumerate_genes(SearchSpace.load("wide_small")))


def test_a_space_of_one_network_has_no_mutation() -> None:
    one = {"networks": LISTED["macro"]["networks"][:1], "widths": [1], "blocks": ["conv_3x3"], "depths": [1]}
    space = listed(**one, upsamplers=["bilinear"])
    (genes,) = enumerate_genes(space)
    with raises_code(SearchSpaceError, "space-too-small", "listed"):
        mutate(space, genes, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("change", "named"),
    [({"block": "conv_5x5"}, ["'conv_5x5'", "block", "conv_3x3, bottleneck"]), ({"block": None}, ["gives no block"])],
)
def test_a_known_design_must_name_options(change: dict[str, Any], named: list[str]) -> None:
    genes = {"network": "down", "width": 1, "block": "conv_3x3", "depth": 1, "upsampler": "bilinear", **change}
    given = {gene: word for gene, word in genes.items() if word is not None}
    space = listed(known=[{"name": "mine", "genes": given}])
    with raises_code(SearchSpaceError, "known-design-invalid", "'mine'", *named):
        known_genes(space)
