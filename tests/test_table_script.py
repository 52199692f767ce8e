"""scripts/table.py and scripts/table_report.py: from a space to a table and what it says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.tables import SPACE, planted

from autoseg.files import to_yaml
from autoseg.tabular.statistics import miou_of_counts
from autoseg.tabular.table import Table

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))

import table as script
import table_report

RETRAIN = {
    "epochs": 9, "batch_size": 4, "crop": [32, 32], "augment": {"scale": [1, 1]}, "ema_decay": 0.9,
    "optimizer": {"name": "adamw", "lr": 5e-3},
}  # fmt: skip
SMALL = ["--set", "data.generated.size=[32, 32]", "--set", "data.generated.train=8", "--set", "data.generated.val=6"]


@pytest.fixture
def space(tmp_path: Path) -> str:
    path = tmp_path / "eight.yaml"
    macro = {**SPACE["macro"], "cost": 1.0}
    path.write_text(to_yaml({**SPACE, "macro": macro, "retrain": RETRAIN}))
    return str(path)


def run(*words: object) -> int:
    return script.main([str(word) for word in words])


@pytest.mark.slow
def test_trainings_become_a_table_that_can_be_completed(
    space: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, file, given = tmp_path / "out", tmp_path / "table.npz", ["--space", space, *SMALL]
    assert run("train", "--out", out, "--part", "1/4", *given) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["1/2 seed 0 member 0", "2/2 seed 0 member 4"]
    written = {path.name: path.read_bytes() for path in (out / "seed0").iterdir()}
    assert set(written) == {"000.npz", "004.npz"}

    assert run("pack", "--out", out, "--file", file, *given) == 0
    table = Table.load(file)
    assert table.trained[0].nonzero()[0].tolist() == [0, 4]
    assert table.stops == (1, 3, 9)
    assert table.recipe["retrain"]["epochs"] == 9
    assert table.recipe["data"]["generated"]["train"] == 8
    assert np.allclose(miou_of_counts(table.counts, table.true)[0, [0, 4]], table.miou[0, -1, [0, 4]])
    assert table.multiply_adds[4] / (1000 * 32 * 32) == pytest.approx(1, abs=0.05)

    # elsewhere, with the table in place of the files: only what it lacks is trained, and the same again is the same
    capsys.readouterr()
    more = tmp_path / "more"
    assert run("train", "--out", more, "--table", file, "--part", "1/2", *given) == 0
    assert [line.split(":")[0][-1] for line in capsys.readouterr().out.splitlines()] == ["2", "6"]
    (out / "seed0/004.npz").unlink()
    assert run("train", "--out", out, "--part", "1/4", *given) == 0
    assert np.array_equal(np.load(out / "seed0/004.npz")["counts"], table.counts[0, 4])
    assert run("pack", "--out", more, "--table", file, "--file", tmp_path / "both.npz", *given) == 0
    both = Table.load(tmp_path / "both.npz")
    assert both.trained[0].nonzero()[0].tolist() == [0, 2, 4, 6]
    assert np.array_equal(both.miou[0, :, [0, 4]], table.miou[0, :, [0, 4]])


def test_members_that_are_drawn_again_are_the_same_each_time(space: str, tmp_path: Path) -> None:
    table = planted(np.full((2, 8), 0.5))
    chosen = list(range(8))
    assert list(script.missing(tmp_path, [0, 1], chosen, table)) == []
    assert list(script.missing(tmp_path, [2], [3, 5], table)) == [(2, 3), (2, 5)]


def test_the_report_of_a_whole_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    effects = np.add.outer(np.add.outer([0.0, 0.4], [0.1, 0.2]), [0.0, 0.2]).ravel()
    scores = effects + 0.01 * np.random.default_rng(0).normal(size=(2, 8))
    file = tmp_path / "planted.npz"
    planted(scores, inherited={"supernet": -effects}).save(file)
    words = ["--table", str(file), "--figures", str(tmp_path / "figures")]
    assert table_report.main(words) == 0
    out = capsys.readouterr().out
    assert "16 trainings of 8 networks, 8 of them twice" in out
    assert "| supernet | 8 | -0.9" in out or "| supernet | 8 | -1.0" in out
    shares = next(line for line in out.splitlines() if line.startswith("Shares"))
    assert shares.startswith("Shares of the variance of final scores: network 7")
    assert "| the best: fine, separable, pixel_dcl | " in out
    assert "| 3 | " in out
    assert (tmp_path / "figures/table.png").stat().st_size > 10_000


def test_what_is_wrong_is_one_line(space: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pack", "--out", tmp_path, "--file", tmp_path / "x.npz", "--space", space) == 2
    assert capsys.readouterr().err == f"error: {tmp_path} holds no training; run `train` first\n"
    assert run("train", "--out", tmp_path, "--space", "tiny") == 2
    assert "macro" in capsys.readouterr().err
    assert run("train", "--out", tmp_path, "--table", "none") == 2
    assert "unknown table 'none'" in capsys.readouterr().err
    assert table_report.main(["--table", "none"]) == 2
    for words in (["pack", "--out", "x"], ["inherited", "--out", "x"], ["train", "--out", "x", "--part", "3/2"]):
        with pytest.raises(SystemExit) as status:
            run(*words)
        assert status.value.code == 2
