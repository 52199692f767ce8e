"""The page of what fits: from three predictions to every card."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from helpers.tiny_runs import GENOTYPE, SPACE, write_config

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))

import what_fits
from what_fits import GPU, Curve, Need, Options, cell, crops, side

from autoseg.planning.memory import Memory, Setting, predict_memory


def memory(eager: int, graphs: int) -> Memory:
    return Memory(eager + graphs, "weight", 0, 0, 0, 0, 0, graphs)


def test_a_curve_goes_through_its_points_and_on_as_a_polynomial() -> None:
    def need(k: int) -> Need:
        return Need(3 * k * k + 7 * k + 100, 5 * k * k + 11)

    curve = Curve([(k, need(k)) for k in (10, 20, 40)])
    for k in (1, 10, 15, 40, 90):
        assert curve(k) == pytest.approx(need(k))
    assert curve.largest(0, need(33).eager + 0.5, range(1, 129)) == 33
    assert curve.largest(1, need(33).graphs - 1, range(1, 129)) == 32
    assert curve.largest(0, 100, range(1, 129)) is None


def test_what_a_card_must_have_is_what_a_plan_says() -> None:
    one = memory(10**9, 10**8)
    assert Need.of(one) == (round(1.1e9) + 600 * 10**6, one.needed_bytes(GPU))


def test_crops_by_card_with_graphs_and_without() -> None:
    def predict(length: int) -> Memory:
        return memory(10**4 * length**2, 10**4 * length**2)

    fits = crops("space", "batch 2", "float32", "", predict, Options(cards=(1, 8)))
    with_graphs, without = (
        next(k for k in range(200, 0, -1) if needed * side(k) ** 2 * 1.1e4 <= 7.4e9) for needed in (2, 1)
    )
    assert fits.by_card == {1: (129, 161), 8: (side(with_graphs), side(without))}
    assert 129**2 * 2.2e4 <= 0.4e9 < 161**2 * 2.2e4


def test_cells_of_the_page() -> None:
    assert cell((321, 321)) == "321"
    assert cell((321, 449)) == "321 / 449"
    assert cell((None, 33)) == "none / 33"
    assert cell((side(what_fits.MOST), side(what_fits.MOST))) == "4097+"


@pytest.fixture
def small(tmp_path: Path) -> list[str]:
    """A small space and network, and where the page goes."""
    space = write_config(tmp_path / "space.yaml", {**SPACE, "search": {"batch_size": 4}})
    genotype = write_config(tmp_path / "genotype.yaml", GENOTYPE)
    files = [str(tmp_path / name) for name in ("fits.md", "fits.json")]
    return [
        "--spaces",
        str(space),
        "--genotype",
        str(genotype),
        "--cards",
        "1",
        "2",
        "--out",
        files[0],
        "--json",
        files[1],
    ]


@pytest.mark.slow
def test_the_page_and_its_figures(small: list[str]) -> None:
    rest = Options(precisions=["float32"], crop=65, steps=(5, 20, 60), checked=((small[1], 65, 2),))
    assert what_fits.main(small, rest) == 0
    page, figures = Path(small[-3]).read_text(), json.loads(Path(small[-1]).read_text())
    assert "|  | 1 GB | 2 GB |\n" in page
    assert page.count("\n| float32, checkpointed |") == 2  # batches 2 and 4
    assert ", batch 4, its own\n" in page
    assert page.count("not yet checked on a card") == 1
    assert len(figures["search"]) == 4
    assert [one["what"] for one in figures["retraining"]] == ["crop at batch 8", "batch at 65x65"]
    config = what_fits.config_of(small[1])
    found = figures["search"][0]["largest"]["1"]["eager"]
    for length, fits in ((found, True), (found + 32, False)):
        exact = Need.of(predict_memory(Setting((length, length), 2, False, "float32").apply(config), GPU))
        assert (exact.eager <= 10**9) is fits


def test_a_file_that_cannot_be_written(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    small[-3] = str(Path(small[-3]).parent / "space.yaml" / "fits.md")
    assert what_fits.main(small) == 2
    error = capsys.readouterr().err
    assert "space.yaml " in error
    assert error.endswith(" [folder-missing]\n")


def test_an_unknown_space_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert what_fits.main(["--spaces", "tinny"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.endswith(" [unknown-space]\n")
    assert "space 'tinny'" in error
    assert error.count("\n") == 1
