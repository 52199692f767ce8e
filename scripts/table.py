"""Train every network of a table's space, and pack the results into one file.

    python scripts/table.py train --out runs/table --seeds 0,1 --pilot 10
    python scripts/table.py train --out runs/table --seeds 0 --part 1/2
    python scripts/table.py inherited --out runs/table --run runs/search_of_the_table
    python scripts/table.py pack --out runs/table --file autoseg/tabular/tables/table_216.npz
    python scripts/table.py train --out runs/table --seeds 1 --again 72

`train` scales each network to the space's cost and trains it on generated images; it evaluates the averaged weights
after a ninth, a third and the whole of one schedule. It writes one file a training, goes on where it stopped, and skips
what `--table` holds. `--part 2/3` takes every third network from the second on; `--pilot N` and `--again N` take N
networks drawn at random. `inherited` scores all networks by the supernet of a search. `pack` makes the table, or
completes `--table`; `scripts/table_report.py` says what it holds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from one_line import Parser

from autoseg.config.base import merge, parse_assignments
from autoseg.data.base import SegmentationDataset
from autoseg.data.dataset import open_dataset
from autoseg.data.loading.loader import evaluation_batches
from autoseg.engine.config import RetrainConfig, SearchConfig
from autoseg.engine.evaluate import evaluate_network
from autoseg.engine.gap import load_supernet, take_statistics
from autoseg.engine.run_directory import Run
from autoseg.errors import AutosegError, TableError
from autoseg.files import seal, write_atomically
from autoseg.genotype.design import Genes, enumerate_genes, genotype_of, label_of, macro_of
from autoseg.genotype.scale import channels_of
from autoseg.genotype.schema import Genotype
from autoseg.setup.settings import retrain_config, retrain_sources
from autoseg.space.schema import load_space
from autoseg.tabular.table import Table
from autoseg.tabular.train import Trained, train
from autoseg.zoo.match_cost import megapixel_target, scale_to_cost

DATA = {"generated": {"size": [64, 64], "train": 400, "val": 192, "noise": 0.03}}
CLASSES = 7
SHARES = (9, 3, 1)
"""A network is evaluated after the whole schedule divided by these."""
PILOT_SEED, AGAIN_SEED = 5, 6
STATISTICS_IMAGES = 128


class Recipe:
    """The space of a table, and how its networks are trained."""

    def __init__(self, name: str, changes: dict[str, Any]) -> None:
        self.space, schedules = load_space(name)
        self.data: dict[str, Any] = merge(DATA, changes.get("data", {}))
        self.retrain: dict[str, Any] = merge(schedules["retrain"], changes.get("retrain", {}))
        self.target = megapixel_target(macro_of(self.space).cost or 1)
        epochs = self.retrain["epochs"]
        self.stops = tuple(max(1, epochs // share) for share in SHARES)

    def scaled(self, genes: Genes) -> Genotype:
        """A network of the space at its cost."""
        return scale_to_cost(genotype_of(self.space, genes), self.target, CLASSES)

    def config(self, genotype: Genotype, seed: int) -> RetrainConfig:
        """All settings of a training."""
        overrides = {"seed": seed, "device": "cpu", "data": self.data, "retrain": self.retrain}
        return retrain_config(retrain_sources(genotype, "generated", overrides=overrides))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the table."""
        return {"data": self.data, "retrain": self.retrain, "num_classes": CLASSES}


def place(out: Path, seed: int, member: int) -> Path:
    """The file of a training."""
    return out / f"seed{seed}" / f"{member:03d}.npz"


def missing(out: Path, seeds: Sequence[int], members: Sequence[int], table: Table | None) -> Iterator[tuple[int, int]]:
    """Seeds and members that are neither in `out` nor in the table."""
    for seed in seeds:
        for member in members:
            held = table is not None and seed < table.seeds and bool(table.trained[seed, member])
            if not held and not place(out, seed, member).exists():
                yield seed, member


def train_members(given: argparse.Namespace) -> None:
    """Train what is missing of a part of the members."""
    recipe: Recipe = given.recipe
    members = list(enumerate_genes(recipe.space))
    chosen = list(range(len(members)))
    for number, seed in ((given.pilot, PILOT_SEED), (given.again, AGAIN_SEED)):
        if number:
            chosen = np.random.default_rng(seed).permutation(len(members))[:number].tolist()
    part, parts = given.part
    todo = list(missing(given.out, given.seeds, chosen[part - 1 :: parts], given.table))
    torch.set_num_threads(1)
    sets: tuple[SegmentationDataset, SegmentationDataset] | None = None
    for number, (seed, member) in enumerate(todo, start=1):
        genotype = recipe.scaled(members[member])
        config = recipe.config(genotype, seed)
        sets = sets or (open_dataset(config.data, "train"), open_dataset(config.data, "val"))
        trained = train(config, *sets, recipe.stops)
        save(place(given.out, seed, member), genotype, trained)
        print(f"{number}/{len(todo)} seed {seed} member {member}: {trained.scores[-1].miou:.4f}", flush=True)


def save(path: Path, genotype: Genotype, trained: Trained) -> None:
    """Write the results of a training."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = trained.scores[-1].images
    assert images is not None  # scores of a whole set have them
    arrays = {
        "miou": np.array([scores.miou for scores in trained.scores]),
        "loss": np.array(trained.losses),
        "counts": images[:, [0, 2]].astype(np.uint16),
        "true": images[:, 1].astype(np.uint16),
        "channels": np.array(channels_of(genotype)),
        "cost": np.array([trained.parameters, trained.multiply_adds]),
        "seconds": np.array(trained.seconds),
    }

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        seal(temporary)

    write_atomically(path, write)


def inherited(given: argparse.Namespace) -> None:
    """Score every network by a trained supernet that is reduced to it, with BatchNorm's statistics taken anew."""
    space = given.recipe.space
    config = Run.open(given.run).config(SearchConfig)
    if config.space.to_dict() != space.to_dict():
        raise TableError(f"{given.run} searched another space than '{space.name}'; give --space", code="run-differs")
    torch.set_num_threads(1)
    supernet, _ = load_supernet(Run.open(given.run), config)
    train_set, val_set = open_dataset(config.data, "train"), open_dataset(config.data, "val")
    chosen, mean, std = range(STATISTICS_IMAGES), config.data.mean, config.data.std
    scores: dict[str, float] = {}  # decoder and upsampler are not in the supernet
    rows = []
    for genes in enumerate_genes(space):
        key = str([label_of(genes[gene]) for gene in ("network", "width", "block")])
        if key not in scores:
            supernet.choose(genotype_of(space, genes))
            take_statistics(supernet, (images for _, images, _ in evaluation_batches(train_set, chosen, mean, std, 32)))
            scores[key] = evaluate_network(supernet, val_set, config.data, torch.device("cpu"), batch_size=32)[0].miou
            print(f"{key}: {scores[key]:.4f}", flush=True)
        rows.append(scores[key])
    given.out.mkdir(parents=True, exist_ok=True)
    np.save(given.out / f"inherited {given.run.name}.npy", np.array(rows))


def pack(given: argparse.Namespace) -> None:
    """Make the table of all trainings in `out`, and of those in --table."""
    recipe: Recipe = given.recipe
    space, count = recipe.space, len(list(enumerate_genes(recipe.space)))
    files = sorted(given.out.glob("seed*/*.npz"))
    found = {(int(file.parent.name[4:]), int(file.stem)): dict(np.load(file)) for file in files}
    old: Table | None = given.table
    seeds = max([seed + 1 for seed, _ in found] + ([] if old is None else [old.seeds]), default=0)
    if not seeds:
        raise TableError(f"{given.out} holds no training; run `train` first", code="table-empty")
    true = old.true if old is not None else next(iter(found.values()))["true"]
    images, classes = true.shape
    miou = np.full((seeds, len(SHARES), count), np.nan, np.float32)
    loss, seconds = miou.copy(), np.full((seeds, count), np.nan, np.float32)
    counts = np.zeros((seeds, count, images, 2, classes), np.uint16)
    costs, channels = np.zeros((count, 2), np.int64), [()] * count
    if old is not None:
        there = slice(old.seeds)
        miou[there], loss[there], seconds[there], counts[there] = old.miou, old.loss, old.seconds, old.counts
        costs, channels = np.stack([old.parameters, old.multiply_adds], 1), [tuple(of) for of in old.channels]
    for (seed, member), row in found.items():
        miou[seed, :, member], loss[seed, :, member], seconds[seed, member] = row["miou"], row["loss"], row["seconds"]
        counts[seed, member], costs[member] = row["counts"], row["cost"]
        channels[member] = tuple(row["channels"].tolist())
    scores = {} if old is None else dict(old.inherited)
    scores |= {file.stem.removeprefix("inherited "): np.load(file) for file in given.out.glob("inherited *.npy")}
    about = space, recipe.to_dict(), recipe.stops, channels
    table = Table(*about, miou, loss, counts, true, costs[:, 0], costs[:, 1], seconds, scores)
    given.file.parent.mkdir(parents=True, exist_ok=True)
    table.save(given.file)
    size = given.file.stat().st_size
    print(f"{given.file}: {int(table.trained.sum())} trainings of {count} networks, {size:,} bytes")


# --- command line -----------------------------------------------------------------------------------------------------


def numbers(text: str) -> list[int]:
    """`0,1` -> [0, 1]."""
    return [int(part) for part in text.split(",")]


def fraction(text: str) -> tuple[int, int]:
    """`1/2` -> (1, 2)."""
    part, parts = map(int, text.split("/"))
    if not 1 <= part <= parts:
        raise ValueError
    return part, parts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the steps. Returns the exit status."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["train", "inherited", "pack"])
    parser.add_argument("--out", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--space", default="table_216", help="search space whose networks can be listed")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of data. or retrain., another recipe")
    parser.add_argument("--table", type=Table.load, help="a table that holds some of the trainings")
    parser.add_argument("--seeds", type=numbers, default=[0], help="seeds, with commas")
    parser.add_argument("--pilot", type=int, default=0, help="train this many networks, drawn at random")
    parser.add_argument("--again", type=int, default=0, help="as --pilot, but others: for a second training")
    parser.add_argument("--part", type=fraction, default=(1, 1), help="I/N: every Nth network, from the Ith on")
    parser.add_argument("--run", type=Path, help="a search of the space, for inherited")
    parser.add_argument("--file", type=Path, help="the table to write")
    try:
        given = parser.parse_args(arguments)
        if given.step == "pack" and given.file is None:
            parser.error("pack needs --file, the table to write")
        if given.step == "inherited" and given.run is None:
            parser.error("inherited needs --run, a search of the space")
        given.recipe = Recipe(given.space, parse_assignments(given.set))
        {"train": train_members, "inherited": inherited, "pack": pack}[given.step](given)
    except AutosegError as reason:
        print(f"error: {reason}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
