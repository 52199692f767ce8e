"""What the command line needs in order to answer at once loads without torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autoseg.registry import REGISTRIES

PACKAGE = Path(__file__).parents[1] / "autoseg"
LIGHT = ("config", "space", "genotype", "viz")

CODE = """
import importlib, json, sys
loaded_by = {}
for name in sys.argv[1:]:
    importlib.import_module(name)
    loaded_by[name] = "torch" in sys.modules
print(json.dumps(loaded_by))
"""


def light_modules() -> list[str]:
    files = [PACKAGE / "errors.py", PACKAGE / "files.py"]
    files += [file for folder in LIGHT for file in sorted((PACKAGE / folder).rglob("*.py"))]
    names = [".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in files]
    return ["autoseg", *(name.removesuffix(".__init__") for name in names), "autoseg.zoo.schema", "autoseg.plugins"]


@pytest.mark.slow
def test_config_space_genotype_and_viz_load_without_torch() -> None:
    modules = light_modules()
    assert {
        "autoseg.config.base",
        "autoseg.space.trellis",
        "autoseg.genotype.decode",
        "autoseg.genotype.sample",
    } <= set(modules)
    command = [sys.executable, "-c", CODE, *modules]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    loaded_by = json.loads(done.stdout.splitlines()[-1])
    assert list(loaded_by) == modules
    first = next((name for name in modules if loaded_by[name]), None)
    assert first is None, f"importing {first} imports torch"


RECORDS = """
import sys
from autoseg.registry import LOSSES, REGISTRIES
from autoseg.zoo.schema import FixedNetwork, network_names

for registry in REGISTRIES.values():
    print(registry.kind, len(list(registry.values())))
    assert "torch" not in sys.modules, registry.kind
networks = [FixedNetwork.parse(name) for name in network_names()]
terms = [loss.options(name=name).options for name, loss in LOSSES.items()]
assert "torch" not in sys.modules
"""


@pytest.mark.slow
def test_every_record_and_its_options_load_without_torch() -> None:
    command = [sys.executable, "-c", RECORDS]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    kinds = [line.split()[0] for line in done.stdout.splitlines()]
    assert kinds == [registry.kind for registry in REGISTRIES.values()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_threads_give_way_early_unless_the_user_says_otherwise(given: dict[str, str], expected: str) -> None:
    others = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = "import os; from autoseg.cli.main import run; run(['spaces']); print(os.environ.get('GOMP_SPINCOUNT'))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent, env=others | given, check=True)
    assert done.stdout.splitlines()[-1] == expected


@pytest.mark.slow
def test_importing_autoseg_changes_no_environment_variable() -> None:
    """Nor do its light parts; commands may."""
    code = (
        "import os; before = dict(os.environ); import autoseg, autoseg.cli.main; autoseg.SearchSpace, autoseg.Genotype,"
        " autoseg.build_supernet; assert dict(os.environ) == before"
    )
    subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, check=True, timeout=120)


def test_torch_is_not_loaded_before_the_process_is_prepared() -> None:
    """OpenMP reads how long its threads spin when torch is loaded."""
    code = "import sys, autoseg.cli.main; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, check=True, timeout=60)
