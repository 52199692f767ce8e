"""Every case is read as it is meant; `check-data` decides the same as a run, and so does what it proposes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from autoseg.config.base import parse
from autoseg.config.data import DataConfig, ResolvedDataConfig, data_settings
from autoseg.data.check.report import DataReport, check_dataset
from autoseg.data.dataset import resolve
from autoseg.errors import AutosegError
from data.meant.case import Case, all_cases, read

CASES = [case for _, case in all_cases()]
DECIDED = ("classes", "ignore_label", "channels", "pixel_type", "orientation", "colours", "mask_threshold",
           "mean", "std", "layout", "splits")  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_is_read_as_meant_and_checked_alike(case: Case, tmp_path: Path) -> None:
    found = read(case, tmp_path)
    assert not found.wrong
    root = tmp_path / "data"
    report = checked(root, found.settings)
    if isinstance(report, AutosegError):
        assert isinstance(found.error, AutosegError)
        assert (report.code, str(report)) == (found.error.code, str(found.error))
    elif found.config is None:
        stopping = [problem.text for problem in report.problems if problem.stops]
        assert plain(str(found.error), root) in [plain(text, root) for text in stopping]
    else:
        assert [problem.text for problem in report.problems if problem.stops] == []
        assert differing(found.config, report.scan.config) == []
        again = resolve(parse(DataConfig, dict(report.proposal)), training=True)
        assert differing(found.config, again) == []


def differing(one: ResolvedDataConfig, other: ResolvedDataConfig) -> list[str]:
    """The settings that two descriptions of a data set decide in two ways."""
    maps = [{source: target for source, target in (some.label_map or {}).items() if source != target}
            for some in (one, other)]  # fmt: skip
    return [name for name in DECIDED if getattr(one, name) != getattr(other, name)] + ["label_map"] * (
        maps[0] != maps[1]
    )


def checked(root: Path, settings: Mapping[str, Any]) -> DataReport | AutosegError:
    """What `check-data` reports of a folder, or the error that ends it."""
    try:
        return check_dataset(parse(DataConfig, {**data_settings(root), **settings}))
    except AutosegError as reason:
        return reason


def plain(text: str, root: Path) -> str:
    """A message with files relative to the data set's folder."""
    return text.replace(f"{root}/", "")
