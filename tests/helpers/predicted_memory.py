"""Predictions of memory, of which each takes a second or two: equal settings are predicted once in a process."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
import torch

from autoseg.engine.config import RetrainConfig, SearchConfig
from autoseg.planning import fit
from autoseg.planning.memory import STEPS, Memory, Step, predict_memory

_known: dict[tuple[object, ...], Memory] = {}


def predict_once(config: SearchConfig | RetrainConfig, device: torch.device, steps: Sequence[Step] = STEPS) -> Memory:
    """`predict_memory`, which returns the same for the same arguments."""
    key = type(config), json.dumps(config.to_dict(), sort_keys=True), str(device), tuple(steps)
    if key not in _known:
        _known[key] = predict_memory(config, device, steps)
    return _known[key]


@pytest.fixture
def predicted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fits a run into the memory of a device, or plans it, predicts equal settings once in a process."""
    monkeypatch.setattr(fit, "predict_memory", predict_once)
