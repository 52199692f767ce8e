"""Every figure that autoseg draws. Each function returns a `matplotlib.figure.Figure`; `save` writes it to files."""

from __future__ import annotations

from autoseg.viz.cell import draw_cell
from autoseg.viz.diagram import draw_network
from autoseg.viz.heat_maps import draw_alpha, draw_confusion, draw_gamma, draw_skips
from autoseg.viz.history import draw_history
from autoseg.viz.samples import draw_contact_sheet, draw_predictions
from autoseg.viz.style import FORMATS, save
from autoseg.viz.trellis import draw_path, draw_trellis

__all__ = [
    "FORMATS", "draw_alpha", "draw_cell", "draw_confusion", "draw_contact_sheet", "draw_gamma", "draw_history",
    "draw_network", "draw_path", "draw_predictions", "draw_skips", "draw_trellis", "save",
]  # fmt: skip
