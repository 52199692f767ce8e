"""The network level as in figures 1 and 3 of the Auto-DeepLab paper: layers to the right, output strides downwards.

L: layers. Data units are inches.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from autoseg.errors import ConfigError
from autoseg.genotype.schema import Genotype
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import STEM_NODE, Node, Trellis
from autoseg.viz.style import BLUE, INK, MUTED, PALE, SMALL, VERMILION, figure_of, inch_axes, styled

LAYER_STEP, LEVEL_STEP, RADIUS = 0.42, 0.52, 0.085
THIN, THICK = 0.5, 3.6
"""Line widths in points of probability 0 and 1."""
PATH_WIDTH, PATH_EXTRA = 2.4, 0.9
"""Width of the path without probabilities; with them, how much wider than its arrow it is, so that it hides it."""
MIN_HEIGHT = 1.25
"""Room for the label of the colour bar."""


@styled
def draw_trellis(
    space: SearchSpace,
    beta_probs: np.ndarray | None = None,
    path: Sequence[int] | None = None,
    title: str | None = None,
) -> Figure:
    """The trellis of a space: every legal arrow, its width and colour by its probability, and a path over it.

    beta_probs: [layer, level, move], between 0 and 1. path: the levels of layers 1..L.
    Raises: ConfigError: probabilities of another shape or out of range, or a path that the trellis does not hold.
    """
    trellis = space.trellis
    if beta_probs is not None:
        _check_beta(beta_probs, trellis)
    return _draw(trellis, beta_probs, None if path is None else _path_nodes(trellis, path), title)


@styled
def draw_path(genotype: Genotype) -> Figure:
    """The path of a genotype over the pale grid of all arrows between the stem's stride and the path's greatest."""
    strides = [genotype.stem.stride * 2**level for level in range(max(genotype.levels) + 1)]
    trellis = Trellis(len(genotype.levels), strides)
    return _draw(trellis, None, _path_nodes(trellis, genotype.levels), None)


def _check_beta(beta_probs: np.ndarray, trellis: Trellis) -> None:
    shape = trellis.legal().shape
    if beta_probs.shape != shape:
        raise ConfigError(f"beta_probs has the shape {list(beta_probs.shape)}, but this space needs {list(shape)}")
    if not ((beta_probs >= 0) & (beta_probs <= 1 + 1e-6)).all():
        raise ConfigError("beta_probs has values that are no probabilities; give numbers between 0 and 1, not logits")


def _path_nodes(trellis: Trellis, path: Sequence[int]) -> list[Node]:
    if len(path) != trellis.layers:
        raise ConfigError(
            f"the path has {len(path)} levels, but the trellis has {trellis.layers} layers; give one a layer"
        )
    nodes = [STEM_NODE, *(Node(layer, int(level)) for layer, level in enumerate(path, start=1))]
    for source, target in pairwise(nodes):
        if not trellis.graph.has_edge(source, target):
            raise ConfigError(
                f"the path {list(path)} steps to level {target.level} at layer {target.layer}, where no arrow leads"
            )
    return nodes


# --- drawing --------------------------------------------------------------------------------------------------------


def _draw(trellis: Trellis, beta_probs: np.ndarray | None, path: list[Node] | None, title: str | None) -> Figure:
    axes = _axes(trellis)
    arrows = [(arrow.source, arrow.target) for arrow in trellis.arrows]
    if beta_probs is None:
        pale = PALE if path else MUTED
        _draw_arrows(axes, arrows, np.full(len(arrows), 0.9), [pale] * len(arrows), "arrows", 2)
    else:
        values = np.array([beta_probs[a.source.layer, a.source.level, a.move] for a in trellis.arrows])
        order = np.argsort(values, kind="stable")  # likely arrows over unlikely ones
        arrows = [arrows[number] for number in order]
        _draw_arrows(axes, arrows, arrow_width(values[order]), list(_colours()(values[order])), "arrows", 2)
        _colour_bar(axes)
    _draw_nodes(axes, trellis.nodes, "white", MUTED if path else INK, "nodes", 5)
    if path:
        _draw_nodes(axes, path[1:], VERMILION, VERMILION, "path-nodes", 6)
        steps = list(pairwise(path))
        widths = np.full(len(steps), PATH_WIDTH) if beta_probs is None else _path_widths(beta_probs, path)
        _draw_arrows(axes, steps, widths + 1.6, ["white"] * len(steps), "path-casing", 3)
        _draw_arrows(axes, steps, widths, [VERMILION] * len(steps), "path", 4)
        _legend(axes)
    _draw_stem(axes)
    if title:
        axes.set_title(title, pad=20 if path else 8)
    return figure_of(axes)


def arrow_width(probability: np.ndarray) -> np.ndarray:
    """Line width in points of an arrow of this probability."""
    return np.asarray(THIN + (THICK - THIN) * np.clip(probability, 0, 1))


def _path_widths(beta_probs: np.ndarray, path: Sequence[Node]) -> np.ndarray:
    steps = [(source, target.level - source.level + 1) for source, target in pairwise(path)]
    return arrow_width(np.array([beta_probs[node.layer, node.level, move] for node, move in steps])) + PATH_EXTRA


def _colours() -> Colormap:
    """Pale grey to blue to near black: ordered in lightness, never too pale to see."""
    return LinearSegmentedColormap.from_list("beta", ["#D9DEE4", "#8DB7DB", BLUE, "#08264A"])


def _position(node: Node) -> np.ndarray:
    return np.array([node.layer * LAYER_STEP, node.level * LEVEL_STEP])


def _axes(trellis: Trellis) -> Axes:
    levels = len(trellis.strides)
    margin = 0.2
    right, bottom = trellis.layers * LAYER_STEP, (levels - 1) * LEVEL_STEP
    spare = max(0.0, MIN_HEIGHT - bottom - 2 * margin) / 2
    axes = inch_axes((-margin, right + margin, -margin - spare, bottom + margin + spare), (0.6, 0.75, 0.4, 0.5))
    labels = ["stem", *(str(layer) for layer in range(1, trellis.layers + 1))]
    axes.set_xticks([layer * LAYER_STEP for layer in range(trellis.layers + 1)], labels)
    axes.set_yticks([level * LEVEL_STEP for level in range(levels)], [str(stride) for stride in trellis.strides])
    axes.set_xlabel("layer")
    axes.set_ylabel("output stride")
    axes.tick_params(length=0, pad=1)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def _draw_arrows(
    axes: Axes,
    arrows: Sequence[tuple[Node, Node]],
    widths: np.ndarray,
    colours: Sequence[object],
    gid: str,
    zorder: int,
) -> None:
    """Shafts as one collection (`gid`), heads as another (`gid`-heads); a head grows with its shaft."""
    shafts, heads = [], []
    for (source, target), width in zip(arrows, widths, strict=True):
        start, end = _position(source), _position(target)
        along = (end - start) / np.linalg.norm(end - start)
        across = np.array([-along[1], along[0]])
        tip = end - along * (RADIUS + 0.012)
        base = tip - along * (0.055 + 0.6 * width / 72)
        half = across * (0.024 + 0.85 * width / 72)
        shafts.append([start + along * RADIUS, base + along * 0.004])
        heads.append([tip, base + half, base - half])
    axes.add_collection(
        LineCollection(shafts, linewidths=widths, colors=colours, capstyle="butt", zorder=zorder, gid=gid),
        autolim=False,
    )
    axes.add_collection(
        PolyCollection(heads, facecolors=colours, edgecolors="none", zorder=zorder + 0.1, gid=f"{gid}-heads"),
        autolim=False,
    )


def _draw_nodes(axes: Axes, nodes: Sequence[Node], face: str, edge: str, gid: str, zorder: int) -> None:
    x, y = np.array([_position(node) for node in nodes]).T
    axes.scatter(
        x, y, s=(2 * RADIUS * 72) ** 2, facecolors=face, edgecolors=edge, linewidths=0.9, zorder=zorder, gid=gid
    )


def _draw_stem(axes: Axes) -> None:
    size = (2 * RADIUS * 72 * 0.95) ** 2
    axes.scatter(0, 0, s=size, marker="s", facecolors=INK, edgecolors=INK, linewidths=0.9, zorder=7, gid="stem")


def _legend(axes: Axes) -> None:
    line = Line2D([], [], color=VERMILION, linewidth=PATH_WIDTH, marker="o", markersize=6, label="decoded path")
    axes.legend(
        handles=[line], loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, borderpad=0, handlelength=2.4
    )


def _colour_bar(axes: Axes) -> None:
    """A bar from 0 to 1, always, so that figures of several epochs compare."""
    figure = figure_of(axes)
    place, width = axes.get_position(), figure.get_figwidth()
    beside = figure.add_axes((place.x1 + 0.1 / width, place.y0 + 0.03, 0.1 / width, place.height - 0.06))
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), _colours()), cax=beside, ticks=[0, 0.5, 1])
    bar.set_label("beta probability", fontsize=SMALL)
    beside.spines[:].set_visible(False)
    beside.tick_params(length=2)
