"""Two tiny networks to export, and the export of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from autoseg.export import ExportReport, export_network
from autoseg.genotype.schema import Genotype
from autoseg.network import Network, build_searched
from autoseg.registry import OPERATIONS

CLASSES = ("sky", "road", "tree", "car", "4")


METADATA: dict[str, Any] = {
    "classes": CLASSES,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "ignore_label": 255,
    "note": "1.0",
}


def edges(*pairs: str) -> list[dict[str, str]]:
    """Edges from `input operation` texts."""
    return [dict(zip(("input", "operation"), pair.split(), strict=True)) for pair in pairs]


def make_genotype(strides: list[int], stem: list[int], decoder: str) -> Genotype:
    cell = [
        edges(
            "prev_prev skip_connect",
            "prev sep_conv_3x3",
            "prev max_pool_3x3",
            "prev_prev atrous_conv_3x3",
            "prev dil_conv_3x3",
        ),
        edges(
            "prev avg_pool_3x3", "b1 atrous_conv_5x5", "prev skip_connect", "prev_prev sep_conv_5x5", "b1 dil_conv_5x5"
        ),
    ]
    assert {edge["operation"] for block in cell for edge in block} == set(OPERATIONS) - {"none"}
    return Genotype.parse(
        {
            "name": f"tiny_{decoder}",
            "cell": cell,
            "network": {"strides": strides, "filter_multiplier": 4},
            "stem": {"channels": [8] * len(stem), "strides": stem},
            "decoder": {"name": decoder, "filters": 16, "low_level_filters": 8},
        }
    )


GENOTYPES = {
    "down and up": make_genotype([4, 8, 4], [2, 1, 2], "deeplabv3plus"),
    "to stride 32": make_genotype([8, 16, 32, 16], [2, 2], "aspp"),
}


def make_network(genotype: Genotype, auxiliary: bool = False) -> Network:
    """A network whose running statistics are those of noise, in train mode."""
    torch.manual_seed(0)
    network = build_searched(genotype, len(CLASSES), auxiliary)
    with torch.no_grad():
        for _ in range(4):
            network(torch.randn(2, 3, 64, 64))
    return network.to(memory_format=torch.channels_last)  # as trained networks are


def exported(network: Network, path: Path, format: Any) -> ExportReport:
    report = export_network(network, path, format, metadata=METADATA)
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # one file, nothing beside it
    return report
