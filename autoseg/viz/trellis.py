"""The network level as in figures 1 and 3 of the Auto-DeepLab paper: layers to the right, output strides downwards."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from autoseg.errors import ConfigError
from autoseg.genotype.schema import Genotype
from autoseg.registry import DECODERS
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import STEM_NODE, Arrow, Node, Trellis
from autoseg.viz.graph import short_name
from autoseg.viz.sheet import MAIN_WIDTH, Sheet, arc_peak, trellis_sheet
from autoseg.viz.style import BLUE, INK, MUTED, PALE, VERMILION, colour_bar, figure_of, styled
from autoseg.viz.wiring import Join, decoder_inputs, decoder_nodes, enlargements, is_plain, joins, up_names

THIN, THICK = 0.5, 3.6
"""Line widths in points for probability 0 and 1."""
PATH_EXTRA = 0.9
"""Points that a path with probabilities is wider than its arrows, which it hides."""
DECODER_WIDTH = 1.4
COLOURS = LinearSegmentedColormap.from_list("beta", ["#D9DEE4", "#8DB7DB", BLUE, "#08264A"])
"""Pale grey to blue to near black: ordered in lightness, never too pale to see."""


@styled
def draw_trellis(
    space: SearchSpace,
    beta_probs: np.ndarray | None = None,
    path: Sequence[int] | Genotype | None = None,
    title: str | None = None,
) -> Figure:
    """The trellis of a space: every legal arrow, its width and colour by its probability, and a path over it.

    beta_probs: [layer, level, move], between 0 and 1. path: the levels of layers 1..L, or a genotype of the space,
    which is drawn with its arrows, upsampler names, skip connections as arcs, and decoder.
    Raises: ConfigError: probabilities of another shape or out of range, or a path that the trellis does not have.
    """
    trellis = space.trellis
    if beta_probs is not None:
        _check_beta(beta_probs, trellis)
    if path is None:
        return _draw(trellis, beta_probs, (), None, title)
    if not isinstance(path, Genotype):
        return _draw(trellis, beta_probs, _path_arrows(trellis, path), None, title)
    for source, target, _ in path.arrows:
        if not trellis.graph.has_edge(source, target):
            raise ConfigError(
                f"the genotype steps from level {source.level} to level {target.level} at layer {target.layer}, where"
                " this space has no arrow",
                code="genotype-not-in-space",
            )
    return _draw(trellis, beta_probs, path.arrows, path, title)


@styled
def draw_path(genotype: Genotype) -> Figure:
    """The path or the arrows of a genotype over a pale grid of all arrows from the stem's stride to its greatest."""
    arrows, down = genotype.arrows, genotype.network.down_layers
    levels = 1 + max(arrow.target.level for arrow in arrows)
    if down is not None and any(node.level for node in genotype.nodes_at(genotype.layers)):
        down = None  # the grid of an hourglass ends at the stem's stride, which this one does not reach
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


# --- drawing --------------------------------------------------------------------------------------------------------


def _draw(
    trellis: Trellis, beta: np.ndarray | None, chosen: Sequence[Arrow], genotype: Genotype | None, title: str | None
) -> Figure:
    extended = None if genotype is None or is_plain(genotype) else genotype
    sheet = _sheet(trellis, extended)
    arrows = [(arrow.source, arrow.target) for arrow in trellis.arrows]
    if beta is None:
        sheet.arrows(arrows, 0.9, PALE if chosen else MUTED, "arrows", 2)
    else:
        values = _probabilities(beta, trellis.arrows)
        order = np.argsort(values, kind="stable")  # likely arrows over unlikely ones
        widths, colours = arrow_width(values[order]), list(COLOURS(values[order]))
        sheet.arrows([arrows[number] for number in order], widths, colours, "arrows", 2)
        # the range is fixed, so figures of several epochs compare
        place, bar = sheet.axes.get_position(), ScalarMappable(Normalize(0, 1), COLOURS)
        bottom, height = place.y0 + 0.03, place.height - 0.06
        colour_bar(sheet.axes, bar, "beta probability", 0.1, bottom, height, [0, 0.5, 1])
    sheet.nodes(trellis.nodes, "white", MUTED if chosen else INK, "nodes", 5)
    if chosen:
        # a casing parts the decoded arrows from those that they cross
        sheet.nodes(sorted({arrow.target for arrow in chosen}), VERMILION, VERMILION, "path-nodes", 6)
        width = MAIN_WIDTH if beta is None else arrow_width(_probabilities(beta, chosen)) + PATH_EXTRA
        sheet.cased_arrows([(arrow.source, arrow.target) for arrow in chosen], width, VERMILION, "path", 3.8)
        skips = _draw_extensions(sheet, extended) if extended else []
        names = {how: f"skip, {how}" for how in ("add", "concat") if any(join.how == how for join in skips)}
        sheet.legend("decoded path" if genotype is None or genotype.is_path else "arrows that stay", names)
    sheet.nodes([STEM_NODE], INK, INK, "stem", 7, "s", 0.95)
    if title:
        sheet.axes.set_title(title, pad=20 if chosen else 8)
    return figure_of(sheet.axes)


def _sheet(trellis: Trellis, genotype: Genotype | None) -> Sheet:
    """Ticks and room for the trellis and, with a genotype, for its upsampler names, arcs and decoder."""
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


def _draw_extensions(sheet: Sheet, genotype: Genotype) -> list[Join]:
    """Draw the upsamplers' names, the decoder and the skip connections; returns the skip connections."""
    steps = enlargements(genotype)
    within = [*decoder_inputs(genotype), *((source, target) for source, target, _ in steps)]
    sheet.arrows(within, DECODER_WIDTH, INK, "decoder", 4)
    sheet.nodes(decoder_nodes(genotype), INK, INK, "decoder-nodes", 6, "s", 0.8)
    for arrow, name in up_names(genotype).items():
        sheet.label(arrow.target, short_name(name))
    for _, target, name in steps if genotype.decoder.upsamplers else ():
        sheet.label(target, short_name(name))
    found = joins(genotype)
    for join in found:
        sheet.skip(join.source, join.target, join.how, f"skip-{join.how}")
    return found


def _probabilities(beta_probs: np.ndarray, arrows: Sequence[Arrow]) -> np.ndarray:
    return np.array([beta_probs[arrow.source.layer, arrow.source.level, arrow.move] for arrow in arrows])


def arrow_width(probability: np.ndarray) -> np.ndarray:
    """Line width in points of an arrow with this probability."""
    return np.asarray(THIN + (THICK - THIN) * np.clip(probability, 0, 1))
