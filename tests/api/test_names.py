"""The names that `import autoseg` offers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import autoseg

ROOT = Path(__file__).parents[2]


def test_every_name_that_autoseg_offers_is_there() -> None:
    for name in autoseg.__all__:
        assert callable(getattr(autoseg, name)), name
    assert set(autoseg.__all__) <= set(dir(autoseg))
    with pytest.raises(AttributeError, match="has no attribute 'serach'"):
        autoseg.serach  # noqa: B018


CODE = """
import importlib, json, pkgutil, sys
import autoseg
for module in pkgutil.walk_packages(autoseg.__path__, "autoseg."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as reason:
        if reason.name != "triton":  # of the optional packages, the only one that a module imports at its top
            raise
loaded = [name for name in sys.modules if name.startswith("autoseg.")]
homes = autoseg._HOMES.items()
hidden = [name for name, home in homes if getattr(autoseg, name) is not getattr(sys.modules[home], name)]
print(json.dumps([loaded, hidden]))
"""


@pytest.mark.slow
def test_no_module_takes_the_place_of_a_public_name() -> None:
    """Importing the package `autoseg.search` would set the attribute `search` of `autoseg` to that package."""
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    loaded, hidden = json.loads(done.stdout.splitlines()[-1])
    assert {"autoseg.api.search", "autoseg.engine.search", "autoseg.cli.main"} <= set(loaded)
    assert set(autoseg._HOMES) == set(autoseg.__all__)
    assert hidden == []
