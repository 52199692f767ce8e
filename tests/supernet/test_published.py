"""The supernet of the paper's own space: its size, and how many operations it issues."""

from __future__ import annotations

import pytest
import torch
from helpers.supernets import count_operations

from autoseg.analysis.flops import count_parameters
from autoseg.space.schema import SearchSpace
from autoseg.supernet import build_supernet

SPACE = SearchSpace.load("auto_deeplab")
TEXTBOOK_OPERATIONS = 132_540
"""`count_operations` of the oracle `TextbookSupernet(SPACE, 19)` for images of 33x33, which takes fifteen seconds."""


@pytest.mark.slow
def test_supernet_of_the_paper_has_its_size_and_a_twentieth_of_the_textbook_operations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """L 12, B 5, F 8, 19 classes; the number of operations does not depend on the images' size."""
    supernet = build_supernet(SPACE, 19)
    assert round(count_parameters(supernet) / 1e6, 2) == 46.76
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # with one, 1x1 convolutions take a few views more
    assert count_operations(supernet, torch.randn(2, 3, 33, 33)) * 20 <= TEXTBOOK_OPERATIONS


@pytest.mark.slow
def test_operations_do_not_depend_on_the_size_of_the_images() -> None:
    """Sizes of one parity pattern: whether a feature needs resizing depends on it."""
    supernet = build_supernet(SearchSpace.load("tiny"), 5)
    assert count_operations(supernet, torch.randn(2, 3, 33, 65)) == count_operations(
        supernet, torch.randn(3, 3, 65, 97)
    )
