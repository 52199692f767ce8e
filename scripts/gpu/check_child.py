"""Runs tests by pytest and writes an event of each; started by `gpu/check.py`."""

from __future__ import annotations

import gc
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

import pytest

from gpu.output import ROOT
from gpu.supervisor import Events, child_parser, end_with_parent

BROKEN = re.compile(r"CUDA error|illegal memory access|unspecified launch failure|device-side assert", re.IGNORECASE)
"""In a test's failure: what the process computes from then on is not trusted."""
LONGEST_TRACEBACK = 12000
"""Characters; the end is kept."""
MARKER = "gpu"


class Reporter:
    """A pytest plugin: brings the tests in order, leaves out those that were done, and writes the events."""

    def __init__(self, events: Events, order: Sequence[str], only: Sequence[str], state: dict[str, Any]) -> None:
        """order: prefixes of node ids. only: parts of node ids; none is all. state: see `Supervisor`."""
        self._events, self._order, self._only = events, order, only
        self._done, self._last = set(state["done"]), tuple(state["last"])
        self._reports: list[pytest.TestReport] = []
        self._began = 0.0

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """In order, and only those that are wanted."""
        wanted = [item for item in items if self._is_wanted(item.nodeid)]
        config.hook.pytest_deselected(items=[item for item in items if not self._is_wanted(item.nodeid)])
        items[:] = sorted(wanted, key=lambda item: (item.nodeid.partition("[")[0] in self._last, self._rank(item)))
        self._events("planned", names=[item.nodeid for item in items])

    def _is_wanted(self, name: str) -> bool:
        return name not in self._done and (not self._only or any(part in name for part in self._only))

    def _rank(self, item: pytest.Item) -> int:
        places = (place for place, prefix in enumerate(self._order) if item.nodeid.startswith(prefix))
        return next(places, len(self._order))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be imported is a result as well."""
        if report.failed and report.nodeid not in self._done:
            self._events("start", name=report.nodeid)
            self._events("end", name=report.nodeid, outcome="failed", detail=report.longreprtext[-LONGEST_TRACEBACK:])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A test begins."""
        self._reports, self._began = [], time.perf_counter()
        self._events("start", name=nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One of its three parts has ended."""
        self._reports.append(report)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """A test has ended."""
        bad = [report for report in self._reports if report.outcome != "passed"]
        outcome = ("failed" if any(report.failed for report in bad) else "skipped") if bad else "passed"
        detail = "\n".join(_text(report) for report in bad)
        seconds = time.perf_counter() - self._began
        self._events("end", name=nodeid, outcome=outcome, seconds=seconds, detail=detail[-LONGEST_TRACEBACK:])
        if outcome == "failed":
            reason = BROKEN.search(detail) or _device_error()
            if reason is not None:
                self._events("restart", reason=f"a CUDA error in {nodeid}")
                os._exit(3)
            _free_memory()


def _text(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):  # of a skip: file, line, reason
        return report.longrepr[2].removeprefix("Skipped: ")
    sections = [f"--- {title}\n{text.strip()}" for title, text in report.sections if text.strip()]
    return "\n".join([report.longreprtext, *sections])


def _device_error() -> str | None:
    """What the device says when it is waited for, if that is an error."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    try:
        torch.cuda.synchronize()
    except RuntimeError as reason:
        return str(reason)
    return None


def _free_memory() -> None:
    """A failed test's frames hold its tensors no longer than this."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def main() -> int:
    """The exit status: 0 where pytest came to its end, whatever the tests said."""
    parser = child_parser(__doc__)
    parser.add_argument("--order", default="[]", help="JSON: prefixes of node ids")
    parser.add_argument("--only", default="[]", help="JSON: parts of node ids")
    parser.add_argument("--root", required=True, help="folder from which tests are named")
    parser.add_argument("files", nargs="+")
    options = parser.parse_args()
    end_with_parent()
    events = Events(options.events)
    state = json.loads(options.state.read_text(encoding="utf-8"))
    if not state["done"]:
        from gpu.environment import describe  # imports torch, which takes seconds

        events("environment", **describe())
    reporter = Reporter(events, json.loads(options.order), json.loads(options.only), state)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # a machine may have plugins that take seconds, or the card
    given = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", options.root, "-o", "addopts=", "--strict-markers", "-q"]
    given += ["-m", MARKER, "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    status = pytest.main([*given, *options.files], plugins=[reporter])
    return int(status) if status in (pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR) else 0


if __name__ == "__main__":
    sys.exit(main())
