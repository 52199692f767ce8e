"""The cases themselves: their names, their sources, and that each can be built."""

from pathlib import Path

import pytest

from data.meant.case import Case, Meant, all_cases

THEMED = all_cases()
CASES = [case for _, case in THEMED]


def test_names_are_unique():
    names = [case.name for case in CASES]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_has_a_source_and_builds(case: Case, tmp_path: Path):
    kinds = {case.name for theme, case in THEMED if theme == "kinds"}
    assert case.source.startswith("https://") or (case.name in kinds and not case.source)
    assert isinstance(case.meant, Meant) or case.meant.replace("-", "").isalpha()
    root = tmp_path / "data"
    root.mkdir()
    settings = case.build(root)
    assert settings is None or isinstance(settings, dict)
    assert any(root.iterdir())
