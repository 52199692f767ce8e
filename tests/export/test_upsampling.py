"""Networks with upsamplers, skips, decoders and several paths export at any size; `export_network` compares at four."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.genotypes import make_hourglass, make_multi

from autoseg.export import export_network
from autoseg.genotype.schema import Genotype
from autoseg.network import Network, build_searched


def trained(genotype: Genotype) -> Network:
    torch.manual_seed(0)
    network = build_searched(genotype, 5)
    with torch.no_grad():
        network(torch.randn(2, 3, 64, 64))
    return network.to(memory_format=torch.channels_last)


def check(genotype: Genotype, folder: Path, format: Any) -> None:
    report = export_network(trained(genotype), folder / "net", format, metadata={})
    assert report.largest_difference < 1e-4
    assert report.equal_labels > 0.999


TO_32 = (("4->8",), ("8->8", "8->16"), ("8->16", "16->16", "16->32"), ("16->16", "32->16", "32->32"))
"""Several paths; the decoder doubles twice, of sizes that may be a single pixel."""


@pytest.mark.slow
def test_pt2_of_several_paths_and_a_unet_decoder_equals_the_network(tmp_path: Path) -> None:
    check(make_multi(["ipixel_dcl"], TO_32, "unet", ["transposed_conv", "bilinear"]), tmp_path, "pt2")


@pytest.mark.slow
def test_onnx_of_an_hourglass_with_skips_equals_the_network(tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    check(make_hourglass(["max_unpool", "pixel_dcl"], ["add", "concat"]), tmp_path, "onnx")
