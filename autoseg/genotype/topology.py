"""Networks of several paths: which arrows of the trellis stay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoseg.genotype.schema import Cell
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import Arrow


def decode_topology(beta_probs: np.ndarray, space: SearchSpace, cells: Sequence[Cell]) -> tuple[Arrow, ...]:
    """TOPOLOGY"""
    raise NotImplementedError
