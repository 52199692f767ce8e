"""Writing a data set as plain files: an image and a mask of class labels for each sample, and a data YAML."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from autoseg.config.base import merge, parse
from autoseg.config.data import DataConfig, ResolvedDataConfig, data_settings
from autoseg.data.dataset import SegmentationDataset, open_dataset, resolve
from autoseg.data.loading.threads import in_threads
from autoseg.engine.log import Progress
from autoseg.errors import DataError, RunError
from autoseg.files import one_line, to_yaml, write_text
from autoseg.setup.settings import data_overrides

SETTINGS = "data.yaml"


def convert(
    data: str | Path,
    out: str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    show_progress: bool = True,
) -> ResolvedDataConfig:
    """Write any data set that autoseg reads as images, masks of class labels, and a data YAML.

    Masks are PNGs of one channel: 0..num_classes - 1, and the ignore label. Images are copied as they are.

    Args:
        data: A folder, such as one with annotations of labelme, COCO, YOLO, CVAT, Label Studio or Supervisely, or a
            data YAML.
        out: The folder to write; it must not exist, or be empty.
        overrides: Nested settings of the data, such as `{"data": {"classes": ["road", "sky"]}}`.
        show_progress: Show a progress bar.

    Returns:
        The settings of the written data set.

    Raises:
        AutosegError: the data set cannot be read, has no files, or `out` holds files.
    """
    folder = Path(out).expanduser()
    if folder.exists() and (not folder.is_dir() or next(folder.iterdir(), None) is not None):
        raise RunError(f"{folder} exists; give --out a new folder", code="file-exists")
    given = parse(DataConfig, merge(data_settings(data), data_overrides(overrides)), str(data))
    if given.layout == "generated":
        raise DataError("the generated set has no files; give a folder or a data YAML", code="no-files-to-check")
    config = resolve(given)
    written: dict[str, dict[str, str]] = {}
    try:
        for split in config.splits or {}:
            dataset = open_dataset(config, split)
            with Progress(split, len(dataset), enabled=show_progress) as bar:
                in_threads(partial(_write, dataset, folder, split), len(dataset), partial(_show, bar))
            written[split] = {"images": f"{split}/images", "masks": f"{split}/masks"}
        settings = {
            "layout": "folder",
            "root": ".",
            "splits": written,
            "classes": list(config.classes),
            "ignore_label": config.ignore_label,
        }
        write_text(folder / SETTINGS, to_yaml(settings))
    except OSError as reason:
        raise RunError(
            f"{folder} cannot be written ({one_line(reason)}); give another --out", code="file-unwritable"
        ) from None
    return resolve(parse(DataConfig, data_settings(folder / SETTINGS), str(folder / SETTINGS)))


def _show(bar: Progress, done: int, total: int) -> None:
    bar.update(done)


def _write(dataset: SegmentationDataset, folder: Path, split: str, index: int) -> None:
    """Copy the image, and write the mask under its name."""
    source = dataset.image_path(index)
    assert source is not None, "a set of files"
    name = dataset.names[index]
    image = folder / split / "images" / f"{name}{source.suffix}"
    mask = folder / split / "masks" / f"{name}.png"
    for file in (image, mask):
        file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, image)
    labels = dataset.decode(index).mask
    Image.fromarray(labels.astype(np.uint8 if labels.max(initial=0) < 256 else np.uint16)).save(mask)
