"""Heat maps of the tables that only wide spaces have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.errors import raises_code

from autoseg.errors import ConfigError
from autoseg.space.schema import SearchSpace
from autoseg.space.snapshot import ArchProbs, logits_shapes
from autoseg.viz.heat_maps import draw_stages


def probs_of(space: SearchSpace, **logits: np.ndarray) -> ArchProbs:
    zeros: dict[str, Any] = {f"{name}_logits": np.zeros(shape) for name, shape in logits_shapes(space).items()}
    return ArchProbs(space, **{"alpha_logits": None, **zeros, **logits})


@pytest.mark.parametrize("ties", [(), ("stride 4",)])
def test_a_row_of_each_stride_has_its_greatest_bold_unless_it_is_a_tie(ties: tuple[str, ...]) -> None:
    space = SearchSpace.load("wide_small")
    logits = np.zeros((4, 5))
    logits[1, 2] = logits[2, 4] = 3.0
    axes = draw_stages(probs_of(space, width_logits=logits), "width", ties).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"stride {stride}" for stride in (2, 4, 8, 16)]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.5", "0.75", "1", "1.5", "2"]
    bold = {text.get_position() for text in axes.texts if text.get_fontweight() == "bold"}
    assert bold == {(4, 2)} | ({(2, 1)} if not ties else set())
    numbers = {text.get_position(): text.get_text() for text in axes.texts}
    assert numbers[2, 1] == f"{np.exp(3) / (np.exp(3) + 4):.2f}"
    assert numbers[0, 0] == "0.20"


def test_a_choice_of_the_whole_network_has_one_row() -> None:
    space = SearchSpace.load("table_216")
    axes = draw_stages(probs_of(space), "width").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["network"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["even", "wide fine", "wide coarse"]


def test_a_space_without_the_table_is_refused() -> None:
    for name, table in (("tiny", "block"), ("table_216", "depth")):
        space = SearchSpace.load(name)
        with raises_code(ConfigError, "no-stages-compete", name, f"no {table}s"):
            draw_stages(probs_of(space), table)
