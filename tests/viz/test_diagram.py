"""Where stages stand, what joins them, and what the figure shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import Collection, LineCollection
from matplotlib.figure import Figure

from autoseg.analysis.module_graph import IMAGE, LOGITS, Diagram, Join, Reads, Stage
from autoseg.viz.diagram import StageLayout, draw_network, short_count
from autoseg.viz.sheet import LAYER_STEP, LEVEL_STEP, Spot
from autoseg.viz.style import save


def stage(name: str, stride: float, *reads: str | tuple[str, Join], parameters: int = 1000) -> Stage:
    given: Reads = dict((read, None) if isinstance(read, str) else read for read in reads)
    return Stage(name, 8, stride, parameters, given)


def network(*stages: Stage, output: tuple[str, ...] = ()) -> Diagram:
    reads: Reads = dict.fromkeys(output or (stages[-1].name,), "add" if len(output) > 1 else None)
    return Diagram(stages, reads, 3, 21, 7)


UNET = network(
    stage("down.0", 1, IMAGE),
    stage("down.1", 2, "down.0"),
    stage("down.2", 4, "down.1", parameters=5000),
    stage("up.0", 2, "down.2"),
    stage("join.0", 2, ("up.0", "concat"), ("down.1", "concat")),
    stage("up.1", 1, "join.0"),
    stage("join.1", 1, ("up.1", "concat"), ("down.0", "concat")),
)
FCN = network(
    stage("score_pool3", 8, "conv3"),
    stage("conv3", 4, IMAGE),
    stage("conv4", 8, "conv3"),
    stage("conv5", 16, "conv4"),
    stage("score", 32, "conv5"),
    stage("score_pool4", 16, "conv4"),
    output=("score_pool3", "score", "score_pool4"),
)
FCN = Diagram((*FCN.stages[1:3], FCN.stages[0], *FCN.stages[3:]), FCN.output, 3, 21, 0)
BRANCHES = network(
    stage("layer", 8, IMAGE),
    *(stage(f"branches.{number}", 8, "layer") for number in range(3)),
    output=("branches.0", "branches.1", "branches.2"),
)
PLUS = network(
    stage("layer1", 4, IMAGE),
    stage("decoder.low_level", 4, "layer1"),
    stage("layer4", 16, "layer1"),
    stage("decoder.aspp", 16, "layer4"),
    stage("decoder.refine", 4, ("decoder.aspp", "concat"), ("decoder.low_level", "concat")),
)
UNPOOLED = network(
    stage("down", 1, IMAGE), stage("bottom", 2, "down"), stage("up", 1, ("down", "unpool"), "bottom"),
)  # fmt: skip


def names(layout: StageLayout) -> list[list[str]]:
    return [[each.name for each in column] for column in layout.columns]


def test_stages_stand_in_the_order_of_the_longest_path() -> None:
    layout = StageLayout(UNET)
    assert names(layout) == [[IMAGE], *([each.name] for each in UNET.stages), [LOGITS]]
    assert layout.rows == {1: 0, 2: 1, 4: 2}
    assert layout.spots["down.2"] == Spot(3, 2)
    assert layout.spots[IMAGE] == Spot(0, 0)
    assert layout.sides == {("down.1", "join.0"): "concat", ("down.0", "join.1"): "concat"}
    assert layout.beside == set()
    assert layout.bus == []


def test_side_stages_stand_before_what_reads_them() -> None:
    layout = StageLayout(FCN)
    assert names(layout) == [
        [each] for each in (IMAGE, "conv3", "conv4", "conv5", "score", "score_pool4", "score_pool3", LOGITS)
    ]
    assert layout.beside == {"score_pool3", "score_pool4"}
    assert set(layout.sides.values()) == {"add"}  # what leads to a side stage is joined as that is
    assert set(layout.sides) == {
        ("conv4", "score_pool4"),
        ("conv3", "score_pool3"),
        ("score_pool4", LOGITS),
        ("score_pool3", LOGITS),
    }
    assert layout.bus == ["score", "score_pool4", "score_pool3"]
    assert names(StageLayout(PLUS))[3:-2] == [["decoder.aspp"], ["decoder.low_level"]]
    assert StageLayout(PLUS).sides == {
        ("layer1", "decoder.low_level"): "concat",
        ("decoder.low_level", "decoder.refine"): "concat",
    }


def test_parallel_branches_share_a_column() -> None:
    layout = StageLayout(BRANCHES)
    assert names(layout)[2] == ["branches.0", "branches.1", "branches.2"]
    levels = [layout.spots[f"branches.{number}"].level for number in range(3)]
    assert np.diff(levels) == pytest.approx([0.5, 0.5])
    assert levels[1] == layout.spots["layer"].level
    assert levels[0] >= 1  # the row is so much higher
    assert layout.sides == {}


def test_no_two_stages_in_one_place() -> None:
    for diagram in (UNET, FCN, BRANCHES, PLUS, UNPOOLED):
        spots = StageLayout(diagram).spots
        assert len(set(spots.values())) == len(spots) == len(diagram.stages) + 2


def test_a_stage_that_nothing_reads_and_no_stages_at_all() -> None:
    diagram = network(stage("a", 2, IMAGE), stage("auxiliary", 2, "a"), stage("b", 2, "a"), output=("b",))
    assert names(StageLayout(diagram)) == [[IMAGE], ["a"], ["auxiliary", "b"], [LOGITS]]
    assert names(StageLayout(Diagram((), {IMAGE: None}, 3, 2, 5))) == [[IMAGE], [LOGITS]]


# --- the figure -------------------------------------------------------------------------------------------------------


def collections(figure: Figure, gid: str) -> list[Collection]:
    return [each for each in figure.axes[0].collections if each.get_gid() == gid]


def segments(figure: Figure, gid: str) -> int:
    return sum(len(each.get_segments()) for each in collections(figure, gid) if isinstance(each, LineCollection))


def texts(figure: Figure, gid: str) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts if text.get_gid() == gid]


def legend(figure: Figure) -> list[str]:
    found = figure.axes[0].get_legend()
    assert found is not None
    return [text.get_text() for text in found.get_texts()]


def test_unet() -> None:
    figure = draw_network(UNET, "unet")
    axes = figure.axes[0]
    assert axes.get_title("left") == "unet, 11.0k parameters"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "2", "4"]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["image", "down.0", "down.1", "down.2", "up.0", "join.0", "up.1", "join.1", "logits"]
    assert segments(figure, "main") == 8
    assert len([patch for patch in axes.patches if patch.get_gid() == "skip-concat"]) == 2
    (nodes,) = collections(figure, "stages")
    assert np.asarray(nodes.get_offsets())[2] == pytest.approx((3 * LAYER_STEP, 2 * LEVEL_STEP))
    assert legend(figure) == ["main path", "skip, concat"]


@pytest.mark.slow
def test_parameters_and_channels_of_every_column() -> None:
    figure = draw_network(BRANCHES)
    assert texts(figure, "parameters") == ["1.00k", "3.00k", "7"]  # those of no stage stand at the logits
    assert texts(figure, "channels") == ["3", "8", "3\u00d78", "21"]
    heights = [abs(bar.get_height()) for bar in draw_network(UNET).axes[0].containers[0]]
    assert heights[3] == max(heights)
    assert heights[1] == pytest.approx(heights[3] / 5)
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["image", "layer", "branches.0 \u2026 2", "logits"]


def test_sums_before_the_logits() -> None:
    figure = draw_network(FCN)
    assert len(collections(figure, "sum")) == 2
    assert [line.get_gid() for line in figure.axes[0].lines].count("main-bend") == 1
    assert segments(figure, "skip-add") == 4
    assert not [patch for patch in figure.axes[0].patches if (patch.get_gid() or "").startswith("skip")]  # no arcs
    assert segments(figure, "main") == 5
    assert len(collections(figure, "side-stages")[0].get_offsets()) == 2
    assert legend(figure) == ["main path", "skip, add"]
    assert len(collections(draw_network(BRANCHES), "sum")) == 2


def test_pooling_indices_and_names_without_their_parents() -> None:
    assert legend(draw_network(UNPOOLED)) == ["main path", "pooling indices"]
    labels = [label.get_text() for label in draw_network(PLUS).axes[0].get_xticklabels()]
    assert labels == ["image", "layer1", "layer4", "aspp", "low_level", "refine", "logits"]


def test_nothing_overlaps() -> None:
    many = network(
        *(stage(f"s{n}", 2 ** (n % 5), f"s{n - 1}" if n else IMAGE, parameters=123_456_789) for n in range(19))
    )
    for diagram in (UNET, FCN, BRANCHES, many):
        figure = draw_network(diagram)
        boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_gid() != "word"]
        nodes = [
            np.asarray(each.get_offsets()) for gid in ("stages", "side-stages") for each in collections(figure, gid)
        ]
        lowest = max(float(points[:, 1].max()) for points in nodes)
        assert min(text.get_position()[1] for text in figure.axes[0].texts) - 0.15 > lowest
        for number, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[number + 1 :])


def test_the_same_bytes_twice(tmp_path: Path) -> None:
    one, two = (save(draw_network(FCN, "fcn"), tmp_path / name, ("svg",))[0] for name in ("a", "b"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00k"), (9_996, "10.0k"), (99_949, "99.9k"), (999_499, "999k"),
     (999_500, "1.00M"), (14_714_688, "14.7M"), (134_362_751, "134M"), (2_360_000_000, "2.36G")],
)  # fmt: skip
def test_counts_have_three_digits(count: int, text: str) -> None:
    assert short_count(count) == text
