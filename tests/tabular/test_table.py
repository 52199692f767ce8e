"""Tables of trained networks: members, scores and files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.errors import raises_code
from helpers.tables import planted

from autoseg.errors import TableError
from autoseg.genotype.design import genotype_of, known_genes, label_of, mutate
from autoseg.genotype.scale import channels_of, with_channels
from autoseg.genotype.schema import Genotype
from autoseg.space.schema import SearchSpace
from autoseg.tabular.table import ARRAYS, Table

SCORES = np.linspace(0.1, 0.8, 8)[None] + np.array([[0.0], [0.05]])
WORDS = {"network": "fine", "block": "conv_3x3", "upsampler": "pixel_dcl"}


@pytest.fixture(scope="module")
def table() -> Table:
    return planted(SCORES)


def test_members_are_numbered_with_the_last_gene_changing_first(table: Table) -> None:
    assert len(table) == 8
    assert [table.words(member)["upsampler"] for member in range(4)] == ["bilinear", "pixel_dcl"] * 2
    assert [table.words(member)["network"] for member in (0, 3, 4, 7)] == ["down", "down", "fine", "fine"]
    assert table.words(5) == WORDS


def test_a_member_is_found_by_its_words_its_genotype_and_its_scaled_genotype(table: Table) -> None:
    assert table.member(WORDS) == 5
    for member in range(len(table)):
        nominal = genotype_of(table.space, table.genes[member], "of any name")
        assert table.member(nominal) == member
        assert table.member(table.genotype(member)) == member
    wider = planted(SCORES, channels=[tuple(3 * one for one in of) for of in table.channels])
    assert channels_of(wider.genotype(2)) == tuple(3 * one for one in table.channels[2])
    assert wider.member(wider.genotype(2)) == 2
    assert wider.genotype(2).retrain == {"epochs": 9}


@pytest.mark.parametrize(
    ("network", "named"),
    [
        ({**WORDS, "block": "conv3x3"}, ["block 'conv3x3'", "did you mean 'conv_3x3'"]),
        ({"network": "fine", "upsampler": "bilinear"}, ["'block' is missing", "conv_3x3, separable"]),
        ({**WORDS, "blok": "x"}, ["no gene 'blok'", "did you mean 'block'"]),
    ],
)
def test_words_that_name_no_member_are_refused(table: Table, network: dict[str, str], named: list[str]) -> None:
    with raises_code(TableError, "not-in-table", *named):
        table.member(network)


def test_a_genotype_that_is_no_member_is_refused(table: Table) -> None:
    with raises_code(TableError, "not-in-table", "'unet_shaped'", "'eight'"):
        table.member(Genotype.load("unet_shaped"))
    other = with_channels(table.genotype(0), [one + 1 for one in table.channels[0]])
    with raises_code(TableError, "not-in-table", "eight_0"):
        table.member(other)


def test_scores_are_asked_by_member_seed_and_stop(table: Table) -> None:
    assert table.score(3) == SCORES[0, 3]
    assert table.score(3, seed=1) == SCORES[1, 3]
    assert table.score(3, seed=1, stop=1) == SCORES[1, 3] / 2
    for wrong in ((8, 0, 0), (-1, 0, 0), (0, 2, 0), (0, 0, 3)):
        with raises_code(TableError, "not-in-table", "8 members, 2 seeds and 3 stops"):
            table.score(*wrong)


def test_a_training_that_the_table_lacks_is_refused() -> None:
    lacking = SCORES.copy()
    lacking[1, 4] = np.nan
    table = planted(lacking)
    assert table.trained.sum() == 15
    with raises_code(TableError, "not-in-table", "no training of member 4 with seed 1"):
        table.score(4, seed=1)
    assert table.score(4) == SCORES[0, 4]


def test_mutations_are_those_of_the_space(table: Table) -> None:
    rng, space = np.random.default_rng(0), table.space
    ours = Counter(table.mutate(2, rng) for _ in range(1200))
    theirs = Counter(table.member(genotype_of(space, mutate(space, table.genes[2], rng))) for _ in range(300))
    assert set(ours) == set(theirs) == {3, 0, 6}  # another upsampler, block, network
    assert all(abs(count - 400) < 5 * (1200 * 2 / 9) ** 0.5 for count in ours.values())
    assert all(abs(count - 100) < 5 * (300 * 2 / 9) ** 0.5 for count in theirs.values())


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_saved_table_is_the_same(table: Table, tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    whole = planted(SCORES, inherited={"supernet": np.arange(8.0)})
    whole.save(path)
    loaded = Table.load(path)
    assert loaded.space == whole.space
    assert loaded.recipe == whole.recipe
    assert loaded.stops == whole.stops
    assert loaded.channels == list(whole.channels)
    assert all(np.array_equal(getattr(loaded, name), getattr(whole, name)) for name in ARRAYS)
    assert np.array_equal(loaded.inherited["supernet"], np.arange(8.0))
    assert [file.name for file in tmp_path.iterdir()] == ["mine.npz"]


def test_an_unknown_table_names_those_that_are_there(tmp_path: Path) -> None:
    with raises_code(TableError, "unknown-table", "'table_261'"):
        Table.load("table_261")
    with raises_code(TableError, "unknown-table", "none.npz"):
        Table.load(tmp_path / "none.npz")


@pytest.mark.parametrize("place", [40, -300, None])
def test_a_damaged_table_is_refused(table: Table, tmp_path: Path, place: int | None) -> None:
    path = tmp_path / "damaged.npz"
    table.save(path)
    data = bytearray(path.read_bytes())
    if place is None:
        data = data[: len(data) // 2]
    else:
        data[place] ^= 4
    path.write_bytes(bytes(data))
    with raises_code(TableError, "table-unreadable", "damaged.npz"):
        Table.load(path)


def test_a_table_of_another_version_is_refused(table: Table, tmp_path: Path) -> None:
    path = tmp_path / "newer.npz"
    table.save(path)
    with np.load(path) as file:
        arrays: dict[str, Any] = dict(file)
    about = json.loads(str(arrays.pop("about")))
    np.savez(path, about=np.array(json.dumps({**about, "version": 2})), **arrays)
    with raises_code(TableError, "table-of-other-version", "newer.npz", "version 2", "version 1"):
        Table.load(path)


# --- the table that ships with autoseg --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> Table:
    return Table.load("table_216")


def test_the_shipped_table_is_of_the_shipped_space(shipped: Table) -> None:
    assert shipped.space == SearchSpace.load("table_216")
    assert len(shipped) == 216
    assert shipped.stops == (2, 6, 18)
    assert shipped.recipe["retrain"]["epochs"] == 18


def test_every_network_of_the_shipped_table_has_its_cost(shipped: Table) -> None:
    assert shipped.space.macro is not None
    wanted = (shipped.space.macro.cost or 0) * 1000 * 64 * 64
    there = shipped.trained.any(0)
    # the cost was met within 2% at 256x256; pooling an image's features weighs a little more at 64x64
    assert np.all(np.abs(shipped.multiply_adds[there] / wanted - 1) < 0.03)


def test_scores_of_the_shipped_table_follow_from_its_counts(shipped: Table) -> None:
    from autoseg.tabular.statistics import miou_of_counts

    again = miou_of_counts(shipped.counts, shipped.true)
    assert np.allclose(again[shipped.trained], shipped.miou[:, -1][shipped.trained], atol=1e-6)


def test_known_designs_are_members_of_the_shipped_table(shipped: Table) -> None:
    for name, genes in known_genes(shipped.space).items():
        member = shipped.member(genotype_of(shipped.space, genes, name))
        assert shipped.words(member) == {gene: label_of(genes[gene]) for gene in shipped.options}
