"""What a search iteration needs on a GPU that need not be there: kernels, bytes, operations, and least times.

    python scripts/gpu_estimate.py                                  auto_deeplab and fast, with every kernel setting
    python scripts/gpu_estimate.py --spaces tiny --json estimate.json

The steps are followed on tensors without data. Times are floors and no measurement: arithmetic at the rate of a large
matrix product, bytes at the rate of a large copy, launches one after the other. Where tensors stay in the L2 cache (50
MB on an H100), bytes go faster than that. `by itself`: the sum over the kernels of what each needs alone, at least 2
microseconds. `expected`: the same, where each kind of kernel reaches the share of the copy's rate that `EXPECTED` says.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from bench import launches
from bench.launches import KINDS, Launch

from autoseg.engine.config import SearchConfig
from autoseg.errors import AutosegError
from autoseg.files import write_text
from autoseg.planning import time as step_time
from autoseg.planning.memory import STEPS
from autoseg.setup.settings import search_config, search_sources
from autoseg.supernet.fast.kernels import KernelChoice

PAPER_IMAGES, CLASSES = 2975, 19
SPACES = ("auto_deeplab", "fast")
PRECISIONS = ("float32", "bf16")
VARIANTS = {
    "default": KernelChoice(),
    "channels_first": KernelChoice(layout="channels_first"),
    "product": KernelChoice(pointwise="product"),
    "channels_first, product": KernelChoice(layout="channels_first", pointwise="product"),
    "triton": KernelChoice(depthwise="triton"),
    "compile": KernelChoice(compile=True),
    "product, triton, compile": KernelChoice(pointwise="product", depthwise="triton", compile=True),
}


class Card(NamedTuple):
    """What a card reaches: FLOP/s, bytes/s read and written, seconds."""

    bf16: float = 798e12
    """A product of 8192x8192 matrices, measured on an H100; so is the copy."""
    tf32: float = 400e12
    """Of the data sheet. Convolutions of float32 use it, as is PyTorch's default."""
    float32: float = 60e12
    """Of the data sheet, without tensor cores: matrix products of float32, and depthwise convolutions of any kind."""
    bytes: float = 3.0e12
    eager: float = 4e-6
    """To launch a kernel, 3 to 5 microseconds."""
    graph: float = 1e-6
    """To launch a kernel of a CUDA graph."""
    shortest: float = 2e-6
    """A kernel that has next to nothing to do."""

    def rate(self, launch: Launch) -> float:
        """FLOP/s at best."""
        if launch.kind == launches.DEPTHWISE:
            return self.float32
        if launch.dtype is not torch.float32:
            return self.bf16
        return self.float32 if launch.kind == launches.PRODUCTS else self.tf32

    def alone(self, launch: Launch, share: float = 1.0) -> float:
        """Seconds that a kernel needs by itself, at a share of both rates."""
        return max(self.shortest, launch.moved_bytes / (share * self.bytes), launch.flops / (share * self.rate(launch)))


EXPECTED = {
    launches.DEPTHWISE: {"convolution, channels_last": 0.15, "convolution, channels_first": 0.4, "triton": 0.6},
    launches.POINTWISE: {"convolution, channels_last": 0.15, "convolution, channels_first": 0.1},
    launches.PRODUCTS: {"channels_last": 0.3, "channels_first": 0.4},
    launches.ATROUS: {"channels_last": 0.3, "channels_first": 0.2},
    launches.NORM: {"channels_last": 0.6, "channels_first": 0.5},
    launches.ELEMENTWISE: {"channels_last": 0.6, "channels_first": 0.8},
    launches.COPIES: {"channels_last": 0.5, "channels_first": 0.8},
    launches.SUMS: {"channels_last": 0.5, "channels_first": 0.7},
}
"""Shares of both rates that kinds of kernels may reach: guesses, there to be replaced by what is measured. cuDNN is
known to be slow at depthwise convolutions in channels_last and at groups of few channels; in channels_last a copy or a
sum of some channels touches 16 to 64 bytes in a row, and in channels_first tensor cores need their inputs turned."""
OTHERS = 0.7
"""That of all other kinds."""


def expected_share(kind: str, variant: KernelChoice) -> float:
    """The share of `EXPECTED` for a kind of kernel."""
    how = variant.depthwise if kind == launches.DEPTHWISE else variant.pointwise
    keys = (f"{how}, {variant.layout}", how, variant.layout)
    return next((EXPECTED[kind][key] for key in keys if key in EXPECTED.get(kind, {})), OTHERS)


def figures(found: Iterable[Launch], variant: KernelChoice, card: Card) -> dict[str, Any]:
    """Kernels, bytes, FLOPs and seconds of a step, and by kind."""
    found = list(found)
    kinds = {kind: [launch for launch in found if launch.kind == kind] for kind in KINDS}
    levels = {launch.level for launch in found} - {None}
    chains = [[launch for launch in found if launch.level == level] for level in sorted(levels)]
    main = [launch for launch in found if launch.level is None]
    longest = max((sum(map(card.alone, chain)) for chain in chains), default=0.0)
    moved = sum(launch.moved_bytes for launch in found) / card.bytes
    return {
        "kernels": len(found),
        "moved_bytes": sum(launch.moved_bytes for launch in found),
        "flops": sum(launch.flops for launch in found),
        "seconds": {
            "arithmetic": sum(launch.flops / card.rate(launch) for launch in found),
            "bytes": moved,
            "eager launches": len(found) * card.eager,
            "graph launches": len(found) * card.graph,
            "by itself": sum(map(card.alone, found)),
            "side by side": max(moved, sum(map(card.alone, main)) + longest),
            "expected": sum(card.alone(launch, expected_share(launch.kind, variant)) for launch in found),
        },
        "kinds": {
            kind: {
                "kernels": len(of_kind),
                "moved_bytes": sum(launch.moved_bytes for launch in of_kind),
                "flops": sum(launch.flops for launch in of_kind),
                "by itself": sum(map(card.alone, of_kind)),
            }
            for kind, of_kind in kinds.items()
            if of_kind
        },
    }


def estimate(space: str, precision: str, names: Sequence[str], card: Card, crop: int | None = None) -> dict[str, Any]:
    """The figures of a space's weight and architecture step at its own crop and batch, for some of `VARIANTS`."""
    search: dict[str, Any] = {"precision": precision, **({"crop": [crop, crop]} if crop else {})}
    data = {"layout": "generated", "num_classes": CLASSES}
    config = search_config(search_sources(space, data, None, {"device": "cpu", "search": search}))
    return {
        "space": config.space.name,
        "precision": precision,
        "crop": list(config.search.crop),
        "batch": config.search.batch_size,
        "paper": step_time.count_steps(config, PAPER_IMAGES)._asdict(),
        "variants": {name: variant_figures(config, VARIANTS[name], card) for name in names},
    }


def variant_figures(config: SearchConfig, variant: KernelChoice, card: Card) -> dict[str, Any]:
    """Of both steps."""
    counted = launches.count_steps(config, variant)
    return {step: figures(counted[step], variant, card) for step in STEPS}


# --- as text ----------------------------------------------------------------------------------------------------------


def both(of_variant: Mapping[str, Any], *keys: str) -> float:
    """A figure of an iteration: of both steps together; 0 for a kind of kernel that there is none of."""
    total = 0.0
    for step in STEPS:
        value: Any = of_variant[step]
        for key in keys:
            value = value.get(key, {})
        total += value or 0
    return total


def rows(header: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table, numbers to the right."""
    ruler = ["---", *["---:"] * (len(header) - 1)]
    return ["| " + " | ".join(line) + " |" for line in (header, ruler, *lines)]


def by_kind(result: Mapping[str, Any]) -> list[str]:
    """An iteration's kernels, bytes and operations by kind, most bytes first."""
    default = result["variants"]["default"]
    total = both(default, "moved_bytes")
    kinds = sorted(KINDS, key=lambda kind: -both(default, "kinds", kind, "moved_bytes"))
    lines = [
        [
            kind,
            f"{both(default, 'kinds', kind, 'kernels'):,.0f}",
            f"{both(default, 'kinds', kind, 'moved_bytes') / 1e9:.1f}",
            f"{both(default, 'kinds', kind, 'moved_bytes') / total:.0%}",
            f"{both(default, 'kinds', kind, 'flops') / 1e9:.0f}",
            f"{1000 * both(default, 'kinds', kind, 'by itself'):.1f}",
        ]
        for kind in kinds
    ]
    flops, alone = both(default, "flops") / 1e9, 1000 * both(default, "seconds", "by itself")
    lines.append(["all", f"{both(default, 'kernels'):,.0f}", f"{total / 1e9:.1f}", "", f"{flops:.0f}", f"{alone:.1f}"])
    return rows(("", "kernels", "GB", "share", "GFLOP", "by itself, ms"), lines)


FLOORS = {
    "arithmetic": "arithmetic",
    "bytes": "bytes",
    "eager launches": "launches, eager",
    "graph launches": "launches, CUDA graph",
    "by itself": "each kernel by itself, one after the other",
    "side by side": "the same, levels side by side",
}


def floors(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Milliseconds of a weight step, an architecture step and an iteration, and hours of the whole schedule."""
    lines = []
    for result in results:
        default, paper = result["variants"]["default"], result["paper"]
        for key, name in FLOORS.items():
            weight, architecture = (default[step]["seconds"][key] for step in STEPS)
            hours = (paper["weight"] * weight + paper["architecture"] * architecture) / 3600
            values = [f"{1000 * value:.1f}" for value in (weight, architecture, weight + architecture)]
            lines.append([f"{result['space']}, {result['precision']}: {name}", *values, f"{hours:.2f}"])
    return rows(("", "weight step, ms", "architecture step, ms", "iteration, ms", "schedule, hours"), lines)


def variants(result: Mapping[str, Any]) -> list[str]:
    """What each setting of `search.kernels` changes of an iteration."""
    lines = []
    base = both(result["variants"]["default"], "seconds", "expected")
    for name, found in result["variants"].items():
        expected = both(found, "seconds", "expected")
        lines.append(
            [
                name,
                f"{both(found, 'kernels'):,.0f}",
                f"{both(found, 'moved_bytes') / 1e9:.1f}",
                f"{1000 * both(found, 'seconds', 'by itself'):.1f}",
                f"{1000 * expected:.1f}",
                f"{base / expected:.2f}x",
            ]
        )
    return rows(("", "kernels", "GB", "by itself, ms", "expected, ms", "gain expected"), lines)


def report(results: Sequence[Mapping[str, Any]]) -> str:
    """All tables."""
    lines = ["Floors", "", *floors(results)]
    for result in results:
        height, width = result["crop"]
        of = f"{result['space']}, {height}x{width}, batch {result['batch']}, {result['precision']}"
        lines += ["", f"{of}: an iteration by kind", "", *by_kind(result)]
        if len(result["variants"]) > 1:
            lines += ["", f"{of}: settings of search.kernels", "", *variants(result)]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 where what was given is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--spaces", nargs="+", default=SPACES, help="by name or path; the first with every kernel setting")
    add("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    add("--crop", type=int, help="height and width; else each space's own")
    add("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args(arguments)
    card = Card()
    try:
        results = [
            estimate(space, precision, tuple(VARIANTS) if number == 0 else ("default",), card, options.crop)
            for number, space in enumerate(options.spaces)
            for precision in options.precisions
        ]
        print(report(results))
        if options.json:
            write_text(options.json, json.dumps({"card": card._asdict(), "results": results}, indent=1) + "\n")
    except AutosegError as reason:
        print(f"error: {reason} [{reason.code}]", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
