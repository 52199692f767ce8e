"""Plugins that tests write and load, and what is registered put back afterwards."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from autoseg import plugins
from autoseg.registry import REGISTRIES

RECORDS = {
    "operation": "autoseg.Operation({name!r}, 'mine', {function}, {function})",
    "block": "autoseg.Block({name!r}, 'mine', {function}, {function})",
    "upsampler": "autoseg.Upsampler({name!r}, 'mine', {function}, {function})",
    "decoder": "autoseg.Decoder({name!r}, 'mine', {function})",
    "loss": "autoseg.Loss({name!r}, autoseg.LossTerm, {function})",
    "network": "autoseg.Network({name!r}, 'a paper', autoseg.FixedNetwork, {function})",
}


def source(kind: str, name: object, function: str = "(lambda *given: None)") -> str:
    """The source of a plugin with one record, whose functions are all this one."""
    return f"import autoseg\nautoseg.register({RECORDS[kind].format(name=name, function=function)})\n"


@contextmanager
def nothing_stays() -> Iterator[None]:
    """Forget what is registered and loaded inside, and the modules of plugins."""
    modules, loaded = set(sys.modules), dict(plugins._loaded)
    names = {registry.kind: set(registry) for registry in REGISTRIES.values()}
    try:
        yield
    finally:
        for registry in REGISTRIES.values():
            for name in set(registry) - names[registry.kind]:
                registry.discard(registry.plugin_of(name) or "")
        plugins._loaded.clear()
        plugins._loaded.update(loaded)
        for name in set(sys.modules) - modules:
            if name.startswith(("autoseg_plugin_", "my_module_")):
                del sys.modules[name]
