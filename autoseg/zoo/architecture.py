"""Genotypes and networks of the literature, from their many sources. Loads without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoseg.errors import ConfigError, GenotypeError
from autoseg.files import read_yaml
from autoseg.genotype.schema import Genotype
from autoseg.library import hint
from autoseg.space.schema import genotype_names
from autoseg.zoo.schema import FixedNetwork, is_network_name, network_names

Architecture = Genotype | FixedNetwork


def parse_architecture(data: Mapping[str, Any], where: str = "") -> Architecture:
    """Plain data with a cell as a genotype, else as a fixed network. Raises: GenotypeError, ConfigError: invalid."""
    return Genotype.parse(data, where) if "cell" in data else FixedNetwork.parse(data, where)


def load_architecture(source: str | Path | Mapping[str, Any] | Architecture) -> Architecture:
    """The architecture of a name, plain data, a YAML or JSON file, or a run directory.

    Raises: AutosegError: the source is unknown, unreadable or wrong.
    """
    if isinstance(source, Genotype | FixedNetwork):
        return source
    if isinstance(source, Mapping):
        return parse_architecture(source)
    if not isinstance(source, str | Path):
        raise ConfigError(
            f"a genotype or network is a mapping, a name or a file, not {source!r}", code="network-source-invalid"
        )
    name, path = str(source), Path(source).expanduser()
    if name in genotype_names():
        return Genotype.load(name)
    if is_network_name(name):
        return FixedNetwork.parse(name)
    if path.is_file():
        return parse_architecture(read_yaml(path, GenotypeError), str(path))
    if path.is_dir():
        return _of_run(path)
    known = [*genotype_names(), *network_names()]
    advice = hint(name, known, "; or give the path of a YAML file")
    raise GenotypeError(f"unknown genotype or network '{name}' ({advice})", code="unknown-network")


def _of_run(path: Path) -> Architecture:
    """The genotype that a run decoded or retrains, or its fixed network."""
    if (path / "genotype.yaml").is_file():
        return Genotype.load(path)
    if (path / "config.yaml").is_file():
        settings = read_yaml(path / "config.yaml", ConfigError)
        if isinstance(settings.get("network"), Mapping):
            return FixedNetwork.parse(settings["network"], str(path / "config.yaml"))
    return Genotype.load(path)  # says what is missing


def at_output_stride(architecture: Architecture, output_stride: int | None) -> Architecture:
    """The same network at another output stride, by dilation; unchanged for None.

    Raises: ConfigError: the network cannot have it.
    """
    if output_stride is None:
        return architecture
    if isinstance(architecture, Genotype):
        raise ConfigError(
            f"output stride {output_stride}: {architecture.name} is a genotype, whose strides are those of its path;"
            " leave --output-stride out",
            code="output-stride-of-genotype",
        )
    return FixedNetwork.parse({**architecture.to_dict(), "output_stride": output_stride})
