"""Whether single flipped bits in the files that a run depends on are noticed: checkpoints, arch files and the cache.

A search and a retraining of a second each leave the files. Then one random bit of a file is flipped at a time, the
file is read as a run reads it, and the bit is flipped back. The table says how many flips nothing noticed; if there is
any, the status is 1.

    python scripts/flip_bits.py --flips 500
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from helpers.tiny_runs import SPACE

import autoseg
from autoseg.analysis.gradient_file import NAME, GradientFile
from autoseg.config.data import ResolvedDataConfig
from autoseg.data.annotations.masks import annotations_in
from autoseg.data.dataset import open_dataset
from autoseg.data.loading.cache import fingerprint
from autoseg.data.loading.packed import TABLE, Layout, MappedSamples, SamplesError
from autoseg.engine.checkpoint import load_checkpoint
from autoseg.engine.config import RetrainConfig, SearchConfig
from autoseg.engine.run_directory import Run
from autoseg.errors import CheckpointError, RunError
from autoseg.files import cache_folder, read_sealed_json
from autoseg.space.snapshot import ArchProbs

SHORT: dict[str, Any] = {"epochs": 1, "batch_size": 2, "crop": [32, 32], "max_steps_per_epoch": 1, "store": "disk"}
IMAGES = 8


class Target(NamedTuple):
    """Files of a kind, and what says whether a changed bit in one of them is noticed."""

    name: str
    files: Sequence[Path]
    notices: Callable[[], bool]


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each kind of file. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=500, help="bits of each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    unnoticed, before = 0, os.environ.get("XDG_CACHE_HOME")
    logging.disable(logging.WARNING)  # each flip is said
    try:
        with tempfile.TemporaryDirectory() as name:
            os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
            print("| file | bytes | bits flipped | not noticed |\n|---|---|---|---|")
            for target in make_targets(Path(name)):
                missed = flip(target, options.flips, random.Random(options.seed))
                size = sum(file.stat().st_size for file in target.files)
                print(f"| {target.name} | {size:,} | {options.flips} | {missed} |", flush=True)
                unnoticed += missed
    finally:
        logging.disable(logging.NOTSET)
        os.environ.pop("XDG_CACHE_HOME")
        if before is not None:
            os.environ["XDG_CACHE_HOME"] = before
    return int(unnoticed > 0)


def flip(target: Target, flips: int, chance: random.Random) -> int:
    """The number of single flipped bits that are not noticed."""
    if target.notices():
        raise SystemExit(f"error: {target.name} is damaged before a bit is flipped")
    # all files of their folders, since a damaged folder of samples loses its table
    folders = {file.parent for file in target.files}
    contents = {file: file.read_bytes() for folder in folders for file in folder.iterdir() if file.is_file()}
    sizes, missed = [len(contents[file]) for file in target.files], 0
    for _ in range(flips):
        (file,) = chance.choices(target.files, sizes)
        changed = bytearray(contents[file])
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        file.write_bytes(changed)
        missed += not target.notices()
        for path, content in contents.items():
            path.write_bytes(content)
    return missed


def make_targets(folder: Path) -> list[Target]:
    """The files of a search and a retraining, and the cache of their images, made in a folder."""
    write_data(folder / "data")
    searched = autoseg.search(
        SPACE, folder / "data", folder / "a", show_progress=False,
        overrides={"search": {**SHORT, "arch_start_epoch": 0}, "device": "cpu"},
    )  # fmt: skip
    genotype = autoseg.decode(searched)
    changes = {"retrain": SHORT, "device": "cpu"}
    retrained = autoseg.retrain(searched.path, folder / "data", folder / "b", overrides=changes, show_progress=False)
    space = autoseg.SearchSpace.parse(SPACE)
    last, best = (retrained.checkpoints / name for name in ("last.pt", "best.pt"))
    arch, plain = searched.path / "arch" / "epoch_0000.npz", genotype.to_dict()
    return [
        Target("last.pt", [last], refuses(partial(load_checkpoint, last, "retrain", plain), CheckpointError)),
        Target("best.pt", [best], refuses(partial(load_checkpoint, best, "retrain", plain), CheckpointError)),
        Target("arch/epoch_0000.npz", [arch], refuses(partial(ArchProbs.load, arch, space), CheckpointError)),
        Target("arch/gradients.bin", [arch.with_name(NAME)], refuses(partial(read_gradients, searched), RunError)),
        *cache_targets(retrained.config(RetrainConfig).data, folder / "data"),
    ]


def read_gradients(run: Run) -> None:
    """Read the recorded gradients of a search of one step."""
    config = run.config(SearchConfig)
    file = GradientFile(run.path / "arch" / NAME, config.space, config.search.arch_optimizer, 0)
    file.start()
    file.read(0, 1)


def cache_targets(data: ResolvedDataConfig, root: Path) -> list[Target]:
    """The cache: decoded samples with their table, the facts of the files, and painted annotations."""
    dataset, cache = open_dataset(data, "train"), cache_folder()
    identity = fingerprint(dataset)
    assert identity is not None
    samples = cache / identity[0]
    sizes = [dataset.stored_size(index) for index in range(len(dataset))]
    layout = Layout(sizes, dataset.mask_dtype, dataset.channels, dataset.image_dtype)

    def read_samples() -> None:
        mapped = MappedSamples(samples, identity[1], layout, dataset.decode)
        for index in range(len(dataset)):
            mapped.tensors(index)
        if not (samples / TABLE).exists():  # a damaged sample was found
            raise SamplesError("is damaged")

    (looks,) = (cache / "looks").iterdir()
    found = annotations_in(root)
    assert found is not None
    painted = next(iter(found.images.values()))[0][2].parent

    def paints_anew() -> bool:
        before = painted.stat().st_ino
        annotations_in(root)
        return painted.stat().st_ino != before

    return [
        Target("the cache's samples", sorted(samples.glob("*.npy")), refuses(read_samples, SamplesError)),
        Target("the cache's table of samples", [samples / TABLE], refuses(read_samples, SamplesError)),
        Target("the cache's facts of the files", [looks], refuses(partial(read_sealed_json, looks), ValueError)),
        Target("the cache's painted annotations", sorted(painted.iterdir()), paints_anew),
    ]


def refuses(read: Callable[[], object], error: type[Exception]) -> Callable[[], bool]:
    """Whether reading raises the error."""

    def notices() -> bool:
        try:
            read()
        except error:
            return True
        return False

    return notices


def write_data(root: Path) -> None:
    """Images of noise with labelme annotations of two classes."""
    root.mkdir(parents=True)
    random_numbers = np.random.default_rng(0)
    for number in range(IMAGES):
        pixels = random_numbers.integers(0, 255, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
        shapes = [
            {"label": name, "points": [[left, 4], [left + 15, 4], [left + 15, 30], [left, 30]], "shape_type": "polygon"}
            for name, left in (("cat", 2), ("dog", 20))
        ]
        content = {"shapes": shapes, "imagePath": f"{number}.png", "imageHeight": 40, "imageWidth": 48}
        (root / f"{number}.json").write_text(
            json.dumps({"version": "5.2.1", "flags": {}, "imageData": None, **content})
        )


if __name__ == "__main__":
    raise SystemExit(main())
