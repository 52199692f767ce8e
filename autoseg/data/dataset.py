"""Opening the data set that a `DataConfig` describes, and filling in what it leaves out."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from autoseg.config import DataConfig
from autoseg.data.base import Sample, SegmentationDataset
from autoseg.data.folder import FolderDataset, greatest_label, list_pairs
from autoseg.data.generated import CLASSES, GeneratedDataset
from autoseg.data.layouts import checked_root, find_splits
from autoseg.errors import DataError

__all__ = ["Sample", "SegmentationDataset", "open_dataset", "resolve", "verify"]


def resolve(config: DataConfig) -> DataConfig:
    """`config` with `root`, `splits`, `num_classes` and `classes` filled in; a resolved one is returned as it is.

    Where neither the classes nor their number are given, the training masks are read: greatest label + 1.

    Raises: DataError: no such folder, no layout that is known, masks that cannot be read, or fewer than two classes.
    """
    if config.layout == "generated":
        return _with_classes(config, _generated_classes(config))
    if config.root and config.splits and config.classes and config.num_classes and Path(config.root).is_absolute():
        return config
    root = checked_root(config.root or "")
    splits = config.splits or find_splits(root)
    config = config.model_copy(update={"root": str(root), "splits": splits})
    if config.classes:
        return _with_classes(config, config.classes)
    number = config.num_classes or _count_classes(config, root)
    return _with_classes(config, tuple(f"class_{label}" for label in range(number)))


def open_dataset(config: DataConfig, split: str) -> SegmentationDataset:
    """The samples of `split` (`train`, `val`, `test`, or one that `config.splits` names). Files are read when loaded.

    Resolve `config` first where several splits are opened: a search for the classes then reads the masks once.

    Raises: DataError: no such folder or split, no images, images without masks, or a label map to no class.
    """
    config = resolve(config)
    if config.layout == "generated":
        return GeneratedDataset(
            config.generated, split, config.classes, config.ignore_label, config.label_map, config.resize
        )
    root = checked_root(config.root or "")
    return FolderDataset(
        root,
        _pairs(config, root, split),
        config.classes or (),
        config.ignore_label,
        config.label_map,
        config.resize,
    )


def verify(dataset: SegmentationDataset, progress: Callable[[int, int], None] | None = None) -> None:
    """Load every sample once, so that a long run fails at its start and not after hours; fills the cache.

    `progress(done, total)` is called after each sample.

    Raises: DataError: the first sample that cannot be used.
    """
    in_threads(dataset.load, len(dataset), progress)


def in_threads(work: Callable[[int], object], total: int, progress: Callable[[int, int], None] | None = None) -> None:
    """`work(index)` for 0..total-1, some at a time. What it raises first in this order is raised, and the rest left."""
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))

    def silent(index: int) -> None:
        work(index)  # results are dropped at once: together they may be larger than memory

    try:
        for done, _ in enumerate(pool.map(silent, range(total)), start=1):
            if progress is not None:
                progress(done, total)
    finally:
        pool.shutdown(cancel_futures=True)


def _with_classes(config: DataConfig, classes: tuple[str, ...]) -> DataConfig:
    return config.model_copy(update={"classes": classes, "num_classes": len(classes)})


def _generated_classes(config: DataConfig) -> tuple[str, ...]:
    if config.classes:
        return config.classes
    if config.num_classes:
        return tuple(f"class_{label}" for label in range(config.num_classes))
    if not config.label_map:
        return CLASSES
    used = {config.label_map.get(label, label) for label in range(len(CLASSES))} - {config.ignore_label}
    return tuple(f"class_{label}" for label in range(max(used, default=0) + 1))


def _pairs(config: DataConfig, root: Path, split: str) -> list[tuple[str, Path, Path]]:
    splits = config.splits or {}
    if split not in splits:
        raise DataError(f"{root} has no split '{split}'; it has {', '.join(splits)} (set others with data.splits)")
    return list_pairs(root, split, splits[split])


def _count_classes(config: DataConfig, root: Path) -> int:
    greatest = greatest_label(_pairs(config, root, "train"), config.label_map or {}, config.ignore_label)
    if greatest < 1:
        raise DataError(
            f"the training masks in {root} hold no label but 0 and the ignore label {config.ignore_label}, which makes"
            " fewer than two classes; give others with data.label_map or data.ignore_label, or set data.num_classes"
        )
    return greatest + 1
