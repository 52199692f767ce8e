"""How batches become steps, against counting."""

from __future__ import annotations

import itertools
import re

import pytest
from helpers.errors import raises_code

from autoseg.config.training import TrainingConfig
from autoseg.engine.accumulation import steps_in_epoch
from autoseg.errors import ConfigError


def steps(batches: int, accumulate: int, most: int | None, place: str) -> int:
    return steps_in_epoch(batches, TrainingConfig(accumulate=accumulate, max_steps_per_epoch=most), place)


def test_whole_steps_alone_are_made() -> None:
    """Every case of a small range: the steps that are counted out, or an error where batches are left over."""
    for batches, accumulate, most in itertools.product(range(1, 13), range(1, 14), (None, *range(1, 14))):
        whole, left = divmod(batches, accumulate)
        if most is not None and most <= whole:
            assert steps(batches, accumulate, most, "search") == most
        elif left == 0:
            assert steps(batches, accumulate, most, "search") == whole
        else:
            code = "accumulate-indivisible" if whole else "accumulate-too-large"
            with raises_code(ConfigError, code, f"search.accumulate is {accumulate}", batches):
                steps(batches, accumulate, most, "search")


@pytest.mark.parametrize("batches", range(2, 40))
def test_what_an_error_proposes_works(batches: int) -> None:
    for accumulate in range(2, batches + 4):
        try:
            steps(batches, accumulate, None, "retrain")
            continue
        except ConfigError as reason:
            said, code = str(reason), reason.code
        assert code == ("accumulate-too-large" if accumulate > batches else "accumulate-indivisible")
        assert f"retrain.accumulate is {accumulate}" in said
        if accumulate > batches:
            assert steps(batches, batches, None, "retrain") == 1
            assert f"at most {batches}" in said
            continue
        below, above, most = map(int, re.findall(r"set it to (\d+) or (\d+), .*max_steps_per_epoch=(\d+)", said)[0])
        assert below < accumulate < above
        assert steps(batches, below, None, "retrain") * below == batches
        assert steps(batches, above, None, "retrain") * above == batches
        assert steps(batches, accumulate, most, "retrain") == most
