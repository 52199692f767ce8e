"""Imports go downwards only: reads the source of every module and loads none."""

import ast
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

PACKAGE = Path(__file__).parents[1] / "autoseg"

LAYERS = (
    ("_version", "errors", "files", "limits", "host_memory", "library", "plugins", "process", "registry", "signals"),
    ("config",),
    ("space",),
    ("genotype", "ops", "data", "losses", "metrics"),
    ("network", "supernet", "zoo", "viz", "analysis"),
    ("engine", "export", "planning"),
    ("setup", "tabular"),
    ("api", "__init__"),
    ("cli", "__main__"),
)
LAYER_OF = {part: number for number, parts in enumerate(LAYERS) for part in parts}
CONSTANTS = {"__version__"}
"""Names in `autoseg/__init__.py` itself, which depend on nothing."""


def find_modules(package: Path) -> dict[str, Path]:
    """Dotted name -> file, of every module under `package`."""
    modules = {}
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package.parent).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return modules


def part_of(module: str) -> str:
    """The package or module right below the root, to which a layer belongs."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def statements(tree: ast.AST, *, into_functions: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if into_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from statements(node, into_functions=into_functions)


def imports_of(module: str, file: Path, modules: dict[str, Path]) -> Iterator[tuple[str, int]]:
    """(module of ours that is imported, line), also inside functions, but for the lazy attributes of the root."""
    root = module.split(".")[0]
    tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    for node in statements(tree, into_functions=module != root):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = list(_from(node, module, is_package=file.name == "__init__.py", root=root, modules=modules))
        elif isinstance(node, ast.Call) and _name(node.func) in ("import_module", "__import__"):
            names = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        else:
            continue
        for name in names:
            while name.split(".")[0] == root and name not in modules and "." in name:
                name = name.rpartition(".")[0]  # a class or function: the module that holds it
            if name in modules:
                yield name, node.lineno


def _from(node: ast.ImportFrom, module: str, *, is_package: bool, root: str, modules: dict[str, Path]) -> Iterator[str]:
    base = node.module or ""
    if node.level:
        parts = module.split(".")
        parents = parts[: len(parts) - node.level + int(is_package)]
        base = ".".join([*parents, base] if base else parents)
    for alias in node.names:
        if base != root or alias.name not in CONSTANTS:
            full = f"{base}.{alias.name}"
            yield full if full in modules else base


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def find_violations(package: Path) -> list[str]:
    """One line for each module without a layer, upward import, and circle of modules or of packages."""
    modules = find_modules(package)
    found = [f"{name} has no layer; add it to LAYERS" for name in modules if part_of(name) not in LAYER_OF]
    by_module: nx.DiGraph[str] = nx.DiGraph()
    by_part: nx.DiGraph[str] = nx.DiGraph()
    for name, file in modules.items():
        for target, line in imports_of(name, file, modules):
            here, there = part_of(name), part_of(target)
            if LAYER_OF.get(there, 0) > LAYER_OF.get(here, len(LAYERS)):
                found.append(f"{name}, line {line}: imports {target}, which is in a layer above")
            by_module.add_edge(name, target)
            if here != there:
                by_part.add_edge(here, there)
    for kind, graph in (("modules", by_module), ("packages", by_part)):
        circles = [group for group in nx.strongly_connected_components(graph) if len(group) > 1]
        circles += [{node} for node in nx.nodes_with_selfloops(graph)]
        found += [f"circular imports among the {kind} {', '.join(sorted(group))}" for group in circles]
    return found


@pytest.mark.slow
def test_autoseg_imports_downwards_only() -> None:
    assert len(find_modules(PACKAGE)) > 10
    assert find_violations(PACKAGE) == []


# --- the checker checked ----------------------------------------------------------------------------------------------


def plant(folder: Path, files: dict[str, str]) -> Path:
    """A small package `autoseg` with these files (path -> source) besides right ones."""
    right = {
        "__init__.py": "__version__ = '1'\ndef __getattr__(name):\n    from autoseg import api\n    return api\n",
        "errors.py": "import os\n",
        "config.py": "from autoseg.errors import X\n",
        "space/__init__.py": "",
        "space/trellis.py": "import autoseg.config\nfrom autoseg import __version__\n",
        "genotype/__init__.py": "from autoseg.genotype.schema import Genotype\n",
        "genotype/schema.py": "from ..space import trellis\nfrom . import decode\n",
        "genotype/decode.py": "from ..space.trellis import Trellis\n",
        "data/loading.py": "def f():\n    from autoseg.config import X\n",
        "engine/search.py": "from autoseg.genotype import Genotype\nfrom autoseg.data.loading import f\n",
        "api.py": "import autoseg\nimport autoseg.engine.search as s\n",
    }
    for name, source in {**right, **files}.items():
        path = folder / "autoseg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return folder / "autoseg"


def test_the_checker_passes_a_right_tree(tmp_path: Path) -> None:
    assert find_violations(plant(tmp_path, {})) == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"space/bad.py": "from autoseg.engine.search import f"},
            "autoseg.space.bad, line 1: imports autoseg.engine.search",
        ),
        (
            {"space/bad.py": "from autoseg.engine import search"},
            "imports autoseg.engine.search, which is in a layer above",
        ),
        (
            {"space/bad.py": "x = 1\nimport autoseg.engine.search as s"},
            "autoseg.space.bad, line 2: imports autoseg.engine",
        ),
        (
            {"space/bad.py": "def f():\n    def g():\n        from autoseg.genotype import schema"},
            "autoseg.space.bad, line 3",
        ),
        ({"space/bad.py": "class A:\n    from ..genotype.schema import G"}, "imports autoseg.genotype.schema, which"),
        ({"space/bad.py": "from .. import api"}, "imports autoseg.api, which is in a layer above"),
        ({"space/bad.py": "from autoseg import search"}, "imports autoseg, which is in a layer above"),
        (
            {"space/bad.py": "if 1:\n    import importlib\n    importlib.import_module('autoseg.api')"},
            "imports autoseg.api",
        ),
        ({"errors.py": "from autoseg.config import X"}, "autoseg.errors, line 1: imports autoseg.config"),
        (
            {"errors.py": "from autoseg.config import X"},
            "circular imports among the modules autoseg.config, autoseg.errors",
        ),
        (
            {"space/a.py": "def f():\n    from autoseg.space import b", "space/b.py": "from .a import f"},
            "circular imports among the modules autoseg.space.a, autoseg.space.b",
        ),
        (
            {"genotype/decode.py": "from autoseg.genotype import Genotype"},
            "circular imports among the modules autoseg.genotype, autoseg.genotype.decode, autoseg.genotype.schema",
        ),
        ({"space/a.py": "from autoseg.space.a import b"}, "circular imports among the modules autoseg.space.a"),
        (
            {"data/a.py": "from autoseg.genotype import schema", "genotype/z.py": "import autoseg.data.loading"},
            "circular imports among the packages data, genotype",
        ),
        ({"tools/a.py": ""}, "autoseg.tools.a has no layer"),
    ],
)
def test_the_checker_finds_a_planted_violation(files: dict[str, str], expected: str, tmp_path: Path) -> None:
    found = find_violations(plant(tmp_path, files))
    assert any(expected in line for line in found), found


def test_imports_across_a_layer_are_allowed_one_way(tmp_path: Path) -> None:
    files = {"data/a.py": "from autoseg.genotype import schema", "genotype/z.py": "from autoseg.space import trellis"}
    assert find_violations(plant(tmp_path, files)) == []
