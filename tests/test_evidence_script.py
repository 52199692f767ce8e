"""scripts/evidence.py: the table and the pictures of searches, and one line for what is wrong."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))

import evidence


def test_table_and_pictures_of_two_seeds(searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        shutil.copytree(searched, tmp_path / f"generated-{seed}")
    assert evidence.main(["--out", str(tmp_path), "--seeds", "0,1", "--figures", str(tmp_path / "figures")]) == 0
    out = capsys.readouterr().out
    table = (tmp_path / "evidence.md").read_text()
    assert table.strip() in out
    assert len([line for line in table.splitlines() if line.startswith("| generated | ")]) == 6
    assert "| generated | alpha | 1.00 |" in table  # the same run twice
    assert all((tmp_path / f"figures/evidence-{name}.png").is_file() for name in ("walks", "margins"))


def test_what_is_wrong_is_one_line(searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shutil.copytree(searched, tmp_path / "generated-0")
    (Path(out) / "arch/gradients.bin").unlink()
    assert evidence.main(["--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {out} has no evidence; give another --out"
    with pytest.raises(SystemExit) as status:
        evidence.main(["--out", str(tmp_path), "--seeds", "one"])
    assert status.value.code == 2
