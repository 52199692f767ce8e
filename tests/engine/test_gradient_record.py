"""What a search records of its architecture's gradients. The oracle is the optimizer: the file leads to its logits."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.errors import check_line
from helpers.pretend_recorder import StandIn, Watch
from helpers.tiny_runs import (
    SEARCH,
    SPACE,
    assert_same_run,
    call,
    checkpoint,
    files_of,
    rows,
    search_task,
    write_config,
)

from autoseg.analysis.choices import legal_logits
from autoseg.analysis.evidence import Replayed
from autoseg.analysis.gradient_file import NAME, GradientFile
from autoseg.cli.main import run
from autoseg.config.base import merge
from autoseg.engine import search
from autoseg.engine.config import SearchConfig
from autoseg.engine.gradient_record import GradientRecord
from autoseg.engine.run_directory import Run
from autoseg.engine.search import Gradients, SearchTask
from autoseg.errors import RunError
from autoseg.genotype.schema import Genotype
from autoseg.space.snapshot import ArchProbs
from autoseg.supernet.arch_parameters import ArchParameters

FIRST = 4
"""Steps before the architecture starts, of 12."""


def recorded(folder: Path) -> GradientFile:
    """The file of a run, read as another process would."""
    config = Run.open(folder).config(SearchConfig)
    return GradientFile(folder / "arch" / NAME, config.space, config.search.arch_optimizer, 1)


def assert_leads_to(file: GradientFile, epochs: int, probs: ArchProbs) -> None:
    """The replay without flips ends at the logits of a snapshot."""
    replayed = Replayed(file)
    replayed.take_epochs(epochs)
    for table in replayed.tables.values():
        expected = legal_logits(probs, table.table)
        np.testing.assert_allclose(table.replays.logits[0], expected, rtol=1e-5, atol=1e-7)
        assert np.abs(expected).max() > 1e-3


# --- what is recorded -------------------------------------------------------------------------------------------------


def test_the_replay_without_flips_ends_at_the_runs_logits_after_each_epoch(searched: Path) -> None:
    for epoch in (1, 2):
        probs = ArchProbs.load(searched / f"arch/epoch_000{epoch}.npz", recorded(searched).space)
        assert_leads_to(recorded(searched), epoch, probs)


def test_each_epoch_has_a_row_and_it_is_the_same_from_the_file(searched: Path) -> None:
    """The search goes on with its replays; here they begin anew for each epoch."""
    found = rows(searched, "evidence")
    assert [(row["epoch"], row["step"]) for row in found] == [(1, 8), (2, 12)]
    for epochs, row in enumerate(found, start=1):
        replayed = Replayed(recorded(searched))
        replayed.take_epochs(epochs)
        for name, table in replayed.evidence().items():
            figures = {key: value if np.isfinite(value) else None for key, value in table.figures().items()}
            assert {key: row[f"{name}_{key}"] for key in figures} == figures
    assert found[0]["alpha_persistence"] is None
    assert -1 <= found[1]["alpha_persistence"] <= 1
    assert (found[1]["alpha_choices"], found[1]["beta_choices"]) == (2, 3)


HOURGLASS: dict[str, Any] = {
    "cell": {**SPACE["cell"], "blocks": 2, "up_cell": True},
    "network": {"layers": 4, "strides": [2, 4, 8], "down_layers": 2, "filter_multiplier": 2},
    "stem": {"channels": [4, 4], "strides": [2, 1]},
    "decoder": {"name": "classifier"},
    "resolution": {"upsamplers": ["bilinear", "transposed_conv"], "skips": ["none", "add"]},
}
CASES: dict[str, dict[str, Any]] = {
    "gdas": {
        "space": {"relaxation": {"gdas": [5.0, 0.5]}}, "search": {"accumulate": 2, "max_steps_per_epoch": 2},
    },
    "pc_darts": {
        "space": {"cell": {"blocks": 2}, "relaxation": {"pc_darts": 2}}, "search": {"precision": "bf16"},
    },
    "several paths": {"space": {"network": {"paths": "multi"}}},
    "hourglass": {"space": HOURGLASS, "search": {"upsampler_cost": 0.1}},
    "graphs": {"search": {"arch_optimizer": {"name": "sgd", "lr": 0.5, "momentum": 0.9}}},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_it_is_what_the_optimizer_saw(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for CUDA graphs leaves the gradients of all steps in the same tensors."""
    made: list[StandIn] = []
    if case == "graphs":
        monkeypatch.setattr(search, "make_recorder", lambda supernet, *_: made.append(StandIn(supernet)) or made[-1])
    changes = merge(CASES[case], {"search": {"epochs": 2, "checkpoint_seconds": 1000}})
    call("search", "--config", write_config(tmp_path / "c.yaml", SEARCH, changes), "--out", tmp_path / "run")
    file = recorded(tmp_path / "run")
    probs = ArchProbs.load(tmp_path / "run/arch/epoch_0001.npz", file.space)
    assert_leads_to(file, 1, probs)
    assert [*file.tables] == (
        ["alpha", "beta", "gamma", "skip"] if case == "hourglass" else
        ["alpha", "beta", "edge"] if case == "pc_darts" else ["alpha", "beta"]
    )  # fmt: skip
    assert case != "graphs" or made[0].replays
    call("decode", tmp_path / "run")
    assert "moved" in Genotype.load(tmp_path / "run").source["evidence"]["verdict"]
    call("plot", tmp_path / "run", "--format", "svg", "--out", tmp_path / "figures")


def test_nothing_of_it_waits_for_the_device() -> None:
    """A meta tensor has no value that could be read, and nothing comes from the CPU."""
    config = search_task().config
    arch = ArchParameters(config.space).to("meta")
    record = GradientRecord(config, arch, 4)
    record._file = GradientFile(Path("none"), config.space, config.search.arch_optimizer, 1, 4)
    for parameter in arch.parameters():
        parameter.grad = torch.empty_like(parameter)
    with Watch() as watch:
        record.add(0.1, torch.empty((), dtype=torch.bool, device="meta"))
    assert record._pending[0][1].is_meta
    assert watch.mixed == set()
    assert not watch.operations & {"nonzero", "_local_scalar_dense", "masked_select", "equal"}


def test_a_gradient_that_is_not_finite_is_a_skipped_step(tmp_path: Path) -> None:
    """In fp16 a step with too large a scale is skipped, and `lost` does not say it."""
    task = search_task()
    (tmp_path / "arch").mkdir()
    record = GradientRecord(task.config, task.supernet.arch, 4)
    record.rewind(Run(tmp_path), FIRST)
    for value, lost in ((1.0, False), (float("inf"), False), (2.0, True), (3.0, False)):
        for parameter in task.supernet.arch.parameters():
            parameter.grad = torch.ones_like(parameter)
        task.supernet.arch.alpha_logits.grad[1, 2] = value
        record.add(0.5, torch.tensor(lost))
    record.flush()
    file = GradientFile(tmp_path / "arch" / NAME, task.space, task.schedule.arch_optimizer, 1)
    records = file.read(0, 4)
    assert records["values"][:, 5].tolist()[::3] == [1, 3]
    assert np.isnan(records["values"]).all(1).tolist() == [False, True, True, False]
    assert records["lr"].tolist() == [0.5] * 4


def spoil(monkeypatch: pytest.MonkeyPatch, bad: Callable[[SearchTask, int], bool]) -> None:
    """Make the architecture's loss NaN in some steps."""
    step, gradients, place = SearchTask.step, Gradients.__call__, {}

    def noted(task: SearchTask, batches: Any, epoch: int, number: int) -> Any:
        place.update(bad=bad(task, number))
        return step(task, batches, epoch, number)

    def spoiled(self: Gradients, half: Any, *batches: Any) -> Any:
        loss = gradients(self, half, *batches)
        return loss * float("nan") if half == "architecture" and place["bad"] else loss

    monkeypatch.setattr(SearchTask, "step", noted)
    monkeypatch.setattr(Gradients, "__call__", spoiled)


def start(folder: Path, **changes: Any) -> list[str]:
    config = write_config(folder / "config.yaml", SEARCH, {"search": changes})
    return ["search", "--config", str(config), "--out", str(folder / "run")]


@pytest.mark.slow
def test_a_skipped_step_is_skipped_by_the_replays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        spoil(patch, lambda _, number: number in (5, 8))
        assert run(start(tmp_path)) == 0
    file = recorded(tmp_path / "run")
    records = file.read(0, 8)
    assert np.flatnonzero(np.isnan(records["values"]).all(1)).tolist() == [5 - FIRST, 8 - FIRST]
    assert np.isfinite(records["values"]).all(1).sum() == 6
    assert_leads_to(file, 2, ArchProbs.load(tmp_path / "run/arch/epoch_0002.npz", file.space))


@pytest.mark.slow
def test_a_run_that_goes_back_forgets_what_it_took_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three bad steps in the second epoch of the architecture; the learning rate is half from its start on."""
    with monkeypatch.context() as patch:
        spoil(patch, lambda task, number: task.lr_factor == 1 and number in (9, 10, 11))
        assert run(start(tmp_path, max_skipped=1)) == 0
    file = recorded(tmp_path / "run")
    records = file.read(0, 8)
    assert records["lr"].tolist() == [0.02] * 4 + [0.01] * 4
    assert np.isfinite(records["values"]).all()
    assert_leads_to(file, 2, ArchProbs.load(tmp_path / "run/arch/epoch_0002.npz", file.space))


# --- resuming ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(searched: Path, tmp_path: Path) -> Path:
    """A copy of a run as a kill at its end leaves it: the checkpoint of step 10, later records, and a part of one."""
    out = Path(shutil.copytree(searched, tmp_path / "run"))
    for name in ("last.pt", "last.1.pt"):
        (out / "checkpoints" / name).unlink()
    with (out / "arch" / NAME).open("ab") as file:
        file.write(bytes(60))
    return out


def resume(out: Path) -> int:
    return run(["search", "--out", str(out), "--resume"])


@pytest.mark.slow
def test_what_comes_after_the_checkpoint_is_cut_off(stopped: Path, searched: Path) -> None:
    assert checkpoint(stopped, "last.2")["step_in_epoch"] == 2
    assert resume(stopped) == 0
    assert_same_run(stopped, searched)


@pytest.mark.slow
def test_a_run_of_an_earlier_version_goes_on_without_evidence(
    stopped: Path, searched: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (stopped / "arch" / NAME).unlink()
    assert resume(stopped) == 0
    assert [line for line in caplog.messages if NAME in line] == [
        f"{stopped / 'arch' / NAME} is not there, so this run ends without evidence on its architecture"
    ]
    assert not (stopped / "arch" / NAME).exists()
    last = ArchProbs.load(stopped / "arch/epoch_0002.npz", recorded(searched).space)
    assert_leads_to(recorded(searched), 2, last)
    caplog.clear()
    call("decode", stopped)
    assert [line for line in caplog.messages if "has recorded no evidence" in line]
    assert "evidence" not in Genotype.load(stopped).source


def cut_off(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 60 - 5 * recorded(path.parents[1]).record.itemsize)


def flip(place: int) -> Callable[[Path], None]:
    def flipped(path: Path) -> None:
        whole = bytearray(path.read_bytes())
        whole[place] ^= 4
        path.write_bytes(whole)

    return flipped


def of_another(**changes: Any) -> Callable[[Path], None]:
    """The same file, as a run with other settings would have begun it."""

    def changed(path: Path) -> None:
        file = recorded(path.parents[1])
        records = path.read_bytes()[len(file._first_line) :]
        file.header = {**file.header, **{key: value for key, value in changes.items() if key in file.header}}
        file.steps_per_epoch = changes.get("steps_per_epoch", file.steps_per_epoch)
        del file._first_line
        path.write_bytes(file._first_line + records)

    return changed


def scaled(path: Path) -> None:
    """Right records, but of another run of this space."""
    file = recorded(path.parents[1])
    records = file.read(0, 8)
    start = file.start()
    file.create(start)
    file.append(records["lr"].tolist(), -records["values"])


FAULTS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "cut off": (cut_off, "gradients-damaged", "3 of the 6 steps"),
    "a bit of a record": (flip(-200), "gradients-damaged", "the checksum of step"),
    "a bit of the first line": (flip(40), "gradients-damaged", "first line"),
    "another kind of file": (lambda path: path.write_bytes(b"GIF89a" * 99), "gradients-damaged", "first line"),
    "empty": (lambda path: path.write_bytes(b""), "gradients-damaged", "first line"),
    "another space": (of_another(space_sha256="0"), "gradients-of-other-run", "another space"),
    "another optimizer": (of_another(optimizer={"name": "sgd"}), "gradients-of-other-run", "another optimizer"),
    "another start": (of_another(arch_start_epoch=0), "gradients-of-other-run", "another arch_start_epoch"),
    "other steps": (of_another(steps_per_epoch=5), "gradients-of-other-run", "steps an epoch"),
    "a later version": (of_another(version=9), "version-too-new", "later version"),
}
"""What is done to the file, and the code and a part of the line that says it."""


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_file_that_cannot_be_used_stops_a_resumed_run_and_not_decoding(
    name: str, stopped: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    fault, code, said = FAULTS[name]
    fault(stopped / "arch" / NAME)
    before = files_of(stopped / "arch") | files_of(stopped / "checkpoints")
    assert resume(stopped) == 2
    check_line(capsys.readouterr().err.splitlines()[-1], code, stopped / "arch" / NAME, said, "remove it")
    assert files_of(stopped / "arch") | files_of(stopped / "checkpoints") == before
    caplog.clear()
    assert run(["decode", str(stopped)]) == 0
    assert len([line for line in caplog.messages if NAME in line]) == 1
    assert "evidence" not in Genotype.load(stopped).source


def test_records_of_another_run_are_no_evidence(
    searched: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = Path(shutil.copytree(searched, tmp_path / "run"))
    scaled(out / "arch" / NAME)
    call("decode", out)
    assert any("do not lead to alpha after epoch 2" in line for line in caplog.messages)
    assert "evidence" not in Genotype.load(out).source


def test_a_file_that_is_removed_while_a_run_writes_is_not_begun_again(searched: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(searched, tmp_path / "run"))
    file = recorded(out)
    file.path.unlink()
    with pytest.raises(RunError):
        file.append([0.1], np.zeros((1, 12), np.float32))
    assert not file.path.exists()


# --- what a user sees -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_evidence_needs_no_torch(searched: Path, tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from autoseg.cli.main import run\n"
        f"sys.exit(run(['decode', {str(searched)!r}, '--out', {str(tmp_path / 'a.yaml')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "evidence: alpha moved" in done.stdout


def test_decode_and_show_say_it(searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "genotype.yaml"
    call("decode", searched, "--out", target)
    out = capsys.readouterr().out
    assert re.search(r"evidence: alpha moved \d\.\d times as far as noise alone would \(\d\.\d to \d\.\d\)", out)
    assert "0 of 2 edges are decided" in out
    assert "the path is not" in out
    assert "undecided alpha: prev -> b1; prev_prev -> b1" in out
    call("show", target)
    assert "alpha moved" in capsys.readouterr().out
    call("decode", searched, "--out", target)  # the same again
    call("decode", searched, "--epoch", 0, "--out", tmp_path / "early.yaml")
    assert "evidence" not in Genotype.load(tmp_path / "early.yaml").source
