"""Records: everything that a space, a genotype or a config file can name. Loads without torch.

A record has a name, a label for pictures, a cost, and a function that builds it and imports torch when it is called:
`OPERATIONS["sep_conv_3x3"].build(32, 1, norm)`. A user's own file registers records in the same way
(`autoseg.plugins`).
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, TypeVar

from autoseg.errors import PluginError
from autoseg.library import hint

NAME = re.compile(r"[a-z][a-z0-9_]*")


class FusedForm(NamedTuple):
    """How `autoseg.supernet.fast` computes an operation together with others of its kind."""

    kind: Literal["none", "skip", "avg_pool", "max_pool", "separable", "dilated", "atrous"]
    """separable: [ReLU, depthwise, 1x1, BN] twice; dilated: once, at rate 2; atrous: ReLU, dense convolution at rate 2,
    BN. The first four have no weights."""
    kernel_size: int = 1


@dataclass(frozen=True)
class Operation:
    """An operation of a cell: (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)).

    Args:
        name: What spaces and genotypes call it, such as `sep_conv_3x3`.
        label: What pictures call it, such as `sep 3x3`.
        multiply_adds: Called with C; returns products of convolutions and matrices for one output pixel at stride 1.
        build: Called with (channels, stride, norm); norm(channels) makes a normalisation layer. Returns a torch module,
            which must not change its input: other operations read it too.
        fused: How the fast supernet computes it. Default: a space with it is searched through
            `autoseg.supernet.reference`, which is slower.
    """

    name: str
    label: str
    multiply_adds: Callable[[int], float]
    build: Callable[[int, int, Callable[[int], Any]], Any]
    fused: FusedForm | None = None


@dataclass(frozen=True)
class Block:
    """A block of a stage: (N, Cin, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)).

    The first block of a stage brings its input to the stage's channels and, on a down move, to half the size. The
    others keep both.

    Args:
        name: What spaces and genotypes call it, such as `residual`.
        label: What pictures call it.
        multiply_adds: Called with (in_channels, channels, stride); returns products of convolutions for one output
            pixel.
        build: Called with (in_channels, channels, stride, norm); norm(channels) makes a normalisation layer. Returns a
            torch module, which must not change its input. The input is the output of another block or not negative.
    """

    name: str
    label: str
    multiply_adds: Callable[[int, int, int], float]
    build: Callable[[int, int, int, Callable[[int], Any]], Any]


@dataclass(frozen=True)
class Upsampler:
    """An upsampler by two: (N, Cin, h, w) -> (N, Cout, 2h, 2w), or one less in height or width.

    Args:
        name: What spaces, genotypes and networks call it, such as `pixel_shuffle`.
        label: What pictures call it.
        multiply_adds: Called with (channels, guide channels); returns the products of convolutions and matrices for one
            pixel of low resolution, with as many channels before as after.
        build: Called with (in_channels, out_channels); returns a torch module that is called with (features, size,
            guide). size: (H, W) of the result, or None for twice the features'; guide: None, or a feature of that size.
            A module that needs a guide has `reads_guide = True`.
        takes_kernel_size: The name may end in one, such as `pixel_dcl_5x5`; both functions then take `kernel_size`.
    """

    name: str
    label: str
    multiply_adds: Callable[..., float]
    build: Callable[..., Any]
    takes_kernel_size: bool = False


@dataclass(frozen=True)
class Loss:
    """A term of a loss.

    Args:
        name: What `search.loss` and `retrain.loss` call it.
        options: A subclass of `autoseg.LossTerm` whose further fields are the options, or `LossTerm` itself.
        function: Called with (logits, target, **options): logits (N, K, H, W) and an `autoseg.losses.target.Target`.
            Returns a scalar, 0 if all pixels are ignored.
        pixel_weights: For a mean over pixels: called with (target, **options), returns the weights (N, H, W). Several
            batches then count in it as one large batch would.
        smoothed: `label_smoothing` smooths its targets.
    """

    name: str
    options: type[Any]
    function: Callable[..., Any]
    pixel_weights: Callable[..., Any] | None = None
    smoothed: bool = False


@dataclass(frozen=True)
class Network:
    """A fixed network, such as one of the literature.

    Args:
        name: What `--network` calls it.
        paper: Its source, which `autoseg spaces` lists.
        options: A subclass of `autoseg.FixedNetwork` whose further fields are the options, by default as published.
        build: Called with (options, number of score maps K); returns an `autoseg.network.base.SegmentationNetwork`.
        short: Another, shorter name.
        backbone: The part for which weights of an ImageNet classifier exist: vgg16, resnet50, resnet101, xception65.
        output_strides: Allowed values of the option `output_stride`.
    """

    name: str
    paper: str
    options: type[Any]
    build: Callable[[Any, int], Any]
    short: str | None = None
    backbone: str | None = None
    output_strides: tuple[int, ...] = ()


class DecoderInputs(NamedTuple):
    """Arguments of a decoder's builder. The decoder is called with (features, finer); it returns logits of any size."""

    channels: int
    """Channels of `features`, the end of the cells after a ReLU."""
    finer: list[int]
    """Channels of the finer features, from coarse to fine."""
    num_classes: int
    settings: Any
    """The genotype's `decoder`."""
    rates: list[int]
    """Dilations of ASPP at the stride of the last cell."""
    norm: Callable[[int], Any]
    upsamplers: tuple[str, ...]
    """One for each doubling; empty if features are resized in one go."""


@dataclass(frozen=True)
class Decoder:
    """The decoder of a discrete network: from the features of its cells to logits.

    Args:
        name: What spaces and genotypes call it.
        label: What pictures call it.
        build: Called with `DecoderInputs`; returns a torch module.
        joins: Finer features that it joins to those of the last layer. encoder: at every doubling the last one of that
            stride; low_level: one, at `low_level_stride`.
        how: How it joins them.
        has_filters: Whether the setting `filters` applies to it.
    """

    name: str
    label: str
    build: Callable[[DecoderInputs], Any]
    joins: Literal["none", "encoder", "low_level"] = "none"
    how: Literal["concat", "add"] = "concat"
    has_filters: bool = True


R = TypeVar("R", Operation, Block, Upsampler, Loss, Network, Decoder)


class Registry(Mapping[str, R]):
    """Name -> record. The first look imports `home`, the module that registers what ships with autoseg."""

    def __init__(self, kind: str, home: str) -> None:
        self.kind, self._home = kind, home
        self._records: dict[str, R] = {}
        self._plugins: dict[str, str] = {}
        self._loaded = False

    def add(self, record: R) -> R:
        """Register a record. Raises: PluginError: its name is taken or invalid, or it lacks a field."""
        plugin = _plugin[-1] if _plugin else _origin(record)
        if plugin:
            self._load()
        self._check(record, f"{plugin}: " if plugin else "")
        if plugin:
            self._plugins[record.name] = plugin
        self._records[record.name] = record
        return record

    def _check(self, record: R, place: str) -> None:
        if not isinstance(record.name, str) or not NAME.fullmatch(record.name):
            raise PluginError(
                f"{place}the {self.kind} name {record.name!r} is no name; take lower-case letters, digits and"
                " underscores, such as my_conv_3x3",
                code="plugin-name-invalid",
            )
        for field in fields(record):
            needed, given = str(field.type), getattr(record, field.name)
            lacking = f"{place}{self.kind} '{record.name}' gives no {field.name}; it must be a"
            if needed.startswith("Callable") and "None" not in needed and not callable(given):
                raise PluginError(f"{lacking} function", code="plugin-lacks-function")
            if needed.startswith("type[") and not hasattr(given, "model_of"):  # its base is in a layer above
                base = {"loss": "autoseg.LossTerm", "network": "autoseg.FixedNetwork"}[self.kind]
                raise PluginError(f"{lacking} class, {base} or one derived from it", code="plugin-lacks-options")
        for other in self._records.values():
            for name in _names(record) & _names(other):
                owner = self._plugins.get(other.name, "autoseg itself")
                message = f"{place}{self.kind} '{name}' is registered already, by {owner}; give it another name"
                raise PluginError(message, code="plugin-name-taken")

    def discard(self, plugin: str) -> None:
        """Forget what a plugin registered."""
        for name in [name for name, owner in self._plugins.items() if owner == plugin]:
            del self._records[name], self._plugins[name]

    def plugin_of(self, name: str) -> str | None:
        """The plugin that registered a record, as `--plugin` takes it; None for what ships with autoseg."""
        return self._plugins.get(name)

    def owners(self, names: Iterable[str]) -> dict[str, str]:
        """Name -> plugin, for each name that a plugin registered."""
        return {name: self._plugins[name] for name in names if name in self._plugins}

    def unknown(self, name: str, hide: Collection[str] = (), more: Collection[str] = ()) -> str:
        """The message about an unknown name, with the nearest known one. hide, more: names not or also suggested."""
        return f"unknown {self.kind} '{name}' ({hint(name, [each for each in (*self, *more) if each not in hide])})"

    def _load(self) -> None:
        if not self._loaded:
            self._loaded = True
            importlib.import_module(self._home)

    def __getitem__(self, name: str) -> R:
        self._load()
        return self._records[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(self._records)

    def __len__(self) -> int:
        self._load()
        return len(self._records)


OPERATIONS: Registry[Operation] = Registry("operation", "autoseg.ops.operations")
BLOCKS: Registry[Block] = Registry("block", "autoseg.ops.blocks")
CELL = "cell"
"""What a stage calls a genotype's cell, beside the names of blocks."""
UPSAMPLERS: Registry[Upsampler] = Registry("upsampler", "autoseg.ops.upsamplers")
"""Every upsampler; `autoseg.space.resolution.find_upsampler` also knows those with a kernel size."""
DECODERS: Registry[Decoder] = Registry("decoder", "autoseg.ops.decoders")
LOSSES: Registry[Loss] = Registry("loss", "autoseg.losses.terms")
NETWORKS: Registry[Network] = Registry("network", "autoseg.zoo.networks")
"""Every fixed network by its full name."""

REGISTRIES: Mapping[type, Registry[Any]] = {
    Operation: OPERATIONS, Block: BLOCKS, Upsampler: UPSAMPLERS, Decoder: DECODERS, Loss: LOSSES, Network: NETWORKS
}  # fmt: skip

_plugin: list[str] = []
"""The plugins that are being loaded, innermost last."""


def register(record: R) -> R:
    """Make a record known to spaces, genotypes and config files.

    Args:
        record: An Operation, Block, Upsampler, Decoder, Loss or Network.

    Returns:
        The record.

    Raises:
        PluginError: it is no record, its name is taken, or it lacks something that its kind needs.
    """
    registry = REGISTRIES.get(type(record))
    if registry is None:
        known = ", ".join(f"autoseg.{kind.__name__}" for kind in REGISTRIES)
        place = f"{_plugin[-1]}: " if _plugin else ""
        raise PluginError(f"{place}{record!r} cannot be registered; give one of {known}", code="plugin-record-invalid")
    return registry.add(record)  # type: ignore[no-any-return]


def lazy(module: str, name: str, **options: Any) -> Callable[..., Any]:
    """A builder that imports `name` from `module` when it is called, and calls it with `options` as well."""

    def build(*arguments: Any, **keywords: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*arguments, **keywords, **options)

    return build


def _names(record: Any) -> set[str]:
    """Its name, and the short one that a network may have."""
    return {record.name, getattr(record, "short", None) or record.name}


def _origin(record: Any) -> str:
    """The module of a record that was registered without `load_plugin`; empty for what ships with autoseg."""
    values = [getattr(record, field.name) for field in fields(record)]
    modules = [getattr(value, "__module__", None) or "" for value in values if callable(value)]
    return next((module for module in modules if module.split(".")[0] != "autoseg"), "")
