"""scripts/gpu: what must not be learned on a card. Selection, order, crashes, limits, files, all stages in miniature.

The parts that only a card has, events, the profiler's kernels and the allocator's counts, are stand-ins here.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.autograd import DeviceType

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))

from gpu import bench, bench_child, bench_rows, camvid, camvid_child, check
from gpu.output import MOST_FILES, Output, make_room, table
from gpu.supervisor import Supervisor
from helpers.tiny_runs import search_settings

from autoseg.errors import ConfigError, Interrupted

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
RUN = SCRIPTS / "gpu" / "run.sh"
PACK = SCRIPTS / "gpu" / "pack.sh"


def stage(name: str, out: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A stage by run.sh."""
    return subprocess.run(
        ["bash", str(RUN), name, *map(str, arguments)],
        env={**ENVIRONMENT, "OUT": str(out)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def assert_small(folder: Path) -> None:
    """As few and as small files, with such names, as a GPU machine may send back."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert 0 < len(files) <= MOST_FILES, files
    for path in files:
        assert path.stat().st_size <= 16 * 2**20, path
        assert len(path.relative_to(folder).parts) <= 3, path
        assert all(set(part) <= set(ALLOWED) for part in path.relative_to(folder).parts), path


ALLOWED = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"


# --- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "train", "--dry"])
def test_an_unknown_stage_is_one_line(name: str, tmp_path: Path) -> None:
    done = stage(name, tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"error: unknown stage '{name}' (known: check, bench, camvid)\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (check.main, ["--seconds", "0"], "should be a number above 0, not '0'"),
        (check.main, ["--fast"], "unrecognized arguments: --fast"),
        (check.main, ["--tests", "nowhere"], "--tests nowhere: no test_*.py there has the marker gpu"),
        (bench.main, ["--only", "W9"], "--only W9: no row has such a name"),
        (bench.main, ["--genotype", "no/file.yaml"], "--genotype no/file.yaml: there is no such file"),
        (camvid.main, ["--seconds", "10"], "--seconds 10 is too short for a search and a retraining"),
        (camvid.main, ["--data", "nowhere"], "nowhere has no folder train; run scripts/gpu/pack.sh"),
        (camvid.main, ["--resume", "--work", "nowhere", "--dry"], "--resume: nowhere holds no search to go on with"),
    ],
)
def test_wrong_arguments_are_one_line_and_status_2(
    main: Callable[[list[str]], int],
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    try:
        status = main(arguments)
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    error = capsys.readouterr().err
    assert status == 2
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_made_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OUT", str(tmp_path / "file" / "out"))
    assert bench.main(["--dry"]) == 2
    assert "set OUT to another one" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_card_a_stage_says_how_to_try_it(tmp_path: Path) -> None:
    done = stage("bench", tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: torch finds no CUDA GPU here; --dry runs the stage in miniature on a CPU\n"


def test_the_commands_of_the_page_are_understood() -> None:
    text = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    lines = [line for line in re.findall(r"`?(scripts/gpu/run\.sh [^`\n#]*)", text) if "TESTS" not in line]
    parsers = {"check": check, "bench": bench, "camvid": camvid}
    asked = [shlex.split(line)[1:] for line in lines]
    assert {words[0] for words in asked} == set(parsers)
    for name, *arguments in asked:
        assert parsers[name].parse_arguments(arguments).seconds > 0
    assert f"at most {check.SECONDS:g} s" in text
    assert f"at most {bench.SECONDS:g} s" in text
    expected = sum(row.estimate for row in bench_rows.all_rows()) + bench.START_ESTIMATE
    assert f"{expected:g} seconds for all rows" in text


# --- a process that does one thing after another ----------------------------------------------------------------------

WORKER = """
import json, os, signal, sys, time
events, state = sys.argv[sys.argv.index("--events") + 1], sys.argv[sys.argv.index("--state") + 1]
done = json.load(open(state))["done"]
names = [name for name in ("good", "hangs", "next", "crashes", "asks", "last") if name not in done]
def tell(**event):
    with open(events, "a") as file:
        file.write(json.dumps(event) + "\\n")
tell(event="planned", names=names)
for name in names:
    tell(event="start", name=name)
    if name == "hangs":
        time.sleep(60)
    if name == "crashes":
        print("the last words", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    tell(event="end", name=name, outcome="done")
    if name == "asks":
        tell(event="restart", reason="it asked for it")
        os._exit(3)
"""


def supervised(code: str, folder: Path, seconds: float = 30, limit: float = 1.0) -> tuple[Supervisor, dict[str, Any]]:
    """The supervisor after its run, and the results by name."""
    results: dict[str, Any] = {}

    def record(event: dict[str, Any]) -> None:
        if event["event"] == "end":
            results[event["name"]] = event

    supervisor = Supervisor(
        [sys.executable, "-c", code],
        record,
        folder,
        folder / "log",
        time.monotonic() + seconds,
        lambda name: limit,
        start_limit=limit,
    )
    supervisor.run()
    return supervisor, results


@pytest.mark.slow
def test_what_hangs_or_crashes_is_recorded_and_the_rest_runs(tmp_path: Path) -> None:
    supervisor, results = supervised(WORKER, tmp_path)
    assert list(results) == ["good", "hangs", "next", "crashes", "asks", "last"]
    assert {name for name, result in results.items() if result["outcome"] != "done"} == {"hangs", "crashes"}
    assert "it took longer than its 1 s" in results["hangs"]["detail"]
    assert 1 <= results["hangs"]["seconds"] < 5
    assert "died of SIGKILL" in results["crashes"]["detail"]
    assert "the last words" in results["crashes"]["detail"]
    assert supervisor.restarts[-1] == "it asked for it"
    assert len(supervisor.restarts) == 3
    assert supervisor.left == []


@pytest.mark.slow
def test_the_stage_s_limit_cuts_off_what_is_running(tmp_path: Path) -> None:
    began = time.monotonic()
    supervisor, results = supervised(WORKER, tmp_path, seconds=1.0, limit=30)
    assert time.monotonic() - began < 10
    assert results["hangs"]["outcome"] == "cut off"
    assert supervisor.left == ["next", "crashes", "asks", "last"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "why"), [("raise SystemExit(7)", "status 7"), ("import time; time.sleep(60)", "begin")]
)
def test_a_process_that_does_nothing_is_not_started_for_ever(code: str, why: str, tmp_path: Path) -> None:
    supervisor, results = supervised(code, tmp_path, limit=0.5)
    assert results == {}
    assert supervisor.gave_up is not None
    assert why in supervisor.gave_up


def test_a_child_does_not_outlive_its_parent(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from gpu.supervisor import end_with_parent; end_with_parent();"
        " print(os.getpid(), flush=True); time.sleep(60)"
    )
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {code!r}], stdin=subprocess.PIPE).wait()"
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{ROOT}{os.pathsep}{SCRIPTS}"}
    process = subprocess.Popen([sys.executable, "-c", parent], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    wait_until(lambda: is_gone(child))


def is_gone(pid: int) -> bool:
    """Has a process ended? One that nobody has waited for has, too."""
    state = Path(f"/proc/{pid}/stat")
    try:
        return state.read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


# --- files ------------------------------------------------------------------------------------------------------------


def test_earlier_files_are_packed_where_there_would_be_too_many(tmp_path: Path) -> None:
    for name in ("a.json", "b.txt", "c.txt"):
        (tmp_path / name).write_text(name)
    make_room(tmp_path, 5)
    assert len(list(tmp_path.iterdir())) == 3
    make_room(tmp_path, 6)
    assert [path.name for path in tmp_path.iterdir()] == ["earlier.zip"]
    (tmp_path / "d.txt").write_text("d")
    make_room(tmp_path, MOST_FILES - 1)
    with zipfile.ZipFile(tmp_path / "earlier.zip") as archive:
        assert {name: archive.read(name).decode() for name in archive.namelist()} == {
            "a.json": "a.json", "b.txt": "b.txt", "c.txt": "c.txt", "d.txt": "d",
        }  # fmt: skip


def test_all_stages_together_leave_few_enough_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUT", str(tmp_path))
    for names in (check.FILES, bench.FILES, camvid.FILES):
        output = Output(names)
        for name in names:
            output.text(name, name)
        assert_small(tmp_path)
        assert set(names) <= {path.name for path in tmp_path.iterdir()}


def test_a_stage_replaces_its_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUT", str(tmp_path))
    (tmp_path / "check.json").write_text("old")
    (tmp_path / "bench.json").write_text("of another stage")
    output = Output(("check.json", "check.md"))
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]
    output.json("check.json", {"rows": [1]})
    assert json.loads((tmp_path / "check.json").read_text()) == {"rows": [1]}


def test_a_table_is_markdown_whatever_stands_in_it() -> None:
    assert (
        table(("a", "b"), [("x|y\nz", 1.23456), (None, 2)]) == "| a | b |\n|---|---|\n| x\\|y z | 1.235 |\n|  | 2 |\n"
    )
    assert table(("a",), []) == ""


# --- check ------------------------------------------------------------------------------------------------------------

TESTS = {
    "test_good.py": "import pytest\n\n@pytest.mark.gpu\ndef test_one():\n    pass\n\ndef test_two():\n    assert 0\n",
    "test_bad.py": "import pytest\n\n@pytest.mark.gpu\ndef test_wrong():\n    print('said')\n    assert 1 == 2\n",
    "test_broken.py": "import pytest\nimport no_such_module\npytestmark = pytest.mark.gpu\n",
    "test_other.py": "raise RuntimeError('a file without the marker is not imported')\n",
}


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A dry `check` of a folder of tests, after which the stand-ins run."""
    folder = tmp_path_factory.mktemp("checked")
    tests = folder / "tests"
    tests.mkdir()
    for name, text in TESTS.items():
        (tests / name).write_text(text)
    return stage("check", folder / "out", "--dry", "--tests", tests), folder / "out"


@pytest.mark.slow
def test_check_records_failures_crashes_and_what_hangs(
    checked: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    done, out = checked
    assert done.returncode == 0, done.stdout + done.stderr
    data = json.loads((out / "check.json").read_text())
    own = {test["name"].rpartition("/")[2]: test for test in data["tests"] if "stand_ins" not in test["name"]}
    assert {name: test["outcome"] for name, test in own.items()} == {
        "test_good.py::test_one": "passed",
        "test_bad.py::test_wrong": "failed",
        "test_broken.py": "failed",
    }
    assert "assert 1 == 2" in own["test_bad.py::test_wrong"]["detail"]
    assert "said" in own["test_bad.py::test_wrong"]["detail"]
    assert "no_such_module" in own["test_broken.py"]["detail"]
    stand_ins = [test for test in data["tests"] if "stand_ins" in test["name"]]
    assert check.unexpected(stand_ins) == []
    order = [test["name"].rpartition("::")[2] for test in stand_ins]
    assert order.index("test_that_is_last") < order.index("test_that_breaks_the_device[second]")
    assert data["not_run"] == []
    assert {"torch", "python", "triton", "cudnn", "cuda"} <= data["environment"].keys()
    assert_small(out)


def test_check_s_table_and_summary(checked: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, out = checked
    text = (out / "check.md").read_text()
    assert "| outcome | seconds | test |" in text
    assert "AssertionError: a failure that must be recorded with its traceback" in text
    assert "SIGSEGV" in text
    summary = done.stdout.splitlines()
    assert "5 failed" in done.stdout
    assert any(line.strip() == "assert 1 == 2" for line in summary)
    assert any(line.startswith("again: scripts/gpu/run.sh check --only ") for line in summary)
    assert any(line.startswith("on a card: 15 s for a process + 2 tests x 1 s = 17 s") for line in summary)


def test_a_stand_in_that_comes_out_otherwise_is_a_fault() -> None:
    right = [{"name": f"f::{name}", "outcome": outcome} for name, outcome in check.STAND_IN_OUTCOMES.items()]
    assert check.unexpected(right) == []
    wrong = [*right[:-1], {**right[-1], "outcome": "skipped"}]
    assert check.unexpected(wrong) == ["test_that_is_last: skipped, but it should be: passed"]
    assert check.unexpected(right[1:]) == ["test_that_passes: no result, but it should be: passed"]


def test_every_place_in_the_order_is_there_and_tests_that_need_a_card_are_found() -> None:
    missing = [prefix for prefix in check.ORDER if not (ROOT / prefix).exists()]
    assert missing == []
    names = {path.relative_to(ROOT).as_posix() for path in check.marked_files(ROOT / "tests")}
    assert {"tests/supernet/test_cuda.py", "tests/engine/test_steps.py", "tests/data/loading/test_cache.py"} <= names
    assert "tests/test_files.py" not in names


@pytest.mark.slow
def test_a_stage_that_is_killed_leaves_what_it_had(tmp_path: Path) -> None:
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_slow.py").write_text(
        "import os, pathlib, time, pytest\npytestmark = pytest.mark.gpu\n\n"
        "def test_quick():\n    pathlib.Path(__file__).with_name('pid').write_text(str(os.getpid()))\n\n"
        "def test_slow():\n    time.sleep(60)\n"
    )
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "gpu.check", "--dry", "--tests", str(tests)],
        env={**ENVIRONMENT, "OUT": str(out), "PYTHONPATH": f"{ROOT}{os.pathsep}{SCRIPTS}"},
        stdout=subprocess.DEVNULL,
    )
    wait_until(lambda: (out / "check.md").exists() and "test_quick" in (out / "check.md").read_text())
    process.send_signal(signal.SIGKILL)
    process.wait()
    data = json.loads((out / "check.json").read_text())
    assert [test["outcome"] for test in data["tests"]] == ["passed"]
    assert [name.rpartition("::")[2] for name in data["not_run"]] == ["test_slow"]
    wait_until(lambda: is_gone(int((tests / "pid").read_text())))


# --- bench ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_row_s_settings_are_settings_of_a_search() -> None:
    rows = bench_rows.all_rows()
    assert len({row.name for row in rows}) == len(rows)
    assert [row.limit for row in rows if row.limit < row.estimate] == []
    for row in rows:
        for dry in (False, True):
            given = bench_rows.with_fastest(row, []).search
            if dict(given.kernels).get("depthwise") == "triton" and (dry or not torch.cuda.is_available()):
                with pytest.raises(ConfigError, match="triton needs"):
                    search_settings(given.space, bench_child.DATA, overrides={**given.overrides(dry), "device": "cpu"})
                continue
            config = search_settings(given.space, bench_child.DATA, overrides=given.overrides(dry))
            assert config.search.precision == given.precision
            assert config.search.cuda_graphs is given.graphs
            assert {key: getattr(config.search.kernels, key) for key, _ in given.kernels} == dict(given.kernels)
    w1 = search_settings("auto_deeplab", bench_child.DATA, overrides=bench_rows.W1.overrides(False))
    assert (w1.search.crop, w1.search.batch_size, w1.data.num_classes) == ((321, 321), 2, 19)
    assert (w1.space.network.layers, w1.space.network.filter_multiplier) == (12, 8)


def test_the_fastest_layout_so_far_is_taken_for_the_dearer_kernels() -> None:
    rows = {row.name: row for row in bench_rows.all_rows()}
    triton = rows["W1 bf16: layout fastest, pointwise fastest, depthwise triton"]
    results = [
        {"name": "W1 bf16: layout channels_last, pointwise product", "iteration_ms": 20.0},
        {"name": "W1 bf16: layout channels_first, pointwise product", "iteration_ms": 15.0},
        {"name": "W1 float32: layout channels_last, pointwise convolution", "iteration_ms": 5.0},
        {"name": "W1 bf16, graphs, streams", "iteration_ms": 1.0},
        {"name": "limits"},
    ]
    found = bench_rows.with_fastest(triton, results).search.kernels
    assert dict(found) == {"layout": "channels_first", "pointwise": "product", "depthwise": "triton"}
    assert dict(bench_rows.with_fastest(triton, []).search.kernels) == {"depthwise": "triton"}


@pytest.fixture(scope="module")
def benched(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Some rows of a dry `bench`, one of each kind."""
    out = tmp_path_factory.mktemp("benched")
    rows = ("limits", "W1 eager", "fast bf16", "W1 float32: layout channels_first, pointwise product", "searched 33x33")
    return stage("bench", out, "--dry", "--seconds", "250", "--only", *rows), out


@pytest.mark.slow
def test_bench_writes_figures_a_table_and_profiles(benched: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, out = benched
    assert done.returncode == 0, done.stdout + done.stderr
    data = json.loads((out / "bench.json").read_text())
    rows = {row["name"]: row for row in data["rows"]}
    assert [row["outcome"] for row in rows.values()] == ["done"] * 6, data["rows"]
    assert rows["limits"]["bytes_per_s"] > 1e6
    assert all(rows["limits"][f"{name}_flops_per_s"] > 1e6 for name in ("bf16", "ieee", "tf32"))
    for name in ("W1 eager", "fast bf16, graphs, streams"):
        row = rows[name]
        assert row["iteration_ms"] == pytest.approx(row["weight_ms"] + row["architecture_ms"])
        # 40 epochs of half of 2,975 images in batches of two: 744 steps an epoch
        start = row["settings"]["arch_start_epoch"]
        steps = 744 * (40 * row["weight_ms"] + (40 - start) * row["architecture_ms"])
        assert row["paper_hours"] == pytest.approx(steps / 3.6e6)
        assert row["kernels"][0] > row["kernels"][1] > 100
        assert row["profile"][0][2] >= row["profile"][-1][2] > 0
        assert all(norm > 0 for norm in (*row["gradient_norms"], *row["later_gradient_norms"]))
    chosen = rows["W1 float32: layout channels_first, pointwise product"]
    assert chosen["kernels_used"]["layout"] == "channels_first"
    assert chosen["kernels_used"]["pointwise"] == "product"
    assert "lines" not in chosen
    assert chosen["gradient_norms"] == pytest.approx(rows["W1 eager"]["gradient_norms"], rel=1e-2)
    assert set(rows["searched 33x33"]["training_ms"]) == {"plain", "channels_last", "channels_last_bf16"}
    assert rows["searched 33x33"]["images_per_s"]["folded_channels_last_bf16"] > 0
    assert "x3x3" in json.dumps(rows["operations of W1 eager"]["profile"])
    text = (out / "bench.md").read_text()
    for head in ("## The card's limits", "## Steps of a search", "## Networks"):
        assert head in text
    assert "== W1 eager" in (out / "profile.txt").read_text()
    assert "on a card: 15 s for the process + 5 + 22 + 10 + 8 + 15 s for 5 rows = 75 s expected" in done.stdout
    assert_small(out)


class FakeEvent:
    """An event that takes the time of a clock."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, other: FakeEvent) -> float:
        return 1000 * (other.at - self.at)


class FakeProfile:
    """A profile of three kernels and a region, as torch.profiler gives them."""

    def __init__(self, activities: list[Any], record_shapes: bool = False) -> None:
        self.activities = activities

    def __enter__(self) -> FakeProfile:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def key_averages(self, group_by_input_shape: bool = False) -> list[Any]:
        def one(key: str, count: int, us: float, device: DeviceType, annotation: bool = False) -> Any:
            return SimpleNamespace(
                key=key, count=count, self_device_time_total=us, self_cpu_time_total=1.0, device_type=device,
                is_user_annotation=annotation, input_shapes=[[2, 3], []],
            )  # fmt: skip

        return [
            one("conv", 40, 3000.0, DeviceType.CUDA),
            one("copy", 10, 4000.0, DeviceType.CUDA),
            one("Optimizer.step", 1, 9000.0, DeviceType.CUDA, annotation=True),
            one("aten::conv2d", 40, 500.0, DeviceType.CPU),
        ]


@pytest.fixture
def fake_card(monkeypatch: pytest.MonkeyPatch) -> bench_child.Bench:
    """A bench that takes the CPU for a card, whose counters are made up."""
    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    for name, value in (("memory_allocated", 100), ("memory_reserved", 200)):
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
        monkeypatch.setattr(torch.cuda, f"max_{name}", lambda value=value: 11 * value)
    monkeypatch.setattr(bench_child, "profile", FakeProfile)
    card = bench_child.Bench(torch.device("cpu"), dry=True, genotype=None)
    card.on_gpu = True
    return card


@pytest.mark.slow
def test_what_is_counted_on_a_card(fake_card: bench_child.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    found = fake_card.search(bench_rows.W1)
    assert found["kernels"] == [50, 50]
    assert found["kernel_ms"] == pytest.approx(14.0)
    assert found["profile"] == [["copy", 20, 8.0], ["conv", 80, 6.0]]
    assert (found["peak_allocated_bytes"], found["peak_reserved_bytes"]) == (1000, 2000)
    assert found["syncs"] == [0, 0]
    assert found["lines"] == ["CUDA graphs were asked for, but the steps were eager"]
    assert fake_card.operations(bench_rows.W1)["profile"] == [["aten::conv2d 2x3", 40, 0.5]]


def test_profiling_that_is_not_allowed_costs_no_row(
    fake_card: bench_child.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise RuntimeError("CUPTI_ERROR_INSUFFICIENT_PRIVILEGES")

    monkeypatch.setattr(bench_child, "profile", refused)
    found = fake_card.search(bench_rows.W1)
    assert found["kernels"] is None
    assert "INSUFFICIENT" in found["profile_error"]


def test_synchronisations_are_counted(fake_card: bench_child.Bench) -> None:
    import warnings

    def work() -> None:
        for _ in range(3):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)

    assert bench_child.count_syncs(work) == 3


def test_intervals_by_events_are_those_between_the_works(fake_card: bench_child.Bench) -> None:
    works = [lambda: time.sleep(0.02), lambda: time.sleep(0.05)]
    first, second = bench_child.intervals(works, torch.device("cuda"))
    assert 20 <= first < 45
    assert 50 <= second < 100


def test_steps_without_streams_get_a_recorder_of_their_own(fake_card: bench_child.Bench) -> None:
    config = bench_child.settings_of(bench_rows.W1, dry=True)
    assert fake_card._task(config, bench_rows.W1).gradients.recordings.recorder is None  # a CPU records nothing
    recorder = fake_card._task(config, bench_rows.W1._replace(streams=False)).gradients.recordings.recorder
    assert recorder is not None
    assert list(recorder.streams) == []


@pytest.mark.slow
def test_rows_whose_limit_would_pass_the_end_are_skipped_and_failures_recorded(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []

    class Failing(bench_child.Bench):
        def measure(self, row: bench_rows.Row) -> dict[str, Any]:
            raise torch.OutOfMemoryError("CUDA out of memory")

    rows = [row for row in bench_rows.all_rows() if row.name in ("limits", "W1 eager")]
    bench = Failing(torch.device("cpu"), True, None)
    results: list[Any] = []
    bench_child.run_rows(
        bench, rows, results, lambda event, **more: events.append({"event": event, **more}), time.time() + 30
    )
    ends = [event for event in events if event["event"] == "end"]
    assert [event["outcome"] for event in ends] == ["failed", "skipped"]
    assert ends[0]["reason"] == "OutOfMemoryError: CUDA out of memory"
    assert "s were left, its limit is 40 s" in ends[1]["detail"]


def test_the_report_of_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUT", str(tmp_path))
    stage = bench.Stage(Output(bench.FILES), 90, False)
    common = {
        "outcome": "done", "seconds": 1.0, "weight_ms": 60.0, "architecture_ms": 40.0, "iteration_ms": 100.0,
        "kernels": [9000, 5000], "kernel_ms": 55.5, "syncs": [1, 2], "gradient_norms": [1.5, 0.2],
        "later_gradient_norms": [1.25, 0.1], "paper_hours": 0.75, "profile": [["conv", 7, 1.5]],
        "peak_allocated_bytes": 4_000_000_000, "peak_reserved_bytes": 5_000_000_000,
    }  # fmt: skip
    stage.rows = [
        {"name": "W1 eager", **common},
        {"name": "W1 graphs, streams", **common, "iteration_ms": 25.0, "lines": ["going on without CUDA graphs"]},
        {"name": "limits", "outcome": "died", "seconds": 20.0, "detail": "it took longer\nand so on"},
    ]
    stage.planned = ["W1 eager", "W1 graphs, streams", "limits", "fast eager"]
    stage.predictions = {"W1": {"name": "W1", "eager_bytes": 4_200_000_000, "graph_bytes": 300_000_000}}
    stage.environment = {"device": "NVIDIA H100", "card": {"driver_version": "580"}, "torch": "2.11.0"}
    stage.restarts = ["it took longer"]
    text = stage.report()
    assert text.startswith("# Measured on NVIDIA H100, driver 580, PyTorch 2.11.0\n")
    assert (
        "| W1 eager | 60.00 | 40.00 | 100.00 | 1.00 | 4.000 | 5.000 | 14000 | 55.5 | 3 | 1.5/0.2 | 1.25/0.1 |" in text
    )
    assert "| W1 graphs, streams (eager!) | 60.00 | 40.00 | 25.00 | 4.00 |" in text
    assert "| W1 eager | 4.200 | 4.000 | 5.000 | 1.050 |" in text
    assert "| W1 graphs, streams | 4.500 | 4.000 | 5.000 | 0.900 |" in text
    assert "| limits | died | it took longer |" in text
    assert "| fast eager | not run |  |" in text
    assert bench.profiles(stage.rows).count("conv") == 2


# --- camvid -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "steps", "step_seconds", "expected"),
    [
        (100, 30, 0.1, (33, None)),
        (1000, 30, 0.1, (60, None)),
        (7, 30, 0.1, (2, None)),
        (5, 30, 0.1, (2, 25)),
        (0.01, 30, 0.1, (2, 1)),
        (-3, 30, 0.1, (2, 1)),
    ],
)
def test_a_schedule_is_cut_to_the_time(seconds: float, steps: int, step_seconds: float, expected: Any) -> None:
    assert camvid_child.cut(seconds, steps, step_seconds, 60) == expected


def test_work_is_stopped_at_its_end_and_says_whether_it_was_done() -> None:
    def until_stopped() -> None:
        try:
            time.sleep(30)
        except KeyboardInterrupt:
            raise Interrupted("saved") from None

    began = time.monotonic()
    assert camvid_child.within(time.time() + 60, lambda: None)
    assert not camvid_child.within(time.time() + 0.1, until_stopped)
    with pytest.raises(Interrupted, match="before the first step"):
        camvid_child.within(time.time() + 0.1, lambda: time.sleep(30))
    with pytest.raises(Interrupted, match="before the first step"):
        camvid_child.within(time.time() - 5, lambda: pytest.fail("begun"))
    assert time.monotonic() - began < 10
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_weights_are_halved_but_for_what_float16_cannot_hold(tmp_path: Path) -> None:
    tensors = {"a": torch.tensor([1.5, -2.25]), "count": torch.tensor([70000]), "large": torch.tensor([1e6])}
    save_file(tensors, tmp_path / "whole", {"genotype": "{}"})
    camvid_child.halve(tmp_path / "whole", tmp_path / "half")
    found = load_file(tmp_path / "half")
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        "a": torch.float16, "count": torch.int64, "large": torch.float32,
    }  # fmt: skip
    assert all(torch.equal(found[name].to(tensors[name]), tensors[name]) for name in tensors)


def write_camvid(folder: Path, count: int = 10) -> Path:
    """A folder like CamVid's, of noise."""
    rng = np.random.default_rng(0)
    for part in camvid.PARTS:
        (folder / part).mkdir(parents=True)
        for number in range(count):
            if part.endswith("annot"):
                mask = rng.integers(0, 12, (36, 48)).astype(np.uint8)
                Image.fromarray(mask).save(folder / part / f"0001TP_{number:06}.png")
            else:
                image = rng.integers(0, 256, (36, 48, 3), dtype=np.uint8)
                Image.fromarray(image).save(folder / part / f"0001TP_{number:06}.jpg")
    return folder


@pytest.mark.slow
def test_camvid_in_miniature(tmp_path: Path) -> None:
    data, work, out = write_camvid(tmp_path / "data"), tmp_path / "work", tmp_path / "out"
    done = stage("camvid", out, "--dry", "--data", data, "--work", work)
    log = (out / "log.txt").read_text()
    assert done.returncode == 0, done.stdout + done.stderr + log
    assert sorted(path.name for path in out.iterdir()) == sorted(camvid.FILES)
    assert_small(out)
    found = json.loads((out / "camvid.json").read_text())
    phases = {phase["name"]: phase for phase in found["phases"]}
    assert list(phases) == ["search", "decode", "trellis", "retrain", "evaluate", "weights", "predictions"]
    assert phases["search"]["settings"]["search"]["epochs"] == 2
    assert phases["search"]["schedule"]["arch_start_epoch"] == 1
    assert phases["evaluate"]["scores"]["images"] == 4
    assert phases["evaluate"]["epochs_trained"] == phases["evaluate"]["epochs_planned"] == 2
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for name, kinds in (("search", {"train", "arch", "val", "evidence"}), ("retrain", {"train", "val"})):
        assert {row["kind"] for row in rows if row["run"] == name} == kinds
    assert "| pedestrian |" in done.stdout
    assert "on a card: 300 s = 35% search + 55% retraining + 10% rest" in done.stdout
    again = stage("camvid", out, "--dry", "--data", data, "--work", work)
    assert again.returncode == 2
    assert "is not an empty folder" in again.stderr


@pytest.mark.slow
def test_camvid_goes_on_with_runs_that_are_there(tmp_path: Path) -> None:
    """A search that its time stopped is decoded as far as it came, and what follows uses it."""
    events: list[dict[str, Any]] = []
    out = tmp_path / "out"
    out.mkdir()

    def pipeline(seconds: float) -> camvid_child.Pipeline:
        began = time.time()
        events.clear()
        tell: Any = lambda event, **more: events.append({"event": event, **more})  # noqa: E731
        times = began, began + seconds
        return camvid_child.Pipeline("fast", None, tmp_path / "work", out, times, True, tell, 0.9, 3)

    first = pipeline(600)
    assert first.phase("search", first.search)
    resumed = pipeline(600)
    assert resumed.phase("search", resumed.search)
    end = events[-1]
    assert end["resumed"]
    assert end["finished"]
    assert resumed.phase("decode", resumed.decode)
    assert (out / "genotype.yaml").is_file()
    stopped = pipeline(-1)
    assert not stopped.phase("retrain", stopped.retrain)
    assert "before the first step" in events[-1]["reason"]


def test_what_camvid_says_of_a_training_that_was_stopped() -> None:
    phase = {
        "outcome": "done", "step_ms": 51.23, "schedule": {"epochs": 40}, "finished": False, "last_val": {"miou": 0.5},
    }  # fmt: skip
    assert camvid.essence(phase) == "step_ms 51.2, 40 epochs, stopped as its time was over, val mIoU 0.500"
    assert camvid.essence({"outcome": "failed", "reason": "RunError: no"}) == "RunError: no"


def test_work_folders_are_numbered(tmp_path: Path) -> None:
    first, second = (camvid.work_folder(None, False, tmp_path) for _ in range(2))
    assert (first.name, second.name) == ("gpu-camvid-0", "gpu-camvid-1")
    with pytest.raises(FileNotFoundError, match="holds no search"):
        camvid.work_folder(None, True, tmp_path)
    (second / "search").mkdir()
    (second / "search" / "config.yaml").write_text("")
    assert camvid.work_folder(None, True, tmp_path) == second


# --- pack.sh ----------------------------------------------------------------------------------------------------------

FAKE_PYTHON = """#!/usr/bin/env bash
echo "$@" >> calls
while [ "$#" -gt 0 ]; do
  if [ "$1" = --dest ]; then dest=$2; fi
  case "$1" in *==*) name=${1%%==*}; touch "$dest/${name//-/_}-${1##*==}-py3-none-any.whl" ;; esac
  shift
done
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A folder with pack.sh and what it reads, and a Python that downloads nothing."""
    folder = tmp_path / "repository"
    (folder / "scripts" / "gpu").mkdir(parents=True)
    (folder / "scripts" / "gpu" / "pack.sh").write_bytes(PACK.read_bytes())
    (folder / "constraints.txt").write_bytes((ROOT / "constraints.txt").read_bytes())
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").write_text(FAKE_PYTHON)
    (tmp_path / "bin" / "python3").chmod(0o755)
    return folder


def pack(repository: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    path = f"{repository.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", str(repository / "scripts" / "gpu" / "pack.sh"), *map(str, arguments)]
    return subprocess.run(
        command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False, cwd=repository.parent
    )


def test_pack_lays_out_images_and_wheels_and_does_it_once(repository: Path) -> None:
    data = write_camvid(repository.parent / "camvid", 2)
    done = pack(repository, "camvid")  # relative to where the user is
    assert done.returncode == 0, done.stderr
    assert done.stdout == ".gpu: 2 training and 2 validation images, 5 wheels, 0 MiB in all\n"
    packed = repository / ".gpu"
    for part in camvid.PARTS:
        names = sorted(path.name for path in (data / part).iterdir())
        assert sorted(path.name for path in (packed / "camvid" / part).iterdir()) == names
        assert all(
            (packed / "camvid" / part / name).read_bytes() == (data / part / name).read_bytes() for name in names
        )
    wheels = sorted(path.name.partition("-")[0] for path in (packed / "wheels").iterdir())
    assert wheels == ["annotated_types", "pydantic", "pydantic_core", "typing_extensions", "typing_inspection"]
    (call,) = (repository / "calls").read_text().splitlines()
    for part in ("pip download", "--no-deps", "--only-binary=:all:", "--python-version 3.12", "manylinux2014_x86_64"):
        assert part in call
    assert f"pydantic=={pinned('pydantic')} " in call
    (data / "train" / "0001TP_000001.jpg").unlink()
    again = pack(repository, data)
    assert again.stdout.startswith(".gpu: 1 training and 2 validation images, 5 wheels")
    assert len((repository / "calls").read_text().splitlines()) == 1, "the wheels are there"
    assert sorted(path.name for path in packed.iterdir()) == ["camvid", "wheels"]


def pinned(name: str) -> str:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith(f"{name}=="))


def test_pack_says_what_is_missing(repository: Path) -> None:
    data = write_camvid(repository.parent / "camvid", 1)
    for path in (data / "val").iterdir():
        path.unlink()
    for arguments, message in (
        (["nowhere"], "nowhere/train is missing or empty"),
        ([data], "val is missing or empty; give the folder that holds CamVid's"),
        ([data, data], "give one folder at most"),
    ):
        done = pack(repository, *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert message in done.stderr
    assert not (repository / ".gpu").exists()


def test_pack_says_that_nothing_can_be_downloaded(repository: Path) -> None:
    data = write_camvid(repository.parent / "camvid", 1)
    (repository.parent / "bin" / "python3").write_text("#!/usr/bin/env bash\necho 'ERROR: no network' >&2; exit 1\n")
    done = pack(repository, data)
    assert done.returncode == 2
    assert "pip cannot download pydantic==" in done.stderr
    assert "(ERROR: no network); see to the network, or set PACK_WHEELS=no" in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in (repository / ".gpu").iterdir()) == ["camvid", "wheels"]


# --- run.sh -----------------------------------------------------------------------------------------------------------

PYTHON_THAT_LACKS = """#!/usr/bin/env bash
if [ "$1" = -c ]; then echo "{missing}"; exit; fi
echo "$PYTHONPATH | $*" >> calls
"""


@pytest.mark.parametrize(
    ("missing", "wheels", "status"), [("torch pydantic", 1, 2), ("pydantic", 0, 2), ("pydantic", 1, 0), ("", 0, 0)]
)
def test_run_brings_what_a_python_lacks(missing: str, wheels: int, status: int, repository: Path) -> None:
    (repository / "scripts" / "gpu" / "run.sh").write_bytes(RUN.read_bytes())
    (repository.parent / "bin" / "python3").write_text(PYTHON_THAT_LACKS.format(missing=missing))
    (repository / ".gpu" / "wheels").mkdir(parents=True)
    for number in range(wheels):
        (repository / ".gpu" / "wheels" / f"{number}.whl").touch()
    path = f"{repository.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", str(repository / "scripts" / "gpu" / "run.sh"), "bench", "--dry"]
    done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == status
    if status:
        assert f"lacks {missing}; install autoseg (bash scripts/setup.sh export,dev)" in done.stderr
        assert done.stderr.count("\n") == 1
        return
    *install, stage = (repository / "calls").read_text().splitlines()
    paths, _, arguments = stage.partition(" | ")
    assert arguments == "-m gpu.bench --dry"
    assert f"{repository}:{repository}/scripts" in paths
    assert len(install) == wheels
    for call in install:
        target = re.search(r"--no-index --no-deps --no-compile --target (\S+) .gpu/wheels/0.whl", call)
        assert target is not None
        assert paths.startswith(f"{target[1]}:")
        assert not Path(target[1]).exists(), "it is removed at the end"
