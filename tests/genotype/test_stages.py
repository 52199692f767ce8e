"""Genotypes whose levels have stages: what is refused in one line, what a file holds, and the graphs of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.errors import check_line, raises_code
from helpers.wide_spaces import CELL_STAGES, EDGES, KINDS, PATH, STAGES, of_stages

from autoseg.cli.main import run
from autoseg.errors import GenotypeError
from autoseg.export import export_genotype
from autoseg.export.genotype import to_dot
from autoseg.files import to_yaml
from autoseg.genotype.schema import Genotype
from autoseg.viz.graph import StageLabel, cells, genotype_graph, path_graph, stage_labels

PLAIN: dict[str, Any] = {"name": "wrong", "stages": STAGES, "network": PATH, "stem": {"channels": [6], "strides": [2]}}


def stage(number: int, **changes: Any) -> dict[str, Any]:
    """`PLAIN` with changes of one stage."""
    return {**PLAIN, "stages": [{**one, **changes} if number == place else one for place, one in enumerate(STAGES)]}


WRONG: list[tuple[str, dict[str, Any], list[str]]] = [
    ("a block misspelt", stage(1, block="seperable"), ["stages.1", "'seperable'", "did you mean 'separable'"]),
    ("an unknown block", stage(0, block="zzz"), ["stages.0", "unknown block 'zzz'"]),
    ("a deep cell", stage(1, block="cell", depth=2), ["stages.1", "cell has depth 1, not 2"]),
    ("no depth", stage(1, depth=0), ["stages.1.depth", "not 0"]),
    ("no channels", stage(1, filters=0), ["stages.1.filters", "not 0"]),
    ("a stage too few", {**PLAIN, "stages": STAGES[:2]}, ["[2, 4]", "[2, 4, 8]", "one for each"]),
    ("a stage too many", {**PLAIN, "network": {**PATH, "strides": [2, 4]}}, ["[2, 4, 8]", "network has [2, 4]"]),
    ("in another order", {**PLAIN, "stages": STAGES[::-1]}, ["[8, 4, 2]", "[2, 4, 8]"]),
    ("another stride", stage(0, stride=16), ["[16, 4, 8]", "[2, 4, 8]"]),
    ("neither cell nor stages", {**PLAIN, "stages": []}, ["cell", "stages"]),
    ("a stage of no cell", stage(1, block="cell"), ["cell"]),
    ("an unknown key", stage(1, width=3), ["stages.1", "'width'"]),
]


@pytest.mark.parametrize(("data", "named"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_stages_that_cannot_be(data: dict[str, Any], named: list[str]) -> None:
    code = "unknown-setting" if "'width'" in named else "setting-invalid"
    with raises_code(GenotypeError, code, *named):
        Genotype.parse(data)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a block misspelt", "a stage too few"])
def test_commands_say_it_in_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data,) = (data for case, data, _ in WRONG if case == name)
    path = tmp_path / "wrong.yaml"
    path.write_text(to_yaml(data), encoding="utf-8")
    retrain = ["retrain", path, "--data", "generated", "--out", tmp_path / "run"]
    for words in (
        ["show", path],
        ["plot", path],
        ["export", path, "--format", "json", "--out", tmp_path / "a"],
        retrain,
    ):
        assert run([str(word) for word in words]) == 2
        check_line(capsys.readouterr().err, "setting-invalid", "stages", path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_without_cell_and_stages_is_no_network_of_the_literature(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(to_yaml({key: value for key, value in PLAIN.items() if key != "stages"}), encoding="utf-8")
    assert run(["retrain", str(path), "--data", "generated", "--out", str(tmp_path / "run")]) == 2
    check_line(capsys.readouterr().err, "setting-invalid", "needs a cell", "stages")


# --- files and graphs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_a_file_holds_what_is_there(name: str, tmp_path: Path) -> None:
    genotype = of_stages(name)
    for path, save in (("a.yaml", genotype.save), ("a.json", lambda to: export_genotype(genotype, to, "json"))):
        save(tmp_path / path)
        assert Genotype.load(tmp_path / path) == genotype
    assert ("cell" in genotype.to_dict()) == ("cell" in name) == bool(cells(genotype))


@pytest.mark.parametrize("name", KINDS)
def test_graphs_say_block_and_depth_of_each_layer(name: str) -> None:
    genotype = of_stages(name)
    graph, dot = path_graph(genotype), to_dot(genotype)
    layers = [data for _, data in graph.nodes(data=True) if data["kind"] == "layer"]
    by_stride = {one["stride"]: one for one in (CELL_STAGES if "cell" in name else STAGES)}
    assert len(layers) == (4 if "several" not in name else 8)
    for layer in layers:
        expected = by_stride[layer["stride"]]
        assert (layer["block"], layer["depth"]) == (expected["block"], expected.get("depth", 1))
        assert layer["filters"] == expected["filters"]
    assert "3 x inverted residual" in dot
    assert ("cluster_cell" in dot) == ("cell" in name)
    assert any(node.startswith("cell/") for node in genotype_graph(genotype)) == ("cell" in name)


def test_graphs_of_a_cell_alone_are_as_they_were() -> None:
    genotype = Genotype.parse({**PLAIN, "stages": [], "cell": EDGES})
    assert stage_labels(genotype) == []
    assert not any({"block", "depth"} & data.keys() for _, data in path_graph(genotype).nodes(data=True))


def test_labels_name_the_levels_that_have_nodes() -> None:
    assert stage_labels(of_stages("path with a cell")) == [
        StageLabel(0, "residual", "4 channels"),
        StageLabel(1, "cell", "2 \u00d7 3 channels"),
        StageLabel(2, "3 \u00d7 inverted residual", "5 channels"),
    ]
    skipped = Genotype.parse({**PLAIN, "network": {**PATH, "strides": [4, 8, 8]}})
    assert [label.level for label in stage_labels(skipped)] == [1, 2]
