"""What an upsampler costs and what pattern it begins with: all of them, side by side in one run.

    python scripts/bench_upsamplers.py --threads 1                  64 channels, 4 features of 32x32
    python scripts/bench_upsamplers.py --channels 128 --size 16 --json figures.json --markdown table.md
    python scripts/bench_upsamplers.py --device cuda --channels-last

Beside them: PixelDCL as it is published (`pixel_dcl zeros`: a convolution over the half-filled map, kernel masked),
iPixelDCL with its inputs concatenated (`ipixel_dcl concat`), and a transposed convolution of equal reach
(`transposed_conv 6x6`). All are timed in turn, round after round, after one round that does not count; times are
medians. Saved bytes: of the distinct storages that a forward pass keeps for the backward one, parameters and the
features apart. Multiply-adds: of convolutions and matrix products, a low-resolution pixel and in units of C^2;
DySample's sampling, 16 C, does not count. Grid share: of the energy of what becomes of constants, at the frequencies of
a 2x2 pattern. Replicas: their energy over the signal's. Both at initialisation, means of three.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from bench import machine
from bench.checkerboard import constant_grid_share, replica_db
from bench.measure import timed
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from autoseg.analysis.memory_tracker import SavedStorages
from autoseg.engine.environment import pick_device
from autoseg.errors import AutosegError, ConfigError
from autoseg.files import write_text
from autoseg.ops.interleave import interleave
from autoseg.ops.pixel_dcl import PLACES, HalfFilled
from autoseg.registry import UPSAMPLERS

SEEDS = (0, 1, 2)


class ZeroInsertion(nn.Module):
    """PixelDCL as published: F1 and F2 among zeros, and a masked kernel over all of it."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.maps = HalfFilled(in_channels, out_channels, kernel_size)
        places = torch.arange(kernel_size)
        self.register_buffer("mask", (places.unsqueeze(1) + places) % 2)

    def forward(self, features: Tensor, size: None = None, guide: Tensor | None = None) -> Tensor:
        first = self.maps.first(features)
        second = self.maps.second(first)
        zeros = torch.zeros_like(first)
        half = interleave((first, second, zeros, zeros), PLACES)
        return half + F.conv2d(half, self.maps.third * self.mask, padding=self.mask.shape[0] // 2)


class Concatenated(nn.Module):
    """iPixelDCL as published, inputs concatenated."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        widths = (in_channels, in_channels + out_channels, in_channels + 2 * out_channels)
        self.convs = nn.ModuleList(
            nn.Conv2d(width, outputs * out_channels, kernel_size, padding=kernel_size // 2, bias=False)
            for width, outputs in zip(widths, (1, 1, 2), strict=True)
        )

    def forward(self, features: Tensor, size: None = None, guide: Tensor | None = None) -> Tensor:
        first = self.convs[0](features)
        second = self.convs[1](torch.cat([features, first], 1))
        third, fourth = self.convs[2](torch.cat([features, first, second], 1)).chunk(2, 1)
        return interleave((first, second, third, fourth), PLACES)


class Transposed(nn.ConvTranspose2d):
    """With a 2k x 2k kernel for k = 3, called as the upsamplers are."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 6, stride=2, padding=2, bias=False)

    def forward(self, features: Tensor, size: None = None, guide: Tensor | None = None) -> Tensor:  # type: ignore[override]
        return super().forward(features)


BESIDE: dict[str, Callable[..., nn.Module]] = {
    "pixel_dcl zeros": ZeroInsertion,
    "ipixel_dcl concat": Concatenated,
    "transposed_conv 6x6": Transposed,
}


class Column(NamedTuple):
    """Of the table: its head, the key of the figures, how it is printed."""

    head: str
    key: str
    unit: float = 1.0
    form: str = ",.0f"


COLUMNS = (
    Column("parameters", "parameters"),
    Column("multiply-adds, C² a pixel", "products", form=".1f"),
    Column("forward, ms", "forward_s", 1e-3, ".2f"),
    Column("backward, ms", "backward_s", 1e-3, ".2f"),
    Column("saved, MB", "saved_bytes", 1e6, ".2f"),
    Column("grid share", "grid_share", form=".3f"),
    Column("replicas, dB", "replica_db", form=".1f"),
)


class Contender:
    """An upsampler from C to C channels with features, a guide and the gradient of a result."""

    def __init__(self, build: Callable[..., nn.Module], options: argparse.Namespace, device: torch.device) -> None:
        torch.manual_seed(0)
        layout = torch.channels_last if options.channels_last else torch.contiguous_format
        shape = (options.batch, options.channels, options.size, options.size)
        doubled = (*shape[:2], 2 * options.size, 2 * options.size)
        self.build, self.channels, self.device = partial(build, options.channels, options.channels), shape[1], device
        self.module = self.build().to(device).to(memory_format=layout)
        features, guide, way = (torch.randn(each, device=device) for each in (shape, doubled, doubled))
        self.features = features.contiguous(memory_format=layout).requires_grad_()
        self.guide, self.way = guide.contiguous(memory_format=layout), way.contiguous(memory_format=layout)
        self.result: Tensor | None = None

    def forward(self) -> None:
        self.result = self.module(self.features, None, self.guide)

    def backward(self) -> None:
        assert self.result is not None
        self.result.backward(self.way)
        self.result = None

    def time(self) -> tuple[float, float]:
        """Seconds forward and backward."""
        self.module.zero_grad(set_to_none=True)
        self.features.grad = None
        return timed(self.forward, self.device)[0], timed(self.backward, self.device)[0]

    def count(self) -> dict[str, float]:
        """What needs no clock; also the round that warms up."""
        saved = SavedStorages((*self.module.parameters(), *self.module.buffers(), self.features))
        with FlopCounterMode(display=False) as counter, saved:
            self.forward()
        self.backward()
        shares, replicas = [], []
        for seed in SEEDS:
            torch.manual_seed(seed)
            module = self.build()
            shares.append(constant_grid_share(module, self.channels, seed=seed))
            replicas.append(replica_db(module, self.channels, seed=seed))
        pixels = self.features.numel() // self.channels
        return {
            "parameters": sum(parameter.numel() for parameter in self.module.parameters()),
            "products": counter.get_total_flops() / 2 / pixels / self.channels**2,
            "saved_bytes": saved.total_bytes,
            "grid_share": statistics.fmean(shares),
            "replica_db": statistics.fmean(replicas),
        }


def measure(options: argparse.Namespace, device: torch.device) -> dict[str, dict[str, float]]:
    """Name -> figures."""
    builders = {name: upsampler.build for name, upsampler in UPSAMPLERS.items()} | BESIDE
    contenders = {name: Contender(build, options, device) for name, build in builders.items()}
    figures = {name: contender.count() for name, contender in contenders.items()}
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for number in range(options.repeats + 1):
        for name, contender in contenders.items():
            times = contender.time()
            if number:  # the first one warms up
                rounds[name].append(times)
    for name, times_of in rounds.items():
        forward, backward = (statistics.median(each) for each in zip(*times_of, strict=True))
        figures[name] |= {"forward_s": forward, "backward_s": backward}
    return figures


def table(figures: dict[str, dict[str, float]]) -> str:
    """In Markdown, a line an upsampler."""
    lines = ["| upsampler | " + " | ".join(column.head for column in COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    for name, of in figures.items():
        cells = (f"{of[column.key] / column.unit:{column.form}}" for column in COLUMNS)
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--size", type=int, default=32, help="height and width of the features")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=20, help="rounds that count")
    parser.add_argument("--threads", type=int, help="of the CPU; without it, PyTorch's choice")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--channels-last", action="store_true", help="the memory format of modules and features")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--markdown", help="write the table to this file")
    options = parser.parse_args(arguments)
    for name in ("channels", "size", "batch", "repeats"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name} must be at least 1, not {getattr(options, name)}", code="option-out-of-range")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        options = parse(arguments)
        device = pick_device(options.device)
        if options.threads:
            torch.set_num_threads(options.threads)
        figures = measure(options, device)
        text = table(figures)
        print(text)
        told: dict[str, Any] = {
            "machine": machine.describe(device),
            "options": vars(options),
            "upsamplers": figures,
        }
        for file, content in ((options.markdown, text), (options.json, json.dumps(told, indent=2))):
            if file:
                write_text(Path(file), content + "\n")
    except AutosegError as reason:
        print(f"error: {reason} [{reason.code}]", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
