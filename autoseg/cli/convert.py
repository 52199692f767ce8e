"""`autoseg convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import options


def convert(
    data: Annotated[
        str, typer.Argument(help="A folder, such as one with COCO or labelme annotations, or a data YAML.")
    ],
    out: Annotated[Path, typer.Argument(help="The folder to write: images, masks of labels, and data.yaml.")],
    set_: options.Set = None,
    debug: options.Debug = False,
) -> None:
    """Write a data set, such as polygons of a labelling program, as images and masks of class labels.

    Example: autoseg convert /data/labelme /data/masks
    """
    from autoseg.api.convert import SETTINGS
    from autoseg.api.convert import convert as convert_api
    from autoseg.data.dataset import describe_dataset
    from autoseg.files import shell_quoted

    config = convert_api(data, out, overrides=options.overrides(set_))
    options.say(describe_dataset(config))
    options.say(f"wrote {out / SETTINGS}; next: autoseg check-data {shell_quoted(out / SETTINGS)}")
