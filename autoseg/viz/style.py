"""The look of every figure: colours that colour-blind readers tell apart, one font, and how figures are saved."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from autoseg.errors import ConfigError, RunError
from autoseg.files import one_line, write_atomically

FONT_SIZE = 9.0
SMALL = 8.0

INK, MUTED, PALE, FAINT = "#222222", "#777777", "#C8C8C8", "#F4F4F4"
BLUE, ORANGE, GREEN, VERMILION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
"""From Okabe and Ito's palette, which holds for the common kinds of colour blindness."""

FORMATS = ("svg", "png", "pdf")
PNG_DPI = 200

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib: the same figure on every machine
    "font.size": FONT_SIZE,
    "axes.labelsize": FONT_SIZE,
    "axes.titlesize": FONT_SIZE + 1,
    "axes.titlelocation": "left",
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.8,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "white",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "autoseg",  # the same names inside the file each time
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}
_METADATA: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "png": {"Software": None}, "pdf": {"CreationDate": None}}

P = ParamSpec("P")
R = TypeVar("R")


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Run `function` in our style, whatever the user's matplotlib settings are, and leave those as they were."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(_STYLE):
            return function(*args, **kwargs)

    return wrapper


def inch_axes(extent: tuple[float, float, float, float], margins: tuple[float, float, float, float]) -> Axes:
    """Axes of a new figure whose data units are inches.

    extent: left, right, top, bottom (y grows downwards); margins: left, right, top, bottom, around it.
    """
    left, right, top, bottom = extent
    width, height = margins[0] + (right - left) + margins[1], margins[2] + (bottom - top) + margins[3]
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((margins[0] / width, margins[3] / height, (right - left) / width, (bottom - top) / height))
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    return axes


def colour_bar(axes: Axes, picture: Any, label: str, gap: float, bottom: float, height: float, ticks: Any) -> Figure:
    """A colour bar right of the axes of a figure, which is returned.

    gap: inches from the axes; bottom, height: shares of the figure's height; ticks: numbers, or what finds them.
    """
    figure = figure_of(axes)
    width = figure.get_figwidth()
    beside = figure.add_axes((axes.get_position().x1 + gap / width, bottom, 0.1 / width, height))
    figure.colorbar(picture, cax=beside, ticks=ticks).set_label(label, fontsize=SMALL)
    beside.spines[:].set_visible(False)
    beside.tick_params(length=2)
    return figure


def figure_of(axes: Axes) -> Figure:
    """The figure that `inch_axes` made."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    return figure


@styled
def save(figure: Figure, path_or_stem: str | Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write a figure atomically, once a format; the same figure gives the same bytes. Returns the files written.

    A path that ends in a known format (`a.png`) is written in that format alone; anything else is a stem to which each
    of `formats` is appended. Folders that are missing are made.
    Raises: ConfigError: a format other than svg, png and pdf. RunError: the file cannot be written.
    """
    path = Path(path_or_stem).expanduser()
    suffix = path.suffix[1:].lower()
    if suffix in FORMATS or suffix in FigureCanvasBase.filetypes:
        files = {path: suffix}
    else:
        files = {path.with_name(f"{path.name}.{name}"): name for name in formats}
    for name in files.values():
        if name not in FORMATS:
            raise ConfigError(f"unknown figure format '{name}' (known: {', '.join(FORMATS)})", code="unknown-format")
    for target, name in files.items():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, functools.partial(_write, figure, name))
        except OSError as reason:
            raise RunError(
                f"{target} cannot be written ({one_line(reason)}); give another folder", code="file-unwritable"
            ) from None
    return list(files)


def _write(figure: Figure, name: str, path: Path) -> None:
    figure.savefig(path, format=name, dpi=PNG_DPI, bbox_inches="tight", pad_inches=0.03, metadata=_METADATA[name])
