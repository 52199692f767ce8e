"""What the figures hold, and the files that they become."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from helpers.errors import raises_code
from helpers.wide_spaces import KINDS, NAMED, STAGES, drawn, of_stages, wide_space
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import Collection, LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from autoseg.errors import ConfigError, DataError, RunError
from autoseg.genotype.decode import decode
from autoseg.genotype.schema import Genotype
from autoseg.space.schema import SearchSpace
from autoseg.space.snapshot import ArchProbs
from autoseg.viz.cell import draw_cell
from autoseg.viz.heat_maps import draw_alpha
from autoseg.viz.history import draw_history, series, smooth, steps_per_epoch
from autoseg.viz.palette import palette
from autoseg.viz.samples import draw_predictions
from autoseg.viz.sheet import LAYER_STEP, LEVEL_STEP
from autoseg.viz.style import FORMATS, PALE, save
from autoseg.viz.trellis import draw_path, draw_trellis

STEMS = {1: [1], 2: [2], 4: [2, 2]}


def make_space(
    layers: int, strides: list[int], blocks: int = 2, moves: tuple[str, ...] = ("up", "same", "down")
) -> SearchSpace:
    stem = STEMS[strides[0]]
    return SearchSpace.parse(
        {
            "name": "small",
            "cell": {"blocks": blocks},
            "network": {"layers": layers, "strides": strides, "moves": moves},
            "stem": {"channels": [8] * len(stem), "strides": stem},
        }
    )


def random_probs(space: SearchSpace, seed: int = 0) -> ArchProbs:
    rng, zeros = np.random.default_rng(seed), ArchProbs.zeros(space)
    return ArchProbs(space, rng.normal(size=zeros.alpha_logits.shape), 2 * rng.normal(size=zeros.beta_logits.shape))


def collection(figure: Figure, gid: str) -> Collection:
    found = [item for item in figure.axes[0].collections if item.get_gid() == gid]
    assert len(found) == 1
    return found[0]


def lines(figure: Figure, gid: str) -> LineCollection:
    found = collection(figure, gid)
    assert isinstance(found, LineCollection)
    return found


def steps(found: LineCollection) -> list[tuple[int, int, int]]:
    """(layer, level, change of level) of each arrow, from where its shaft begins and leads."""
    result = []
    for (x0, y0), (_, y1) in found.get_segments():  # a shaft begins and ends near its nodes
        change = float(y1 - y0) / LEVEL_STEP
        result.append((int(x0 / LAYER_STEP), round(float(y0) / LEVEL_STEP), round(change * 1.5)))
    return result


SPACES = [(2, [4, 8]), (3, [4]), (12, [4, 8, 16, 32]), (24, [2, 4, 8, 16, 32]), (8, [1, 2, 4, 8, 16, 32])]


@pytest.mark.parametrize(("layers", "strides"), SPACES)
def test_trellis_draws_every_legal_arrow_once(layers: int, strides: list[int]) -> None:
    space = make_space(layers, strides)
    probs = random_probs(space)
    found = lines(draw_trellis(space, probs), "arrows")
    legal = {(a.source.layer, a.source.level, a.move.step) for a in space.trellis.arrows}
    drawn = steps(found)
    assert len(drawn) == int(space.trellis.legal().sum())
    assert set(drawn) == legal


def test_auto_deeplab_has_105_arrows_and_its_nodes() -> None:
    figure = draw_trellis(SearchSpace.load("auto_deeplab"))
    assert len(lines(figure, "arrows").get_segments()) == 105
    assert len(collection(figure, "nodes").get_offsets()) == 2 + 3 + 4 * 10
    assert len(collection(figure, "stem").get_offsets()) == 1
    assert len(figure.axes) == 1  # no probabilities, no colour bar
    ticks = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert ticks == ["4", "8", "16", "32"]
    top, bottom = (figure.axes[0].transData.transform((0, level * LEVEL_STEP))[1] for level in (0, 3))
    assert top > bottom


def test_moves_that_are_not_legal_are_not_drawn() -> None:
    space = make_space(5, [4, 8, 16], moves=("same", "down"))
    assert all(step >= 0 for *_, step in steps(lines(draw_trellis(space), "arrows")))


def test_width_and_darkness_follow_the_probability() -> None:
    space = make_space(6, [4, 8, 16])
    probs = random_probs(space)
    found = lines(draw_trellis(space, probs), "arrows")
    values = np.array([probs.beta_probs[layer, level, step + 1] for layer, level, step in steps(found)])
    order = np.argsort(values)
    widths = np.asarray(found.get_linewidths())[order]
    lightness = np.asarray(found.get_colors())[order][:, :3] @ [0.2126, 0.7152, 0.0722]
    distinct = np.diff(values[order]) > 0.01
    assert (np.diff(widths) >= 0).all()
    assert (np.diff(widths)[distinct] > 0).all()
    assert (np.diff(lightness)[distinct] < 0).all()


def test_the_bar_explains_the_colours_of_the_arrows() -> None:
    """From 0 to 1, whatever the probabilities are."""
    space = make_space(6, [4, 8, 16])
    probs = random_probs(space)
    figure = draw_trellis(space, probs)
    bar = figure.axes[1]
    assert bar.get_ylim() == (0, 1)
    assert [tick.get_text() for tick in bar.get_yticklabels()] == ["0.0", "0.5", "1.0"]
    (shown,) = [item for item in bar.collections if item.get_array() is not None and len(item.get_array()) > 2]
    found = lines(figure, "arrows")
    values = [probs.beta_probs[layer, level, step + 1] for layer, level, step in steps(found)]
    assert np.allclose(shown.cmap(shown.norm(values)), found.get_colors())


def test_wires_of_operations_lie_over_pale_ones_and_between_blocks_and_operations() -> None:
    patches = draw_cell(Genotype.load("auto_deeplab_s")).axes[0].patches
    wires = [patch for patch in patches if patch.get_gid() == "wire"]
    pale = {wire.get_zorder() for wire in wires if wire.get_edgecolor() == to_rgba(PALE)}
    others = {wire.get_zorder() for wire in wires if wire.get_edgecolor() != to_rgba(PALE)}
    blocks, operations = ({p.get_zorder() for p in patches if p.get_gid() == gid} for gid in ("block", "operation"))
    assert max(blocks) < min(pale) <= max(pale) < min(others) <= max(others) < min(operations)


def test_likely_arrows_lie_over_unlikely_ones() -> None:
    """Later items of a collection are drawn over earlier ones; each head has the place and the colour of its shaft."""
    space = make_space(6, [4, 8, 16])
    probs = random_probs(space)
    figure = draw_trellis(space, probs)
    shafts, heads = lines(figure, "arrows"), collection(figure, "arrows-heads")
    values = [probs.beta_probs[layer, level, step + 1] for layer, level, step in steps(shafts)]
    assert len(set(values)) > 10
    assert values == sorted(values)
    assert np.array_equal(heads.get_facecolors(), shafts.get_colors())
    for shaft, head in zip(shafts.get_segments(), heads.get_paths(), strict=True):
        middle = head.vertices[1:3].mean(0)  # of the head's back, after its tip
        assert np.linalg.norm(shaft[1] - middle) < 0.01


def test_equal_probabilities_have_equal_widths() -> None:
    space = SearchSpace.load("auto_deeplab")
    found = lines(draw_trellis(space, ArchProbs.zeros(space)), "arrows")
    assert len({round(float(width), 6) for width in found.get_linewidths()}) == 2  # of 1/2 and 1/3


def test_the_path_is_drawn_over_its_arrows() -> None:
    space = make_space(12, [4, 8, 16, 32])
    probs = random_probs(space, 3)
    genotype = decode(probs)
    levels = genotype.levels
    figure = draw_trellis(space, probs, genotype, "title")
    arrows, path = lines(figure, "arrows"), lines(figure, "path")
    before = (0, *levels[:-1])
    assert steps(path) == [(n, a, b - a) for n, (a, b) in enumerate(zip(before, levels, strict=True))]
    offsets = np.asarray(collection(figure, "path-nodes").get_offsets())
    assert offsets == pytest.approx(
        np.array([(n * LAYER_STEP, level * LEVEL_STEP) for n, level in enumerate(levels, 1)])
    )
    assert path.get_zorder() > arrows.get_zorder()
    under = dict(zip(steps(arrows), arrows.get_linewidths(), strict=True))
    assert all(width > under[step] for step, width in zip(steps(path), path.get_linewidths(), strict=True))
    assert figure.axes[0].get_title("left") == "title"


def test_path_of_the_published_network() -> None:
    genotype = Genotype.load("auto_deeplab_s")
    figure = draw_path(genotype)
    assert len(lines(figure, "arrows").get_segments()) == 105
    assert [level for _, level, _ in steps(lines(figure, "path"))] == [0, *genotype.levels[:-1]]
    assert [step for *_, step in steps(lines(figure, "path"))] == [move.step for move in genotype.moves]


# --- cell and alpha -------------------------------------------------------------------------------------------------


def test_cell_names_every_operation() -> None:
    figure = draw_cell(Genotype.load("auto_deeplab_s"))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts.count("sep 3x3") == 4
    assert texts.count("sep 5x5") == 3
    assert texts.count("atrous 5x5") == 2
    assert texts.count("atrous 3x3") == 1
    assert texts.count("+") == 5
    assert {"H(l\u22122)", "H(l\u22121)", "H(l)", "concat", "b1", "b5"} <= set(texts)


def test_operation_names_fit_their_boxes() -> None:
    operations = ["max_pool_3x3", "atrous_conv_5x5", "sep_conv_5x5", "avg_pool_3x3", "skip_connect"]
    for operation in operations:
        cell = [[{"input": "prev", "operation": operation}]]
        figure = draw_cell(
            Genotype.parse({"name": "x", "cell": cell, "network": {"strides": [4, 4], "filter_multiplier": 8}})
        )
        (box,) = [patch for patch in figure.axes[0].patches if patch.get_gid() == "operation"]
        (text,) = [
            text for text in figure.axes[0].texts if text.get_text() in operation.replace("_conv", "").replace("_", " ")
        ]
        outer, inner = box.get_window_extent(), text.get_window_extent()
        assert outer.x0 < inner.x0 < inner.x1 < outer.x1


def test_alpha_shows_every_number() -> None:
    space = make_space(2, [4, 8], blocks=3)
    probs = random_probs(space)
    figure = draw_alpha(probs)
    axes = figure.axes[0]
    shown = np.array([float(text.get_text()) for text in axes.texts]).reshape(probs.alpha_probs.shape)
    assert np.abs(shown - probs.alpha_probs).max() <= 0.005 + 1e-9
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[:3] == ["prev_prev \u2192 b1", "prev \u2192 b1", "prev_prev \u2192 b2"]
    assert len(labels) == 9
    bold = [number for number, text in enumerate(axes.texts) if text.get_fontweight() == "bold"]
    width = probs.alpha_probs.shape[1]
    assert [number % width for number in bold] == probs.alpha_probs.argmax(-1).tolist()


# --- history --------------------------------------------------------------------------------------------------------


def history(epochs: int = 6, per_epoch: int = 40, entropies: bool = True) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for step in range(0, epochs * per_epoch, 10):
        rows.append({"kind": "train", "epoch": step // per_epoch, "step": step, "loss": 3 / (1 + step), "lr": 0.1})
        if step >= per_epoch:
            rows.append({"kind": "arch", "epoch": step // per_epoch, "step": step, "loss": 2.0})
    for epoch in range(epochs):
        row = {"kind": "val", "epoch": epoch, "step": (epoch + 1) * per_epoch, "miou": 0.1 * epoch, "loss": 1.0}
        rows.append({**row, "alpha_entropy": 0.9, "beta_entropy": 0.8} if entropies else row)
    return rows


def test_history_has_a_panel_for_what_was_logged() -> None:
    labels = [axes.get_ylabel() for axes in draw_history(history()).axes]
    assert labels == ["loss", "validation", "normalised entropy"]
    assert [axes.get_ylabel() for axes in draw_history(history(entropies=False)).axes] == ["loss", "validation"]
    assert [axes.get_ylabel() for axes in draw_history(history()[:3]).axes] == ["loss"]


def test_history_is_drawn_over_epochs() -> None:
    axes = draw_history(history()).axes
    (miou,) = [line for line in axes[1].lines if line.get_label() == "mIoU"]
    assert list(miou.get_xdata()) == pytest.approx([1, 2, 3, 4, 5, 6])
    assert list(miou.get_ydata()) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert [line.get_gid() for line in axes[0].lines] == ["raw", "smooth", "raw", "smooth", "points"]


def test_steps_per_epoch_and_series() -> None:
    rows = history()
    assert steps_per_epoch(rows) == 40
    assert steps_per_epoch([]) == 1
    assert steps_per_epoch(rows[:1]) == 1
    broken = [{"kind": "val", "epoch": 0, "step": 4, "miou": value} for value in (0.5, None, float("nan"), "x")]
    epochs, values = series(broken, "miou", 4.0, "val")
    assert epochs.tolist() == [1]
    assert values.tolist() == [0.5]


def test_smooth_keeps_constants_and_lowers_noise() -> None:
    assert smooth(np.full(50, 2.0)) == pytest.approx(np.full(50, 2.0))
    noise = np.random.default_rng(0).normal(size=400)
    assert smooth(noise).std() < 0.35 * noise.std()
    assert len(smooth(noise)) == 400


@pytest.mark.parametrize("rows", [[], [{"kind": "val", "epoch": 0, "step": 1, "loss": None}], [{"note": 1}]])
def test_a_history_of_nothing_is_an_error(rows: list[dict[str, object]]) -> None:
    with raises_code(RunError, "metrics-empty"):
        draw_history(rows)


# --- predictions ----------------------------------------------------------------------------------------------------


def samples(count: int = 2) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (8, 12, 3)).astype(np.uint8) for _ in range(count)]
    masks = [rng.integers(0, 3, (8, 12)) for _ in range(count)]
    for mask in masks:
        mask[0] = 255
    return images, masks, [rng.integers(0, 3, (8, 12)) for _ in range(count)]


def legend_names(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_predictions_beside_truth() -> None:
    images, masks, predictions = samples()
    colours = palette(5)
    figure = draw_predictions(images, masks, predictions, colours, ["a", "b", "c", "d", "e"], 255)
    assert [axes.get_title() for axes in figure.axes] == ["image", "", "truth", "", "prediction", ""]
    assert legend_names(figure) == ["a", "b", "c", "ignored"]
    (legend,) = figure.legends
    patches = [patch for patch in legend.get_patches() if isinstance(patch, Patch)]
    assert np.rint(np.array(patches[1].get_facecolor()[:3]) * 255).tolist() == colours[1].tolist()
    pictures = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert (pictures[0] == images[0]).all()
    assert (pictures[4] == colours[predictions[0]]).all()


def test_predictions_that_do_not_fit() -> None:
    images, masks, predictions = samples()
    with raises_code(DataError, "sample-counts-differ", "2 images", "2 masks", "1 predictions"):
        draw_predictions(images, masks, predictions[:1], palette(3), ["a", "b", "c"], 255)
    with raises_code(DataError, "mask-size-differs", "sample 1", "prediction"):
        draw_predictions(images, masks, [predictions[0], predictions[1][:4]], palette(3), ["a", "b", "c"], 255)
    with raises_code(DataError, "label-out-of-range", "label 2 ", "2 classes"):
        draw_predictions(images, masks, predictions, palette(2), ["a", "b"], 255)


# --- files ----------------------------------------------------------------------------------------------------------


def figures() -> list[Figure]:
    space = make_space(2, [4, 8])
    probs = random_probs(space)
    images, masks, predictions = samples(1)
    return [
        draw_trellis(space, probs, decode(probs)),
        draw_cell(Genotype.load("auto_deeplab_s")),
        draw_alpha(probs),
        draw_history(history()),
        draw_predictions(images, masks, predictions, palette(3), ["a", "b", "c"], 255),
    ]


@pytest.mark.slow
def test_three_formats_that_parse(tmp_path: Path) -> None:
    written = save(figures()[0], tmp_path / "new" / "trellis.v2")
    assert [path.name for path in written] == ["trellis.v2.svg", "trellis.v2.png", "trellis.v2.pdf"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in written)
    svg = ElementTree.parse(written[0]).getroot()
    assert svg.tag.endswith("svg")
    words = {element.text for element in svg.iter() if element.tag.endswith("text")}
    assert {"stem", "output stride", "beta probability"} <= words
    with Image.open(written[1]) as image:
        assert image.format == "PNG"
        assert min(image.size) > 150
    assert written[2].read_bytes().startswith(b"%PDF-")


def test_svg_has_one_path_an_arrow(tmp_path: Path) -> None:
    space = SearchSpace.load("auto_deeplab")
    (path,) = save(draw_trellis(space, ArchProbs.zeros(space)), tmp_path / "a.svg")
    (group,) = [element for element in ElementTree.parse(path).iter() if element.get("id") == "arrows"]
    assert sum(element.tag.endswith("path") for element in group.iter()) == 105


@pytest.mark.slow
def test_the_same_bytes_twice(tmp_path: Path) -> None:
    for number, (first, second) in enumerate(zip(figures(), figures(), strict=True)):
        formats = FORMATS if number == 0 else ("svg",)
        one = save(first, tmp_path / f"{number}_a", formats)
        two = save(second, tmp_path / f"{number}_b", formats)
        for a, b in zip(one, two, strict=True):
            assert a.read_bytes() == b.read_bytes(), a.name
        assert not re.search(rb"<dc:date>", one[0].read_bytes())


@pytest.mark.slow
def test_a_suffix_chooses_the_format(tmp_path: Path) -> None:
    assert save(figures()[0], tmp_path / "a.png", formats=("pdf",)) == [tmp_path / "a.png"]
    assert save(figures()[0], str(tmp_path / "b"), formats=("svg",)) == [tmp_path / "b.svg"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "formats", "wrong"), [("a.jpg", ("png",), "jpg"), ("a", ("bmp",), "bmp"), ("a", ("png", "gif"), "gif")]
)
def test_unknown_formats(tmp_path: Path, name: str, formats: tuple[str, ...], wrong: str) -> None:
    with raises_code(ConfigError, "unknown-format", f"'{wrong}'", "svg, png, pdf"):
        save(figures()[0], tmp_path / name, formats)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with raises_code(RunError, "file-unwritable", tmp_path / "file"):
        save(figures()[0], tmp_path / "file" / "a.png")


def test_the_users_style_neither_matters_nor_changes() -> None:
    genotype = Genotype.load("auto_deeplab_s")
    plain, dark = io.BytesIO(), io.BytesIO()
    draw_path(genotype).savefig(plain, format="png")
    with matplotlib.rc_context({"axes.facecolor": "black", "text.color": "red", "font.size": 20}):
        before = dict(matplotlib.rcParams)
        figure = draw_path(genotype)
        assert dict(matplotlib.rcParams) == before
    figure.savefig(dark, format="png")
    assert plain.getvalue() == dark.getvalue()


# --- networks of stages -----------------------------------------------------------------------------------------------


def texts_of(figure: Figure, gid: str) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts if text.get_gid() == gid]


@pytest.mark.parametrize("name", KINDS)
def test_the_trellis_says_block_depth_and_channels_of_each_level(name: str) -> None:
    figure = draw_path(of_stages(name))
    second = ["cell", "2 \u00d7 3 channels"] if "cell" in name else ["2 \u00d7 conv 3x3", "6 channels"]
    expected = ["residual", "4 channels", *second, "3 \u00d7 inverted residual", "5 channels"]
    assert texts_of(figure, "stage") == expected
    assert collection(figure, "decoder-nodes") is not None  # whatever its decoder is
    (legend,) = [each for each in figure.axes[0].get_legend().get_texts()[:1]]
    assert legend.get_text() == ("arrows" if "several" in name else "path")


def test_a_genotype_without_stages_says_none() -> None:
    assert texts_of(draw_path(Genotype.load("auto_deeplab_s")), "stage") == []


@pytest.mark.slow
@pytest.mark.parametrize("paths", ["single", "multi"])
def test_labels_of_stages_stand_beside_each_other_and_all_else(paths: str) -> None:
    """No two texts of a figure overlap, and none of the stages' lies on a node."""
    to_the_end = {"network": {"strides": [4, 8, 4, 2], "filter_multiplier": 4}, "cell": []}
    narrow = Genotype.parse({**of_stages("path with a cell").to_dict(), **to_the_end, "stages": STAGES})
    for genotype in [narrow, *(drawn(seed, paths=[paths]) for seed in range(3))]:
        figure = draw_path(genotype)
        FigureCanvasAgg(figure).draw()
        axes = figure.axes[0]
        texts = [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels()]
        boxes = [text.get_window_extent() for text in texts if text.get_text()]
        boxes = [box.padded(-1) for box in boxes]
        assert not [1 for number, box in enumerate(boxes) for other in boxes[:number] if box.overlaps(other)]
        ticks = [tick.get_window_extent() for tick in axes.get_xticklabels()]
        assert min(right.x0 - left.x1 for left, right in pairwise(ticks)) > 0.05 * figure.dpi
        stages = [text.get_window_extent() for text in axes.texts if text.get_gid() == "stage"]
        assert max(box.x1 for box in stages) <= axes.get_window_extent().x1  # a colour bar stands behind it
        places = [axes.transData.transform(spot) for each in axes.collections for spot in each.get_offsets()]
        assert stages
        assert not [1 for box in stages for spot in places if box.contains(*spot)]


def test_the_trellis_of_a_wide_space_is_that_of_its_networks() -> None:
    """Not of `network.layers`, which named networks do not have, and from its finest stem."""
    stems = [{"channels": [4], "strides": [1]}, {"channels": [4], "strides": [2]}]
    for space, layers, strides in (
        (wide_space(NAMED), 3, ["2", "4", "8", "16"]),
        (wide_space(layers=[3, 5]), 5, ["2", "4", "8", "16"]),
        (wide_space(layers=[], stems=stems), 4, ["1", "2", "4", "8", "16"]),
    ):
        axes = draw_trellis(space).axes[0]
        assert [tick.get_text() for tick in axes.get_yticklabels()] == strides
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["stem", *map(str, range(1, 1 + layers))]
