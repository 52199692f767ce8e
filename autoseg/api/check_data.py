"""Checking a data set before a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoseg.config.base import merge, parse
from autoseg.config.data import DataConfig, data_settings
from autoseg.data.check.report import DataReport, check_dataset
from autoseg.errors import RunError
from autoseg.files import check_room, make_folder, to_yaml, user_path, write_text
from autoseg.setup.settings import Source, data_overrides

SETTINGS, SHEET, FIGURES = "data.yaml", "contact_sheet.png", "check_data.json"
"""The files in the folder `out`."""


def check_data(
    data: Source | DataConfig,
    *,
    split: str | None = None,
    out: str | Path | None = None,
    json_file: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
) -> DataReport:
    """Read a data set and report what it holds, which problems it has, and which settings fit it.

    Args:
        data: A folder of images and masks, a data YAML, "generated", or the data settings.
        split: Check only this split. Default: all splits.
        out: A folder for the proposed settings (data.yaml), a picture of samples (contact_sheet.png), and all figures
            and problems (check_data.json). Default: nothing is written.
        json_file: Another file for the figures and problems.
        overrides: Nested settings of the data, such as `{"data": {"resize": [512, 512]}}`.
        overwrite: Overwrite existing files.
        show_progress: Show a progress bar.

    Returns:
        The report. Problems of the data are in it and are no errors.

    Raises:
        AutosegError: an argument is wrong, or the folder's layout is unknown.
    """
    from autoseg.engine.log import Progress

    config = _config(data, overrides)
    folder, json_path = (None if place is None else user_path(place) for place in (out, json_file))
    _check_targets(folder, json_path, overwrite)
    with Progress("check", enabled=show_progress) as progress:
        report = check_dataset(config, split, progress.update)
    content = json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n"
    texts = {} if json_path is None else {json_path: content}
    if folder is not None:
        header = f"# {report.title}\n# proposed by `autoseg check-data`\n"
        texts |= {folder / SETTINGS: header + to_yaml(report.proposal), folder / FIGURES: content}
    for path, text in texts.items():
        make_folder(path.parent)
        write_text(path, text)
    if folder is not None:
        _draw(report, folder / SHEET)
    return report


def _config(data: Source | DataConfig, overrides: Mapping[str, Any] | None) -> DataConfig:
    changes = data_overrides(overrides)
    if isinstance(data, str | Path):
        return parse(DataConfig, merge(data_settings(data), changes), str(data))
    return parse(DataConfig, merge(data if isinstance(data, Mapping) else data.model_dump(exclude_unset=True), changes))


def _check_targets(folder: Path | None, json_file: Path | None, overwrite: bool) -> None:
    """Raises: RunError: a file cannot be written or exists already; checked before minutes of reading."""
    files = [] if folder is None else [folder / name for name in (SETTINGS, SHEET, FIGURES)]
    files += [] if json_file is None else [json_file]
    for file in files:
        if file.is_dir():
            raise RunError(f"{file} is a folder; give the name of a file", code="file-is-folder")
        if file.exists() and not overwrite:
            raise RunError(f"{file} exists; give another place, or --overwrite", code="file-exists")
    above = next((place for place in (folder, *folder.parents) if place.exists()), None) if folder else None
    if above is not None and not above.is_dir():
        raise RunError(f"{above} is no folder; give another --out", code="folder-is-file")
    for file in files:
        check_room(file)


def _draw(report: DataReport, path: Path) -> None:
    from autoseg.viz.palette import palette
    from autoseg.viz.samples import draw_contact_sheet
    from autoseg.viz.style import save

    if samples := report.samples():
        names, shown = zip(*samples, strict=True)
        classes = report.scan.config.classes
        figure = draw_contact_sheet(
            [sample.image for sample in shown], [sample.mask for sample in shown], names,
            palette(len(classes)), classes, report.scan.config.ignore_label,
        )  # fmt: skip
        save(figure, path)
