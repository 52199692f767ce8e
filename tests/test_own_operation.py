"""An operation from outside the package through every command: searched, decoded, retrained, exported, drawn, planned.

It has parameters of its own, a cost of its own and no fused form. A path halves with it at stride 2; a network of
several paths has it on every edge.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.errors import check_line
from helpers.plugins import nothing_stays
from helpers.tiny_runs import COMMON, DATA, SPACE, call, write_config

import autoseg
from autoseg.analysis.flops import count_multiply_adds
from autoseg.cli.main import run
from autoseg.config.base import merge
from autoseg.genotype.flops import topology_cost
from autoseg.registry import OPERATIONS
from autoseg.supernet import Supernet, build_supernet

PLUGIN = Path(__file__).resolve().parents[1] / "examples" / "own_operation.py"
NAME = "inverted_3x3"
PATH: dict[str, Any] = merge(SPACE, {"cell": {"operations": ["none", NAME]}})
"""Every edge that stays has the operation."""
SPACES = {
    "a path": merge(PATH, {"network": {"layers": 3, "strides": [4, 8, 16], "moves": ["same", "down"]}}),
    "several paths": merge(PATH, {"network": {"paths": "multi"}, "decoder": {"name": "aspp"}}),
}


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with nothing_stays():
        yield


@pytest.fixture(params=SPACES)
def searched(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    search = {**COMMON, "epochs": 2, "arch_start_epoch": 1, "max_steps_per_epoch": 2}
    settings = {"space": SPACES[request.param], "data": DATA, "search": search, "device": "cpu"}
    config = write_config(tmp_path / "search.yaml", settings)
    call("search", "--config", config, "--plugin", PLUGIN, "--out", tmp_path / "search")
    call("decode", tmp_path / "search", "--plugin", PLUGIN)
    return tmp_path / "search"


@pytest.mark.slow
def test_from_the_search_to_the_exported_network(
    searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    genotype = autoseg.Genotype.load(searched)
    assert {edge.operation for block in genotype.cell for edge in block} == {NAME}
    assert genotype.to_dict()["plugins"] == {NAME: "own_operation.py"}
    network = autoseg.build_network(genotype, 3).eval()
    if genotype.is_path:
        assert 2 in [move.value for move in genotype.moves]  # it halves at least once, by the operation itself
    else:
        cells = [
            module for name, module in network.named_modules() if name.startswith("cells.") and name.count(".") == 1
        ]
        inputs: list[Any] = []
        hooks = [cell.register_forward_pre_hook(lambda _, given: inputs.append(given)) for cell in cells]
        images = torch.zeros(1, 3, 64, 64)
        with torch.no_grad():
            network(images)
        for hook in hooks:
            hook.remove()
        counted = sum(count_multiply_adds(cell, *given) for cell, given in zip(cells, inputs, strict=True))
        assert counted == topology_cost(genotype) * 64 * 64

    retrain = {**COMMON, "epochs": 1, "max_steps_per_epoch": 2}
    settings = write_config(tmp_path / "retrain.yaml", {"data": DATA, "retrain": retrain, "device": "cpu"})
    call("retrain", searched, "--config", settings, "--plugin", PLUGIN, "--out", tmp_path / "retrain")
    call("evaluate", tmp_path / "retrain", "--plugin", PLUGIN)
    scores = json.loads((tmp_path / "retrain" / "evaluation_val.json").read_text())
    assert 0 <= scores["miou"] <= 1
    call("plot", tmp_path / "search", "--plugin", PLUGIN, "--out", tmp_path / "pictures")
    assert "inverted 3x3" in (tmp_path / "pictures" / "cell.svg").read_text(encoding="utf-8")

    onnxruntime = pytest.importorskip("onnxruntime")
    call("export", tmp_path / "retrain", "--format", "onnx", "--plugin", PLUGIN, "--out", tmp_path / "network.onnx")
    trained = autoseg.load_network(tmp_path / "retrain")[0].eval()
    image = np.random.default_rng(0).standard_normal((1, 3, 33, 47), dtype=np.float32)
    session = onnxruntime.InferenceSession(str(tmp_path / "network.onnx"))
    (logits,) = session.run(None, {session.get_inputs()[0].name: image})
    with torch.no_grad():
        np.testing.assert_allclose(logits, trained(torch.from_numpy(image)).numpy(), rtol=1e-3, atol=1e-4)
    capsys.readouterr()


@pytest.mark.slow
def test_the_weights_of_the_operation_are_trained(searched: Path) -> None:
    """Its own parameters too, and in a search those of every edge."""
    state = torch.load(searched / "checkpoints" / "last.pt", weights_only=True)["state"]["supernet"]
    scales = [value for name, value in state.items() if name.endswith(".scale")]
    assert scales
    assert any(bool((value != 1).any()) for value in scales)


@pytest.mark.slow
def test_the_plan_counts_its_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """More for wider operations: three times the channels are kept for the backward pass."""
    autoseg.load_plugin(PLUGIN)
    asked = {}
    for operation in (NAME, "skip_connect"):
        space = write_config(tmp_path / f"{operation}.yaml", merge(PATH, {"cell": {"operations": ["none", operation]}}))
        capsys.readouterr()
        options = ["--space", space, "--classes", 3, "--no-time", "--json", "--memory", "4GB", "--device", "cpu"]
        call("plan", *options, "--plugin", PLUGIN)
        asked[operation] = json.loads(capsys.readouterr().out)["options"][0]["saved_bytes"]
    assert asked[NAME] > 2 * asked["skip_connect"]


@pytest.mark.slow
def test_without_the_plugin_each_command_says_which_one_it_was(
    searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    OPERATIONS.discard("own_operation.py")
    capsys.readouterr()
    for command in (
        ["decode", searched],
        ["show", searched],
        ["retrain", searched, "--data", "generated", "--out", tmp_path / "other"],
        ["search", "--out", searched, "--resume"],
    ):
        assert run([str(part) for part in command]) == 2
        check_line(capsys.readouterr().err, "plugin-not-given", NAME, "--plugin own_operation.py")
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_a_search_says_that_it_is_slower(searched: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    space = autoseg.SearchSpace.parse(PATH)
    assert type(build_supernet(space, 3)) is Supernet
    capsys.readouterr()
    config = write_config(
        tmp_path / "again.yaml",
        {
            "space": PATH,
            "data": DATA,
            "search": {**COMMON, "epochs": 1, "arch_start_epoch": 0, "max_steps_per_epoch": 1},
            "device": "cpu",
        },
    )
    call("search", "--config", config, "--out", tmp_path / "again")
    said = capsys.readouterr().out
    assert f"{NAME} has no fused form" in said
    assert "slower" in said
