"""A newcomer who follows a command down to the optimizer's step passes through few functions."""

from __future__ import annotations

import signal
import sys
import traceback
from pathlib import Path
from unittest.mock import patch

import pytest
from helpers.tiny_runs import SETTINGS, write_config
from torch.optim import optimizer

import autoseg
from autoseg.cli.main import main

PACKAGE = Path(autoseg.__file__).parent
MOST_FRAMES = 6
"""Functions of ours from the command line down to `optimizer.step()`."""


def stacks_at_optimizer_steps(kind: str, folder: Path) -> list[list[tuple[str, str]]]:
    """File and function of each of our frames, outermost first, at every optimizer step of a tiny run."""
    stacks: list[list[tuple[str, str]]] = []

    def note(*_: object) -> None:
        frames = [(Path(frame.filename), frame.name) for frame in traceback.extract_stack()]
        ours = [(str(file.relative_to(PACKAGE)), name) for file, name in frames if file.is_relative_to(PACKAGE)]
        stacks.append(ours)

    shorter = {"epochs": 1, "max_steps_per_epoch": 2} | ({"arch_start_epoch": 0} if kind == "search" else {})
    config = write_config(folder / "config.yaml", SETTINGS[kind], {kind: shorter})
    before = signal.getsignal(signal.SIGTERM)
    hook = optimizer.register_optimizer_step_pre_hook(note)
    try:
        command = ["autoseg", kind, "--config", str(config), "--out", str(folder / "run")]
        with patch.object(sys, "argv", command), pytest.raises(SystemExit) as ended:
            main()
    finally:
        hook.remove()
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 0
    return stacks


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["search", "retrain"])
def test_from_the_command_to_the_optimizers_step(kind: str, tmp_path: Path) -> None:
    stacks = stacks_at_optimizer_steps(kind, tmp_path)
    assert len(stacks) == (4 if kind == "search" else 2)  # of a search, weights and architecture in turn
    frames = stacks[0]
    assert all(other == frames for other in stacks)  # one path, whatever is trained
    assert frames[:4] == [
        ("cli/main.py", "main"),
        ("cli/main.py", "run"),
        (f"cli/{kind}.py", kind),
        (f"api/{kind}.py", kind),
    ]
    assert frames[4:] == [("engine/trainer.py", "run"), (f"engine/{kind}.py", "step")]
    assert len(frames) <= MOST_FRAMES, frames
