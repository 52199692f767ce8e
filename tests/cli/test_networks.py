"""The networks of the literature by the commands that a searched network has."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml
from helpers.errors import check_line
from helpers.tiny_runs import GENOTYPE, RETRAIN, call, files_of, rows, write_config
from helpers.wide_spaces import of_stages

from autoseg.analysis.flops import count_cost
from autoseg.cli.main import run
from autoseg.engine.predict import load_network
from autoseg.export.formats import load_safetensors
from autoseg.genotype.schema import Genotype
from autoseg.setup.settings import retrain_sources
from autoseg.zoo.build import build_network
from autoseg.zoo.match_cost import cost_target
from autoseg.zoo.schema import FixedNetwork, load_architecture

SCHEDULE = {key: value for key, value in RETRAIN["retrain"].items() if key not in ("drop_path", "auxiliary_weight")}


def config_file(folder: Path) -> Path:
    return write_config(
        folder / "retrain.yaml", {key: RETRAIN[key] for key in ("data", "device")}, {"retrain": SCHEDULE}
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow DeepLabv3 that was trained for two epochs. Not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    call(
        "retrain", "--network", "deeplabv3_resnet50", "--set", "network.width=0.05", "--config", config_file(folder),
        "--out", folder / "run",
    )  # fmt: skip
    return folder / "run"


def fails(capsys: pytest.CaptureFixture[str], arguments: Sequence[object], code: str, *named: object) -> None:
    capsys.readouterr()
    status = run([str(argument) for argument in arguments])
    line = capsys.readouterr().err
    assert status == 2, line
    check_line(line, code, *named)


@pytest.mark.slow
def test_it_trains_measures_labels_exports_and_is_drawn(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["network"] == FixedNetwork.parse({"name": "deeplabv3_resnet50", "width": 0.05}).to_dict()
    assert "genotype" not in config
    assert not (trained / "genotype.yaml").exists()
    losses = [row["loss"] for row in rows(trained, "train")]
    assert sum(losses[-3:]) < sum(losses[:3])

    call("evaluate", trained, "--out", tmp_path / "16.json")
    call("evaluate", trained, "--output-stride", 8, "--out", tmp_path / "8.json")
    published, finer = (json.loads((tmp_path / name).read_text()) for name in ("16.json", "8.json"))
    assert published["loss"] != finer["loss"]
    assert (published["output_stride"], finer["output_stride"]) == (16, 8)

    call("export", trained, "--format", "safetensors", "--out", tmp_path / "w.safetensors")
    network, metadata = load_safetensors(tmp_path / "w.safetensors")
    assert metadata["network"]["width"] == 0.05
    assert network.architecture == load_network(trained)[0].architecture
    images = torch.randn(1, 3, 33, 47)
    torch.testing.assert_close(network(images), load_network(trained)[0](images), rtol=1e-4, atol=1e-4)

    call("plot", trained, "--out", tmp_path / "figures", "--format", "svg")
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"network.svg", "history.svg"}
    capsys.readouterr()
    call("show", trained, "--classes", 7, "--size", 64, 64)
    shown = capsys.readouterr().out
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert f"({parameters:,})" in shown
    assert "width 0.05" in shown


@pytest.mark.slow
def test_width_and_schedule_of_another_network(tmp_path: Path) -> None:
    wide = {"network": {"filter_multiplier": 32}, "retrain": {**SCHEDULE, "epochs": 1, "drop_path": 0.3}}
    genotype = write_config(tmp_path / "g.yaml", GENOTYPE, wide)
    data = write_config(tmp_path / "data.yaml", {"data": RETRAIN["data"]})
    call("retrain", "--network", "unet", "--match-cost", genotype, "--config", data, "--out", tmp_path / "run",
         "--set", "retrain.epochs=1")  # fmt: skip
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (config["retrain"]["ema_decay"], config["retrain"]["crop"]) == (SCHEDULE["ema_decay"], SCHEDULE["crop"])
    assert config["retrain"]["drop_path"] == 0  # it has no branches to drop
    counts = [
        sum(parameter.numel() for parameter in build_network(load_architecture(source), 7).parameters())
        for source in (tmp_path / "run", genotype)
    ]
    assert abs(counts[0] / counts[1] - 1) <= 0.02
    assert config["network"]["width"] < 0.1


@pytest.mark.slow
def test_a_run_that_was_finished_is_left_as_it_is(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    before = files_of(run)
    call("retrain", "--out", run, "--resume")
    assert {path: data for path, data in files_of(run).items() if path in before} == before


@pytest.mark.slow
def test_unet_is_a_space_and_a_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("show", "unet", "--classes", 2, "--size", 64, 64, "--set", "network.in_channels=1")
    shown = capsys.readouterr().out
    assert "space         unet\n" in shown
    assert "network       unet\n" in shown
    assert "31.03M parameters (31,030,658)" in shown  # Ronneberger's
    call("plot", "unet", "--out", tmp_path, "--format", "svg")
    assert {path.name for path in tmp_path.iterdir()} == {"trellis.svg", "network.svg"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["--network", "resunet"], "unknown-network", ("'resunet'", "'unet'")),
        (["--network", "unet", "--set", "network.depth=3"], "unknown-setting", ("'depth'",)),
        (["unet", "--set", "genotype.name=x"], "unknown-setting", ("'genotype'", "network", "unet")),
        (["unet", "--network", "unet"], "options-conflict", ("unet", "--network unet")),
        (["unet", "--set", "retrain.auxiliary_weight=0.4"], "no-auxiliary-head", ("unet", "retrain.auxiliary_weight")),
        (["unet", "--set", "retrain.drop_path=0.4"], "drop-path-without-branches", ("unet", "retrain.drop_path", "0")),
        (["unet", "--set", "network.in_channels=1"], "channels-differ", ("1 channel,", "3")),
        (["unet", "--match-cost", "5"], "cost-unreachable", ("unet", "parameters", "5")),
        (["unet", "--weights", "no.pth"], "file-missing", ("no.pth",)),
        ([], "network-not-given", ()),
    ],
)
def test_wrong_retrainings(
    arguments: list[str],
    code: str,
    named: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--config", config_file(tmp_path), "--out", tmp_path / "out", "--set", "network.width=0.05"]
    if not arguments:
        options = options[:-2]
    fails(capsys, ["retrain", *arguments, *options], code, *named)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_genotype_is_scaled_to_a_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It gets stages, in which the channels stand."""
    path, genotype = tmp_path / "genotype.yaml", Genotype.parse(GENOTYPE)
    genotype.save(path)
    words = ["retrain", path, "--config", config_file(tmp_path), "--out", tmp_path / "run"]
    fails(capsys, [*words, "--match-cost", "5"], "cost-unreachable", "mini_network", "parameters", "5")
    call(*words, "--match-cost", "20k", "--set", "retrain.epochs=1", "--set", "retrain.max_steps_per_epoch=1")
    call("evaluate", tmp_path / "run")
    scaled = Genotype.load(tmp_path / "run")
    assert [(stage.stride, stage.block) for stage in scaled.stages] == [(4, "cell"), (8, "cell")]
    assert scaled.network == genotype.network
    assert count_cost(lambda: build_network(scaled, 7), (64, 64)).parameters == pytest.approx(20_000, rel=0.02)


@pytest.mark.slow
def test_show_scales_stages_and_a_genotype_is_trained_as_what_it_is_compared_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also with drop path, which a network of the literature has none of."""
    path, other = tmp_path / "genotype.yaml", tmp_path / "other.yaml"
    of_stages("path").save(path)
    of_stages("path").model_copy(update={"retrain": {"drop_path": 0.1}}).save(other)
    call("show", path, "--classes", 7, "--size", 64, 64, "--match-cost", "20k")
    shown = capsys.readouterr().out
    assert re.search(r"stride 8 +3 \u00d7 inverted residual, \d+ channels\n", shown)
    assert re.search(r"\((19,[6-9]|20,[0-4])\d\d\)", shown)
    target = cost_target(other)
    sources = retrain_sources(path, config=config_file(tmp_path), match=target)
    assert sources.recommended == {"retrain": {"drop_path": 0.1}}
    assert retrain_sources("unet", match=target).recommended["retrain"]["drop_path"] == 0


@pytest.mark.slow
def test_the_width_of_stages_is_no_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_stages("path").save(tmp_path / "genotype.yaml")
    words = ["retrain", tmp_path / "genotype.yaml", "--config", config_file(tmp_path), "--out", tmp_path / "run"]
    setting = ["--set", "genotype.network.filter_multiplier=32"]
    fails(capsys, [*words, *setting], "channels-in-stages", "genotype.stages", "--match-cost", "path")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_output_strides_that_cannot_be(
    trained: Path, retrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate: list[object] = ["evaluate", trained, "--output-stride", 12, "--out", tmp_path / "e.json"]
    fails(capsys, evaluate, "setting-invalid", "deeplabv3_resnet50", "12", "8, 16, 32")
    evaluate = ["evaluate", retrained, "--output-stride", 8, "--out", tmp_path / "e.json"]
    fails(capsys, evaluate, "output-stride-of-genotype", "mini_network", "8", "--output-stride")
    export = ["export", trained, "--format", "json", "--out", tmp_path / "g.json"]
    fails(capsys, export, "format-needs-genotype", "json", "deeplabv3_resnet50", "safetensors")
