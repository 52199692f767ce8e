"""Every network of the literature as published: parameters, multiply-adds, receptive field, time of a forward pass.

    python scripts/bench_networks.py --threads 1 --out networks.md
    python scripts/bench_networks.py --device cuda --timed 1024x2048

21 classes, but U-Net, which is counted as published, of one channel and two classes. A median of --repeats passes of
one image after one that does not count, BatchNorm folded as `autoseg evaluate` has it; `--timed none`: no times.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from bench import machine
from bench.measure import timed

from autoseg.analysis.flops import count_cost
from autoseg.analysis.receptive_field import receptive_field
from autoseg.engine.environment import pick_device
from autoseg.errors import AutosegError
from autoseg.files import write_text
from autoseg.network import for_inference
from autoseg.registry import NETWORKS
from autoseg.zoo.build import build_network
from autoseg.zoo.schema import FixedNetwork

COUNTED = ((512, 512), (1024, 2048))
VARIANTS: tuple[dict[str, object], ...] = (
    {"name": "deeplabv1_vgg16", "first_classifier": "4x4"},
    {"name": "deeplabv1_vgg16", "first_classifier": "7x7"},
    {"name": "deeplabv3plus_resnet101", "separable": True},
    {"name": "deconvnet", "batch_norm": False},
)
"""Besides every network as it is."""


def row(network: FixedNetwork, variant: str, size: tuple[int, int] | None, repeats: int, device: torch.device) -> str:
    """One line of the table."""
    classes = 21
    if network.name == "unet":
        network, classes = network.model_copy(update={"in_channels": 1}), 2

    def build() -> torch.nn.Module:
        return build_network(network, classes)

    costs = [count_cost(build, counted) for counted in COUNTED]
    with torch.device("meta"):
        built = build()
    field = receptive_field(built)
    fields = [f"{cost.multiply_adds / 1e9:,.1f}" for cost in costs]
    fields.append("image" if math.isinf(field) else f"{field:.0f}")
    if size is not None:
        fields.append(f"{_seconds(build(), network.in_channels, size, repeats, device):.2f}")
    return f"| `{network.name}`{variant} | {costs[0].parameters:,} | {' | '.join(fields)} |"


@torch.no_grad()
def _seconds(
    network: torch.nn.Module, channels: int, size: tuple[int, int], repeats: int, device: torch.device
) -> float:
    ready = for_inference(network.eval(), device)
    images = torch.randn(1, channels, *size, device=device).contiguous(memory_format=torch.channels_last)
    ready(images)
    return sorted(timed(lambda: ready(images), device)[0] for _ in range(repeats))[repeats // 2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 where what was given is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timed", default="512x512", help="size of the image that is timed, or none (512x512)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--networks", default=",".join(NETWORKS), metavar="A,B", help="which (all)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, help="the Markdown to write as well")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        device = pick_device(options.device)
        size = None if options.timed == "none" else tuple(map(int, options.timed.split("x")))
        names = options.networks.split(",")
        described = machine.describe(device)
        lines = [
            f"{described['device']}, {described['threads']} threads, PyTorch {described['torch']}",
            "",
            "| network | parameters | multiply-adds at 512x512, billions | at 1024x2048 | receptive field, pixels |"
            + ("" if size is None else f" seconds at {options.timed} |"),
            "|---|---:|---:|---:|---:|" + ("" if size is None else "---:|"),
        ]
        for data in (*({"name": name} for name in names), *VARIANTS):
            network = FixedNetwork.parse(data)
            if network.name in names:
                variant = "".join(f", {key} {value}".lower() for key, value in data.items() if key != "name")
                lines.append(row(network, variant, size, options.repeats, device))  # type: ignore[arg-type]
                print(lines[-1], file=sys.stderr)
    except AutosegError as reason:
        print(f"error: {reason} [{reason.code}]", file=sys.stderr)
        return 2
    if options.out:
        write_text(options.out, "\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
