"""scripts/compare_options.py: its figures, its table, and that it goes on where it stopped."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from helpers.tiny_runs import COMMON, SPACE, write_config

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))

import compare_options


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    space = {**SPACE, "network": {**SPACE["network"], "filter_multiplier": 4}}  # for partial channels of a quarter
    schedule = {**COMMON, "epochs": 1}
    schedules = {"search": {**schedule, "arch_start_epoch": 0}, "retrain": schedule}
    data = ["data.generated.size=[32, 32]", "data.generated.train=8", "data.generated.val=2"]
    return [
        "--space", str(write_config(tmp_path / "space.yaml", space, schedules)), "--out", str(tmp_path / "out"),
        "--rounds", "1", "--draws", "2", "--device", "cpu", "--set", data[0], "--set", data[1], "--set", data[2],
    ]  # fmt: skip


@pytest.mark.slow
def test_it_compares_goes_on_and_refuses_other_settings(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare_options.main([*arguments, "--variants", "plain,gdas"]) == 0
    assert compare_options.main([*arguments, "--variants", "plain,gdas,pc_darts", "--seeds", "0"]) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())["variants"]
    assert list(found) == ["plain", "gdas", "pc_darts"]
    for name, of in found.items():
        assert of["cost"]["seconds_weights"] > 0
        assert of["cost"]["saved_bytes_weights"] > 0
        assert ("runs" in of) == (name != "pc_darts")
    assert found["pc_darts"]["cost"]["multiply_adds"] < found["plain"]["cost"]["multiply_adds"]
    assert 0 <= found["gdas"]["runs"]["0"]["retrained_miou"] <= 1
    capsys.readouterr()
    monkeypatch.setattr(compare_options, "costs", None)  # nothing is measured or searched again
    monkeypatch.setattr(compare_options, "run_seed", None)
    assert compare_options.main([*arguments, "--variants", "plain,gdas"]) == 0
    table = capsys.readouterr().out
    assert table == (tmp_path / "out" / "results.md").read_text()
    assert [line.count("|") for line in table.splitlines() if line.startswith("| plain")] == [9, 6]
    assert compare_options.main([*arguments, "--set", "search.epochs=2"]) == 2
    error = capsys.readouterr().err
    assert error.endswith(" [results-settings-differ]\n")
    assert str(tmp_path / "out") in error
    assert "set.search: None" in error


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["--variants", "plain,fastest"], "option-invalid", ("--variants", "'fastest'")),
        (["--rounds", "0"], "option-invalid", ("--rounds", "from 1 up", "'0'")),
        (["--space", "nowhere"], "unknown-space", ("'nowhere'",)),
        (["--set", "search.epoch=2"], "unknown-setting", ("'epoch' in search", "did you mean 'epochs'")),
    ],
)
def test_wrong_arguments_are_one_line_and_status_2(
    arguments: list[str], code: str, named: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare_options.main(["--out", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.endswith(f" [{code}]\n")
    assert [text for text in named if text not in error] == []
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
