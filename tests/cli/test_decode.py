"""`autoseg decode` of searches of every kind: what it prints and what it refuses, without torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.errors import check_line
from helpers.spaces import space_of
from helpers.tiny_runs import SEARCH, call, resolved, write_config
from helpers.wide_spaces import of_stages

from autoseg.cli.decode import _lines
from autoseg.cli.main import run
from autoseg.genotype.flops import topology_cost
from autoseg.genotype.schema import Genotype
from autoseg.space.snapshot import ArchProbs, logits_shapes

MakeRun = Callable[..., Path]


@pytest.fixture
def search_of(tmp_path: Path) -> MakeRun:
    """What a search of a space of some kind leaves behind after an epoch, as far as decoding reads it."""

    def make(kind: str, height: float = 1.0, **changes: Any) -> Path:
        space = space_of(kind, **changes)
        path = tmp_path / "run"
        (path / "arch").mkdir(parents=True)
        write_config(path / "config.yaml", resolved({**SEARCH, "space": space.to_dict()}))
        rng = np.random.default_rng(0)
        logits = {f"{name}_logits": height * rng.random(of) for name, of in logits_shapes(space).items()}
        ArchProbs(space, **logits).save(path / "arch" / "epoch_0000.npz")
        return path

    return make


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_a_path_with_its_way_up(search_of: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    path = search_of("hourglass")
    call("decode", path)
    genotype, lines = Genotype.load(path), lines_of(capsys)
    assert lines[0] == f"path  {' '.join(map(str, genotype.network.strides))}  (output strides)"
    up = [line for line in lines if line.startswith("up    ")]
    assert len(up) == len(genotype.up_arrows) > 0
    arrow = genotype.up_arrows[0]
    strides = f"{genotype.stride(arrow.source.level)}->{genotype.stride(arrow.target.level)}"
    upsampler, skip = genotype.upsampler(arrow), genotype.skip(arrow)
    assert up[0] == f"up    l{arrow.target.layer} {strides} {upsampler}, skip {skip}"
    assert [line.split()[0] for line in lines if line.startswith("b")] == ["b1", "b2"]
    assert [line[:6] for line in lines if line.startswith("up b")] == ["up b1 ", "up b2 "]
    assert lines[-1].startswith(f"wrote {path / 'genotype.yaml'}; next: autoseg retrain")


def test_a_path_without_choices_on_the_way_up_says_nothing_of_them(
    search_of: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    call("decode", search_of("plain"))
    assert [line.split()[0] for line in lines_of(capsys)] == ["path", "b1", "b2", "wrote"]


def test_stages_of_the_decoder(search_of: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    path = search_of("unet decoder", network={"moves": ["same", "down"]}, resolution={"upsamplers": ["bilinear"]})
    call("decode", path)
    genotype = Genotype.load(path)
    stages = [line for line in lines_of(capsys) if line.startswith("dec   ")]
    assert len(stages) == len(genotype.decoder_levels) > 0
    assert stages[-1] == f"dec   8->4 {genotype.decoder.upsamplers[-1]}"


@pytest.mark.slow
def test_several_paths_threshold_and_budget(search_of: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    path = search_of("multi")  # every arrow is above a half
    call("decode", path)
    every, lines = Genotype.load(path), lines_of(capsys)
    assert every.source["threshold"] == 0.5
    assert "budget" not in every.source
    assert [line.split()[0] for line in lines[:5]] == ["l1", "l2", "l3", "l4", "cost"]
    assert lines[0] == "l1    4->4  4->8"
    assert lines[4] == f"cost  {topology_cost(every) / 1000:.4g} billion multiply-adds a megapixel, cells and arrows"

    call("decode", path, "--threshold", 0.62, "--overwrite")
    fewer = Genotype.load(path)
    assert 4 <= len(fewer.arrows) < len(every.arrows)
    assert fewer.source["threshold"] == 0.62

    budget = 0.6 * topology_cost(every) / 1000
    call("decode", path, "--budget", budget, "--overwrite")
    cheaper = Genotype.load(path)
    assert topology_cost(cheaper) / 1000 <= budget
    assert cheaper.source["budget"] == budget


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "options", "code", "named"),
    [
        ("multi", ["--budget", "0.0001"], "budget-too-small", ("0.0001", "'multi'")),
        ("multi", ["--budget", "-3"], "setting-invalid", ("decoding.budget", "0", "-3")),
        ("multi", ["--budget", "nan"], "setting-invalid", ("decoding.budget", "nan")),
        ("multi", ["--budget", "much"], "", ("'--budget'",)),
        ("multi", ["--threshold", "1.5"], "setting-invalid", ("decoding.threshold", "1", "1.5")),
        ("multi", ["--threshold", "0"], "setting-invalid", ("decoding.threshold", "0")),
        ("multi", ["--path-prior", "paper"], "setting-not-for-space", ("path_prior", "'multi'")),
        ("plain", ["--threshold", "0.5"], "setting-not-for-space", ("threshold", "'plain'")),
        ("plain", ["--budget", "3"], "setting-not-for-space", ("budget", "'plain'")),
        ("plain", ["--path-prior", "papper"], "unknown-path-prior", ("'papper'", "uniform", "paper")),
    ],
)
def test_what_is_wrong_is_one_line(
    kind: str,
    options: list[str],
    code: str,
    named: tuple[str, ...],
    search_of: MakeRun,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = search_of(kind)
    assert run(["decode", str(path), *options]) == 2
    captured = capsys.readouterr()
    check_line(captured.err, code, *named)
    assert captured.out == ""
    assert not (path / "genotype.yaml").exists()


@pytest.mark.slow
def test_decoding_several_paths_needs_no_torch(search_of: MakeRun) -> None:
    path = search_of("multi hourglass")
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from autoseg.cli.main import run\n"
        f"sys.exit(run(['decode', {str(path)!r}, '--budget', '1']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == f"the architecture of {path} was not trained before epoch 1\n"  # so it has no evidence
    assert Genotype.load(path).source["budget"] == 1


def test_decode_prints_the_stages_of_a_network() -> None:
    printed = dict(_lines(of_stages("several paths with a cell")))
    assert printed["s4"] == "cell, 2 \u00d7 3 channels"
    assert printed["s8"] == "3 \u00d7 inverted residual, 5 channels"
    assert "b1" in printed
    assert float(printed["cost"].split()[0]) > 0
    assert "b1" not in dict(_lines(of_stages("path")))
