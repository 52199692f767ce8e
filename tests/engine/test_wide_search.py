"""A search of a wide space from the first step to the network, and interrupted."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.errors import raises_code
from helpers.relaxed_spaces import WIDE
from helpers.tiny_runs import SEARCH, assert_same_run, call, resolved, rows, write_config

from autoseg.analysis.flops import count_cost
from autoseg.api.decode import decode
from autoseg.cli.main import run as command
from autoseg.config.base import parse
from autoseg.data.dataset import open_dataset
from autoseg.engine.config import SearchConfig
from autoseg.engine.run_directory import Run
from autoseg.engine.search import SearchTask
from autoseg.errors import GenotypeError
from autoseg.genotype.decode import decode as decode_probs
from autoseg.genotype.schema import Genotype
from autoseg.network import build_searched
from autoseg.space.schema import SearchSpace
from autoseg.space.snapshot import ArchProbs
from autoseg.supernet.inherit import check_inheritable

TABLES = ("alpha", "beta", "block", "depth", "width")
MACRO = {
    "blocks": ["conv_3x3", "cell"], "depths": [1, 2], "widths": [0.5, 1.0], "cost": 1.5,
    "decoders": [{"name": "classifier", "dropout": 0.0}, {"name": "unet", "filters": 8}],
}  # fmt: skip
SPACE: dict[str, Any] = {
    **WIDE,
    "cell": {"blocks": 1, "operations": ["skip_connect", "sep_conv_3x3"]},
    "network": {"layers": 2, "strides": [2, 4], "filter_multiplier": 4},
    "macro": MACRO,
}
SETTINGS: dict[str, Any] = {**SEARCH, "space": SPACE}


class GoneError(BaseException):
    """The process is gone: nothing more is saved."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wide")
    call("search", "--config", write_config(path / "config.yaml", SETTINGS), "--out", path / "run")
    return path / "run"


def space_of(run: Path) -> SearchSpace:
    return Run.open(run).config(SearchConfig).space


def test_a_search_moves_and_records_each_table(run: Path) -> None:
    space = space_of(run)
    first, last = (ArchProbs.load(run / "arch" / f"epoch_{epoch:04d}.npz", space) for epoch in (0, 2))
    for name in TABLES:
        before, after = (getattr(of, f"{name}_logits") for of in (first, last))
        assert bool((before != after).any()), name
    (*_, row) = rows(run, "evidence")
    for name in TABLES:
        assert row[f"{name}_ratio"] > 0
        assert row[f"{name}_choices"] == {"alpha": 2, "beta": 3}.get(name, 2)
        assert 0 <= rows(run, "val")[-1][f"{name}_entropy"] <= 1


def test_the_search_says_what_it_holds_fixed() -> None:
    config = parse(SearchConfig, resolved(SETTINGS))
    sets = open_dataset(config.data, "train"), open_dataset(config.data, "val")
    (line,) = [note for note in SearchTask(config, *sets, torch.device("cpu")).notes if "holds fixed" in note]
    assert "decoders classifier (one of 2)" in line


def test_decoding_scales_to_the_cost_and_the_network_is_built(run: Path, tmp_path: Path, capsys: Any) -> None:
    call("decode", run, "--out", tmp_path / "g.yaml")
    genotype, lines = Genotype.load(tmp_path / "g.yaml"), capsys.readouterr().out.splitlines()
    network = build_searched(genotype, 7)
    billions = count_cost(lambda: build_searched(genotype, 7), (256, 256)).multiply_adds / 65536 / 1000
    assert billions == pytest.approx(1.5, rel=0.02)
    assert genotype.source["cost"] == pytest.approx(billions, abs=1e-3)
    assert any(line.startswith("cost ") and "whole network" in line for line in lines)
    assert set(genotype.source["evidence"]) == {"verdict", *TABLES}
    assert genotype.source["genes"]["network"] == " ".join(map(str, genotype.network.strides))
    assert network(torch.randn(1, 3, 33, 40)).shape == (1, 7, 33, 40)


def test_tables_have_no_classes_and_keep_their_width(run: Path, tmp_path: Path, caplog: Any) -> None:
    genotype = decode(run / "arch" / "epoch_0002.npz", space={"version": 1, **SPACE}, out=tmp_path / "t.yaml")
    assert "macro.cost" in caplog.text
    assert genotype.stem.channels == (6,)
    assert "cost" not in genotype.source


def test_weights_of_a_wide_search_are_not_inherited(run: Path) -> None:
    space = space_of(run)
    genotype = decode_probs(ArchProbs.zeros(space))
    with raises_code(GenotypeError, "supernet-differs", genotype.name, "wide"):
        check_inheritable(genotype, space)


def test_a_stopped_and_resumed_search_ends_bit_for_bit_alike(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, step, calls = write_config(tmp_path / "config.yaml", SETTINGS), SearchTask.step, itertools.count()

    def stopping(*arguments: Any) -> Any:
        if next(calls) == 9:  # in the last epoch, in which the architecture moves
            raise GoneError
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(SearchTask, "step", stopping)
        with pytest.raises(GoneError):
            command(["search", "--config", str(config), "--out", str(tmp_path / "run")])
    call("search", "--out", tmp_path / "run", "--resume")
    assert_same_run(run, tmp_path / "run")
