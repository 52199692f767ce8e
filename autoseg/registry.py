"""Records: everything that a space, a genotype or a config file can name. Loads without torch.

A record holds the name, what pictures call it, what it costs, and the function that builds it. It stands in the file
that implements it, and it imports torch only when it builds. `OPERATIONS["sep_conv_3x3"].build(32, 1, norm)`.
A user's own file registers records in the same way (`autoseg.plugins`).
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

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
        multiply_adds: From the number of channels C to the multiply-adds for one output pixel at stride 1: products of
            convolutions and matrices.
        build: Called with (channels, stride, norm), where norm makes a normalisation layer of a number of channels;
            returns a torch module. The module must not change its input, which other operations read too.
        fused: How the fast supernet computes it. Default: not fused; a space with this operation is then searched
            with `autoseg.supernet.reference`, which is slower.
    """

    name: str
    label: str
    multiply_adds: Callable[[int], float]
    build: Callable[[int, int, Callable[[int], Any]], Any]
    fused: FusedForm | None = None


@dataclass(frozen=True)
class Upsampler:
    """An upsampler by two: (N, Cin, h, w) -> (N, Cout, 2h, 2w), or one less in height or width.

    Args:
        name: What spaces, genotypes and networks call it, such as `pixel_shuffle`.
        label: What pictures call it.
        multiply_adds: From (channels, guide channels) to the multiply-adds for one pixel of low resolution, if input
            and output have that many channels.
        build: Called with (in_channels, out_channels); returns a torch module that is called with (features, size,
            guide). size: (H, W) of the result, or None for twice the features'; guide: None, or a feature of that size.
            A module that needs one has `reads_guide = True`.
        takes_kernel_size: A name may end in one, such as `pixel_dcl_5x5`; both functions have `kernel_size` then.
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
        options: A subclass of `autoseg.LossTerm`, whose further fields are the options with their defaults;
            `LossTerm` itself where it has none.
        function: Called with (logits, target, **options): logits (N, K, H, W), and `autoseg.losses.target.Target`.
            Returns a scalar, 0 where all pixels are ignored.
        pixel_weights: For a term that is a mean over pixels: from (target, **options) to the weights (N, H, W).
            Several accumulated batches then count as one large batch would.
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
        paper: Where it is from; `autoseg spaces` lists it.
        options: A subclass of `autoseg.FixedNetwork`, whose further fields are the options with the published values
            as defaults.
        build: Called with (options, outputs), the number of score maps K; returns an
            `autoseg.network.base.SegmentationNetwork`.
        short: Another, shorter name.
        backbone: The part for which weights of an ImageNet classifier exist: vgg16, resnet50, resnet101, xception65.
        output_strides: What the option `output_stride` may be.
    """

    name: str
    paper: str
    options: type[Any]
    build: Callable[[Any, int], Any]
    short: str | None = None
    backbone: str | None = None
    output_strides: tuple[int, ...] = ()


class DecoderInputs(NamedTuple):
    """What a decoder is built from. The decoder is called with (features, finer) and returns logits of any size."""

    channels: int
    """Channels of the features that leave the last cell, after a ReLU."""
    finer: list[int]
    """Channels of the further features, from coarse to fine."""
    num_classes: int
    settings: Any
    """The genotype's `decoder`."""
    rates: list[int]
    """Dilations of ASPP at the stride of the last cell."""
    norm: Callable[[int], Any]
    upsamplers: tuple[str, ...]
    """One upsampler for each doubling; empty if the features are resized in one step."""


@dataclass(frozen=True)
class Decoder:
    """The decoder of a discrete network: from the features of its cells to logits.

    Args:
        name: What spaces and genotypes call it.
        label: What pictures call it.
        build: From `DecoderInputs` to a torch module.
        joins: The finer features that it joins to those of the last layer. encoder: at every doubling, the last
            feature of that stride; low_level: one feature, at `low_level_stride`.
        how: How it joins them: by concatenation or by addition.
        has_filters: Whether the setting `filters` applies to it.
    """

    name: str
    label: str
    build: Callable[[DecoderInputs], Any]
    joins: Literal["none", "encoder", "low_level"] = "none"
    how: Literal["concat", "add"] = "concat"
    has_filters: bool = True


class Record(Protocol):
    """What all records have in common."""

    @property
    def name(self) -> str:
        """What files call it."""


R = TypeVar("R", bound=Record)


class Registry(Mapping[str, R]):
    """Name -> record, a plain dictionary that is filled when it is first read.

    homes: the modules that register what ships with autoseg, imported at the first look.
    """

    def __init__(self, kind: str, *homes: str) -> None:
        self.kind = kind
        self._homes = homes
        self._records: dict[str, R] = {}
        self._plugins: dict[str, str] = {}
        self._loaded = False

    def add(self, record: R) -> R:
        """Register a record. Raises: PluginError: its name is taken or invalid, or it lacks a field."""
        plugin = _plugin[-1] if _plugin else _origin(record)
        place = f"{plugin}: " if plugin else ""
        if plugin:
            self._load()
        if not isinstance(record.name, str) or not NAME.fullmatch(record.name):
            raise PluginError(
                f"{place}the {self.kind} name {record.name!r} is no name; take lower-case letters, digits and"
                " underscores, such as my_conv_3x3",
                code="plugin-name-invalid",
            )
        for field in fields(record):  # type: ignore[arg-type]  # every record is a dataclass
            needed, given = str(field.type), getattr(record, field.name)
            if needed.startswith("Callable") and "None" not in needed and not callable(given):
                raise PluginError(
                    f"{place}{self.kind} '{record.name}' gives no {field.name}; it must be a function",
                    code="plugin-lacks-function",
                )
            if needed.startswith("type[") and not hasattr(given, "model_of"):  # its base is in a layer above
                base = {"loss": "autoseg.LossTerm", "network": "autoseg.FixedNetwork"}[self.kind]
                raise PluginError(
                    f"{place}{self.kind} '{record.name}' gives no {field.name}; it must be a class, {base} or one"
                    " derived from it",
                    code="plugin-lacks-options",
                )
        for other in self._records.values():
            for name in _names(record) & _names(other):
                owner = self._plugins.get(other.name, "autoseg itself")
                raise PluginError(
                    f"{place}{self.kind} '{name}' is registered already, by {owner}; give it another name",
                    code="plugin-name-taken",
                )
        self._records[record.name] = record
        if plugin:
            self._plugins[record.name] = plugin
        return record

    def discard(self, plugin: str) -> None:
        """Forget what a plugin registered."""
        for name in [name for name, owner in self._plugins.items() if owner == plugin]:
            del self._records[name], self._plugins[name]

    def plugin_of(self, name: str) -> str | None:
        """The plugin that registered a record, as `--plugin` takes it; None for what ships with autoseg."""
        return self._plugins.get(name)

    def owners(self, names: Iterable[str]) -> dict[str, str]:
        """Name -> plugin, of those that are from a plugin."""
        return {name: self._plugins[name] for name in names if name in self._plugins}

    def unknown(self, name: str, hide: Collection[str] = ()) -> str:
        """The message about an unknown name, with the nearest known one. hide: names that are not suggested."""
        return f"unknown {self.kind} '{name}' ({hint(name, [each for each in self if each not in hide])})"

    def _load(self) -> None:
        if not self._loaded:
            self._loaded = True
            for home in self._homes:
                importlib.import_module(home)

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
"""Every operation that a cell may choose."""
UPSAMPLERS: Registry[Upsampler] = Registry("upsampler", "autoseg.ops.upsamplers")
"""Every upsampler; `autoseg.space.resolution.find_upsampler` also knows those with a kernel size."""
DECODERS: Registry[Decoder] = Registry("decoder", "autoseg.ops.decoders")
"""Every decoder of a discrete network."""
LOSSES: Registry[Loss] = Registry("loss", "autoseg.losses.pixel_losses", "autoseg.losses.region_losses")
"""Every term of a loss."""
NETWORKS: Registry[Network] = Registry("network", "autoseg.zoo.networks")
"""Every fixed network by its full name."""

REGISTRIES: Mapping[type, Registry[Any]] = {
    Operation: OPERATIONS,
    Upsampler: UPSAMPLERS,
    Decoder: DECODERS,
    Loss: LOSSES,
    Network: NETWORKS,
}
"""The registry of each kind of record."""

_plugin: list[str] = []
"""The plugin that is being loaded, if any."""


def register(record: R) -> R:
    """Make a record known to search spaces, genotypes and config files.

    Args:
        record: An `Operation`, `Upsampler`, `Decoder`, `Loss` or `Network`.

    Returns:
        The record itself.

    Raises:
        PluginError: it is no record, its name is taken or invalid, or it lacks something that its kind needs.
    """
    registry = REGISTRIES.get(type(record))
    if registry is None:
        known = ", ".join(f"autoseg.{kind.__name__}" for kind in REGISTRIES)
        place = f"{_plugin[-1]}: " if _plugin else ""
        raise PluginError(f"{place}{record!r} cannot be registered; give one of {known}", code="plugin-record-invalid")
    return registry.add(record)  # type: ignore[no-any-return]


def _names(record: Any) -> set[str]:
    """Its name, and the short one that a network may have."""
    return {record.name, getattr(record, "short", None) or record.name}


def _origin(record: Any) -> str:
    """The module of a record that was registered without `load_plugin`; empty for what ships with autoseg."""
    values = [getattr(record, field.name) for field in fields(record)]
    modules = [getattr(value, "__module__", None) or "" for value in values if callable(value)]
    return next((module for module in modules if module.split(".")[0] != "autoseg"), "")
