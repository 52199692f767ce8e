"""What the command line says of itself, how soon, and what it loads for that."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.errors import check_line
from helpers.tiny_runs import GENOTYPE, call, write_config

from autoseg import __version__
from autoseg.cli.main import COMMANDS, run

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}
NO_TORCH = """
import sys
from autoseg.cli.main import run
status = run(sys.argv[1:])
loaded = [name for name in ("torch", "tensorboard") if name in sys.modules]
print("status", status, "loaded", loaded, file=sys.stderr)
"""


def process(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=60, env=ENVIRONMENT, check=False
    )


@pytest.mark.slow
def test_help_answers_in_half_a_second() -> None:
    """Seconds of the processor count, not those of a clock: other programs run on the machine too."""
    seconds = []
    for _ in range(4):  # the best of several, since caches are shared
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = process("-m", "autoseg", "--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        assert done.returncode == 0, done.stderr
        if seconds[-1] < 0.5:
            break
    assert min(seconds) < 0.5, seconds
    for name in COMMANDS:
        assert re.search(rf"\b{name}\b", done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(COMMANDS))
def test_each_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    call(name, "--help")
    out = capsys.readouterr().out
    assert f"Example: autoseg {name}" in " ".join(out.replace("│", " ").split())
    assert "--debug" in out
    expected = {"search": ("--config", "--set", "--device", "--seed", "--resume", "--data", "--space", "--out")}
    expected["retrain"] = tuple(option for option in expected["search"] if option != "--space")
    for option in expected.get(name, ()):
        assert option in out


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--help"], ["spaces"], ["search", "--help"], ["--version"], ["serach"]])
def test_quick_commands_load_no_torch(arguments: list[str]) -> None:
    done = process("-c", NO_TORCH, *arguments)
    assert f"status {2 if arguments == ['serach'] else 0} loaded []" in done.stderr


@pytest.mark.slow
def test_decode_and_plot_load_no_torch(searched: Path, tmp_path: Path) -> None:
    done = process("-c", NO_TORCH, "decode", searched, "--out", tmp_path / "g.yaml")
    assert "status 0 loaded []" in done.stderr, done.stderr
    genotype = write_config(tmp_path / "genotype.yaml", GENOTYPE)
    for source in (searched, genotype):
        done = process("-c", NO_TORCH, "plot", source, "--out", tmp_path / "figures", "--format", "png")
        assert "status 0 loaded []" in done.stderr, done.stderr
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "trellis.png", "alpha.png", "history.png", "path.png", "cell.png"
    }  # fmt: skip


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    call("--version")
    assert capsys.readouterr().out == f"autoseg {__version__}\n"


def test_no_arguments_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    captured = capsys.readouterr()
    assert "search" in captured.out
    assert captured.err == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "no such command 'nonsense'; see `autoseg --help`"),
        (["serach"], "no such command 'serach'. Did you mean 'search'?; see `autoseg --help`"),
        (["--bogus"], "no such option: --bogus"),
        (["search", "--bogus"], "no such option: --bogus"),
        (["search"], "missing option '--out'; see `autoseg search --help`"),
        (["decode"], "missing argument 'run'; see `autoseg decode --help`"),
        (["spaces", "extra"], "got unexpected extra argument(s) (extra); see `autoseg spaces --help`"),
        (["decode", "x", "--epoch", "one"], "invalid value for '--epoch'"),
        (["show", "tiny", "--size", "3"], "option '--size' requires 2 arguments"),
    ],
)
def test_usage_errors_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message.lower() in captured.err.lower()
    assert captured.out == ""


@pytest.mark.slow
def test_an_error_of_a_process_is_one_line_and_status_2(tmp_path: Path) -> None:
    done = process("-m", "autoseg", "decode", tmp_path / "nope")
    assert (done.returncode, done.stdout) == (2, "")
    check_line(done.stderr, "run-missing", tmp_path / "nope", "`--out` of search or retrain")
    shown = process("-m", "autoseg", "decode", tmp_path / "nope", "--debug")
    assert shown.returncode != 0
    assert "Traceback" in shown.stderr
    assert "RunError" in shown.stderr


@pytest.mark.slow
def test_spaces_names_every_space_and_network(capsys: pytest.CaptureFixture[str]) -> None:
    call("spaces")
    out = capsys.readouterr().out
    for name in ("auto_deeplab", "tiny", "auto_deeplab_s", "auto_deeplab_m", "auto_deeplab_l"):
        assert re.search(rf"^  {name} ", out, re.MULTILINE)
    call("show", "auto_deeplab")
    assert "layers        12, strides 4 8 16 32" in capsys.readouterr().out
