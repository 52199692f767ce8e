"""The tables of a wide space: which there are, their names, their files and their choices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.errors import raises_code
from helpers.relaxed_spaces import KINDS, wide_space
from helpers.spaces import random_probs, small_space

from autoseg.analysis.choices import tables_of
from autoseg.config.base import merge
from autoseg.errors import CheckpointError, SearchSpaceError
from autoseg.genotype.decode import decode
from autoseg.space.schema import SearchSpace
from autoseg.space.snapshot import ArchProbs, logits_shapes
from autoseg.space.tables import read_tables
from autoseg.supernet.arch_parameters import ArchParameters

WIDE = ("block", "depth", "width")
SHAPES = {
    "all": {"alpha": (5, 3), "block": (3, 3), "depth": (3, 2), "width": (3, 3)},
    "without the cell": {"block": (3, 4), "depth": (3, 2), "width": (3, 3)},
    "shared": {"alpha": (5, 3), "block": (1, 3), "depth": (1, 2)},
    "profiles": {"width": (1, 2)},
    "the cell alone": {"alpha": (5, 3), "width": (3, 2)},
    "template": {"block": (3, 2), "depth": (3, 2), "width": (3, 3)},
}


@pytest.mark.parametrize("kind", SHAPES)
def test_each_choice_of_several_options_has_a_table(kind: str) -> None:
    space, expected = wide_space(kind), {"beta": (3, 3, 3), **SHAPES[kind]}
    assert logits_shapes(space) == expected
    torch.manual_seed(0)
    arch = ArchParameters(space)
    assert {name.removesuffix("_logits"): tuple(of.shape) for name, of in arch.named_parameters()} == expected
    snapshot = arch.snapshot()
    for name in expected:
        ours = arch.stage_probs(name) if name in WIDE else getattr(arch, f"{name}_probs")()
        np.testing.assert_allclose(getattr(snapshot, f"{name}_probs"), ours.detach(), atol=1e-6)
    assert set(snapshot.entropy()) == set(expected)
    assert all(value == pytest.approx(1) for value in ArchProbs.zeros(space).entropy().values())


def test_a_plain_space_draws_what_it_drew() -> None:
    space = small_space(layers=2)
    torch.manual_seed(0)
    arch = ArchParameters(space)
    torch.manual_seed(0)
    alpha, beta = (1e-3 * torch.randn(of) for of in (arch.alpha_logits.shape, arch.beta_logits.shape))
    assert torch.equal(arch.alpha_logits, alpha)
    assert torch.equal(arch.beta_logits, beta * arch.legal)


@pytest.mark.parametrize("kind", KINDS)
def test_a_snapshot_and_tables_of_other_programs_come_back(kind: str, tmp_path: Path) -> None:
    probs = random_probs(wide_space(kind))
    probs.save(tmp_path / "a.npz")
    for found in (ArchProbs.load(tmp_path / "a.npz", probs.space), read_tables(tmp_path / "a.npz", probs.space)):
        for name in logits_shapes(probs.space):
            legal = probs.space.trellis.legal() if name == "beta" else True  # tables have 0 where there is no arrow
            found_logits, logits = (getattr(of, f"{name}_logits") for of in (found, probs))
            assert np.array_equal(np.where(legal, found_logits, 0), np.where(legal, logits, 0)) or name == "gamma"
        assert decode(found) == decode(probs)


def test_columns_of_tables_may_have_another_order(tmp_path: Path) -> None:
    probs = random_probs(wide_space())
    turned = {f"{name}_logits": getattr(probs, f"{name}_logits")[:, ::-1] for name in WIDE}
    names = {"blocks": list(probs.space.macro.blocks), "depths": [1, 3], "widths": [0.5, 1.0, 1.5]}  # type: ignore[union-attr]
    plain = {"alpha_logits": probs.alpha_logits, "beta_logits": probs.beta_logits}
    np.savez(tmp_path / "t.npz", **plain, **turned, **{key: np.array(of[::-1]) for key, of in names.items()})
    assert decode(read_tables(tmp_path / "t.npz", probs.space)) == decode(probs)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"macro": {"blocks": ["conv_3x3", "cell", "residual"]}}, "other blocks"),
        ({"macro": {"depths": [1, 2]}}, "other depths"),
        ({"macro": {"widths": [0.5, 1, 2]}}, "other widths"),
        ({"macro": {"blocks": ["conv_3x3", "residual", "bottleneck"]}}, "other operations"),
        ({"macro": {"shared_by": "network"}}, "block has the shape [3, 3]"),
        ({"macro": {"depths": [1]}}, "other depths"),
    ],
    ids=str,
)
def test_a_snapshot_of_another_wide_space_is_refused(changes: dict[str, object], named: str, tmp_path: Path) -> None:
    path, space = tmp_path / "a.npz", wide_space()
    random_probs(space).save(path)
    other = SearchSpace.parse(merge(space.to_dict(), changes))
    if named == "other operations":
        named = "other blocks"
    with raises_code(CheckpointError, "snapshot-of-other-space", path, named):
        ArchProbs.load(path, other)


def test_tables_of_the_wrong_space_say_which_setting_makes_them() -> None:
    wide, plain = random_probs(wide_space()), random_probs(small_space(layers=2))
    with raises_code(CheckpointError, "snapshot-of-other-space", "lacks alpha_logits", "cell.operations"):
        ArchProbs(plain.space, None, plain.beta_logits)
    with raises_code(CheckpointError, "snapshot-of-other-space", "has block_logits", "macro.blocks"):
        ArchProbs(plain.space, plain.alpha_logits, plain.beta_logits, block_logits=wide.block_logits)
    with raises_code(CheckpointError, "snapshot-of-other-space", "has alpha_logits", "cell.operations"):
        space = wide_space("profiles")
        ArchProbs.of(space, {"alpha": plain.alpha_logits, "beta": np.zeros((3, 3, 3)), "width": np.zeros((1, 2))})  # type: ignore[dict-item]


def test_choices_are_named_by_stride_or_network() -> None:
    tables = tables_of(wide_space())
    for name in WIDE:
        assert [choice.name for choice in tables[name].choices] == ["stride 2", "stride 4", "stride 8"]
        assert tables[name].noun == "levels"
    assert [list(choice.columns) for choice in tables["depth"].choices] == [[0, 1], [2, 3], [4, 5]]
    assert [list(row) for row in tables["depth"].rows] == [[0, 1], [2, 3], [4, 5]]
    shared = tables_of(wide_space("shared"))
    assert [choice.name for choice in shared["block"].choices] == ["network"]
    assert (shared["block"].noun, list(tables_of(wide_space("profiles")))) == ("choices", ["beta", "width"])


def test_the_blocks_and_operations_that_compete_are_counted_and_limited() -> None:
    nodes, edges, operations = 2 + 3 + 3, 5, 3
    assert wide_space().candidates == nodes * (2 * 3 + edges * operations)
    assert wide_space("without the cell").candidates == nodes * 4 * 3
    network = {"layers": 256, "strides": [2, 4, 8, 16, 32], "filter_multiplier": 1}
    deep = {"blocks": ["conv_3x3", "residual"], "depths": [64]}
    with raises_code(SearchSpaceError, "setting-invalid", "nodes make 163,072 candidates", "150,000", "depth"):
        SearchSpace.parse(merge(wide_space().to_dict(), {"network": network, "macro": deep}))
