"""Every figure that autoseg draws. Each function returns a `matplotlib.figure.Figure`; `save` writes it to files."""

from __future__ import annotations

from autoseg.viz.cell import draw_cell
from autoseg.viz.charts import draw_alpha, draw_gamma, draw_history, draw_skips
from autoseg.viz.confusion import draw_confusion
from autoseg.viz.contact_sheet import draw_contact_sheet
from autoseg.viz.diagram import draw_network
from autoseg.viz.samples import draw_predictions
from autoseg.viz.style import FORMATS, save
from autoseg.viz.trellis import draw_path, draw_trellis

__all__ = [
    "FORMATS", "draw_alpha", "draw_cell", "draw_confusion", "draw_contact_sheet", "draw_gamma", "draw_history",
    "draw_network", "draw_path", "draw_predictions", "draw_skips", "draw_trellis", "save",
]  # fmt: skip
