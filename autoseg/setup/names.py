"""The names that autoseg knows, and what a name, file or folder stands for: a space, a genotype or a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoseg.config.base import merge, refuse_others
from autoseg.errors import ConfigError
from autoseg.files import read_yaml, user_path
from autoseg.genotype.schema import Genotype
from autoseg.library import hint
from autoseg.registry import NETWORKS
from autoseg.space.schema import SearchSpace, genotype_names, space_names
from autoseg.zoo.schema import Architecture, FixedNetwork, load_architecture, network_names

Found = SearchSpace | Architecture


def known_names() -> dict[str, dict[str, str]]:
    """Kind -> name -> description or paper of all search spaces, genotypes and networks of the literature."""
    return {
        "search spaces": {name: SearchSpace.load(name).description for name in space_names()},
        "genotypes": {name: Genotype.load(name).source.get("paper", "") for name in genotype_names()},
        "networks of the literature": {name: entry.paper for name, entry in NETWORKS.items()},
    }


def look_up(source: str | Path) -> list[Found]:
    """Everything that a source stands for; `unet` is a space and a network. Raises: AutosegError: there is none."""
    name, path = str(source), user_path(source)
    found: list[Found] = [SearchSpace.load(name)] if name in space_names() else []
    if name in (*genotype_names(), *network_names()) or path.is_dir():
        found.append(load_architecture(source))
    if found:
        return found
    if path.is_file():
        keys = read_yaml(path, ConfigError)
        is_space = isinstance(keys.get("cell"), Mapping) or ("network" in keys and not {"cell", "stages"} & keys.keys())
        return [SearchSpace.load(path) if is_space else load_architecture(path)]
    known = [*space_names(), *genotype_names(), *network_names()]
    advice = hint(name, known, otherwise="see `autoseg spaces`, or give the path of a YAML file")
    raise ConfigError(f"unknown space, genotype or network '{name}' ({advice})", code="unknown-name")


def with_changes(found: Found, overrides: Mapping[str, Any]) -> Found:
    """Change options of a network of the literature, as by `{"network": {"width": 0.5}}`; spaces and genotypes stay."""
    if not overrides:
        return found
    refuse_others(overrides, "network", "network.width")
    if not isinstance(found, FixedNetwork):
        return found
    options = overrides["network"]
    if not isinstance(options, Mapping):
        raise ConfigError(
            f"network: should be a mapping, such as network.width, not {options!r}", code="setting-invalid"
        )
    return FixedNetwork.parse(merge(found.to_dict(), options))
