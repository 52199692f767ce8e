"""`autoseg check-data`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoseg.cli import options

if TYPE_CHECKING:
    from autoseg.data.check.report import DataReport

MOST_LINES = 10
"""Lines to print for each kind of problem; the JSON file has all."""


def check_data(
    data: Annotated[str, typer.Argument(help="A folder of images and masks, or a data YAML.")],
    split: Annotated[str | None, typer.Option(help="Check this split alone.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder for data.yaml, contact_sheet.png and check_data.json.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="A file for all figures and problems, as JSON.")] = None,
    set_: options.Set = None,
    overwrite: options.Overwrite = False,
    debug: options.Debug = False,
) -> None:
    """Tell what a data set is and holds, what is wrong with it, and which settings fit it, before a run.

    Problems are no error of this command; the last line says how many would stop a run.

    Example: autoseg check-data /data/mine --out checked
    """
    from autoseg.api.check_data import FIGURES, SETTINGS, SHEET
    from autoseg.api.check_data import check_data as check_api
    from autoseg.files import to_yaml

    report = check_api(
        data, split=split, out=out, json_file=json, overrides=options.overrides(set_), overwrite=overwrite
    )
    decisions = [["decisions:", *(f"  {line}" for line in report.scan.said)]] if report.scan.said else []
    blocks = [[report.title], *decisions, _splits(report), _classes(report), *_problems(report)]
    blocks.append(["proposed data YAML:", *(f"  {line}" for line in to_yaml(report.proposal).splitlines())])
    written = [json] if json else []
    written += [out / name for name in (SETTINGS, SHEET, FIGURES) if (out / name).exists()] if out else []
    blocks.append([*(f"wrote {path}" for path in written), _last_line(report)])
    options.say(*(line for number, block in enumerate(blocks) for line in ["", *block][number == 0 :]))


def _splits(report: DataReport) -> list[str]:
    heads = ("split", "images", "smallest", "median", "largest", "sizes", "ignored", "image files", "mask files")
    rows: list[Sequence[str]] = [heads]
    for name, summary in report.summary.items():
        sizes = [f"{width}x{height}" for height, width in summary.sizes] or ["-"] * 3
        kinds = [_kinds(found) for found in (summary.image_kinds, summary.mask_kinds)]
        different, ignored = f"{summary.different_sizes:,}", f"{summary.ignore_share:.1%}"
        rows.append((name, f"{summary.images:,}", *sizes, different, ignored, *kinds))
    return _table(rows, numbers=(1, 2, 3, 4, 5, 6))


def _kinds(kinds: Mapping[Any, int]) -> str:
    """The three commonest kinds of files, with their numbers if there are several kinds."""
    named = [f"{kind}" + (f" ({count:,})" if len(kinds) > 1 else "") for kind, count in kinds.items()]
    return ", ".join(named[:3] + ["..."] * (len(named) > 3)) or "-"


def _classes(report: DataReport) -> list[str]:
    """One line for each class: its share of the labelled pixels and its number of images, for each split."""
    heads = [f"{split} {figure}" for split in report.summary for figure in ("pixels", "images")]
    rows: list[Sequence[str]] = [("label", "class", *heads)]
    for label, name in enumerate(report.scan.config.classes):
        figures: list[str] = []
        for summary in report.summary.values():
            seen = int(summary.images_with[label])
            figures += [f"{summary.shares[label]:.2%}" if seen else "-", f"{seen:,}" if seen else "-"]
        rows.append((str(label), name, *figures))
    return _table(rows, numbers=(0, *range(2, 2 + len(heads))))


def _problems(report: DataReport) -> Iterator[list[str]]:
    """One block for each kind of problem: the number, and the first problems."""
    from autoseg.data.check.problems import KINDS

    for kind, group in groupby(report.problems, key=lambda problem: problem.kind):
        problems = list(group)
        stops = ", which would stop a run" if any(problem.stops for problem in problems) else ""
        lines = [f"{KINDS[kind]}: {len(problems):,}{stops}"]
        lines += [f"  {' '.join(problem.text.split())}" for problem in problems[:MOST_LINES]]
        if len(problems) > MOST_LINES:
            lines.append(f"  ... and {len(problems) - MOST_LINES:,} more")
        yield lines


def _last_line(report: DataReport) -> str:
    stopping, others = report.stopping, len(report.problems) - report.stopping
    said = "nothing would stop a run"
    if stopping:
        said = f"{stopping:,} problem{'s' * (stopping != 1)} would stop a run"
    return said + (f"; {others:,} more to look at" if others else "")


def _table(rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> list[str]:
    """Align columns; those in `numbers` to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    forms = [f"{'>' if column in numbers else '<'}{width}" for column, width in enumerate(widths)]
    return ["  ".join(map(format, row, forms)).rstrip() for row in rows]
