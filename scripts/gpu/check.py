"""The tests that need a card, most important first; a failure is recorded with its traceback and the next one runs."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from autoseg.errors import RunError
from gpu.output import ROOT, Output, in_one_line, positive, refuse, stage_parser, table
from gpu.supervisor import Event, Supervisor

SECONDS = 170.0
FILES = ("check.json", "check.md", "check.log")
TEST_SECONDS = 45.0
"""Of a test; a search with torch.compile may take most of it."""
START_SECONDS = 90.0
"""Of a process until its first test: import, collection, the card's context."""
ORDER = (
    "tests/supernet/test_cuda.py",
    "tests/engine/test_steps.py",
    "tests/supernet/",
    "tests/engine/test_upsampler_cost.py",
    "tests/engine/test_retrain.py",
    "tests/network/",
    "tests/planning/test_memory.py",
    "tests/planning/test_training_memory.py",
    "tests/planning/test_device.py",
    "tests/data/",
    "tests/engine/",
    "tests/losses/",
    "tests/ops/",
)
"""Prefixes of node ids, most important first; other tests come last."""
STAND_INS = Path(__file__).parent / "stand_ins"
STAND_IN_OUTCOMES = {
    "test_that_passes": "passed",
    "test_that_fails": "failed",
    "test_that_kills_the_process": "died",
    "test_after_it": "passed",
    "test_that_hangs": "died",
    "test_that_breaks_the_device[first]": "failed",
    "test_that_breaks_the_device[second]": "failed",
    "test_that_is_last": "passed",
}
"""What must come of them in a dry run."""
DRY_TEST_SECONDS, DRY_START_SECONDS = 3.0, 60.0
START_ESTIMATE, TEST_ESTIMATE = 15.0, 1.0
"""Seconds on a card: of a process, and of a test on average."""
MARK = re.compile(r"\bmark\.gpu\b")
SHOWN_FAILURES, SHOWN_LINE = 25, 220
"""In the summary, which is all that some machines send back at once."""


class Results(NamedTuple):
    """What is written; `tests` in the order in which they ran."""

    environment: dict[str, Any]
    tests: list[Event]
    planned: list[str]
    restarts: list[str]
    notes: list[str]

    def not_run(self) -> list[str]:
        """Names of tests that have no result."""
        ran = {test["name"] for test in self.tests}
        return [name for name in self.planned if name not in ran]


class Stage:
    """Runs tests and writes `check.json` and `check.md` after each."""

    def __init__(self, output: Output, seconds: float, dry: bool) -> None:
        self.output, self.dry = output, dry
        self.began = time.monotonic()
        self.deadline = self.began + seconds
        self.results = Results({}, [], [], [], [])

    def run(self, files: Sequence[Path], only: Sequence[str], test_seconds: float, start_seconds: float) -> None:
        """Run the tests of some files that have the marker."""
        inside = files[0].is_relative_to(ROOT)
        root = str(ROOT) if inside else os.path.commonpath([path.parent for path in files])
        command = [sys.executable, "-X", "faulthandler", "-m", "gpu.check_child", *map(str, files)]
        command += ["--root", root, "--order", json.dumps(ORDER), "--only", json.dumps(only)]
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if self.dry else {}
        with tempfile.TemporaryDirectory() as folder:
            supervisor = Supervisor(
                command,
                self.take,
                Path(folder),
                self.output.path("check.log"),
                self.deadline,
                lambda name: test_seconds,
                start_seconds,
                hidden,
            )
            supervisor.run()
        self.results.restarts.extend(supervisor.restarts)
        if supervisor.gave_up is not None:
            self.results.notes.append(supervisor.gave_up)
        self.write()

    def take(self, event: Event) -> None:
        """Keep what came, print a line, write the files."""
        kind = event.pop("event")
        if kind == "environment":
            self.results.environment.update(event)
            if not event["cuda"] and not self.dry:
                raise NoCardError
        elif kind == "planned":
            known = {*self.results.planned}
            self.results.planned.extend(name for name in event["names"] if name not in known)
        elif kind == "end":
            self.results.tests.append(event)
            print(f"{event['outcome']:<8} {event['seconds']:7.2f} s  {event['name']}", flush=True)
            self.write()

    def write(self) -> None:
        """The files as of now."""
        data = {
            "stage": "check",
            "dry": self.dry,
            "seconds": round(time.monotonic() - self.began, 1),
            **self.results._asdict(),
            "not_run": self.results.not_run(),
        }
        self.output.json("check.json", data)
        self.output.text("check.md", report(self.results))


class NoCardError(Exception):
    """torch finds no GPU."""


# --- what is written and printed --------------------------------------------------------------------------------------


def report(results: Results) -> str:
    """The tables: results, what was not run, and the failures with their tracebacks."""
    rows = [(test["outcome"], round(test["seconds"], 2), f"`{test['name']}`") for test in results.tests]
    parts = [f"# Checks on {in_one_line(results.environment)}\n", f"{counts(results)}\n"]
    parts += [f"**{note}**\n" for note in results.notes]
    parts += [table(("outcome", "seconds", "test"), rows)]
    if missing := results.not_run():
        parts += ["## Not run\n", "\n".join(f"- `{name}`" for name in missing) + "\n"]
    if results.restarts:
        parts += ["## Processes that were replaced\n", "\n".join(f"- {why}" for why in results.restarts) + "\n"]
    for test in bad(results.tests):
        parts += [f"## `{test['name']}`: {test['outcome']}\n", f"```text\n{test.get('detail', '')}\n```\n"]
    return "\n".join(parts)


def counts(results: Results) -> str:
    """Such as `41 passed, 2 failed, 3 not run`."""
    found = Counter(test["outcome"] for test in results.tests)
    found["not run"] = len(results.not_run())
    return ", ".join(f"{count} {outcome}" for outcome, count in found.items() if count) or "no tests"


def bad(tests: Iterable[Event]) -> list[Event]:
    """Those that did not come out well."""
    return [test for test in tests if test["outcome"] in ("failed", "died")]


def summary(results: Results, folder: Path) -> str:
    """What is printed last: counts, the failures in a line each, the slowest, and how to repeat what failed."""
    lines = [f"\n{in_one_line(results.environment)}", counts(results), *results.notes]
    failures = bad(results.tests)
    for test in failures[:SHOWN_FAILURES]:
        lines += [f"  {test['outcome']}: {test['name']}", f"    {reason_of(test)[:SHOWN_LINE]}"]
    if len(failures) > SHOWN_FAILURES:
        lines.append(f"  ... and {len(failures) - SHOWN_FAILURES} more in check.md")
    skipped = Counter(reason_of(test) for test in results.tests if test["outcome"] == "skipped")
    lines += [f"  {count} skipped: {reason}" for reason, count in skipped.items()]
    slowest = sorted(results.tests, key=lambda test: -test["seconds"])[:5]
    named = (f"{test['name'].rpartition('::')[2]} {test['seconds']:.1f} s" for test in slowest)
    lines.append(f"slowest: {', '.join(named)}")
    again = [*(test["name"] for test in failures), *results.not_run()]
    if again:
        functions = [*dict.fromkeys(name.partition("[")[0] for name in again)][:SHOWN_FAILURES]
        lines.append(f"again: scripts/gpu/run.sh check --only {shlex.join(functions)}")
    return "\n".join([*lines, f"written: {folder}/check.json, check.md, check.log"])


def reason_of(test: Event) -> str:
    """The line of a traceback that says what went wrong."""
    lines = test.get("detail", "").splitlines()
    marked = [line.removeprefix("E").strip() for line in lines if line.startswith("E  ")]
    return " ".join((marked or [line for line in lines if line.strip()] or [""])[0].split())


def estimate(names: Sequence[str], seconds: float) -> str:
    """What the stage would take on a card."""
    needed = START_ESTIMATE + TEST_ESTIMATE * len(names)
    return (
        f"on a card: {START_ESTIMATE:g} s for a process + {len(names)} tests x {TEST_ESTIMATE:g} s = {needed:g} s, and"
        f" {START_ESTIMATE:g} s more for each process that dies; hard limit {seconds:g} s"
    )


# --- command ----------------------------------------------------------------------------------------------------------


def marked_files(folder: Path) -> list[Path]:
    """The test files with the marker, so that no other one needs to be imported."""
    return [path for path in sorted(folder.rglob("test_*.py")) if MARK.search(path.read_text(encoding="utf-8"))]


def unexpected(tests: Iterable[Event]) -> list[str]:
    """Which stand-ins came out otherwise than they must, a line each."""
    found = {test["name"].rpartition("::")[2]: test["outcome"] for test in tests}
    return [
        f"{name}: {found.get(name, 'no result')}, but it should be: {outcome}"
        for name, outcome in STAND_IN_OUTCOMES.items()
        if found.get(name) != outcome
    ]


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Those of the stage. A wrong one ends the process with status 2."""
    parser = stage_parser("check", SECONDS, __doc__ or "")
    parser.add_argument("--only", nargs="+", default=[], metavar="PATTERN", help="parts of tests' names")
    parser.add_argument("--tests", type=Path, default=ROOT / "tests", help="folder of the tests (default: tests)")
    parser.add_argument(
        "--test-seconds", type=positive, default=TEST_SECONDS, help=f"hard limit of a test (default {TEST_SECONDS:g})"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 where the stage ran, 2 for what was given wrong, 1 where a dry run shows a fault."""
    options = parse_arguments(arguments)
    files = marked_files(options.tests.resolve()) if options.tests.is_dir() else []
    if not files:
        return refuse(f"--tests {options.tests}: no test_*.py there has the marker gpu; give a folder of tests")
    try:
        stage = Stage(Output(FILES), options.seconds, options.dry)
        stage.run(files, options.only, options.test_seconds, START_SECONDS)
    except NoCardError:
        return refuse("torch finds no CUDA GPU here; --dry runs the stage in miniature on a CPU")
    except (OSError, RunError) as reason:
        return refuse(f"the output folder cannot be used ({reason}); set OUT to another one")
    if not (stage.results.planned or stage.results.tests) and stage.results.notes == []:
        return refuse(f"--only {shlex.join(options.only)}: no test with the marker gpu has such a name")
    real = [*stage.results.planned]
    faults: list[str] = []
    if options.dry:
        before = len(stage.results.tests)
        stage.run(marked_files(STAND_INS), [], DRY_TEST_SECONDS, DRY_START_SECONDS)
        faults = unexpected(stage.results.tests[before:])
    print(summary(stage.results, stage.output.folder))
    if options.dry:
        print("\n".join([estimate(real, SECONDS), *(f"fault of the dry run: {fault}" for fault in faults)]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
