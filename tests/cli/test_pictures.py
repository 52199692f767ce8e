"""`autoseg plot` and `autoseg show` of networks that come back up."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from helpers.genotypes import hourglass, several_paths
from helpers.spaces import hourglass_space, random_probs
from helpers.tiny_runs import SEARCH, call, resolved

from autoseg.config.base import parse
from autoseg.engine.config import SearchConfig
from autoseg.engine.run_directory import Run
from autoseg.genotype.decode import decode
from autoseg.genotype.schema import Genotype
from autoseg.space.snapshot import ArchProbs


def words(path: Path) -> list[str]:
    return [element.text or "" for element in ElementTree.parse(path).iter() if element.tag.endswith("text")]


@pytest.mark.slow
def test_plot_of_a_genotype_with_two_cells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hourglass().save(tmp_path / "g.yaml")
    call("plot", tmp_path / "g.yaml", "--out", tmp_path / "figures", "--format", "svg")
    files = {path.stem: path for path in (tmp_path / "figures").iterdir()}
    assert set(files) == {"path", "cell", "up_cell"}
    assert capsys.readouterr().out.split() == [str(files[name]) for name in ("path", "cell", "up_cell")]
    assert {"CARAFE", "classifier", "skip, add", "skip, concat"} <= set(words(files["path"]))
    assert "max pool 3x3" in words(files["up_cell"])
    assert "max pool 3x3" not in words(files["cell"])


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, ArchProbs]:
    """A search of an hourglass after one epoch, as far as pictures need it."""
    space, folder = hourglass_space(), tmp_path / "run"
    created = Run.create(folder, parse(SearchConfig, resolved({**SEARCH, "space": space.to_dict()})), {})
    probs = random_probs(space, 26)
    (created.path / "arch").mkdir(exist_ok=True)
    probs.save(created.path / "arch" / "epoch_0000.npz")
    return folder, probs


@pytest.mark.slow
def test_plot_of_a_search_in_which_everything_competes(run: tuple[Path, ArchProbs]) -> None:
    folder, probs = run
    call("plot", folder, "--format", "svg")
    figures = folder / "figures"
    assert {path.name for path in figures.iterdir()} == {"trellis.svg", "alpha.svg", "gamma.svg", "skips.svg"}
    assert {"gamma probability", "PixelDCL 5x5", "up 4 \u2192 2"} <= set(words(figures / "gamma.svg"))
    assert {"skip probability", "stride 4", "concat"} <= set(words(figures / "skips.svg"))
    assert "cell of the way up" in words(figures / "alpha.svg")
    assert "hourglass after epoch 1" in words(figures / "trellis.svg")
    decode(probs, source={"epoch": 0}).save(folder / "genotype.yaml")
    call("plot", folder, "--format", "svg")
    assert {"cell.svg", "up_cell.svg"} <= {path.name for path in figures.iterdir()}


@pytest.mark.slow
def test_plot_of_a_search_shows_the_genotype_that_was_decoded(run: tuple[Path, ArchProbs]) -> None:
    folder, probs = run
    found = decode(probs, source={"epoch": 0})
    network = {"skips": ("add",) * len(found.up_arrows)}
    changed = found.model_copy(update={"network": found.network.model_copy(update=network)})
    for epoch, shown in ((0, True), (3, False)):  # of another epoch it is not what these probabilities say
        changed.model_copy(update={"source": {"epoch": epoch}}).save(folder / "genotype.yaml")
        call("plot", folder, "--format", "svg")
        text = (folder / "figures" / "trellis.svg").read_text()
        assert (text.count('id="skip-add"') == len(found.up_arrows)) == shown


@pytest.mark.slow
def test_show_of_genotypes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    several_paths().save(tmp_path / "several.yaml")
    hourglass().save(tmp_path / "hourglass.yaml")
    call("show", tmp_path / "several.yaml", "--size", 32, 32, "--classes", 3)
    assert "arrows        2->2 2->4 | 2->2 4->4 4->2 | 2->2 2->4 4->4\n" in capsys.readouterr().out
    call("show", tmp_path / "hourglass.yaml", "--size", 32, 32, "--classes", 3)
    out = capsys.readouterr().out
    assert "upsamplers    layer 4, 8->4: pixel_dcl_5x5; layer 5, 4->2: carafe\n" in out
    assert "skips         layer 4, 8->4: add from layer 1; layer 5, 4->2: concat from the stem\n" in out
    assert Genotype.load(tmp_path / "hourglass.yaml") == hourglass()
