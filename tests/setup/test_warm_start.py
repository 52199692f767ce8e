"""A retraining that starts from the weights of a search: what is taken, how it goes on, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from helpers.errors import check_line
from helpers.tiny_runs import RETRAIN, assert_same_run, call, checkpoint, files_of, write_config

from autoseg.cli.main import run
from autoseg.files import read_yaml

SHORT = {"retrain": {"epochs": 1, "max_steps_per_epoch": 3, "keep_checkpoints": 9}}
PLAIN = {key: value for key, value in RETRAIN.items() if key != "genotype"}


@pytest.fixture(scope="module")
def decoded(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that was decoded. Not to be changed."""
    path = Path(shutil.copytree(searched, tmp_path_factory.mktemp("decoded") / "search"))
    call("decode", path)
    return path


def test_a_run_starts_from_the_searched_weights_and_goes_on_without_them(
    decoded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Path(shutil.copytree(decoded, tmp_path / "search"))
    config = write_config(tmp_path / "c.yaml", PLAIN, SHORT)
    monkeypatch.chdir(tmp_path)
    call("retrain", "--warm-start", "search", "--config", config, "--out", "whole")
    said = next(line.strip() for line in capsys.readouterr().out.splitlines() if "warm start" in line)
    assert said.startswith(f"warm start from {search} (last.pt, epoch 3): ")
    assert "the decoder, deeplabv3plus, starts anew" in said
    assert read_yaml(Path("whole/config.yaml"), RuntimeError)["warm_start"] == str(search)  # type: ignore[arg-type]

    call("retrain", "--warm-start", "search", "--config", config, "--out", "stopped")
    shutil.rmtree(search)
    checkpoints = Path("stopped/checkpoints")
    first = max(checkpoints.glob("last.*.pt"))
    start = checkpoint(Path("stopped"), first.stem)  # before the first step
    assert (start["epoch"], start["step_in_epoch"]) == (0, 0)
    supernet = checkpoint(decoded)["state"]["supernet"]
    for of in (start["state"]["network"], {k[7:]: v for k, v in start["state"]["average"].items()}):
        assert torch.equal(of["stem.convs.0.weight"], supernet["stem.convs.0.weight"])
        assert torch.equal(of["stem.norms.1.running_var"], supernet["stem.norms.1.running_var"])
    for path in checkpoints.iterdir():
        if path != first:
            path.unlink()
    first.rename(checkpoints / "last.pt")
    call("retrain", "--out", "stopped", "--resume")
    assert_same_run(Path("whole"), Path("stopped"))


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (["--set", "genotype.network.filter_multiplier=5"], "supernet-differs", ("filter_multiplier 5", "'mini' 2")),
        (["--set", "data.classes=[a,b,c,d,e,f,g]"], "classes-differ", ("'a'", "search")),
        (["--weights", "{retrained}"], "options-conflict", ("weights", "warm_start")),
        (["--network", "unet"], "network-differs", ("unet",)),
        (["{retrained}"], "supernet-differs", ("mini_network", "filter_multiplier 4")),
        (["auto_deeplab_s"], "genotype-not-in-space", ("auto_deeplab_s", "'mini'")),
        (["--warm-start", "{retrained}"], "run-kind-differs", ("{retrained}", "--weights")),
        (["--warm-start", "{here}/none", "{search}"], "run-missing", ("none",)),
        (["--warm-start", "{damaged}", "{search}"], "checkpoint-damaged", ("last.pt",)),
        (["--warm-start", "{empty}", "{search}"], "checkpoint-missing", ("last.pt",)),
    ],
)
def test_what_is_refused(
    words: list[str],
    code: str,
    named: tuple[str, ...],
    decoded: Path,
    retrained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"retrained": retrained, "search": decoded, "here": tmp_path}
    for name in ("damaged", "empty"):
        places[name] = Path(shutil.copytree(decoded, tmp_path / name))
        for path in (places[name] / "checkpoints").glob("last*.pt"):
            path.unlink()
    (places["damaged"] / "checkpoints" / "last.pt").write_bytes(b"PK")
    config = write_config(tmp_path / "c.yaml", PLAIN, SHORT)
    given = [word.format(**places) for word in words]
    before = files_of(tmp_path)
    first = [] if "--warm-start" in given else ["--warm-start", str(decoded)]
    assert run(["retrain", *first, *given, "--config", str(config), "--out", str(tmp_path / "out")]) == 2
    check_line(capsys.readouterr().err.splitlines()[-1], code, *(text.format(**places) for text in named))
    assert files_of(tmp_path) == before


def test_without_the_setting_nothing_is_written_of_it(retrained: Path) -> None:
    assert "warm_start" not in read_yaml(retrained / "config.yaml", RuntimeError)  # type: ignore[arg-type]
