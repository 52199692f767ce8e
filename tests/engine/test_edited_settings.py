"""A run goes on with the settings that it began with, but for those that change no result."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.errors import check_line
from helpers.tiny_runs import (
    RETRAIN,
    SEARCH,
    assert_same_state,
    call,
    checkpoint,
    files_of,
    resolved,
    retrain_task,
    search_task,
    write_config,
)
from pydantic import BaseModel

from autoseg.cli.main import run
from autoseg.config.base import Settings, differences, part
from autoseg.engine.config import FREE, RetrainConfig, SearchConfig, is_free, may_change
from autoseg.files import read_yaml, to_yaml

GUIDE = Path(__file__).parents[2] / "docs/guide/settings.md"


def places(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted key of every setting, groups entered."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Settings) and name not in ("space", "architecture"):
            yield from places(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def with_another(settings: dict[str, Any], key: str) -> dict[str, Any]:
    """Settings with another value at a dotted key."""
    changed = copy.deepcopy(settings)
    *groups, last = key.split(".")
    inner = changed
    for group in groups:
        inner = inner[group]
    inner[last] = ["another", inner.get(last)]
    return changed


@pytest.mark.parametrize("task", [search_task, retrain_task])
def test_every_setting_is_free_or_refused(task: Any) -> None:
    config = task().config
    settings = config.to_dict()
    keys = {"genotype" if key == "architecture" else key for key in places(type(config))}
    assert len(keys) > 60
    for key in keys:
        found = [*differences(settings, with_another(settings, key), may_change)]
        assert found == [] if may_change(key) else [line.split(":")[0] for line in found] == [key], key
    free = {key.replace("KIND", config.kind) for key in FREE}
    groups = {key.rpartition(".")[0] for key in keys}
    assert free - keys - groups <= {"retrain.kernels", "retrain.checkpoint_cells", "search.compile"}


def test_the_guide_lists_the_free_settings() -> None:
    (line,) = [line for line in GUIDE.read_text().splitlines() if line.startswith("A run that has begun")]
    named = re.findall(r"`([a-z_.]+)`", line.split("rounding: ")[1].split(". They")[0])
    assert sorted(named) == sorted(["search", "retrain", *(key.removeprefix("KIND.") for key in FREE)])


def test_free_settings_are_found_in_groups_and_under_either_kind() -> None:
    assert is_free("search.kernels.layout")
    assert is_free("retrain.workers")
    assert not is_free("search.kernels_of_others")
    assert not is_free("workers")
    assert not is_free("data.root_of_others")
    settings = {"seed": 1, "device": "cpu", "search": {"workers": 2, "epochs": 3, "kernels": {"layout": "auto"}}}
    free = {"device": "cpu", "search": {"workers": 2, "kernels": {"layout": "auto"}}}
    assert part(settings, is_free) == free


def test_settings_that_a_later_version_adds_are_no_change() -> None:
    config = search_task().config
    before = config.to_dict()
    del before["search"]["max_skipped"], before["search"]["kernels"]
    assert config.changes(before, "last.pt") == []
    assert config.changes(None, "last.pt") == []


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["search", "retrain"])
def stopped(request: Any, searched: Path, retrained: Path, tmp_path: Path) -> tuple[str, Path]:
    """A kind and a run of it; it is finished, which resuming looks at later."""
    kind = request.param
    return kind, Path(shutil.copytree(searched if kind == "search" else retrained, tmp_path / "run"))


def edit(out: Path, **changes: Any) -> None:
    settings = read_yaml(out / "config.yaml", RuntimeError)  # type: ignore[arg-type]
    for key, value in changes.items():
        group, name = key.split("__")
        settings[group][name] = value
    (out / "config.yaml").write_text(to_yaml(settings))


def refused(kind: str, out: Path, capsys: Any, *named: object, options: tuple[str, ...] = ()) -> None:
    before = files_of(out)
    capsys.readouterr()
    assert run([kind, "--out", str(out), "--resume", *options]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    check_line(line, "run-settings-differ", out, *named, "config.yaml", f"--set {kind}.epochs=N")
    assert {name: content for name, content in files_of(out).items() if name != "lock"} == {
        name: content for name, content in before.items() if name != "lock"
    }


@pytest.mark.slow
def test_an_edited_config_is_refused(stopped: tuple[str, Path], capsys: Any) -> None:
    """With all that was changed, before anything is read or written."""
    kind, out = stopped
    edit(out, **{f"{kind}__batch_size": 4, f"{kind}__max_returns": 7, "data__ignore_label": 7})
    named = f"{kind}.batch_size: 2, not 4", f"{kind}.max_returns: 3, not 7", "data.ignore_label: 255, not 7"
    refused(kind, out, capsys, *named)


@pytest.mark.slow
def test_what_changes_no_result_may_be_edited(stopped: tuple[str, Path], tmp_path: Path, capsys: Any) -> None:
    kind, out = stopped
    state = checkpoint(out)["state"]
    edit(out, **{f"{kind}__workers": 1, f"{kind}__log_every": 3, f"{kind}__cache_dir": str(tmp_path / "c")})
    call(kind, "--out", out, "--resume")
    assert_same_state(checkpoint(out)["state"], state)


@pytest.mark.slow
def test_set_obeys_the_same_list(stopped: tuple[str, Path], tmp_path: Path, capsys: Any) -> None:
    kind, out = stopped
    config = (out / "config.yaml").read_bytes()
    refused(kind, out, capsys, f"{kind}.batch_size: 2, not 4", options=("--set", f"{kind}.batch_size=4"))
    free = ("--set", f"{kind}.store=none", "--set", f"{kind}.log_every=3", "--device", "cpu")
    refused(kind, out, capsys, "seed: 0, not 3", options=("--seed", "3", *free))
    refused(kind, out, capsys, f"{kind}.crop", options=("--set", f"{kind}.crop=[64, 64]", *free))
    call(kind, "--out", out, "--resume", *free)
    assert (out / "config.yaml").read_bytes() == config
    given = write_config(tmp_path / "c.yaml", SEARCH if kind == "search" else RETRAIN, {kind: {"log_every": 2}})
    call(kind, "--config", given, "--out", out, "--resume")


@pytest.mark.slow
def test_more_epochs_with_another_free_setting(retrained: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(retrained, tmp_path / "run"))
    call("retrain", "--out", out, "--resume", "--set", "retrain.epochs=3", "--set", "retrain.log_every=4")
    kept = read_yaml(out / "config.yaml", RuntimeError)["retrain"]  # type: ignore[arg-type]
    assert (kept["epochs"], kept["log_every"]) == (3, 1)
    steps = [int(line.split('"step": ')[1].split(",")[0]) for line in train_rows(out)]
    assert steps == [*range(1, 17), 20, 24]
    assert checkpoint(out)["config"]["retrain"]["epochs"] == 3


def train_rows(out: Path) -> list[str]:
    return [line for line in (out / "metrics.jsonl").read_text().splitlines() if '"train"' in line]


@pytest.mark.slow
def test_edited_epochs_are_more_epochs(retrained: Path, tmp_path: Path, capsys: Any) -> None:
    """They are said like those of --set, and once alone in config.yaml."""
    out = Path(shutil.copytree(retrained, tmp_path / "run"))
    edit(out, retrain__epochs=3)
    capsys.readouterr()
    call("retrain", "--out", out, "--resume")
    assert "retrain.epochs 3, not 2: from step 17 on" in capsys.readouterr().out
    notes = [line for line in (out / "config.yaml").read_text().splitlines() if line.startswith("#")]
    assert notes == ["# retrain.epochs was 2 until step 16"]
    call("retrain", "--out", out, "--resume")
    assert "not 2" not in capsys.readouterr().out
    edit(out, retrain__epochs=1)
    assert run(["retrain", "--out", str(out), "--resume"]) == 2
    assert "[epochs-done]" in capsys.readouterr().err


@pytest.mark.slow
def test_checkpoints_of_earlier_versions_know_no_settings(searched: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(searched, tmp_path / "run"))
    saved = checkpoint(out)
    assert saved.pop("config")["search"]["batch_size"] == 2
    torch.save(saved, out / "checkpoints/last.pt")
    edit(out, search__max_returns=7)
    call("search", "--out", out, "--resume")


@pytest.mark.slow
def test_moved_data(tmp_path: Path) -> None:
    """The folder of the data may have another place."""
    from helpers.data_sets import write_folder

    write_folder(tmp_path / "data", {"train": [(40, 48)] * 4, "val": [(40, 48)]}, labels=3)
    small = {"data": None, "retrain": {"epochs": 1}}
    config = write_config(tmp_path / "c.yaml", {key: value for key, value in (RETRAIN | small).items() if value})
    out = tmp_path / "run"
    call("retrain", "--config", config, "--data", tmp_path / "data", "--out", out, "--set", "retrain.batch_size=2",
         "--set", "retrain.crop=[32, 32]")  # fmt: skip
    (tmp_path / "data").rename(tmp_path / "moved")
    assert run(["retrain", "--out", str(out), "--resume"]) == 2
    call("retrain", "--out", out, "--resume", "--set", f"data.root={tmp_path / 'moved'}", "--set", "retrain.epochs=2")
    assert checkpoint(out)["epoch"] == 2
    call("retrain", "--out", out, "--resume", "--data", tmp_path / "moved")


@pytest.mark.slow
def test_an_edited_config_is_said_when_the_network_is_used(
    retrained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = Path(shutil.copytree(retrained, tmp_path / "run"))
    call("evaluate", out)
    assert "is not as it was" not in caplog.text
    edit(out, data__mean=[0.5, 0.5, 0.5], retrain__epochs=9, retrain__workers=1)
    call("evaluate", out)
    (line,) = [message for message in caplog.messages if "is not as it was" in message]
    assert str(out / "config.yaml") in line
    assert "best.pt" in line
    assert "data.mean: " in line
    assert "epochs" not in line


def test_settings_go_through_a_checkpoint_unchanged() -> None:
    for model, settings in ((SearchConfig, SEARCH), (RetrainConfig, RETRAIN)):
        config = model.model_validate(resolved(settings))
        assert config.changes(config.to_dict(), "last.pt") == []
