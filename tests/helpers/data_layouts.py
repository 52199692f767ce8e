"""The layouts that people have, each made of the same pairs: real ones where they are there, else generated ones.

Every maker writes a data set below a folder and returns what `--data` takes: the folder, or a YAML file in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from autoseg.config.data import DataConfig
from autoseg.data.dataset import open_dataset, resolve
from autoseg.engine.evaluate import spaced
from autoseg.viz.palette import palette

Pair: TypeAlias = tuple[np.ndarray, np.ndarray]
"""An image (H, W, 3) uint8 and its mask (H, W) uint8."""

CITYSCAPES = (23, 11, 17, 7, 8, 21, 20, 13, 26, 24, 33)
"""labelIds of CamVid's classes: sky, building, pole, road, sidewalk, vegetation, traffic sign, fence, car, person,
bicycle. Those of other sources stand for anything."""
ADE20K = (3, 2, 94, 7, 12, 5, 44, 33, 21, 13, 128)
"""The same in ADE20K, whose 150 count from 1: sky, building, pole, road, sidewalk, tree, signboard, fence, car, person,
bicycle."""
FOREGROUND = {"road": (3,), "background": (1, 2, 3, 4, 5, 6)}
"""Labels that are 255 in a binary mask, by a class that tells the source."""
SHIFT, GAIN = 300, 14
"""Of 16-bit images: 12 bits above an offset, as of a sensor."""


class Source(NamedTuple):
    """Pairs by split, train and val, with their classes and the label of pixels that belong to none."""

    splits: Mapping[str, Sequence[Pair]]
    classes: Sequence[str]
    ignore_label: int


def source(data: DataConfig, train: int, val: int) -> Source:
    """So many pairs of each split of a data set, evenly spaced."""
    config = resolve(data)
    sets = {split: open_dataset(config, split) for split in ("train", "val")}
    splits = {}
    for (split, dataset), count in zip(sets.items(), (train, val), strict=True):
        loaded = [dataset.load(index) for index in spaced(len(dataset), count)]
        splits[split] = [(sample.image, sample.mask.astype(np.uint8)) for sample in loaded]
    return Source(splits, sets["train"].classes, sets["train"].ignore_label)


def generated(size: tuple[int, int], train: int, val: int) -> Source:
    settings = {"size": size, "train": train, "val": val, "test": 1}
    return source(DataConfig.model_validate({"layout": "generated", "generated": settings}), train, val)


def write(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))


def renamed(pairs: Source, labels: Sequence[int], ignored: int) -> np.ndarray:
    """A table of 256 labels: those of the source become `labels`, the rest `ignored`."""
    table = np.full(256, ignored, dtype=np.uint8)
    table[: len(pairs.classes)] = labels[: len(pairs.classes)]
    return table


def cityscapes(pairs: Source, root: Path) -> Path:
    """leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and gtFine/SPLIT/CITY/*_gtFine_labelIds.png."""
    table = renamed(pairs, CITYSCAPES, 0)
    for split, samples in pairs.splits.items():
        for number, (image, mask) in enumerate(samples):
            city = ("aachen", "bochum", "ulm")[number % 3] if split == "train" else "lindau"
            stem = f"{split}/{city}/{city}_{number:06}_000019"
            write(image, root / f"leftImg8bit/{stem}_leftImg8bit.png")
            write(table[mask], root / f"gtFine/{stem}_gtFine_labelIds.png")
    return root


def ade20k(pairs: Source, root: Path) -> Path:
    """images/training/ADE_train_*.jpg and annotations/training/ADE_train_*.png, 150 classes from 1, 0 for none."""
    table = renamed(pairs, ADE20K, 0)
    for split, samples in pairs.splits.items():
        folder = {"train": "training", "val": "validation"}[split]
        for number, (image, mask) in enumerate(samples, start=1):
            write(image, root / f"images/{folder}/ADE_{split}_{number:08}.jpg")
            write(table[mask], root / f"annotations/{folder}/ADE_{split}_{number:08}.png")
    return root


def binary(pairs: Source, root: Path) -> Path:
    """images/*.jpg and masks/*.png of 0 and 255, without splits."""
    labels = next(labels for name, labels in FOREGROUND.items() if name in pairs.classes)
    for number, (image, mask) in enumerate(pair for samples in pairs.splits.values() for pair in samples):
        write(image, root / f"images/{number:04}.jpg")
        write(np.where(np.isin(mask, labels), 255, 0).astype(np.uint8), root / f"masks/{number:04}.png")
    return root


def colour_coded(pairs: Source, root: Path) -> Path:
    """SPLIT/images/*.png and SPLIT/masks/*.png in RGB, and a YAML with the colours; black is void."""
    colours = palette(len(pairs.classes))
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(colours)] = colours
    for split, samples in pairs.splits.items():
        for number, (image, mask) in enumerate(samples):
            write(image, root / f"data/{split}/images/{number:04}.png")
            write(table[mask], root / f"data/{split}/masks/{number:04}.png")
    lines = [f"  {name}: {colour.tolist()}" for name, colour in zip(pairs.classes, colours, strict=True)]
    if any((mask == pairs.ignore_label).any() for samples in pairs.splits.values() for _, mask in samples):
        lines.append("  void: [0, 0, 0]")
    path = root / "colours.yaml"
    path.write_text("\n".join(["root: data", "colours:", *lines]) + "\n", encoding="utf-8")
    return path


def sixteen_bit(pairs: Source, root: Path) -> Path:
    """SPLIT/images/*.png of one channel and 16 bits, SPLIT/masks/*.png; 255 for none."""
    table = renamed(pairs, range(len(pairs.classes)), 255)
    for split, samples in pairs.splits.items():
        for number, (image, mask) in enumerate(samples):
            grey = np.asarray(Image.fromarray(image).convert("L")).astype(np.uint16) * GAIN + SHIFT
            write(grey, root / f"{split}/images/{number:04}.png")
            write(table[mask], root / f"{split}/masks/{number:04}.png")
    return root


MAKERS: dict[str, Callable[[Source, Path], Path]] = {
    "cityscapes": cityscapes,
    "ade20k": ade20k,
    "binary": binary,
    "colour_coded": colour_coded,
    "sixteen_bit": sixteen_bit,
}
