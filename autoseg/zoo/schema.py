"""Settings of the fixed networks (records: `autoseg.zoo.networks`), and where architectures come from. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from autoseg.config.base import NamedSettings, Number, Whole, parse
from autoseg.errors import ConfigError, GenotypeError
from autoseg.files import read_yaml, user_path
from autoseg.genotype.schema import Genotype
from autoseg.library import hint
from autoseg.registry import NETWORKS, Network, lazy
from autoseg.space.schema import genotype_names, refuse_missing_plugins

UNET_UPSAMPLER = "transposed_conv_2x2"
"""U-Net's own upsampler: a transposed convolution of kernel 2, with bias."""
Dropout = Annotated[Number, Field(ge=0, lt=1)]

RECOMMENDED: dict[str, Any] = {
    "epochs": 60,
    "batch_size": 8,
    "crop": [321, 321],
    "augment": {"scale": [0.5, 2.0], "flip": 0.5, "colour": 0.3},
    "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 1e-2},
    "schedule": {"name": "poly", "power": 0.9, "warmup_epochs": 1},
    "clip_grad_norm": 5.0,
    "ema_decay": 0.99,
    "validate_every": 5,
}
"""Settings of `retrain` for training from scratch. The papers trained from ImageNet weights by SGD: with `--weights`,
optimizer sgd at lr 0.007 is DeepLabv3's."""


class FixedNetwork(NamedSettings):
    """Settings of a fixed network, such as one of the literature. A subclass adds options, by default as published.

    Common options: `output_stride`, input pixels per pixel of the backbone's last feature; smaller ones by dilation of
    the same weights (FCN, section 3.2; DeepLab). `batch_norm`, BatchNorm after each convolution.
    """

    width: Annotated[Number, Field(gt=0, le=8)] = 1.0
    """Factor of every number of channels except those of images and classes."""
    in_channels: Annotated[Whole, Field(ge=1, le=1024)] = 3

    @classmethod
    def model_of(cls, data: Any) -> type[FixedNetwork]:
        """See `NamedSettings`; the class itself for an unknown name, whose check then reports it."""
        if isinstance(data, FixedNetwork):
            return type(data)
        record = _find(data.get("name")) if isinstance(data, Mapping) else None
        model: type[FixedNetwork] = cls if record is None else record.options
        return model

    @model_validator(mode="before")
    @classmethod
    def _options_are_its_own(cls, data: Any) -> Any:
        """Refuse the options of other networks; None means as published."""
        record = _find(data.get("name")) if isinstance(data, Mapping) else None
        if record is None:
            return data
        every = {key for each in NETWORKS.values() for key in each.options.model_fields}
        options, own = every - set(FixedNetwork.model_fields), record.options.model_fields
        given = {key: value for key, value in data.items() if value is not None or key not in options}
        given.pop("plugins", None)  # made anew when the network is written
        for key in given:
            if key in options and key not in own:
                has = ", ".join(key for key in own if key != "name")
                raise ValueError(f"{record.name} has no option '{key}' (it has: {has})")
        return given

    @field_validator("name")
    @classmethod
    def _name_is_known(cls, name: str) -> str:
        record = _find(name)
        if record is None:
            advice = hint(name, network_names(), otherwise=f"known: {', '.join(NETWORKS)}")
            raise ValueError(f"unknown network '{name}' ({advice})")
        return record.name

    @model_validator(mode="after")
    def _has_the_output_stride(self) -> FixedNetwork:
        stride = getattr(self, "output_stride", None)
        if stride is not None and self.entry.output_strides and stride not in self.entry.output_strides:
            known = ", ".join(map(str, sorted(self.entry.output_strides)))
            raise ValueError(f"{self.name} cannot have output stride {stride} (it can have: {known})")
        return self

    @property
    def entry(self) -> Network:
        """The network's record."""
        return NETWORKS[self.name]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for YAML, with the plugin of the network, if any."""
        owners = NETWORKS.owners([self.name])
        return super().to_dict() | ({"plugins": owners} if owners else {})

    @classmethod
    def parse(cls, data: Mapping[str, Any] | str, where: str = "") -> FixedNetwork:
        """A network from its name or plain data. Raises: ConfigError: wrong data, or a plugin that is not loaded."""
        data = {"name": data} if isinstance(data, str) else data
        refuse_missing_plugins(data, where, ConfigError)
        return parse(cls, data, where, ConfigError)


def _find(name: object) -> Network | None:
    """The record of a full or short name."""
    if name is None:  # as `short` may be
        return None
    return next((network for network in NETWORKS.values() if name in (network.name, network.short)), None)


BACKBONES = {
    "vgg16": lazy("autoseg.zoo.vgg", "VGG16"),
    "resnet50": lazy("autoseg.zoo.resnet", "ResNet", depth=50),
    "resnet101": lazy("autoseg.zoo.resnet", "ResNet", depth=101),
    "xception65": lazy("autoseg.zoo.xception", "Xception65"),
}
OF_BACKBONE = {"in_channels", "width", "output_stride", "batch_norm", "multi_grid"}
"""Options that the backbone takes; the network takes all others."""


def on_backbone(
    backbone: str, module: str, class_name: str, more: Mapping[str, Any] | None = None, **own: Any
) -> Callable[[FixedNetwork, int], Any]:
    """What builds a record's network, a class in a module of `autoseg.zoo`. more, own: what is fixed of both."""

    def build(options: FixedNetwork, outputs: int) -> Any:
        given = {key: value for key, value in options if key != "name"}
        trunk = BACKBONES[backbone](**{key: given.pop(key) for key in OF_BACKBONE & given.keys()}, **(more or {}))
        return lazy(f"autoseg.zoo.{module}", class_name)(trunk, outputs, **given, **own)

    return build


def network_names() -> list[str]:
    """Full names, then short ones."""
    return [*NETWORKS, *(network.short for network in NETWORKS.values() if network.short is not None)]


# --- networks and genotypes -------------------------------------------------------------------------------------------

Architecture = Genotype | FixedNetwork


def parse_architecture(data: Mapping[str, Any], where: str = "") -> Architecture:
    """Plain data of a genotype, which has a cell, stages or a path, or else of a fixed network.

    Raises: GenotypeError, ConfigError: invalid.
    """
    is_genotype = not data.keys().isdisjoint(("cell", "stages", "network"))
    return Genotype.parse(data, where) if is_genotype else FixedNetwork.parse(data, where)


def load_architecture(source: str | Path | Mapping[str, Any] | Architecture) -> Architecture:
    """The architecture of a name, plain data, file or run directory. Raises: AutosegError: unknown or wrong."""
    if isinstance(source, Genotype | FixedNetwork):
        return source
    if isinstance(source, Mapping):
        return parse_architecture(source)
    if not isinstance(source, str | Path):
        message = f"a genotype or network is a mapping, a name or a file, not {source!r}"
        raise ConfigError(message, code="network-source-invalid")
    name, path = str(source), user_path(source)
    if name in genotype_names():
        return Genotype.load(name)
    if name in network_names():
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
    """The same at another output stride, by dilation; None: unchanged. Raises: ConfigError: it cannot have that."""
    if output_stride is None:
        return architecture
    if isinstance(architecture, Genotype):
        raise ConfigError(
            f"output stride {output_stride}: {architecture.name} is a genotype, whose strides are those of its path;"
            " leave --output-stride out",
            code="output-stride-of-genotype",
        )
    return FixedNetwork.parse({**architecture.to_dict(), "output_stride": output_stride})
