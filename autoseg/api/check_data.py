"""Checking a data set before a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from autoseg.config.base import merge, parse
from autoseg.config.data import DataConfig, data_settings
from autoseg.data.check.report import DataReport, check_dataset
from autoseg.errors import RunError
from autoseg.files import one_line, to_yaml, write_text
from autoseg.setup.settings import Source, data_overrides

SETTINGS, SHEET, FIGURES = "data.yaml", "contact_sheet.png", "check_data.json"
"""What is written into the folder `out`."""


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
    """Read a data set, or one `split` of it, and say what it is, what is wrong with it, and which settings fit it.

    `out`: a folder for the proposed settings (data.yaml), a picture of samples (contact_sheet.png) and all figures and
    problems (check_data.json), which `json_file` can be given, too. Files that are there stay, unless `overwrite`.
    Problems are no errors. Raises: AutosegError: something that was given is wrong, or a folder that cannot be
    understood at all.
    """
    from autoseg.engine.log import Progress

    config = _config(data, overrides)
    folder = None if out is None else Path(out).expanduser()
    _check_targets(folder, None if json_file is None else Path(json_file).expanduser(), overwrite)
    with ExitStack() as stack:
        bars: list[Progress] = []

        def show(done: int, total: int) -> None:
            if not bars:  # how many there are is known only now
                bars.append(stack.enter_context(Progress("check", total, enabled=show_progress)))
            bars[0].update(done)

        report = check_dataset(config, split, show)
    content = json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n"
    if json_file is not None:
        _write(Path(json_file).expanduser(), lambda path: write_text(path, content))
    if folder is not None:
        header = f"# {report.title}\n# proposed by `autoseg check-data`\n"
        _write(folder / SETTINGS, lambda path: write_text(path, header + to_yaml(report.proposal)))
        _write(folder / FIGURES, lambda path: write_text(path, content))
        _draw(report, folder / SHEET)
    return report


def _config(data: Source | DataConfig, overrides: Mapping[str, Any] | None) -> DataConfig:
    changes = data_overrides(overrides)
    if isinstance(data, DataConfig):
        settings: Mapping[str, Any] = data.model_dump(exclude_unset=True)
    else:
        settings = data if isinstance(data, Mapping) else data_settings(data)
    where = str(data) if isinstance(data, str | Path) else ""
    return parse(DataConfig, merge(settings, changes), where)


def _check_targets(folder: Path | None, json_file: Path | None, overwrite: bool) -> None:
    """Before minutes of reading: nothing is there that must stay."""
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


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
    except OSError as reason:
        raise RunError(
            f"{path} cannot be written ({one_line(reason)}); give another place", code="file-unwritable"
        ) from None


def _draw(report: DataReport, path: Path) -> None:
    """The contact sheet, where any sample can be shown."""
    from autoseg.viz import draw
    from autoseg.viz.palette import palette

    if samples := report.samples():
        names, shown = zip(*samples, strict=True)
        classes = report.scan.config.classes
        figure = draw.draw_contact_sheet(
            [sample.image for sample in shown], [sample.mask for sample in shown], names,
            palette(len(classes)), classes, report.scan.config.ignore_label,
        )  # fmt: skip
        draw.save(figure, path)
