"""The network level as in figures 1 and 3 of the Auto-DeepLab paper: layers to the right, output strides downwards.

L: layers. Data units are inches.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from autoseg.errors import ConfigError
from autoseg.genotype.schema import Genotype
from autoseg.registry import DECODERS
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import STEM_NODE, Arrow, Node, Trellis
from autoseg.viz.graph import short_name
from autoseg.viz.sheet import MAIN_WIDTH, Sheet, arc_peak, legend_above, trellis_sheet
from autoseg.viz.style import BLUE, INK, MUTED, PALE, VERMILION, colour_bar, figure_of, styled
from autoseg.viz.wiring import (
    Join,
    decoder_inputs,
    decoder_nodes,
    enlargements,
    is_plain,
    joins,
    up_names,
)

THIN, THICK = 0.5, 3.6
"""Line widths in points of probability 0 and 1."""
PATH_EXTRA = 0.9
"""How much wider than its arrow a path with probabilities is, so that it hides it."""
DECODER_WIDTH = 1.4


@styled
def draw_trellis(
    space: SearchSpace,
    beta_probs: np.ndarray | None = None,
    path: Sequence[int] | Genotype | None = None,
    title: str | None = None,
) -> Figure:
    """The trellis of a space: every legal arrow, its width and colour by its probability, and a path over it.

    beta_probs: [layer, level, move], between 0 and 1. path: the levels of layers 1..L; or a genotype of the space, with
    its arrows, the names of its upsamplers, its skip connections as arcs and its decoder.
    Raises: ConfigError: probabilities of another shape or out of range, or a path that the trellis does not hold.
    """
    trellis = space.trellis
    if beta_probs is not None:
        _check_beta(beta_probs, trellis)
    if isinstance(path, Genotype):
        return _draw(trellis, beta_probs, _held(trellis, path.arrows), path, title)
    return _draw(trellis, beta_probs, None if path is None else _path_arrows(trellis, path), None, title)


@styled
def draw_path(genotype: Genotype) -> Figure:
    """The path of a genotype, or its arrows, over the pale grid of all between the stem's stride and its greatest."""
    arrows, down = genotype.arrows, genotype.network.down_layers
    levels = 1 + max(arrow.target.level for arrow in arrows)
    if down is not None and any(node.level for node in genotype.nodes_at(genotype.layers)):
        down = None  # an hourglass that does not come back to the stem's stride is in no hourglass's grid
    strides = [genotype.stride(level) for level in range(levels)]
    trellis = Trellis(genotype.layers, strides, down_layers=down)
    return _draw(trellis, None, arrows, genotype, None)


def _check_beta(beta_probs: np.ndarray, trellis: Trellis) -> None:
    shape = trellis.legal().shape
    if beta_probs.shape != shape:
        raise ConfigError(
            f"beta_probs has the shape {list(beta_probs.shape)}, but this space needs {list(shape)}",
            code="probabilities-shape-differs",
        )
    if not ((beta_probs >= 0) & (beta_probs <= 1 + 1e-6)).all():
        raise ConfigError(
            "beta_probs has values that are no probabilities; give numbers between 0 and 1, not logits",
            code="probability-out-of-range",
        )


def _path_arrows(trellis: Trellis, path: Sequence[int]) -> tuple[Arrow, ...]:
    if len(path) != trellis.layers:
        raise ConfigError(
            f"the path has {len(path)} levels, but the trellis has {trellis.layers} layers; give one a layer",
            code="path-length-differs",
        )
    nodes = [STEM_NODE, *(Node(layer, int(level)) for layer, level in enumerate(path, start=1))]
    for source, target in pairwise(nodes):
        if not trellis.graph.has_edge(source, target):
            raise ConfigError(
                f"the path {list(path)} steps to level {target.level} at layer {target.layer}, where no arrow leads",
                code="path-without-arrow",
            )
    return trellis.arrows_along([int(level) for level in path])


def _held(trellis: Trellis, arrows: Sequence[Arrow]) -> Sequence[Arrow]:
    for source, target, _ in arrows:
        if not trellis.graph.has_edge(source, target):
            raise ConfigError(
                f"the genotype steps from level {source.level} to level {target.level} at layer {target.layer}, where"
                " this space has no arrow",
                code="genotype-not-in-space",
            )
    return arrows


# --- drawing --------------------------------------------------------------------------------------------------------


def _draw(
    trellis: Trellis,
    beta_probs: np.ndarray | None,
    chosen: Sequence[Arrow] | None,
    genotype: Genotype | None,
    title: str | None,
) -> Figure:
    extended = None if genotype is None or is_plain(genotype) else genotype
    sheet = _sheet(trellis, extended)
    arrows = [(arrow.source, arrow.target) for arrow in trellis.arrows]
    if beta_probs is None:
        pale = PALE if chosen else MUTED
        sheet.arrows(arrows, np.full(len(arrows), 0.9), [pale] * len(arrows), "arrows", 2)
    else:
        values = _probabilities(beta_probs, trellis.arrows)
        order = np.argsort(values, kind="stable")  # likely arrows over unlikely ones
        arrows = [arrows[number] for number in order]
        sheet.arrows(arrows, arrow_width(values[order]), list(_colours()(values[order])), "arrows", 2)
        _colour_bar(sheet.axes)
    sheet.nodes(trellis.nodes, "white", MUTED if chosen else INK, "nodes", 5)
    if chosen:
        _draw_chosen(sheet, beta_probs, chosen)
        skips = _draw_extensions(sheet, extended) if extended else []
        names = {how: f"skip, {how}" for how in ("add", "concat") if any(join.how == how for join in skips)}
        legend_above(sheet.axes, "decoded path" if genotype is None or genotype.is_path else "arrows that stay", names)
    sheet.nodes([STEM_NODE], INK, INK, "stem", 7, "s", 0.95)
    if title:
        sheet.axes.set_title(title, pad=20 if chosen else 8)
    return figure_of(sheet.axes)


def _sheet(trellis: Trellis, genotype: Genotype | None) -> Sheet:
    """Ticks and room for the trellis and, if there is more in the genotype than arrows, for that."""
    layers = trellis.layers
    ticks: dict[float, str] = {0: "stem", **{layer: str(layer) for layer in range(1, layers + 1)}}
    if genotype is None:
        sheet = trellis_sheet(layers, trellis.strides)
    else:
        decoder = decoder_nodes(genotype)
        names = [*up_names(genotype).values(), *genotype.decoder.upsamplers]
        peaks = [arc_peak(join.source, join.target) for join in joins(genotype) if join.target.level == 0]
        columns = decoder[-1].layer
        sheet = trellis_sheet(columns, trellis.strides, map(short_name, names), max(peaks, default=0.0), wide=True)
        ticks[(layers + 1 + columns) / 2] = DECODERS[genotype.decoder.name].label
    sheet.axes.set_xticks([column * sheet.step for column in ticks], list(ticks.values()))
    sheet.axes.set_xlabel("layer")
    return sheet


def _draw_chosen(sheet: Sheet, beta_probs: np.ndarray | None, chosen: Sequence[Arrow]) -> None:
    """The arrows that were decoded, with a casing where they cross others, and their nodes."""
    sheet.nodes(sorted({arrow.target for arrow in chosen}), VERMILION, VERMILION, "path-nodes", 6)
    steps = [(arrow.source, arrow.target) for arrow in chosen]
    widths = np.full(len(steps), MAIN_WIDTH)
    if beta_probs is not None:
        widths = arrow_width(_probabilities(beta_probs, chosen)) + PATH_EXTRA
    sheet.cased_arrows(steps, widths, VERMILION, "path", (3, 4))


def _draw_extensions(sheet: Sheet, genotype: Genotype) -> list[Join]:
    """The names of upsamplers, the decoder and the skip connections, which are returned."""
    steps = enlargements(genotype)
    within = [*decoder_inputs(genotype), *((step.source, step.target) for step in steps)]
    sheet.arrows(within, np.full(len(within), DECODER_WIDTH), [INK] * len(within), "decoder", 4)
    sheet.nodes(decoder_nodes(genotype), INK, INK, "decoder-nodes", 6, "s", 0.8)
    for arrow, name in up_names(genotype).items():
        sheet.label(arrow.target, short_name(name))
    for step in steps if genotype.decoder.upsamplers else ():
        sheet.label(step.target, short_name(step.upsampler))
    found = joins(genotype)
    for join in found:
        sheet.arc(join.source, join.target, join.how, f"skip-{join.how}")
    return found


def _probabilities(beta_probs: np.ndarray, arrows: Sequence[Arrow]) -> np.ndarray:
    return np.array([beta_probs[arrow.source.layer, arrow.source.level, arrow.move] for arrow in arrows])


def arrow_width(probability: np.ndarray) -> np.ndarray:
    """Line width in points of an arrow of this probability."""
    return np.asarray(THIN + (THICK - THIN) * np.clip(probability, 0, 1))


def _colours() -> Colormap:
    """Pale grey to blue to near black: ordered in lightness, never too pale to see."""
    return LinearSegmentedColormap.from_list("beta", ["#D9DEE4", "#8DB7DB", BLUE, "#08264A"])


def _colour_bar(axes: Axes) -> None:
    """A bar from 0 to 1, always, so that figures of several epochs compare."""
    place = axes.get_position()
    bar = ScalarMappable(Normalize(0, 1), _colours())
    colour_bar(axes, bar, "beta probability", 0.1, place.y0 + 0.03, place.height - 0.06, [0, 0.5, 1])
