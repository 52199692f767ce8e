"""Does a search wait for its data? Step time with the loader's batches against step time on one fixed batch.

Usage: python scripts/bench_data.py [--data generated|DIR|YAML] [--device cpu|cuda] [--set search.batch_size=8]

A step is the weight step of a search. Blocks of steps of either kind take turns; given are medians over the blocks.
The second table is the time of one batch by each way of making it, the network left out.
"""

import argparse
import json
import statistics
import tempfile
import time

import torch

from autoseg.config.base import parse_assignments
from autoseg.data.dataset import open_dataset
from autoseg.data.loading.cache import keep_samples
from autoseg.data.loading.loader import BatchLoader
from autoseg.engine.environment import describe_environment, pick_device
from autoseg.engine.search import SearchTask
from autoseg.setup.settings import search_config, search_sources

PLACES = ("device", "memory", "disk", "none")


def main():
    arguments = parse_arguments()
    device = pick_device(arguments.device)
    config = search_config(search_sources(arguments.space, arguments.data, overrides=parse_assignments(arguments.set)))
    steps = time_steps(config, device, arguments.blocks, arguments.steps)
    batches = time_batches(config, device, arguments.blocks, arguments.steps, arguments.workers)
    added = steps["with data"] / steps["fixed batch"] - 1
    show("a weight step", steps)
    print(f"data adds {100 * added:.1f}% to a step\n")
    show("a batch", batches)
    if arguments.json:
        result = {
            "environment": describe_environment(device, config.seed),
            "data": arguments.data,
            "space": arguments.space,
            "search": config.search.to_dict(),
            "step_ms": steps,
            "added_share": added,
            "batch_ms": batches,
        }
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="tiny")
    parser.add_argument("--data", default="generated", help="generated, a folder, or a data YAML")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the search")
    parser.add_argument("--blocks", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="steps in a block")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args()


def time_steps(config, device, blocks, steps):
    """Milliseconds a step on new batches, and on one that stays on the device."""
    train, val = (open_dataset(config.data, split) for split in ("train", "val"))
    keep_samples(train, config.search.store, device, config.search.cache_dir)
    task = SearchTask(config, train, val, device)
    fixed = tuple(part.to(device) for part in next(task.loader_a.epoch(0)))
    in_order = task.loader_a.epoch(0, steps=(blocks + 1) * steps)

    def with_data():
        for _ in range(steps):
            task.step(([next(in_order)], None), 0, 0)

    def on_fixed():
        for _ in range(steps):
            task.step(([fixed], None), 0, 0)

    return medians({"with data": with_data, "fixed batch": on_fixed}, blocks, steps, device)


def time_batches(config, device, blocks, steps, workers):
    """Milliseconds a batch by each way of making it, on the device at the end."""
    schedule, ways = config.search, {}
    with tempfile.TemporaryDirectory() as folder:
        for place in PLACES:
            train = open_dataset(config.data, "train")
            train.cache_bytes = 0
            if keep_samples(train, place, device, folder) != place:
                continue
            kinds = {"at once": (device, 0)}
            if place != "device":
                kinds["Pillow"] = (None, 0)
            if place == "none":
                kinds[f"Pillow in {workers} workers"] = (None, workers)
            for kind, (at_once, count) in kinds.items():
                loader = BatchLoader(
                    train, range(len(train)), schedule.batch_size, crop=schedule.crop, augment=schedule.augment,
                    mean=config.data.mean, std=config.data.std, seed=0, stream="bench", workers=count, device=at_once,
                )  # fmt: skip
                ways[f"{kind}, from {place}"] = lambda loader=loader: draw(loader, steps, device)
        return medians(ways, blocks, steps, device)


def draw(loader, steps, device):
    for batch in loader.epoch(0, steps=steps):
        for part in batch:
            part.to(device, non_blocking=True)


def medians(ways, blocks, steps, device):
    """Milliseconds a step of each; the blocks take turns, and a first one of each is not counted."""
    seconds = {name: [] for name in ways}
    for block in range(blocks + 1):
        for name, way in ways.items():
            synchronize(device)
            started = time.perf_counter()
            way()
            synchronize(device)
            if block > 0:
                seconds[name].append((time.perf_counter() - started) / steps)
    return {name: 1000 * statistics.median(values) for name, values in seconds.items()}


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def show(what, figures):
    print(f"| {what} | ms |\n|---|---|")
    for name, value in figures.items():
        print(f"| {name} | {value:.2f} |")


if __name__ == "__main__":
    main()
