"""The look of every figure: colours that colour-blind readers tell apart, one font, and how figures are saved."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure
from matplotlib.text import Text

from autoseg.errors import ConfigError, printable
from autoseg.files import make_folder, user_path, write_atomically

FONT_SIZE = 9.0
SMALL = 8.0

INK, MUTED, PALE, FAINT = "#222222", "#777777", "#C8C8C8", "#F4F4F4"
BLUE, ORANGE, GREEN, VERMILION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
"""Okabe and Ito's palette: readers with the common kinds of colour blindness tell these apart."""

FORMATS = ("svg", "png", "pdf")
PNG_DPI = 200
TIE_WIDTH, TIE_STYLE = 1.1, (0.0, (3.2, 1.6))
"""Width in points and dashes of a choice that the search has not decided."""
BAR_HEIGHTS = (1.0, 2.0)
"""Least and greatest height of a colour bar, whose label needs room. Inches."""

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib: the same figure on every machine
    **dict.fromkeys(("font.size", "axes.labelsize"), FONT_SIZE),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), SMALL),
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor", "savefig.facecolor"), "white"),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    "axes.titlesize": FONT_SIZE + 1,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.8,
    "svg.hashsalt": "autoseg",  # element ids inside the file are the same each time
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may have dollars in it
    "pdf.fonttype": 42,
}
_METADATA: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "png": {"Software": None}, "pdf": {"CreationDate": None}}

styled = matplotlib.rc_context(_STYLE)
"""Decorator: the function runs in our style; the user's matplotlib settings neither matter nor change."""


def inch_axes(
    extent: tuple[float, float, float, float], margins: tuple[float, float, float, float]
) -> tuple[Figure, Axes]:
    """Make a figure with axes without frame and tick marks, whose data units are inches; y grows downwards.

    extent: left, right, top and bottom of the data. margins: inches around it, in the same order.
    """
    left, right, top, bottom = extent
    width, height = margins[0] + (right - left) + margins[1], margins[2] + (bottom - top) + margins[3]
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((margins[0] / width, margins[3] / height, (right - left) / width, (bottom - top) / height))
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure, axes


def colour_bar(figure: Figure, axes: Axes, picture: Any, label: str, ticks: Any) -> None:
    """Add a colour bar to the right of the axes' upper end; ticks: numbers or a tick locator."""
    width, height = figure.get_size_inches()
    place = axes.get_position()
    tall = float(np.clip(place.height * height, *BAR_HEIGHTS)) / height
    beside = figure.add_axes((place.x1 + 0.12 / width, place.y1 - tall, 0.1 / width, tall))
    figure.colorbar(picture, cax=beside, ticks=ticks).set_label(label, fontsize=SMALL)
    beside.spines[:].set_visible(False)
    beside.tick_params(length=2)


@styled
def save(figure: Figure, path_or_stem: str | Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write a figure atomically, one file a format; the same figure gives the same bytes. Returns the files.

    A path with a known suffix (`a.png`) is written in that format only. Any other path is a stem: each of `formats` is
    appended to it. Missing folders are made.
    Raises: ConfigError: a format other than svg, png and pdf. RunError: the file cannot be written.
    """
    path = user_path(path_or_stem)
    suffix = path.suffix[1:].lower()
    if suffix in FORMATS or suffix in FigureCanvasBase.filetypes:
        files = {path: suffix}
    else:
        files = {path.with_name(f"{path.name}.{name}"): name for name in formats}
    for name in files.values():
        if name not in FORMATS:
            raise ConfigError(f"unknown figure format '{name}' (known: {', '.join(FORMATS)})", code="unknown-format")
    for text in figure.findobj(Text):  # names of files and classes may have letters that no font and no XML has
        text.set_text("\n".join(map(printable, text.get_text().split("\n"))))
    look: Any = {"dpi": PNG_DPI, "bbox_inches": "tight", "pad_inches": 0.03}
    for target, name in files.items():
        make_folder(target.parent)
        write_atomically(target, partial(figure.savefig, format=name, metadata=_METADATA[name], **look))
    return list(files)
