"""Keeping a computation in the precision of its inputs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def without_autocast(features: Tensor) -> AbstractContextManager[Any]:
    """What is done in here stays in the precision that it has. Meta tensors know no autocast."""
    return nullcontext() if features.is_meta else torch.autocast(features.device.type, enabled=False)
