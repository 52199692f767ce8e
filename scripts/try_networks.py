"""Every network of the literature through the commands: does its loss fall, is it measured, does its export agree?

    python scripts/try_networks.py --data data_sets/camvid.yaml --set data.root=/data/camvid \
        --set 'data.resize=[120, 160]' --out runs/networks

Each is trained for a few steps at --width (0.25 of the published one), evaluated, and exported to ONNX, which is
compared with it on random images of several sizes. The table goes to --out/table.md as well.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import autoseg
from autoseg.config.base import merge, parse_assignments
from autoseg.errors import AutosegError
from autoseg.files import write_text
from autoseg.registry import NETWORKS

TRAINING = {
    "epochs": 2,
    "max_steps_per_epoch": 20,
    "batch_size": 4,
    "crop": [96, 96],
    "log_every": 1,
    "validate_every": 2,
    "val_images": 8,
    "optimizer": {"name": "adamw", "lr": 1e-3},
    "ema_decay": 0.0,
}
SHOWN = 5
"""Steps at the beginning and at the end whose median loss is shown."""


def row(name: str, options: argparse.Namespace) -> str:
    """Train, evaluate and export one network; its line of the table."""
    out = options.out / name
    given = merge({"network": {"width": options.width}, "retrain": TRAINING}, parse_assignments(options.set))
    if not (out / "config.yaml").is_file():
        autoseg.retrain(name, options.data, out, overrides=given, show_progress=False)
    run = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in run if entry["kind"] == "train"]
    first, last = (statistics.median(part) for part in (losses[:SHOWN], losses[-SHOWN:]))
    scores = autoseg.evaluate(out, show_progress=False)
    exported = autoseg.export_model(out, out / "network.onnx", "onnx", overwrite=True)
    difference, equal = re.findall(r"logits ([\d.e+-]+) of the largest, ([\d.]+%)", exported)[0]
    parameters = sum(parameter.numel() for parameter in autoseg.load_network(out)[0].parameters())
    fell = "" if last < first else " (did not fall)"
    return (
        f"| `{name}` | {parameters / 1e6:.2f}M | {first:.2f} to {last:.2f}{fell} | {scores['miou']:.3f} |"
        f" {equal}, {difference} |"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 where what was given is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="generated", help="generated, a folder or a data YAML")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--networks", default=",".join(NETWORKS), metavar="A,B", help="which (all)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in autoseg retrain")
    options = parser.parse_args(arguments)
    lines = [
        f"| network, width {options.width:g} | parameters | loss | mIoU | ONNX: equal labels, largest difference |",
        "|---|---:|---|---:|---|",
    ]
    try:
        for name in options.networks.split(","):
            lines.append(row(name, options))
            print(lines[-1], file=sys.stderr)
            write_text(options.out / "table.md", "\n".join(lines) + "\n")
    except AutosegError as reason:
        print(f"error: {reason} [{reason.code}]", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
