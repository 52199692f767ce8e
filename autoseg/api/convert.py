"""Writing a data set as plain files: an image and a mask of class labels for each sample, and a data YAML."""

from __future__ import annotations

import csv
import logging
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from autoseg.config.base import merge, parse
from autoseg.config.data import IMAGENET_MEAN, IMAGENET_STD, DataConfig, ResolvedDataConfig, data_settings
from autoseg.data.dataset import NEEDED, SegmentationDataset, open_dataset, resolve
from autoseg.data.io.channel_files import files_of
from autoseg.data.loading.threads import in_threads
from autoseg.engine.log import Progress
from autoseg.errors import DataError, RunError, printable
from autoseg.files import check_room, make_folder, to_yaml, user_path, write_text, writing
from autoseg.setup.settings import data_overrides

SETTINGS, GROUPS = "data.yaml", "groups.csv"

_log = logging.getLogger(__name__)


def convert(
    data: str | Path,
    out: str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    show_progress: bool = True,
) -> ResolvedDataConfig:
    """Write any data set that autoseg reads as images, masks of class labels, and a data YAML.

    Masks are PNGs of one channel: 0..num_classes - 1, and the ignore label. Images are copied as they are, in their own
    size: `data.resize` does not count here.

    Args:
        data: A folder, such as one with annotations of labelme, COCO, YOLO, CVAT, Label Studio or Supervisely, or a
            data YAML.
        out: The folder to write; it must not exist, or be empty.
        overrides: Nested settings of the data, such as `{"data": {"classes": ["road", "sky"]}}`.
        show_progress: Show a progress bar, and print what was decided of the data.

    Returns:
        The settings of the written data set.

    Raises:
        AutosegError: the data set cannot be read, has no files, or `out` holds files.
    """
    folder = user_path(out)
    with writing(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunError(f"{folder} exists; give a new folder", code="file-exists")
    check_room(folder)
    given = parse(DataConfig, merge(data_settings(data), data_overrides(overrides)), str(data))
    if given.layout == "generated":
        raise DataError("the generated set has no files; give a folder or a data YAML", code="no-files-to-check")
    said = list[str]()
    config = resolve(given.model_copy(update={"resize": None}), say=said.append if show_progress else None)
    try:
        with writing(folder):
            _write_all(config, folder, show_progress)
    except BaseException:  # half a data set would look like a whole one
        shutil.rmtree(folder, ignore_errors=True)
        raise
    for line in said:
        print(printable(line))
    return resolve(parse(DataConfig, data_settings(folder / SETTINGS), str(folder / SETTINGS)))


def _write_all(config: ResolvedDataConfig, folder: Path, show_progress: bool) -> None:
    """Write all splits, and last the settings. Raises: OSError; DataError: a split cannot be read."""
    written: dict[str, dict[str, str]] = {}
    rows: list[tuple[str, str]] = []
    for split in config.splits or {}:
        try:
            dataset = open_dataset(config, split)
        except DataError as reason:
            if split in NEEDED:
                raise
            _log.warning(f"split '{split}' is left out: {reason}")
            continue
        with Progress(split, len(dataset), enabled=show_progress) as bar:
            in_threads(partial(_write, dataset, folder, split), len(dataset), bar.update)
        if (groups := dataset.groups()) is not None:
            files = (f"{split}/images/{name}" for name in dataset.names)
            rows += zip(files, groups, strict=True)
        written[split] = {"images": f"{split}/images", "masks": f"{split}/masks"}
    settings = _settings(config, written)
    if rows:  # the files have other paths now
        with (folder / GROUPS).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("image", "group"), *rows])
        settings["group_by"] = f"csv:{GROUPS}:group"
    write_text(folder / SETTINGS, to_yaml(settings))


def _settings(config: ResolvedDataConfig, splits: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """The settings by which the written files are read as the data set was."""
    settings: dict[str, Any] = {
        "layout": "folder",
        "root": ".",
        "splits": splits,
        "classes": list(config.classes),
        "ignore_label": config.ignore_label,
        "label_map": {},
        "channels": config.channels,
        "pixel_type": config.pixel_type,
        "orientation": config.orientation,
    }
    if (config.mean, config.std) != (IMAGENET_MEAN, IMAGENET_STD):
        settings |= {"mean": list(config.mean), "std": list(config.std)}
    return settings


def _write(dataset: SegmentationDataset, folder: Path, split: str, index: int) -> None:
    """Copy the image, or the channels of its files as one NPY, and write the mask under its name."""
    source = dataset.image_path(index)
    assert source is not None, "a set of files"
    name, several = dataset.names[index], len(files_of(source)) > 1
    image = folder / split / "images" / f"{name}{'.npy' if several else source.suffix}"
    mask = folder / split / "masks" / f"{name}.png"
    for file in (image, mask):
        make_folder(file.parent)
    pixels, labels = dataset.decode(index)
    Image.fromarray(labels.astype(np.uint8 if labels.max(initial=0) < 256 else np.uint16)).save(mask)
    if several:
        np.save(image, pixels)
    else:
        shutil.copyfile(source, image)
