"""torch.compile: training compiled is the same training, and a machine that cannot compile is told so in one line."""

from __future__ import annotations

import copy
import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor.config
from helpers.errors import raises_code
from helpers.tiny_runs import RETRAIN, assert_same_state, retrain_task, write_config
from torch import Tensor, nn

from autoseg.cli.main import run
from autoseg.engine.retrain import RetrainTask, compiled
from autoseg.errors import ConfigError

CPU = torch.device("cpu")


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """Compiling captures graphs as ever, but runs them operation by operation; every graph that was made."""
    made: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        made.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(
        "autoseg.engine.retrain.compiled", lambda function, _: torch.compile(function, backend=backend, fullgraph=True)
    )
    return made


@pytest.fixture
def no_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        yield


def train(task: RetrainTask, start: int, end: int) -> list[float]:
    """The losses of some steps of the first epoch."""
    batches = itertools.islice(task.loader.epoch(0, start), end - start)
    return [float(task.step([batch], 0, step)["train"]["loss"]) for step, batch in enumerate(batches, start)]


@pytest.mark.slow
def test_training_compiled_is_the_same_training(graphs: list[torch.fx.GraphModule]) -> None:
    """With drop path, whose probability is another at every step, auxiliary head, moving average, and validations."""
    plain, task = retrain_task(), retrain_task(compile=True)
    assert task.state()["network"].keys() == plain.state()["network"].keys()
    for start, end in ((0, 3), (3, 5)):
        assert train(task, start, end) == train(plain, start, end)
        assert task.validate(None, 0) == plain.validate(None, 0)  # type: ignore[arg-type]
    assert_same_state(task.state(), plain.state())
    assert len(graphs) == 2  # without drop path at the first step, with it at any probability after


@pytest.mark.slow
def test_a_compiled_training_resumes(graphs: list[torch.fx.GraphModule]) -> None:
    """In bf16; compiled or not, a checkpoint is the same."""
    whole = retrain_task(compile=True, precision="bf16")
    train(whole, 0, 2)
    saved = copy.deepcopy(whole.state())
    train(whole, 2, 5)
    for resumed in (retrain_task(compile=True, precision="bf16"), retrain_task(precision="bf16")):
        resumed.load_state(copy.deepcopy(saved))
        train(resumed, 2, 5)
        assert_same_state(resumed.state(), whole.state())
    assert graphs


# --- the compiler itself ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler")
def test_code_is_made_and_computes_the_same() -> None:
    torch._dynamo.reset()
    layer = nn.Linear(3, 2)
    keys = list(layer.state_dict())
    function = compiled(layer.forward, CPU)
    features = torch.randn(4, 3)
    torch.testing.assert_close(function(features), layer(features))
    assert list(layer.state_dict()) == keys


@pytest.mark.slow
@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler() -> None:
    with raises_code(ConfigError, "compiling-fails", "torch.compile", "no-such-compiler", "install a C++ compiler"):
        compiled(torch.relu, CPU)


@pytest.mark.slow
@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_a_run_does_not_begin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path / "c.yaml", RETRAIN)
    out = tmp_path / "run"
    assert run(["retrain", "--config", str(config), "--set", "retrain.compile=true", "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.endswith(" [compiling-fails]\n")
    assert "torch.compile" in error
    assert error.count("\n") == 1
    assert not out.exists()
