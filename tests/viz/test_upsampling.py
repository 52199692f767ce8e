"""Pictures of what comes back up: gamma, skips, hourglasses, several paths, decoders."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from helpers.errors import raises_code
from helpers.genotypes import down_to_8, genotype, hourglass, several_paths
from helpers.spaces import hourglass_space, open_space, random_probs
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.text import Text

from autoseg.errors import ConfigError
from autoseg.genotype.decode import decode
from autoseg.genotype.schema import Genotype
from autoseg.space.trellis import Node
from autoseg.viz.cell import draw_cell
from autoseg.viz.heat_maps import draw_alpha, draw_gamma, draw_skips
from autoseg.viz.history import draw_history
from autoseg.viz.sheet import LAYER_STEP, LEVEL_STEP, RADIUS
from autoseg.viz.style import GREEN
from autoseg.viz.trellis import PATH_EXTRA, arrow_width, draw_path, draw_trellis


def step_of(figure: Figure) -> float:
    first, second = figure.axes[0].get_xticks()[:2]
    return float(second - first)


def arrows(figure: Figure, gid: str) -> list[tuple[int, int, int]]:
    """(layer, level, change of level) of each arrow of a collection."""
    (found,) = [item for item in figure.axes[0].collections if item.get_gid() == gid]
    assert isinstance(found, LineCollection)
    step, result = step_of(figure), []
    for (x0, y0), (_, y1) in found.get_segments():
        change = float(y1 - y0) / LEVEL_STEP * 1.5
        result.append((int(x0 / step), round(float(y0) / LEVEL_STEP), round(change)))
    return result


def names(figure: Figure) -> dict[tuple[int, int], str]:
    """The upsamplers' names by the nodes that they stand below."""
    step = step_of(figure)
    texts = [text for text in figure.axes[0].texts if text.get_gid() == "upsampler"]
    found = {}
    for text in texts:
        x, y = text.get_position()
        found[round(x / step), int(y / LEVEL_STEP)] = text.get_text().replace("\n", " ")
    assert len(found) == len(texts)
    return found


def arcs(figure: Figure, gid: str) -> list[tuple[Node, Node]]:
    """The nodes that skip connections of a kind join."""
    step, found = step_of(figure), []
    for patch in figure.axes[0].patches:
        if patch.get_gid() == gid:
            assert isinstance(patch, PathPatch)
            ends = patch.get_path().vertices[[0, -1]]
            found.append(tuple(Node(round(float(x) / step), round(float(y + RADIUS) / LEVEL_STEP)) for x, y in ends))
    return found  # type: ignore[return-value]


def ticks(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_xticklabels()]


def legend(figure: Figure) -> list[str]:
    found = figure.axes[0].get_legend()
    return [] if found is None else [text.get_text() for text in found.get_texts()]


# --- trellises ------------------------------------------------------------------------------------------------------


def test_what_lies_over_what() -> None:
    """The grid, the path over its casing, skip connections over theirs, names, and nodes over all lines."""
    space = hourglass_space()
    probs = random_probs(space, 26)
    axes = draw_trellis(space, probs, decode(probs)).axes[0]
    heights: dict[str, set[float]] = {}
    for item in (*axes.collections, *axes.patches, *axes.texts):
        if item.get_gid():
            heights.setdefault(item.get_gid(), set()).add(item.get_zorder())
    assert all(len(found) == 1 for found in heights.values())
    grid, path = ["arrows", "arrows-heads"], ["path-casing", "path-casing-heads", "path", "path-heads"]
    nodes = ["upsampler", "nodes", "path-nodes", "stem"]
    for skip in ("skip-add", "skip-concat"):
        stack = [next(iter(heights[gid])) for gid in (*grid, *path, f"{skip}-casing", skip, *nodes)]
        assert stack == sorted(set(stack))
    assert max(heights["decoder-heads"]) < min(heights["decoder-nodes"])


def test_an_hourglass_has_the_nodes_that_exist_alone() -> None:
    space = hourglass_space()
    figure = draw_trellis(space)
    (nodes,) = [item for item in figure.axes[0].collections if item.get_gid() == "nodes"]
    places = {(round(x / LAYER_STEP), round(y / LEVEL_STEP)) for x, y in np.asarray(nodes.get_offsets())}
    assert places == {tuple(node) for node in space.trellis.nodes}
    assert (4, 2) not in places  # stride 8 at layer 4 could not come back up
    drawn = arrows(figure, "arrows")
    assert not [arrow for arrow in drawn if arrow[2] < 0 and arrow[0] < 3]
    assert not [arrow for arrow in drawn if arrow[2] > 0 and arrow[0] >= 3]


def test_a_decoded_hourglass_has_its_upsamplers_skips_and_decoder() -> None:
    figure = draw_path(hourglass())
    assert arrows(figure, "path") == [(0, 0, 1), (1, 1, 1), (2, 2, 0), (3, 2, -1), (4, 1, -1)]
    assert names(figure) == {(4, 1): "PixelDCL 5x5", (5, 0): "CARAFE"}
    assert arcs(figure, "skip-add") == [(Node(1, 1), Node(4, 1))]
    assert arcs(figure, "skip-concat") == [(Node(0, 0), Node(5, 0))]
    assert legend(figure) == ["decoded path", "skip, add", "skip, concat"]
    assert ticks(figure) == ["stem", "1", "2", "3", "4", "5", "classifier"]


def test_added_skips_are_dashed_and_concatenated_ones_solid() -> None:
    patches = {patch.get_gid(): patch for patch in draw_path(hourglass()).axes[0].patches}
    assert patches["skip-add"].get_linestyle() != "solid"
    assert patches["skip-concat"].get_linestyle() in ("-", "solid")
    assert {patches[name].get_edgecolor() for name in ("skip-add", "skip-concat")} == {_rgba(GREEN)}


def _rgba(colour: str) -> tuple[float, ...]:
    return (*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), 1.0)


def test_a_run_draws_what_its_genotype_chose() -> None:
    space = hourglass_space()
    probs = random_probs(space, 26)
    found = decode(probs)
    figure = draw_trellis(space, probs, found, "title")
    assert sorted(names(figure)) == sorted(tuple(arrow.target) for arrow in found.up_arrows)
    kinds = [found.skip(arrow) for arrow in found.up_arrows]
    assert kinds == ["concat", "add"]
    for how in ("add", "concat"):
        assert len(arcs(figure, f"skip-{how}")) == kinds.count(how)
    assert figure.axes[0].get_title("left") == "title"
    assert len(figure.axes) == 2  # with the bar of beta


def test_arrows_that_stay_are_as_wide_as_their_sigmoid() -> None:
    space = open_space("multi", network={"layers": 3, "strides": [2, 4], "paths": "multi"})
    probs = random_probs(space)
    found = several_paths(upsamplers=["carafe"])
    figure = draw_trellis(space, probs, found)
    kept = {(a.source.layer, a.source.level, a.move.step) for a in found.arrows}
    assert set(arrows(figure, "path")) == kept
    assert len(arrows(figure, "path")) == 8
    (shafts,) = [item for item in figure.axes[0].collections if item.get_gid() == "path"]
    sigmoid = 1 / (1 + np.exp(-probs.beta_logits))
    widths = [float(arrow_width(sigmoid[layer, level, step + 1])) for layer, level, step in arrows(figure, "path")]
    assert np.asarray(shafts.get_linewidths()) - PATH_EXTRA == pytest.approx(widths)
    assert len({round(width, 3) for width in widths}) == 8
    (nodes,) = [item for item in figure.axes[0].collections if item.get_gid() == "path-nodes"]
    assert len(np.asarray(nodes.get_offsets())) == 6
    assert legend(figure)[0] == "arrows that stay"
    assert sorted(arrows(figure, "decoder"))[:2] == [(3, 0, 0), (3, 1, -1)]  # of both nodes of the last layer


@pytest.mark.parametrize(
    ("decoder", "label", "steps", "added", "concatenated"),
    [("unet", "U-Net", 2, 0, 2), ("fcn", "FCN", 2, 2, 0), ("classifier", "classifier", 2, 0, 0)],
)
def test_decoders_are_drawn(decoder: str, label: str, steps: int, added: int, concatenated: int) -> None:
    figure = draw_path(down_to_8(decoder, ["nearest", "max_unpool"]))
    assert ticks(figure) == ["stem", "1", "2", "3", "4", label]
    assert arrows(figure, "decoder") == [(4, 2, 0), *((5 + number, 2 - number, -1) for number in range(steps))]
    assert names(figure) == {(6, 1): "nearest", (7, 0): "unpool"}
    assert (len(arcs(figure, "skip-add")), len(arcs(figure, "skip-concat"))) == (added, concatenated)


def test_a_plain_genotype_is_drawn_without_a_decoder() -> None:
    figure = draw_path(down_to_8("deeplabv3plus"))
    assert ticks(figure) == ["stem", "1", "2", "3", "4"]
    assert legend(figure) == ["decoded path"]
    assert not figure.axes[0].texts


def test_an_hourglass_that_ends_early_has_a_grid_of_all_arrows() -> None:
    found = genotype({"strides": [4, 8, 8, 4], "down_layers": 2}, {"name": "classifier"})
    assert arrows(draw_path(found), "path") == [(0, 0, 1), (1, 1, 1), (2, 2, 0), (3, 2, -1)]


LONG = ["transposed_conv_bilinear", "ipixel_dcl_5x5", "pixel_dcl_average", "pixel_shuffle_icnr", "carafe"]


@pytest.mark.parametrize(
    "found",
    [
        hourglass(),
        down_to_8("unet", LONG[:2]),
        genotype({"strides": [4, 8, 16, 8, 4, 2], "down_layers": 3, "upsamplers": LONG[:3], "skips": ["add"] * 3}),
        genotype({"strides": [4, 8, 4, 8, 4, 2], "upsamplers": LONG[:3]}),
        several_paths(upsamplers=["ipixel_dcl_5x5"]),
        genotype(
            {
                "arrows": [["2->2", "2->4"], ["2->2", "2->4", "4->4"], *[["2->2", "4->2", "4->4"]] * 2],
                "down_layers": 2,
                "upsamplers": LONG[:2],
                "skips": ["concat"] * 2,
            }
        ),
    ],
)
def test_names_overlap_neither_each_other_nor_nodes(found: Genotype) -> None:
    figure = draw_path(found)
    axes = figure.axes[0]
    texts: list[Text] = [text for text in axes.texts if text.get_gid() == "upsampler"]
    expected = len(found.network.upsamplers) + len(found.decoder.upsamplers)
    assert len(texts) == expected > 0
    boxes = [text.get_window_extent() for text in texts]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    for gid in ("nodes", "path-nodes", "decoder-nodes", "stem"):
        (nodes,) = [item for item in axes.collections if item.get_gid() == gid]
        for place in np.asarray(nodes.get_offsets()):
            (x0, y1), (x1, y0) = (axes.transData.transform(place + sign * RADIUS) for sign in (-1, 1))
            assert not any(box.x0 < x1 and box.x1 > x0 and box.y0 < y1 and box.y1 > y0 for box in boxes)
    assert min(text.get_fontsize() for text in texts) >= 7


def test_a_genotype_of_another_space() -> None:
    with raises_code(ConfigError, "genotype-not-in-space", "level 0 to level 1 at layer 2"):
        draw_trellis(open_space(network={"layers": 4, "strides": [2]}), None, down_to_8("aspp"))


# --- charts ---------------------------------------------------------------------------------------------------------


def test_gamma_shows_the_candidates_of_each_site_alone() -> None:
    probs = random_probs(open_space())
    axes = draw_gamma(probs).axes[0]
    shown = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes.texts}
    sites = probs.space.gamma_sites
    assert [site.name for site in sites] == ["up_4_2", "up_8_4", "decoder_8_4", "decoder_4_2"]
    columns = {"bilinear": 0, "carafe": 1, "dysample": 2}
    assert set(shown) == {(row, columns[name]) for row, site in enumerate(sites) for name in site.candidates}
    assert probs.gamma_probs is not None
    for place, text in shown.items():
        assert float(text) == pytest.approx(probs.gamma_probs[place], abs=0.0051)
    labels = ["up 4 \u2192 2", "up 8 \u2192 4", "decoder 8 \u2192 4", "decoder 4 \u2192 2"]
    assert [label.get_text() for label in axes.get_yticklabels()] == labels
    assert [label.get_text() for label in axes.get_xticklabels()] == ["bilinear", "CARAFE", "DySample"]
    bold = [text.get_text() for text in axes.texts if text.get_fontweight() == "bold"]
    assert bold == [f"{value:.2f}" for value in probs.gamma_probs.max(-1)]


def test_gamma_of_each_arrow_names_its_layer() -> None:
    space = open_space(resolution={"upsamplers": ["bilinear", "carafe"], "shared_by": "arrow"})
    labels = [label.get_text() for label in draw_gamma(random_probs(space)).axes[0].get_yticklabels()]
    assert labels[0] == "layer 2: 4 \u2192 2"
    assert len(labels) == len(space.gamma_sites) == 5 + 2


def test_skips_have_a_row_a_stride() -> None:
    probs = random_probs(hourglass_space())
    axes = draw_skips(probs).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["stride 2", "stride 4"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["none", "add", "concat"]
    shown = np.array([float(text.get_text()) for text in axes.texts]).reshape(2, 3)
    assert shown == pytest.approx(probs.skip_probs, abs=0.0051)


def test_two_cells_stand_beside_each_other() -> None:
    probs = random_probs(hourglass_space())
    axes = draw_alpha(probs).axes[0]
    titles = [text for text in axes.texts if text.get_text().startswith("cell")]
    assert [title.get_text() for title in titles] == ["cell of the way down", "cell of the way up"]
    numbers = np.array([float(text.get_text()) for text in axes.texts if text not in titles])
    assert numbers.reshape(probs.alpha_probs.shape) == pytest.approx(probs.alpha_probs, abs=0.0051)
    edges, operations = 5, 8
    assert probs.alpha_probs.shape == (2 * edges, operations)
    assert len(axes.get_yticklabels()) == edges
    assert len(axes.get_xticklabels()) == 2 * operations
    right = [text.get_position()[0] for text in axes.texts if text not in titles][edges * operations :]
    assert min(right) > operations - 0.5  # beyond the first panel


def test_spaces_without_gamma_and_skips() -> None:
    probs = random_probs(open_space(resolution={}, decoder={"name": "aspp"}))
    with raises_code(ConfigError, "no-upsamplers-compete", "'open'", "resolution.upsamplers"):
        draw_gamma(probs)
    with raises_code(ConfigError, "no-skips-compete", "'open'", "resolution.skips"):
        draw_skips(probs)


def test_the_cell_of_the_way_up() -> None:
    texts = [text.get_text() for text in draw_cell(hourglass(), "up_cell").axes[0].texts]
    assert {"max pool 3x3", "sep 5x5", "b2"} <= set(texts)
    assert "sep 3x3" not in texts


def test_history_draws_the_entropies_of_gamma_and_skips() -> None:
    entropies = {"alpha_entropy": 0.9, "beta_entropy": 0.8, "gamma_entropy": 0.7, "skip_entropy": 0.6}
    rows = [{"kind": "val", "epoch": epoch, "step": 4 * (epoch + 1), **entropies} for epoch in range(3)]
    (axes,) = draw_history(rows).axes
    assert {line.get_label(): float(line.get_ydata()[0]) for line in axes.lines} == {  # type: ignore[index]
        "alpha": 0.9,
        "beta": 0.8,
        "gamma": 0.7,
        "skips": 0.6,
    }
