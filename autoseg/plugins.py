"""Plugins: a user's own operations and other records, from a Python file or an installed module.

A plugin is a file that calls `autoseg.register` for each of its records. `autoseg search --plugin my_ops.py` loads it.
A package may name its module in the entry point group `autoseg.plugins`; it is loaded by that name. autoseg never
runs a plugin by itself: a space, genotype or network only says which plugin it needs, and the user loads it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from importlib.machinery import SourceFileLoader
from importlib.metadata import entry_points
from pathlib import Path

from autoseg.errors import AutosegError, PluginError
from autoseg.files import one_line, user_path
from autoseg.registry import REGISTRIES, _plugin

GROUP = "autoseg.plugins"
_loaded: dict[str, str] = {}
"""Resolved file or module -> the name under which its records are known."""


def load_plugin(source: str | Path) -> None:
    """Run a plugin, which calls `autoseg.register`. A plugin that is loaded already is not run again.

    Args:
        source: The path of a Python file, the name of an installed module, or the name of an entry point of the group
            `autoseg.plugins`.

    Raises:
        PluginError: the plugin is missing, does not import, registers nothing, or registers something wrong. None of
            its records stays registered then.
    """
    text = str(source)
    path = user_path(text, PluginError)
    is_file = path.suffix == ".py" or path.is_file()
    key = str(path.resolve()) if is_file else text
    if key in _loaded:
        return
    if is_file and not path.is_file():
        raise PluginError(f"there is no plugin file {text}; give the path of a Python file", code="plugin-missing")
    name = path.name if is_file else text
    before = sum(map(len, REGISTRIES.values()))
    _plugin.append(name)
    try:
        if is_file:
            _run_file(path)
        else:
            _import_module(text)
        if sum(map(len, REGISTRIES.values())) == before:
            message = f"{name}: the plugin registers nothing; it must call autoseg.register, see docs/extending.md"
            raise PluginError(message, code="plugin-empty")
    except BaseException as reason:
        for registry in REGISTRIES.values():
            registry.discard(name)
        if isinstance(reason, AutosegError) or not isinstance(reason, Exception | SystemExit):
            raise
        raise PluginError(
            f"{name}: the plugin does not import: {type(reason).__name__}: {one_line(reason)}{_line_of(reason, path)}",
            code="plugin-import-fails",
        ) from reason
    finally:
        _plugin.pop()
    _loaded[key] = name


def _run_file(path: Path) -> None:
    """Run a file as a module of its own; it stays in `sys.modules`, where pickle finds its classes."""
    name = f"autoseg_plugin_{path.stem}_{abs(hash(str(path.resolve()))):x}"
    spec = importlib.util.spec_from_file_location(name, path, loader=SourceFileLoader(name, str(path)))
    assert spec is not None
    assert spec.loader is not None  # the one that was given
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _import_module(name: str) -> None:
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name in points:
        points[name].load()
        return
    if importlib.util.find_spec(name.split(".")[0]) is None:
        known = ", ".join(sorted(points)) or "none are installed"
        raise PluginError(
            f"there is no plugin '{name}'; give a Python file, an installed module, or an entry point of {GROUP}"
            f" ({known})",
            code="plugin-missing",
        )
    importlib.import_module(name)


def _line_of(reason: BaseException, path: Path) -> str:
    """The line of the plugin that failed, if it is known."""
    if isinstance(reason, SyntaxError):
        return f" (line {reason.lineno})"
    frames = traceback.extract_tb(reason.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).name == path.name]
    return f" (line {lines[-1]})" if lines else ""
