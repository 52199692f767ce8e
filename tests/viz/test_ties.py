"""What a search has not decided is thin and broken in every picture, and never bold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Text

from autoseg.analysis.choices import tables_of
from autoseg.genotype.decode import decode
from autoseg.genotype.schema import Genotype
from autoseg.space.schema import SearchSpace
from autoseg.space.snapshot import ArchProbs, logits_shapes
from autoseg.viz.cell import draw_cell
from autoseg.viz.heat_maps import draw_alpha, draw_gamma, draw_skips
from autoseg.viz.history import draw_history
from autoseg.viz.style import TIE_WIDTH, save
from autoseg.viz.trellis import draw_path, draw_trellis

SPACE = SearchSpace.parse({
    "version": 1, "name": "s", "cell": {"blocks": 2, "operations": ["none", "skip_connect", "sep_conv_3x3"],
                                        "up_cell": True},
    "network": {"layers": 4, "strides": [2, 4, 8], "down_layers": 2, "filter_multiplier": 4},
    "stem": {"channels": [4, 4], "strides": [2, 1]},
    "decoder": {"name": "classifier"},
    "resolution": {"upsamplers": ["bilinear", "dysample"], "skips": ["none", "add"]},
})  # fmt: skip


def probs() -> ArchProbs:
    rng = np.random.default_rng(0)
    return ArchProbs(
        SPACE, **{f"{name}_logits": rng.normal(size=shape) for name, shape in logits_shapes(SPACE).items()}
    )


def genotype(undecided: dict[str, list[str]] | None) -> Genotype:
    tables = {name: {"undecided": names} for name, names in (undecided or {}).items()}
    return decode(probs(), source={"evidence": {"verdict": "x", **tables}} if undecided is not None else {})


def lines(figure: Figure, gid: str) -> list[LineCollection]:
    return [found for found in figure.axes[0].collections if found.get_gid() == gid]


def is_dashed(artist: Any) -> bool:
    (_, dashes), *_ = artist.get_linestyles() if isinstance(artist, LineCollection) else [artist._dash_pattern]
    return dashes is not None


def all_names() -> dict[str, list[str]]:
    return {name: [choice.name for choice in table.choices] for name, table in tables_of(SPACE).items()}


@pytest.mark.parametrize("draw", [lambda found: draw_trellis(SPACE, probs(), found), draw_path])
def test_arrows_of_a_path(draw: Any) -> None:
    arrows = len(genotype(None).arrows)
    plain = draw(genotype(None))
    assert not lines(plain, "path-ties")
    assert len(lines(plain, "path")[0].get_segments()) == arrows
    one = draw(genotype({"beta": ["stem"]}))
    (tie,) = lines(one, "path-ties")
    assert is_dashed(tie)
    assert tie.get_linewidths() == pytest.approx([TIE_WIDTH])
    assert (len(tie.get_segments()), len(lines(one, "path")[0].get_segments())) == (1, arrows - 1)
    assert not is_dashed(lines(one, "path")[0])
    all_tied = draw(genotype(all_names()))
    legend = [text.get_text() for text in all_tied.axes[0].get_legend().get_texts()]
    assert "undecided" in legend
    assert "undecided" not in [text.get_text() for text in plain.axes[0].get_legend().get_texts()]


def test_arrows_of_an_undecided_node_are_thin_whatever_their_probability() -> None:
    def widest(found: Genotype) -> float:
        return float(np.max(lines(draw_trellis(SPACE, probs(), found), "arrows")[0].get_linewidths()))

    assert widest(genotype(None)) > 2 * TIE_WIDTH
    forced = [arrow for arrow in SPACE.trellis.arrows if len(SPACE.trellis.arrows_from(arrow.source)) == 1]
    assert forced  # they have no choice, so they are no ties
    tied = lines(draw_trellis(SPACE, probs(), genotype(all_names())), "arrows")[0].get_linewidths()
    assert sum(width > TIE_WIDTH for width in tied) == len(forced)


@pytest.mark.parametrize(("cell", "prefix"), [("cell", ""), ("up_cell", "up ")])
def test_operations_of_a_cell(cell: str, prefix: str) -> None:
    def broken(found: Genotype) -> tuple[int, int, bool]:
        figure = draw_cell(found, cell)
        patches = [each for each in figure.axes[0].patches if each.get_gid() == "operation"]
        wires = [each for each in figure.axes[0].patches if each.get_gid() == "wire"]
        assert all(isinstance(each, FancyBboxPatch) for each in patches)
        texts = [text.get_text() for text in figure.axes[0].texts]
        return sum(map(is_dashed, patches)), sum(map(is_dashed, wires)), "broken: undecided" in texts

    assert broken(genotype(None)) == (0, 0, False)
    (edge, *_), *_ = genotype(None).cell if cell == "cell" else genotype(None).up_cell or ()
    assert broken(genotype({"alpha": [f"{prefix}{edge.input} -> b1"]})) == (1, 1, True)
    assert broken(genotype(all_names()))[0] == 4


@pytest.mark.parametrize(("draw", "table"), [(draw_alpha, "alpha"), (draw_gamma, "gamma"), (draw_skips, "skip")])
def test_the_maximum_of_a_tie_is_not_bold(draw: Any, table: str) -> None:
    def bold(ties: Any) -> int:
        return sum(text.get_fontweight() == "bold" for text in draw(probs(), ties).findobj(Text))

    names = all_names()[table]
    assert bold(()) == len(names)
    assert bold({names[0]}) == len(names) - 1
    assert bold(set(names)) == 0


def test_curves_of_the_evidence_take_the_place_of_entropies(tmp_path: Path) -> None:
    def labels(metrics: list[dict[str, Any]]) -> list[str]:
        figure = draw_history(metrics)
        save(figure, tmp_path / "history.svg")
        return [axes.get_ylabel() for axes in figure.axes]

    old = [{"kind": "val", "epoch": 0, "step": 4, "miou": 0.2, "alpha_entropy": 0.9}]
    new = [
        {"kind": "evidence", "epoch": epoch, "step": 4 * epoch + 4, "alpha_ratio": ratio, "alpha_decided": 3.0}
        for epoch, ratio in enumerate((None, 1.1, 4.0))
    ]
    assert labels(old) == ["validation", "normalised entropy"]
    assert labels([*old, *new]) == ["validation", "distance / noise", "decided choices"]
    ratios = draw_history([*old, *new]).axes[1]
    assert ratios.get_ylim()[1] > 4
    assert [line.get_ydata()[0] for line in ratios.lines if line.get_gid() == "noise"] == [1]
