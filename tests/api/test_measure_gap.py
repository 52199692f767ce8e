"""`decode --measure`: which networks are measured, what is written, and what is refused."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.errors import check_line, raises_code
from helpers.tiny_runs import RETRAIN, call, files_of, rows, write_config

import autoseg
from autoseg.cli.main import run
from autoseg.errors import ConfigError, GenotypeError, RunError
from autoseg.genotype.schema import Genotype

NAMES = ["relaxed", "reduced", "inherited", "statistics", "tuned", "retrained"]


@pytest.fixture(scope="module")
def measured(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that was decoded, retrained shortly from its own weights and measured. Not to be changed."""
    home = tmp_path_factory.mktemp("measured")
    shutil.copytree(searched, home / "search")
    call("decode", home / "search")
    plain = {key: value for key, value in RETRAIN.items() if key != "genotype"}
    config = write_config(home / "c.yaml", plain, {"retrain": {"epochs": 1, "max_steps_per_epoch": 2}})
    call("retrain", "--warm-start", home / "search", "--config", config, "--out", home / "run")
    return home


def test_every_network_is_measured(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search, trained = measured / "search", measured / "run"
    given = ["--retrained", trained, "--steps", 3, "--statistics-images", 5]
    call("decode", search, "--measure", *given)
    printed = capsys.readouterr().out.splitlines()
    result = json.loads((search / "gap.json").read_text())
    assert [network["name"] for network in result["networks"]] == NAMES
    mious = {network["name"]: network["miou"] for network in result["networks"]}
    assert mious["relaxed"] == pytest.approx(rows(search, "val")[-1]["miou"], abs=1e-6)
    evaluated = autoseg.evaluate(trained, out=measured / "evaluated.json", show_progress=False)
    assert (mious["retrained"], result["images"]) == (pytest.approx(evaluated["miou"]), 5)
    assert result["networks"][-1]["miou_interval"] == pytest.approx(evaluated["miou_interval"])
    assert (result["tuning"]["steps"], result["statistics_images"]) == (3, 6)  # whole batches of 2
    assert result["retrained"] == {"run": trained.as_posix(), "warm_start": True}
    pairs = [(step["from"], step["to"]) for step in result["differences"]]
    assert pairs[:5] == list(itertools.pairwise(NAMES))
    assert pairs[5:] == [("relaxed", name) for name in NAMES[2:]]
    for step in result["differences"]:
        assert step["difference"] == pytest.approx(mious[step["to"]] - mious[step["from"]])
    table = next(number for number, line in enumerate(printed) if line.startswith("network "))
    assert [f"{mious[name]:.4f}" in line for name, line in zip(NAMES, printed[table + 1 :], strict=False)] == [True] * 6
    whole = result["differences"][-1]
    verdict = "no difference is" if not whole["seen"] else "a loss is" if whole["difference"] < 0 else "a gain is"
    assert printed[-2].startswith(f"from the supernet to the last line: {whole['difference']:+.4f}, ")
    assert printed[-2].endswith(f": {verdict} seen on these images")
    assert printed[-1] == f"wrote {search / 'gap.json'}"


def test_the_same_again_is_the_same(measured: Path, tmp_path: Path) -> None:
    """Without tuning and a retraining, with a wider genotype; nothing but gap.json is written."""
    search = Path(shutil.copytree(measured / "search", tmp_path / "search"))
    genotype = Genotype.load(search)
    wider = genotype.model_copy(update={"network": genotype.network.model_copy(update={"filter_multiplier": 6})})
    before = files_of(search)
    first = autoseg.measure_gap(search, wider, steps=0, statistics_images=4, show_progress=False)
    again = autoseg.measure_gap(search, wider, steps=0, statistics_images=4, show_progress=False)
    assert first == again
    assert [network["name"] for network in first["networks"]] == NAMES[:4]
    assert (first["filter_multiplier"], first["filter_multiplier_of_genotype"]) == (2, 6)
    after = files_of(search)
    assert json.loads(after.pop("gap.json")) == first
    before.pop("gap.json", None)
    assert after == before


def test_what_is_refused_is_said_before_anything_is_measured(measured: Path, retrained: Path, tmp_path: Path) -> None:
    search = Path(shutil.copytree(measured / "search", tmp_path / "search"))
    unfinished = Path(shutil.copytree(measured / "run", tmp_path / "unfinished"))
    config = unfinished / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 1\n", "epochs: 9\n"))
    before = files_of(search)
    genotype = Genotype.load(search)
    odd = genotype.model_copy(update={"network": genotype.network.model_copy(update={"strides": (4, 4, 4)})})
    cases: tuple[tuple[Any, dict[str, Any], type, str, tuple[object, ...]], ...] = (
        (retrained, {}, RunError, "run-kind-differs", (retrained, "search")),
        (search, {"retrained": search}, RunError, "run-kind-differs", (search,)),
        (search, {"retrained": retrained}, GenotypeError, "network-differs", ("mini_network", genotype.name)),
        (search, {"retrained": unfinished}, RunError, "run-unfinished", (unfinished, "1 of 9 epochs")),
        (search, {"genotype": odd}, GenotypeError, "genotype-not-in-space", ("3 layers",)),
        (search, {"steps": -1}, ConfigError, "setting-invalid", ("steps", "-1")),
        (search, {"statistics_images": 1}, ConfigError, "setting-invalid", ("statistics_images", "2")),
    )
    for path, given, kind, code, named in cases:
        with raises_code(kind, code, *named):
            autoseg.measure_gap(path, **given, show_progress=False)
    assert files_of(search) == before


def test_options_without_a_measurement_or_weights(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.npz").write_bytes(b"")
    for words, code, named in (
        ([measured / "search", "--steps", "3"], "option-needs-another", ("--steps", "--measure")),
        ([measured / "search", "--statistics-images", "3"], "option-needs-another", ("--statistics-images",)),
        ([tmp_path / "t.npz", "--space", "tiny", "--measure"], "options-conflict", (tmp_path / "t.npz", "--measure")),
    ):
        assert run(["decode", *map(str, words)]) == 2
        check_line(capsys.readouterr().err.splitlines()[-1], code, *named)
