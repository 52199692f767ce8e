"""The network level as in figures 1 and 3 of the Auto-DeepLab paper: layers to the right, output strides downwards."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from autoseg.analysis.choices import arrow_name, node_name
from autoseg.analysis.evidence import undecided_in
from autoseg.errors import ConfigError
from autoseg.genotype.schema import Genotype
from autoseg.registry import DECODERS
from autoseg.space.macro import MacroSpec
from autoseg.space.resolution import Skip
from autoseg.space.schema import SearchSpace
from autoseg.space.snapshot import ArchProbs
from autoseg.space.trellis import STEM_NODE, Arrow, Trellis
from autoseg.viz.graph import decoder_nodes, enlargements, is_plain, joins, short_name, stage_labels, up_names
from autoseg.viz.sheet import LABEL_SIZE, LABEL_WIDTH, LAYER_STEP, LEVEL_STEP, MAIN_WIDTH, MARGIN, Sheet, arc_peak
from autoseg.viz.style import (
    BLUE,
    INK,
    MUTED,
    PALE,
    TIE_STYLE,
    TIE_WIDTH,
    VERMILION,
    colour_bar,
    inch_axes,
    styled,
)  # fmt: skip

THIN, THICK = 0.5, 3.6
"""Line widths in points for probability 0 and 1."""
PATH_EXTRA = 0.9
"""Points that a path with probabilities is wider than its arrows, which it hides."""
DECODER_WIDTH = 1.4
TICK_WIDTH = 0.075
"""Width of a letter of a tick's label in inches."""
MIN_HEIGHT = 1.25
"""Least height of the figure in inches: the label of its colour bar needs room."""
COLOURS = LinearSegmentedColormap.from_list("beta", ["#D9DEE4", "#8DB7DB", BLUE, "#08264A"])
"""Pale grey to blue to near black: ordered in lightness, never too pale to see."""


@styled
def draw_trellis(
    space: SearchSpace, probs: ArchProbs | None = None, genotype: Genotype | None = None, title: str | None = None
) -> Figure:
    """The trellis of a space: every legal arrow, its width and colour by its probability beta, and a genotype over it.

    The genotype is drawn with its arrows, upsampler names, skip connections as arcs, and decoder. Arrows that its
    search has not decided (`analysis.evidence`) are thin, and broken on its path. A wide space without probabilities
    has the trellis of all networks that may be chosen.
    Raises: ConfigError: a genotype with an arrow that the space does not have.
    """
    trellis = space.trellis if probs is not None or space.macro is None else _reachable(space, space.macro)
    for source, target, _ in () if genotype is None else genotype.arrows:
        if not trellis.graph.has_edge(source, target):
            raise ConfigError(
                f"the genotype steps from level {source.level} to level {target.level} at layer {target.layer}, where"
                " this space has no arrow",
                code="genotype-not-in-space",
            )
    return _draw(trellis, None if probs is None else probs.beta_probs, genotype, title)


def _reachable(space: SearchSpace, macro: MacroSpec) -> Trellis:
    """The trellis of all networks of a wide space: from its finest stem, as many layers as the deepest has."""
    least = min(stem.stride for stem in macro.stems or (space.stem,))
    named = (len(network.strides or network.arrows) for network in macro.networks)
    layers = max(named, default=max(macro.layers, default=space.network.layers))
    strides = [least << level for level in range((space.network.strides[-1] // least).bit_length())]
    return Trellis(layers, strides, space.network.moves)


@styled
def draw_path(genotype: Genotype) -> Figure:
    """The path or the arrows of a genotype over a pale grid of all arrows from the stem's stride to its greatest."""
    levels, down = 1 + max(arrow.target.level for arrow in genotype.arrows), genotype.network.down_layers
    if down is not None and any(node.level for node in genotype.nodes_at(genotype.layers)):
        down = None  # the grid of an hourglass ends at the stem's stride, which this one does not reach
    strides = [genotype.stride(level) for level in range(levels)]
    return _draw(Trellis(genotype.layers, strides, down_layers=down), None, genotype, None)


def _draw(trellis: Trellis, beta: np.ndarray | None, genotype: Genotype | None, title: str | None) -> Figure:
    extended = None if genotype is None or is_plain(genotype) else genotype
    ties = frozenset[str]() if genotype is None else undecided_in(genotype).get("beta", frozenset())
    sheet = _sheet(trellis, extended)
    arrows = [(arrow.source, arrow.target) for arrow in trellis.arrows]
    if beta is None:
        sheet.arrows(arrows, 0.9, MUTED if genotype is None else PALE, "arrows", 2)
    else:
        values = _probabilities(beta, trellis.arrows)
        order = np.argsort(values, kind="stable")  # likely arrows over unlikely ones
        tied = np.array([_is_tie(trellis.arrows[number], trellis, ties) for number in order])
        widths = np.where(tied, np.minimum(TIE_WIDTH, arrow_width(values[order])), arrow_width(values[order]))
        colours = list(COLOURS(values[order]))
        sheet.arrows([arrows[number] for number in order], widths, colours, "arrows", 2)
        # the range is fixed, so figures of several epochs compare
        bar = ScalarMappable(Normalize(0, 1), COLOURS)
        colour_bar(sheet.figure, sheet.axes, bar, "beta probability", [0, 0.5, 1])
    sheet.nodes(trellis.nodes, "white", INK if genotype is None else MUTED, "nodes", 5)
    if genotype is not None:
        sheet.nodes(sorted({arrow.target for arrow in genotype.arrows}), VERMILION, VERMILION, "path-nodes", 6)
        has_ties = _draw_decoded(sheet, trellis, beta, genotype, ties)
        kinds = [] if extended is None else _draw_extensions(sheet, extended)
        names = {how: f"skip, {how}" for how in ("add", "concat") if how in kinds}
        main = "decoded path" if genotype.is_path else "arrows that stay"
        if genotype.stages and beta is None:  # it may come from no search
            main = "path" if genotype.is_path else "arrows"
        sheet.legend(main, names, has_ties)
    sheet.nodes([STEM_NODE], INK, INK, "stem", 7, "s", 0.95)
    if title:
        sheet.axes.set_title(title, pad=8 if genotype is None else 20)
    return sheet.figure


def _is_tie(arrow: Arrow, trellis: Trellis, ties: frozenset[str]) -> bool:
    """Whether an arrow is a choice that is not decided, or one of the node that it leaves."""
    return not ties.isdisjoint((arrow_name(arrow, trellis.strides), node_name(arrow.source, trellis.strides)))


def _draw_decoded(
    sheet: Sheet, trellis: Trellis, beta: np.ndarray | None, genotype: Genotype, ties: frozenset[str]
) -> bool:
    """The arrows of a genotype, thin and broken where the search has not decided; returns whether any is so."""
    decided = [arrow for arrow in genotype.arrows if not _is_tie(arrow, trellis, ties)]
    tied = [arrow for arrow in genotype.arrows if _is_tie(arrow, trellis, ties)]
    if decided:
        width = MAIN_WIDTH if beta is None else arrow_width(_probabilities(beta, decided)) + PATH_EXTRA
        sheet.arrows([arrow[:2] for arrow in decided], width, VERMILION, "path", 4, cased=True)
    if tied:
        sheet.arrows([arrow[:2] for arrow in tied], TIE_WIDTH, VERMILION, "path-ties", 4, TIE_STYLE, cased=True)
    return bool(tied)


def _sheet(trellis: Trellis, genotype: Genotype | None) -> Sheet:
    """Ticks and room for the trellis and, with a genotype, for its upsampler names, arcs and decoder."""
    columns = layers = trellis.layers
    labels = [] if genotype is None else stage_labels(genotype)
    ticks: dict[float, str] = {0: "stem", **{layer: str(layer) for layer in range(1, layers + 1)}}
    names, above, beside = [], 0.0, 0.0
    if genotype is not None:
        names = [short_name(name) for name in (*up_names(genotype).values(), *genotype.decoder.upsamplers)]
        above = max((arc_peak(*ends) for *ends, _ in joins(genotype) if ends[1].level == 0), default=0.0)
        beside = 0.15  # for the rightmost name
        beside += max((len(text) * LABEL_WIDTH for label in labels for text in label[1:]), default=0.0)
        columns = decoder_nodes(genotype)[-1].layer
        ticks[(layers + 1 + columns) / 2] = DECODERS[genotype.decoder.name].label
    beside_number = [len(ticks[columns]) * TICK_WIDTH / 2 + 0.12] if columns == layers + 1 else []
    widths = (len(line) * LABEL_WIDTH + 0.18 for name in names for line in name.split(" ", 1))
    step = max([LAYER_STEP, *beside_number, *widths])
    bottom = (len(trellis.strides) - 1) * LEVEL_STEP
    spare = max(0.0, MIN_HEIGHT - bottom - 2 * MARGIN) / 2
    extent = (-MARGIN, columns * step + MARGIN + beside, -MARGIN - max(spare, above), bottom + MARGIN + spare)
    figure, axes = inch_axes(extent, (0.6, 0.75, 0.4, 0.5))
    axes.tick_params(pad=1)
    axes.set_yticks([level * LEVEL_STEP for level in range(len(trellis.strides))], map(str, trellis.strides))
    axes.set_xticks([column * step for column in ticks], list(ticks.values()))
    axes.set_ylabel("output stride")
    axes.set_xlabel("layer", x=(columns * step / 2 + MARGIN) / (extent[1] + MARGIN) if labels else 0.5)
    for level, blocks, channels in labels:
        place: Any = {"x": columns * step + MARGIN + 0.05, "ha": "left", "fontsize": LABEL_SIZE, "gid": "stage"}
        axes.text(y=level * LEVEL_STEP - 0.02, s=blocks, va="bottom", color=INK, **place)
        axes.text(y=level * LEVEL_STEP + 0.02, s=channels, va="top", color=MUTED, **place)
    return Sheet(figure, axes, step)


def _draw_extensions(sheet: Sheet, genotype: Genotype) -> list[Skip]:
    """Draw the upsamplers' names, the decoder and the skip connections; returns the kinds of these."""
    nodes = decoder_nodes(genotype)
    within = [*((node, nodes[0]) for node in genotype.nodes_at(genotype.layers)), *pairwise(nodes)]
    sheet.arrows(within, DECODER_WIDTH, INK, "decoder", 4)
    sheet.nodes(nodes, INK, INK, "decoder-nodes", 6, "s", 0.8)
    for arrow, name in up_names(genotype).items():
        sheet.label(arrow.target, short_name(name))
    for _, target, name in enlargements(genotype) if genotype.decoder.upsamplers else ():
        sheet.label(target, short_name(name))
    found = joins(genotype)
    for source, target, how in found:
        sheet.skip(source, target, how, f"skip-{how}")
    return [join.how for join in found]


def _probabilities(beta_probs: np.ndarray, arrows: Sequence[Arrow]) -> np.ndarray:
    return np.array([beta_probs[arrow.source.layer, arrow.source.level, arrow.move] for arrow in arrows])


def arrow_width(probability: np.ndarray) -> np.ndarray:
    """Line width in points of an arrow with this probability."""
    return np.asarray(THIN + (THICK - THIN) * np.clip(probability, 0, 1))
