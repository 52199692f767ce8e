"""Every upsampler in the same small U-Net, trained alike on one data set: which is better, and by more than the seeds?

    python scripts/compare_upsamplers.py --out runs/upsamplers
    python scripts/compare_upsamplers.py --data data_sets/camvid.yaml --set data.root=/data/camvid \
        --set 'data.resize=[120, 160]' --out runs/upsamplers-camvid

The U-Net (Ronneberger et al. 2015) has batch normalisation and padded convolutions; on the way up each upsampler goes
from one width to the next, BatchNorm and ReLU follow, then the feature of the way down is concatenated. For every
upsampler and seed: mIoU, boundary F-score (2 pixels) and the checkerboard of the logits on val after the last epoch,
parameters, and the median seconds of a training step. Everything goes to --out: results.json and results.md. Started
again with the same settings it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from bench import machine
from bench.checkerboard import logits_checkerboard
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.analysis.flops import count_parameters
from autoseg.config.base import merge, parse, parse_assignments
from autoseg.config.data import DataConfig, data_settings
from autoseg.config.training import RetrainSchedule
from autoseg.data.dataset import SegmentationDataset, open_dataset, resolve
from autoseg.data.loading.cache import keep_samples
from autoseg.data.loading.loader import evaluation_batches
from autoseg.engine.config import RetrainConfig
from autoseg.engine.environment import pick_device
from autoseg.engine.optim import build_optimizer, set_learning_rate
from autoseg.engine.training import make_loader
from autoseg.errors import AutosegError, ConfigError
from autoseg.files import write_text
from autoseg.losses.losses import SegmentationLoss
from autoseg.metrics.confusion import ConfusionMatrix
from autoseg.metrics.details import BoundaryFScore
from autoseg.ops.resize import level_size
from autoseg.ops.upsample import build_upsampler
from autoseg.registry import UPSAMPLERS
from autoseg.space.resolution import parse_upsampler


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions, each with BatchNorm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        for before, after in ((in_channels, out_channels), (out_channels, out_channels)):
            self.extend([nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()])


class SmallUNet(nn.Module):
    """(N, 3, H, W) -> logits (N, K, H, W); any size. Halved by max pooling, doubled by the upsampler."""

    def __init__(self, upsampler: str, num_classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.down = nn.ModuleList(map(DoubleConv, (3, *widths), widths))
        self.up = nn.ModuleList(map(build_upsampler, [upsampler] * len(widths[1:]), widths[1:], widths[:-1]))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[:-1])
        self.join = nn.ModuleList(DoubleConv(2 * width, width) for width in widths[:-1])
        self.classifier = nn.Conv2d(widths[0], num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        size = (images.shape[-2], images.shape[-1])
        features, skips = images, []
        for level, block in enumerate(self.down):
            if level:
                features = F.max_pool2d(features, 2, ceil_mode=True)
            features = block(features)
            skips.append(features)
        for level in reversed(range(len(self.up))):
            raised = self.up[level](features, level_size(size, 1 << level), skips[level])
            features = self.join[level](torch.cat([F.relu(self.norms[level](raised)), skips[level]], 1))
        logits: Tensor = self.classifier(features)
        return logits


class Experiment:
    """One data set and schedule, for any upsampler and seed."""

    def __init__(self, data: DataConfig, schedule: RetrainSchedule, widths: Sequence[int], device: torch.device):
        self.data, self.schedule, self.widths, self.device = resolve(data), schedule, widths, device
        self.train, self.val = open_dataset(self.data, "train"), open_dataset(self.data, "val")
        for split in (self.train, self.val):
            keep_samples(split, schedule.store, device, schedule.cache_dir)

    def __call__(self, upsampler: str, seed: int) -> dict[str, float]:
        """Train and measure."""
        torch.manual_seed(seed)
        network = SmallUNet(upsampler, self.train.num_classes, self.widths).to(self.device)
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        seconds = self._fit(network, seed)
        return {"parameters": count_parameters(network), "step_seconds": seconds, **self._measure(network, self.val)}

    def _fit(self, network: nn.Module, seed: int) -> float:
        """The median seconds of a step."""
        schedule = self.schedule
        optimizer = build_optimizer(schedule.optimizer, network.parameters())
        config = RetrainConfig.model_construct(data=self.data, retrain=schedule, seed=seed)  # no network of autoseg
        loader = make_loader(config, self.train, list(range(len(self.train))), "train", self.device)
        seconds = []
        for epoch in range(schedule.epochs):
            for number, (images, masks) in enumerate(loader.epoch(epoch, 0, len(loader))):
                step = epoch * len(loader) + number
                begin = time.perf_counter()
                set_learning_rate(optimizer, schedule, step, len(loader))
                optimizer.zero_grad()
                logits = network(images.to(self.device).contiguous(memory_format=torch.channels_last))
                loss = SegmentationLoss(self.train.ignore_label)(logits, masks.to(self.device))
                loss.backward()
                optimizer.step()
                loss.item()  # waits for a GPU
                seconds.append(time.perf_counter() - begin)
        return statistics.median(seconds)

    @torch.no_grad()
    def _measure(self, network: nn.Module, split: SegmentationDataset) -> dict[str, float]:
        network.eval()
        confusion = ConfusionMatrix(split.num_classes, split.ignore_label)
        boundary = BoundaryFScore(split.num_classes, split.ignore_label)
        shares = []
        batches = evaluation_batches(
            split, list(range(len(split))), self.data.mean, self.data.std, self.schedule.batch_size, self.device
        )
        for _, images, masks in batches:
            logits = network(images.contiguous(memory_format=torch.channels_last))
            confusion.update(logits.argmax(1), masks)
            boundary.update(logits.argmax(1), masks)
            shares.append(float(logits_checkerboard(logits)))
        scores = confusion.scores(split.classes)
        return {"miou": scores.miou, "boundary_f": boundary.mean(), "checkerboard": statistics.fmean(shares)}


# --- results ----------------------------------------------------------------------------------------------------------


def table(results: Mapping[str, Any]) -> str:
    """Markdown: mean and standard deviation over the seeds, best mIoU first; the checkerboard in thousandths."""
    rows = ["| upsampler | mIoU | boundary F | checkerboard, ‰ | parameters | step |", "|---|---|---|---|---|---|"]
    found = {name: list(runs.values()) for name, runs in results["runs"].items() if runs}
    for name, runs in sorted(found.items(), key=lambda of: -statistics.fmean(run["miou"] for run in of[1])):
        step = 1e3 * statistics.median(run["step_seconds"] for run in runs)
        rows.append(
            f"| `{name}` | {_spread(runs, 'miou')} | {_spread(runs, 'boundary_f')}"
            f" | {_spread(runs, 'checkerboard', 1000, 1)} | {runs[0]['parameters']:,} | {step:.0f} ms |"
        )
    return "\n".join(rows) + "\n"


def _spread(runs: Sequence[Mapping[str, float]], key: str, factor: float = 1.0, digits: int = 3) -> str:
    values = [factor * run[key] for run in runs]
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{deviation}"


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", default="generated", help="generated, a folder or a data YAML")
    add("--out", type=Path, required=True, help="folder of the results")
    add("--upsamplers", default=",".join(UPSAMPLERS), metavar="A,B", help="which (all)")
    add("--seeds", type=int, default=3, help="seeds 0, 1, ... (3)")
    add("--widths", default="8,16,32,64", metavar="A,B", help="channels at strides 1, 2, 4, ... (8,16,32,64)")
    add(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="data.KEY or retrain.KEY, as in autoseg retrain"
    )
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--threads", type=int, help="CPU threads (as PyTorch chooses)")
    return parser.parse_args(arguments)


DEFAULTS = {
    "epochs": 12,
    "batch_size": 8,
    "crop": [96, 96],
    "augment": {"scale": [0.75, 1.5], "flip": 0.5},
    "optimizer": {"name": "adamw", "lr": 4e-3, "weight_decay": 1e-2},
    "schedule": {"name": "poly", "power": 0.9},
}
"""Of training, in the terms of `retrain`."""


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train what is not there yet; returns every figure."""
    if options.threads:
        torch.set_num_threads(options.threads)
    given, device = parse_assignments(options.set), pick_device(options.device)
    data = parse(DataConfig, merge(data_settings(options.data), given.get("data", {})))
    schedule = parse(RetrainSchedule, merge(DEFAULTS, given.get("retrain", {})))
    names, widths = options.upsamplers.split(","), [int(width) for width in options.widths.split(",")]
    for name in names:
        try:
            parse_upsampler(name)
        except ValueError as reason:
            raise ConfigError(f"--upsamplers: {reason}", code="upsampler-invalid") from None
    settings = {"data": data.to_dict(), "retrain": schedule.to_dict(), "widths": widths}
    path = options.out / "results.json"
    results = json.loads(path.read_text()) if path.is_file() else {"settings": settings, "runs": {}}
    if results["settings"] != json.loads(json.dumps(settings)):
        raise ConfigError(f"{path} is of other settings; give another --out", code="results-settings-differ")
    results["machine"] = machine.describe(device)
    experiment = Experiment(data, schedule, widths, device)
    for seed in range(options.seeds):
        for name in names:
            runs = results["runs"].setdefault(name, {})
            if str(seed) not in runs:
                runs[str(seed)] = experiment(name, seed)
                print(f"{name}, seed {seed}: mIoU {runs[str(seed)]['miou']:.3f}", file=sys.stderr)
                options.out.mkdir(parents=True, exist_ok=True)
                write_text(path, json.dumps(results, indent=1))
                write_text(options.out / "results.md", table(results))
    return results  # type: ignore[no-any-return]


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 where what was given is wrong."""
    try:
        print(table(run(parse_options(arguments))), end="")
    except AutosegError as reason:
        print(f"error: {reason} [{reason.code}]", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
