"""No single flipped bit in a file that a run depends on goes unnoticed, and the script that flips them can tell."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from autoseg.files import read_sealed_json, write_sealed_json, write_text

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))

import flip_bits


@pytest.mark.slow
def test_every_flip_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    assert flip_bits.main(["--flips", "15", "--seed", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[2:] for line in lines[2:]] == [["15", "0 |"]] * 8


def test_a_flip_that_is_not_noticed_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "plain.txt"
    path.write_bytes(bytes(range(100)))
    target = flip_bits.Target("plain", [path], lambda: path.read_bytes()[0] != 0)
    assert flip_bits.flip(target, 50, random.Random(0)) > 40
    assert path.read_bytes() == bytes(range(100))
    with pytest.raises(SystemExit, match="damaged before"):
        flip_bits.flip(flip_bits.Target("plain", [path], lambda: True), 1, random.Random(0))


CONTENT = {"crc32": [1, 2], "name": "\u00fc\n", "inner": {"b": None, "a": 0.1}}


def test_every_bit_of_sealed_json_counts(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    write_sealed_json(path, CONTENT)
    assert read_sealed_json(path) == CONTENT
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 3):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"checksum|codec"):
            read_sealed_json(path)
    for cut in range(0, len(whole), 7):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"checksum|codec"):
            read_sealed_json(path)


def test_sealed_json_is_json(tmp_path: Path) -> None:
    import json

    write_sealed_json(tmp_path / "table.json", CONTENT)
    assert json.loads((tmp_path / "table.json").read_text())["content"] == CONTENT
    write_text(tmp_path / "old.json", json.dumps(CONTENT))
    with pytest.raises(ValueError, match="checksum"):
        read_sealed_json(tmp_path / "old.json")
