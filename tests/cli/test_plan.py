"""`autoseg plan`: what it prints, and what it says of bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.errors import check_line
from helpers.measured_memory import search_config
from helpers.predicted_memory import predict_once, predicted_once
from helpers.tiny_runs import SPACE as MINI
from helpers.tiny_runs import call, resolved, write_config

import autoseg
from autoseg.cli.main import run
from autoseg.config.base import merge, parse, parse_assignments
from autoseg.engine.config import SearchConfig
from autoseg.planning.memory import Setting

__all__ = ["predicted_once"]  # the fixture
pytestmark = pytest.mark.usefixtures("predicted_once")

CPU = torch.device("cpu")
SPACE = {**MINI, "cell": {"blocks": 1, "operations": ["none", "skip_connect"]}}
"""Without convolutions on its edges, since what is predicted for them is tested in tests/planning."""
SMALL = {**SPACE, "search": {"crop": [64, 64], "batch_size": 2}}


@pytest.fixture
def space(tmp_path: Path) -> Path:
    return write_config(tmp_path / "space.yaml", SMALL)


@pytest.mark.slow
def test_a_plan_as_a_user_reads_it(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("plan", "--space", space, "--device", "cpu", "--memory", "1GB", "--images", "100")
    out = capsys.readouterr().out
    assert "mini with 19 classes on cpu, 1.00 GB of memory\ncrop 64x64, batch 2, float32: " in out
    assert "weight step " in out
    assert ", measured here just now\n" in out
    assert "100 training images: 1,000 weight steps and 500 architecture steps: " in out
    rows = [line.split() for line in out.splitlines() if line.startswith(("as asked", "with check", "largest"))]
    assert [row[-1] for row in rows] == ["fits"] * 6
    assert out.endswith(
        "to search as asked:\n  --set 'search.crop=[64,64]' --set search.batch_size=2"
        " --set search.checkpoint_cells=false --set search.precision=float32\n"
    )


@pytest.mark.slow
def test_json_and_what_to_set_fit(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = search_config(SPACE, crop=[128, 128], batch_size=2)
    asked = Setting.of(config.search)
    both = [predict_once(one.apply(config), CPU) for one in (asked, asked._replace(checkpoint_cells=True))]
    memory = sum(one.needed_bytes(CPU) for one in both) // 2  # between the two
    call(
        "plan", "--space", space, "--device", "cpu", "--no-time", "--json", "--classes", 7, "--crop", 128, 128,
        "--memory", memory,
    )  # fmt: skip
    plan = json.loads(capsys.readouterr().out)
    assert [option["fits"] for option in plan["options"][:2]] == [False, True]
    assert [option["peak_bytes"] for option in plan["options"][:2]] == [one.peak_bytes for one in both]
    assert (plan["memory_bytes"], plan["advice"]["name"]) == (memory, "with checkpointing")
    assert (plan["images"], plan["images_given"], plan["steps"]["weight"]) == (2975, False, 40 * 744)
    assert (plan["hours"], plan["seconds"]) == (None, None)
    settings = resolved({"space": SPACE, "data": {"layout": "generated"}})
    advised = parse(SearchConfig, merge(settings, parse_assignments(plan["advice"]["set"]))).search
    assert (advised.crop, advised.batch_size, advised.checkpoint_cells) == ((128, 128), 2, True)


@pytest.mark.slow
def test_data_says_how_many_images_and_how_large(space: Path) -> None:
    generated = {"layout": "generated", "generated": {"size": [72, 80], "train": 20}}
    plan = autoseg.plan(space, generated, memory="10GB", measure_time=False, overrides={"device": "cpu"})
    assert (plan.images, plan.images_given, plan.classes) == (20, True, 7)
    largest = {option.name: option.setting for option in plan.options}
    assert (largest["largest crop"].crop, largest["largest batch"].batch_size) == ((65, 65), 10)
    assert (plan.steps, plan.times) == ((200, 100), None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        (["--crop", "8", "64"], "crop-out-of-range", ("crop 8 64", "32", "16384")),
        (["--crop", "64", "-64"], "crop-out-of-range", ("crop 64 -64", "32", "16384")),
        (["--crop", "64"], "", ("'--crop'", "2")),
        (["--crop", "99999", "99999"], "crop-out-of-range", ("crop 99999 99999", "32", "16384")),
        (["--batch", "1"], "batch-out-of-range", ("batch 1", "2", "65536")),
        (["--batch", "0"], "batch-out-of-range", ("batch 0", "2", "65536")),
        (["--batch", "many"], "", ("'--batch'",)),
        (["--memory", "lots"], "memory-not-a-size", ("'lots'", "16GB")),
        (["--memory", "0GB"], "memory-out-of-range", ("'0GB'",)),
        (["--memory", "200KB"], "memory-too-small", ("mini", "200 KB", "crop 32 32", "batch 2", "checkpoint")),
        (["--images", "3"], "too-few-images", ("images", "3", "4")),
        (["--images", "10", "--batch", "6"], "batch-too-large", ("batch", "5", "images")),
        (["--classes", "1"], "classes-out-of-range", ("classes", "1", "2 to 65535")),
        (["--device", "tpu"], "setting-invalid", ("device", "auto", "cpu", "cuda", "cuda:N", "cuda:1", "mps", "'tpu'")),
        (["--set", "search.cropp=[64, 64]"], "unknown-setting", ("'cropp'", "search", "'crop'")),
        (["--set", "search.crop=[8, 8]"], "setting-invalid", ("search.crop", "32", "8")),
        (["--data", "nowhere"], "folder-missing", ("nowhere",)),
        (["--space", "tinny"], "unknown-space", ("'tinny'", "'tiny'")),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    options: list[str], code: str, named: tuple[str, ...], space: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [] if "--space" in options else ["--space", str(space)]
    on = [] if "--device" in options else ["--device", "cpu"]
    assert run(["plan", "--no-time", *given, *on, *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    check_line(captured.err, code, *named)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU, wherever the tests run."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there_needs_its_memory(device: str, space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--space", str(space), "--device", device]) == 2
    line = capsys.readouterr().err
    check_line(line, "device-missing", f"device {device} ", "--memory", "16GB", "--device cpu")


@pytest.mark.slow
@pytest.mark.usefixtures("no_gpu")
def test_memory_is_predicted_for_a_gpu_that_is_not_there(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("plan", "--space", space, "--device", "cuda", "--memory", "80GB", "--images", "20")
    out = capsys.readouterr().out
    assert out.startswith(
        "mini with 19 classes on cuda, 80.0 GB of memory (not on this machine: predicted without it, and no steps are"
        " measured)\ncrop 64x64, batch 2, float32: "
    )
    assert ", for CUDA graphs " in out
    assert "\nwith bf16 " in out
    assert "weight step " not in out
    assert "20 training images: 200 weight steps and 100 architecture steps\n" in out


@pytest.mark.slow
@pytest.mark.usefixtures("no_gpu")
def test_json_says_that_the_gpu_is_not_there(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--set", "search.cuda_graphs=false", "--set", "search.precision=fp16"]
    call("plan", "--space", space, "--device", "cuda", "--memory", "80GB", "--json", "--images", "20", *settings)
    plan = json.loads(capsys.readouterr().out)
    assert (plan["device"], plan["device_is_here"], plan["seconds"]) == ("cuda", False, None)
    asked = plan["options"][0]
    assert (asked["precision"], asked["graph_bytes"]) == ("fp16", 0)
    config = search_config(SPACE, crop=[64, 64], batch_size=2, cuda_graphs=False, precision="fp16")
    data = config.data.model_copy(update={"num_classes": 19})
    predicted = predict_once(config.model_copy(update={"data": data}), torch.device("cuda"))
    assert asked["peak_bytes"] == predicted.peak_bytes
