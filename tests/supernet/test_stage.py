"""The supernet of a wide space against plain loops from its formulas."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from helpers.errors import raises_code
from helpers.oracle_supernet import largest_difference
from helpers.oracle_wide import WideOracle, facts_of
from helpers.relaxed_spaces import KINDS, wide_space
from helpers.supernets import results, supernet_of

from autoseg.errors import GenotypeError, SearchSpaceError
from autoseg.genotype.decode import decode
from autoseg.genotype.held import held_genes
from autoseg.genotype.sample import sample_genotype
from autoseg.registry import CELL
from autoseg.space.schema import SearchSpace
from autoseg.supernet import Supernet, build_supernet
from autoseg.supernet.stage import StagedSupernet

SAME = ("named", "held")
"""Kinds whose supernet is that of `all`."""
FORMULA = [(kind, (33, 38)) for kind in KINDS if kind not in ("upsamplers", *SAME)] + [("all", (32, 40))]
"""Kind and size. Competing upsamplers have an oracle of their own."""


def oracle_of(space: SearchSpace) -> WideOracle:
    is_template = CELL in space.macro.blocks and not space.searches_cell  # type: ignore[union-attr]
    return WideOracle(facts_of(space, held_genes(space)["cell"] if is_template else None))


def images_of(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def leaves(supernet: Supernet) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone().requires_grad_() for name, value in supernet.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "size"), FORMULA, ids=str)
def test_logits_and_gradients_are_those_of_the_formula(kind: str, size: tuple[int, int]) -> None:
    space = wide_space(kind)
    supernet, images, params = supernet_of(space), images_of(*size), {}
    ours, gradients = results(supernet, images)
    params = leaves(supernet)
    theirs = oracle_of(space).logits(images, params)
    assert largest_difference(ours, theirs) < 1e-10
    direction = torch.randn(theirs.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (theirs * direction).sum().backward()
    for name, value in params.items():
        expected = torch.zeros_like(value) if value.grad is None else value.grad
        found = torch.zeros_like(value) if gradients.get(name) is None else gradients[name]
        assert largest_difference(found, expected) < 1e-10, name
    assert {name for name, value in params.items() if name.startswith("arch.") and value.grad is not None} == {
        name for name in params if name.startswith("arch.")
    }


@pytest.mark.parametrize("kind", ["all", "several paths", "shared", "profiles", "template", "named"])
def test_a_chosen_genotype_has_probability_one(kind: str) -> None:
    space = wide_space(kind)
    supernet, images = supernet_of(space, seed=1), images_of(32, 36)
    genotype = decode(supernet.arch.snapshot())
    supernet.choose(genotype)
    strides, macro = space.network.strides, space.macro
    assert macro is not None
    # levels that the network does not have stay as they are, and their features do not count
    tables = {name: getattr(supernet.arch.snapshot(), f"{name}_probs") for name in ("block", "depth", "width")}
    chosen: dict[str, Any] = {name: torch.tensor(table) for name, table in tables.items() if table is not None}
    for stage in genotype.stages:
        level = strides.index(stage.stride)
        if macro.profiles:
            nominal = [round(4 * profile.widths[level] * 2**level) for profile in macro.profiles]
        else:
            nominal = [round(4 * width * 2**level) for width in macro.widths]
        picked = {"block": macro.blocks.index(stage.block), "width": nominal.index(stage.filters)}
        if stage.block != CELL:
            picked["depth"] = macro.depths.index(stage.depth)
        for name, column in picked.items():
            if name in chosen:
                rows = chosen[name]
                rows[level % len(rows)] = torch.eye(rows.shape[1], dtype=torch.float64)[column]
    beta = torch.zeros(space.network.layers, len(strides), 3, dtype=torch.float64)
    for arrow in genotype.arrows:
        beta[arrow.source.layer, arrow.source.level, arrow.target.level - arrow.source.level + 1] = 1
    chosen["beta"] = beta
    if space.searches_cell:
        chosen["alpha"] = supernet.arch.alpha_probs()
    ends = {node.level for node in genotype.nodes_at(genotype.layers)}
    expected = oracle_of(space).logits(images, leaves(supernet), chosen, ends)
    assert largest_difference(supernet(images), expected) < 1e-10
    for name in ("block", "depth", "width"):
        expected = chosen.get(name, torch.ones(1, 1, dtype=torch.float64))
        torch.testing.assert_close(supernet.arch.stage_probs(name), expected, rtol=0, atol=1e-12)


def test_random_networks_of_the_supernets_length_can_be_chosen() -> None:
    space = wide_space("held")
    supernet, seen = build_supernet(space, 3), set()
    for seed in range(30):
        genotype = sample_genotype(space, seed)
        fits = genotype.layers == 3 and genotype.stem.stride == 2
        seen.add(fits)
        if fits:
            supernet.choose(genotype)
            rows = supernet.arch.stage_probs("block")[: len(genotype.stages)]
            assert rows.max(-1).values.tolist() == [1] * len(genotype.stages)
        else:
            with raises_code(GenotypeError, "genotype-not-in-space", genotype.name):
                supernet.choose(genotype)
    assert seen == {True, False}


def test_checkpointed_stages_give_the_same_gradients_and_statistics() -> None:
    plain = supernet_of(wide_space())
    checkpointed = copy.deepcopy(plain)
    checkpointed.checkpoint_cells = True
    images = images_of(33, 36)
    (logits, gradients), (again, others) = results(plain, images), results(checkpointed, images)
    assert torch.equal(logits, again)
    assert all(largest_difference(others[of], gradient) < 1e-12 for of, gradient in gradients.items())
    found = checkpointed.state_dict()
    for of, value in plain.state_dict().items():
        assert torch.equal(value, found[of]), of


def test_upsamplers_compete_as_in_plain_spaces() -> None:
    space = wide_space("upsamplers")
    supernet = supernet_of(space)
    _, gradients = results(supernet, images_of(32, 36))
    assert set(gradients) == {name for name, _ in supernet.named_parameters()}
    assert bool((gradients["arch.gamma_logits"].abs().sum(-1) > 0).all())
    genotype = decode(supernet.arch.snapshot())
    assert all(name in space.resolution.upsamplers for name in genotype.network.upsamplers)
    assert len(genotype.decoder.upsamplers) == len(genotype.decoder_levels)
    supernet.choose(genotype)


def test_bf16_keeps_the_precision_of_features() -> None:
    supernet = build_supernet(wide_space(), 3)
    with torch.autocast("cpu", torch.bfloat16):
        feature = supernet.cells["layer1_level0"]
        seen: list[torch.dtype] = []
        feature.register_forward_hook(lambda *arguments: seen.append(arguments[2].plain.dtype))
        assert bool(supernet(torch.randn(2, 3, 32, 32)).isfinite().all())
    assert seen == [torch.bfloat16]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"relaxation": {"pc_darts": 2}}, ("relaxation.pc_darts", "wide")),
        ({"relaxation": {"gdas": [4.0, 0.5]}}, ("relaxation.gdas", "wide")),
        ({"macro": {"layers": [5, 4]}}, ("network.layers", "3", "macro.layers")),
        ({"macro": {"paths": ["multi"]}}, ("network.paths", "single", "macro.paths")),
        ({"macro": {"stems": [{"channels": [9], "strides": [2]}]}}, ("stem", "6/2", "macro.stems")),
        ({"macro": {"networks": [{"name": "short", "strides": [2, 2]}]}}, ("macro.networks", "3 layers")),
        ({"network": {"layers": 4, "down_layers": 2}}, ("network.down_layers",)),
    ],
    ids=str,
)
def test_what_cannot_be_relaxed_is_one_line(changes: dict[str, Any], named: tuple[str, ...]) -> None:
    space = wide_space(**{key: value for key, value in changes.items() if key != "macro"})
    if "macro" in changes:
        space = SearchSpace.parse({**space.to_dict(), "macro": changes["macro"]})
    with raises_code(SearchSpaceError, "setting-not-for-space", space.name, *named):
        build_supernet(space, 3)


def test_a_wide_space_has_a_supernet_of_its_own() -> None:
    assert isinstance(build_supernet(wide_space(), 3), StagedSupernet)
