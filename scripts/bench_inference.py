"""Images a second of a decoded network, and seconds of a step of its training: variants side by side in one run.

    python scripts/bench_inference.py
    python scripts/bench_inference.py --genotype runs/a --size 360x480 --device cuda --compile --json bench.json

Variants take turns, one call each a round, after a warm-up; figures are medians over the rounds. Weights are random:
they change no time. Differences are those of the logits to the plain network's, as a share of its largest logit.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from bench.machine import describe
from bench.measure import timed
from torch import Tensor

from autoseg.config.training import RetrainSchedule
from autoseg.engine.environment import pick_device
from autoseg.engine.optim import autocast, build_optimizer
from autoseg.engine.retrain import compiled
from autoseg.errors import AutosegError
from autoseg.files import one_line
from autoseg.genotype.schema import Genotype
from autoseg.losses.losses import SegmentationLoss
from autoseg.network import Network, build_searched, fold_batch_norm, for_inference

LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
Work = Callable[[], Any]


def medians(works: Mapping[str, Work], device: torch.device, warmup: int, rounds: int) -> dict[str, float]:
    """Seconds of a call of each, in turns."""
    for work in works.values():
        for _ in range(warmup):
            work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            seconds[name].append(timed(work, device)[0])
    return {name: statistics.median(values) for name, values in seconds.items()}


# --- inference -------------------------------------------------------------------------------------------------------


def networks(network: Network, device: torch.device, compile: bool) -> dict[str, tuple[Callable[..., Tensor], Any]]:
    """Name of a variant -> the function, and what brings images to its layout and precision."""
    channels_last = torch.channels_last
    plain = copy.deepcopy(network).eval().requires_grad_(False).to(device)
    made: dict[str, tuple[Callable[..., Tensor], Any]] = {
        "plain": (plain, {}),
        "channels_last": (copy.deepcopy(plain).to(memory_format=channels_last), {"memory_format": channels_last}),
        "folded": (fold_batch_norm(plain), {}),
    }
    for name, precision, dtype in (("", "float32", torch.float32), ("_bf16", "bf16", torch.bfloat16)):
        kept = {"memory_format": channels_last, "dtype": dtype}
        made[f"folded_channels_last{name}"] = (for_inference(network, device, precision), kept)
        if compile:
            made[f"compiled{name}"] = (compiled(for_inference(network, device, precision), device), kept)
    return made


@torch.no_grad()
def bench_inference(network: Network, size: tuple[int, int], options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a variant, on `options.batch` images of `size` (H, W)."""
    device = options.device
    images = torch.randn(options.batch, 3, *size, device=device)
    variants = networks(network, device, options.compile)
    expected = variants["plain"][0](images)
    works: dict[str, Work] = {}
    differences: dict[str, dict[str, float]] = {}
    for name, (function, kept) in variants.items():
        given = images.to(**kept)
        works[name] = lambda function=function, given=given: function(given)
        logits = works[name]().float()
        differences[name] = {
            "difference": float((logits - expected).abs().max() / expected.abs().max()),
            "equal_labels": float((logits.argmax(1) == expected.argmax(1)).float().mean()),
        }
    seconds = medians(works, device, options.warmup, options.rounds)
    return [
        {"variant": name, "size": list(size), "batch": options.batch, "images_per_s": options.batch / value,
         "speedup": seconds["plain"] / value, **differences[name]}
        for name, value in seconds.items()
    ]  # fmt: skip


# --- training --------------------------------------------------------------------------------------------------------


def training_step(network: Network, layout: str, precision: str, compile: bool, options: argparse.Namespace) -> Work:
    """Forward, backward and update of a copy of the network, on one fixed batch."""
    device, shape = options.device, (options.train_batch, *options.crop)
    network = copy.deepcopy(network).train().to(device=device, memory_format=LAYOUTS[layout])
    forward = network.forward_with_auxiliary
    run = compiled(forward, device) if compile else forward
    optimizer = build_optimizer(RetrainSchedule().optimizer, network.parameters())
    images = torch.randn(shape[0], 3, *shape[1:], device=device).to(memory_format=LAYOUTS[layout])
    masks = torch.randint(network.num_classes, shape, device=device)

    def step() -> None:
        with autocast(device, precision):
            logits, _ = run(images)
        optimizer.zero_grad(set_to_none=True)
        SegmentationLoss(255)(logits, masks).backward()
        optimizer.step()

    return step


def bench_training(network: Network, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a variant."""
    variants = {
        "plain": ("nchw", "float32", False),
        "channels_last": ("channels_last", "float32", False),
        "channels_last_bf16": ("channels_last", "bf16", False),
    }
    if options.compile:
        variants |= {
            "compiled": ("channels_last", "float32", True),
            "compiled_bf16": ("channels_last", "bf16", True),
        }
    steps = {name: training_step(network, *variant, options) for name, variant in variants.items()}
    seconds = medians(steps, options.device, options.warmup, options.rounds)
    return [
        {"variant": name, "crop": list(options.crop), "batch": options.train_batch, "step_s": value,
         "speedup": seconds["plain"] / value}
        for name, value in seconds.items()
    ]  # fmt: skip


# --- command ---------------------------------------------------------------------------------------------------------


def size_of(text: str) -> tuple[int, int]:
    """(H, W) of `1024x2048`."""
    height, width = (int(part) for part in text.split("x"))
    if min(height, width) < 32:
        raise ValueError(text)
    return height, width


def positive(text: str) -> int:
    """A whole number from 1 up."""
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def several(text: str) -> int:
    """A whole number from 2 up: BatchNorm of the pooled image features needs two images."""
    if int(text) < 2:
        raise ValueError(text)
    return int(text)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--genotype", default="auto_deeplab_s", help="a name, a file or a run (default: auto_deeplab_s)")
    add("--classes", type=positive, default=19)
    add("--size", type=size_of, action="append", help="HxW, repeatable (default: 360x480 and 1024x2048)")
    add("--batch", type=positive, default=1, help="images at once in inference (default: 1)")
    add("--crop", type=size_of, default=(321, 321), help="HxW of a training step (default: 321x321)")
    add("--train-batch", type=several, default=2, help="images of a training step, at least 2 (default: 2)")
    add("--only", choices=("inference", "training"), help="leave the other out")
    add("--compile", action="store_true", help="variants with torch.compile too (minutes)")
    add("--cudnn-benchmark", action="store_true", help="let cuDNN choose its algorithms by trial")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--threads", type=positive, help="of the CPU")
    add("--warmup", type=positive, default=2, help="calls before any is measured (default: 2)")
    add("--rounds", type=positive, default=5, help="measured calls of each variant (default: 5)")
    add("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args(arguments)
    options.size = options.size or [(360, 480), (1024, 2048)]
    return options


def print_rows(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    print(f"\n{title}")
    for row in rows:
        speed = f"{row['images_per_s']:10.3f} images/s" if "images_per_s" in row else f"{row['step_s']:10.3f} s a step"
        line = f"  {row['variant']:<26}{speed}  x{row['speedup']:.2f}"
        if "difference" in row:
            line += f"   difference {row['difference']:.1e}, equal labels {row['equal_labels']:.3%}"
        print(line)


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """Every figure, printed as it comes."""
    torch.manual_seed(0)
    network = build_searched(Genotype.load(options.genotype), options.classes)
    machine = describe(options.device)
    print(", ".join(f"{key} {value}" for key, value in machine.items()), f"\ngenotype {options.genotype}")
    inference: list[dict[str, Any]] = []
    training: list[dict[str, Any]] = []
    for size in options.size if options.only != "training" else []:
        inference += (rows := bench_inference(network, size, options))
        print_rows(f"inference, {options.batch} x {size[0]}x{size[1]}", rows)
    if options.only != "inference":
        training = bench_training(network, options)
        print_rows(f"training, {options.train_batch} x {options.crop[0]}x{options.crop[1]}", training)
    return {
        "machine": machine,
        "genotype": options.genotype,
        "cudnn_benchmark": options.cudnn_benchmark,
        "inference": inference,
        "training": training,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 2 where something that was given is wrong."""
    options = parse_arguments(arguments)
    try:
        options.device = pick_device(options.device)
        if options.threads:
            torch.set_num_threads(options.threads)
        torch.backends.cudnn.benchmark = options.cudnn_benchmark
        figures = bench(options)
    except (AutosegError, torch.OutOfMemoryError) as reason:
        code = reason.code if isinstance(reason, AutosegError) else "out-of-memory"
        print(f"error: {one_line(reason)} [{code}]", file=sys.stderr)
        return 2
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
