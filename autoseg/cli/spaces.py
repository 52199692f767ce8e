"""`autoseg spaces`."""

from __future__ import annotations

from autoseg.cli import options


def spaces(plugin: options.Plugin = None, debug: options.Debug = False) -> None:
    """List the search spaces, genotypes and networks of the literature that autoseg knows by name.

    Example: autoseg spaces
    """
    from autoseg.setup.names import known_names

    known = known_names()
    width = max(len(name) for names in known.values() for name in names)
    for kind, names in known.items():
        options.say(kind)
        for name, text in names.items():
            options.say(f"  {name:<{width}}  {text}")
