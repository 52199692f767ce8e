"""`scripts/bench_upsamplers.py`: what it compares is the same, and what it counts is what is there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))

import bench_upsamplers

from autoseg.ops.pixel_dcl import IPixelDCL, PixelDCL


def test_the_naive_forms_compute_the_same() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    for kernel in (1, 3, 5):
        zeros, fast = bench_upsamplers.ZeroInsertion(3, 2, kernel).double(), PixelDCL(3, 2, kernel).double()
        fast.maps.load_state_dict(zeros.maps.state_dict())
        torch.testing.assert_close(zeros(x), fast(x), rtol=1e-12, atol=1e-12)
    joined, ipixel = bench_upsamplers.Concatenated(3, 2).double(), IPixelDCL(3, 2).double()
    with torch.no_grad():
        for number, step in enumerate(ipixel.maps.steps):
            kernel_of = torch.cat([ipixel.maps.block(source, number) for source in step.reads], 1)
            joined.convs[number].weight.copy_(kernel_of)
    torch.testing.assert_close(joined(x), ipixel(x), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, markdown = tmp_path / "figures.json", tmp_path / "table.md"
    sizes = ["--channels", "4", "--size", "16", "--batch", "2", "--repeats", "1", "--device", "cpu"]
    assert bench_upsamplers.main([*sizes, "--json", str(file), "--markdown", str(markdown)]) == 0
    assert markdown.read_text() == capsys.readouterr().out
    figures = json.loads(file.read_text())["upsamplers"]
    assert figures["pixel_dcl"]["products"] == 26
    assert figures["pixel_dcl zeros"]["products"] == 18 + 36
    assert figures["transposed_conv 6x6"]["products"] == 36
    assert figures["pixel_dcl"]["parameters"] == figures["pixel_dcl zeros"]["parameters"] == 27 * 16
    map_bytes = 4 * 2 * 4 * 16 * 16
    assert figures["ipixel_dcl"]["saved_bytes"] == 2 * map_bytes  # F1 and F2
    assert figures["transposed_conv"]["saved_bytes"] == 0
    assert all(of["forward_s"] > 0 < of["backward_s"] for of in figures.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["--size", "0"], "option-out-of-range", ("--size", "at least 1", "not 0")),
        (["--json", "no/such/folder/x.json"], "file-unwritable", ("no/such/folder/x.json",)),
    ],
)
def test_mistakes(arguments: list[str], code: str, named: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--channels", "1", "--batch", "1", "--repeats", "1", "--device", "cpu"]
    assert bench_upsamplers.main([*small, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.endswith(f" [{code}]\n")
    assert [text for text in named if text not in error] == []
    assert error.count("\n") == 1
