"""Weights of an ImageNet classifier, from a local file, for a network's backbone.

The names are torchvision's for VGG16 and ResNet, timm's for Xception-65. Nothing but tensors is unpickled.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from autoseg.errors import CheckpointError
from autoseg.files import check_members, one_line, user_path, utf8_name
from autoseg.zoo.resnet import ResNet
from autoseg.zoo.vgg import VGG16
from autoseg.zoo.xception import Xception65

Backbone = VGG16 | ResNet | Xception65
CONTAINERS = ("state_dict", "model")
"""Keys of the state dict in files of training scripts."""
CLASSIFIER_SIZE = (7, 7)
"""(H, W) of the features that VGG16's first fully connected layer reads."""
FULLY_CONNECTED = {"fc6": "classifier.0", "fc7": "classifier.3"}
"""Last part of a convolution's name in a network on VGG16 -> torchvision's name of the layer."""
COUNTER = "num_batches_tracked"
"""A BatchNorm buffer that older files lack and nothing here needs."""
UNREADABLE = "{} cannot be read as weights: it is truncated, or something else; fetch it again"
ADDED = re.compile(r"layer[5-9]\.")
"""Stages that a cascade adds behind ResNet's four."""


@dataclass(frozen=True)
class WeightsReport:
    """The result of loading a file of weights."""

    matched: list[str]
    """Names in the file whose weights the network has now."""
    unused: list[str]
    """Names in the file without a place in the network, such as the classifier's last layer."""
    fresh: list[str]
    """Names in the network that the file does not have; they begin at random."""

    def __str__(self) -> str:
        lines = [f"{len(self.matched)} of {len(self.matched) + len(self.unused)} weights in the file are used"]
        if self.unused:
            lines.append(f"unused: {by_prefix(self.unused)}")
        if self.fresh:
            lines.append(f"fresh in the network: {by_prefix(self.fresh)}")
        return "\n".join(lines)


def by_prefix(names: Iterable[str]) -> str:
    """The modules of the names, at most two names deep: `aspp (12), backbone.layer5 (30)`."""
    counts = Counter(".".join(name.split(".")[:-1][:2]) or name for name in names)
    if len(counts) > 8:
        counts = Counter(name.partition(".")[0] for name in names)
    shown = [f"{prefix} ({count})" for prefix, count in list(counts.items())[:12]]
    return ", ".join([*shown, "..."] if len(counts) > len(shown) else shown)


# --- the file --------------------------------------------------------------------------------------------------------


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file, on the CPU: safetensors by the suffix `.safetensors`, else a file of `torch.save`.

    It may lie under 'state_dict' or 'model'. A prefix 'module.' of its names is removed.
    Raises: CheckpointError: the file is missing, truncated or unreadable, has code in it, or has no weights.
    """
    path = user_path(path, CheckpointError)
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        message = f"{path} {what}; give a retrained run, or a .pth, .pt or .safetensors file of weights"
        raise CheckpointError(message, code="file-missing")
    contents: Any = read_safetensors(path)[0] if path.suffix == ".safetensors" else _read_pickled(path)
    if isinstance(contents, Mapping) and {"kind", "state", "architecture"} <= set(contents):
        message = f"{path} is a checkpoint outside its run, which has its settings; give the run's directory"
        raise CheckpointError(message, code="checkpoint-without-run")
    if isinstance(contents, Mapping):
        contents = next((contents[key] for key in CONTAINERS if isinstance(contents.get(key), Mapping)), contents)
    items = contents.items() if isinstance(contents, Mapping) else ()
    state = {
        name.removeprefix("module."): value.detach()
        for name, value in items
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not state:
        message = f"{path} holds no weights by name; give a file of a classifier's state dict"
        raise CheckpointError(message, code="file-without-weights")
    return state


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, on the CPU, and its metadata. Raises: CheckpointError: it is damaged."""
    try:
        with utf8_name(path) as name, safe_open(name, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as reason:
        said = f"{path} cannot be read as safetensors ({one_line(reason)[:100]}); it is truncated or something else"
        raise CheckpointError(said, code="weights-damaged") from None


def _read_pickled(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns of a plain pickle, which one line below refuses
            if zipfile.is_zipfile(path):
                check_members(path, path.stat().st_size)  # PyTorch writes them unpacked
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as reason:
        code = re.search(r"GLOBAL ([\w.]+)", str(reason))
        if code is None and not _is_plain_pickle_with_code(path):
            raise CheckpointError(UNREADABLE.format(path), code="weights-damaged") from None
        raise CheckpointError(
            f"{path} is a pickle with code in it{f' ({code[1]})' if code else ''}, which is never run; save the state"
            " dict alone, by torch.save(model.state_dict(), ...)",
            code="pickle-with-code",
        ) from None
    except OSError as reason:
        raise CheckpointError(f"{path} cannot be read ({one_line(reason)})", code="file-unreadable") from None
    except Exception:  # a damaged file makes PyTorch and zipfile raise nearly anything
        raise CheckpointError(UNREADABLE.format(path), code="weights-damaged") from None


def _is_plain_pickle_with_code(path: Path) -> bool:
    """PyTorch may refuse a file of Python's own pickle before it reaches the function that is called."""
    try:
        with path.open("rb") as file:
            return "REDUCE" in [operation.name for operation, _, _ in pickletools.genops(file)]
    except Exception:  # no pickle
        return False


# --- into the network ------------------------------------------------------------------------------------------------


def load_backbone(network: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> WeightsReport:
    """Fill a network's `backbone`, and on VGG16 its `fc6` and `fc7`, from the state dict `state` of the file `path`.

    Fully connected layers become 7x7 and 1x1 convolutions. A smaller convolution takes evenly spaced taps and filters,
    as DeepLab v1 did (Chen et al. 2015, on controlling the receptive field: "simple decimation"). All branches of
    DeepLab v2 begin alike.

    Raises: CheckpointError: no backbone, or weights that do not fit. The network is then unchanged.
    """
    backbone = getattr(network, "backbone", None)
    if not isinstance(backbone, Backbone):
        name = getattr(getattr(network, "architecture", None), "name", type(network).__name__)
        message = f"{path}: {name} has no backbone that a classifier was trained for; leave the weights out"
        raise CheckpointError(message, code="no-backbone")
    _check_backbone(backbone, state, path)
    own = network.state_dict()
    sources = {f"backbone.{name}": (name, state[name]) for name in backbone.state_dict() if name in state}
    if isinstance(backbone, VGG16):
        sources |= _fully_connected(network, backbone, state, path)
    with torch.no_grad():
        for name, (_, value) in sources.items():
            own[name].copy_(value)
    matched = {name for name, _ in sources.values()}
    unused = [name for name in state if name not in matched]
    fresh = [name for name in own if name not in sources and not name.endswith(COUNTER)]
    return WeightsReport([name for name in state if name in matched], unused, fresh)


def _check_backbone(backbone: Backbone, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Raises: CheckpointError: `state` lacks a weight of the backbone, or has it in another shape."""
    own_kind, kind = backbone.kind, recognise(state)
    own = backbone.state_dict().items()
    needed = {name: value for name, value in own if not name.endswith(COUNTER) and not ADDED.match(name)}
    missing = next((name for name in needed if name not in state), None)
    if missing is not None or (kind is not None and kind != own_kind):
        holds = f"holds weights of {kind}, not" if kind not in (None, own_kind) else "does not hold all weights"
        without = "" if missing is None else f" (there is no {missing})"
        message = f"{path} {holds} of {own_kind}{without}; give those of an ImageNet {own_kind}"
        raise CheckpointError(message, code="backbone-differs")
    wrong = [name for name in needed if state[name].shape != needed[name].shape]
    if not wrong:
        return
    there, here = state[wrong[0]].shape, needed[wrong[0]].shape
    shapes = f"{wrong[0]} is {_times(there)} in the file and {_times(here)} in the network"
    if len(wrong) == 1 and len(there) == len(here) == 4 and (there[0], *there[2:]) == (here[0], *here[2:]):
        raise CheckpointError(
            f"{path} holds weights for images of {there[1]} channels, and the network's have {here[1]} ({shapes});"
            " leave the weights out",
            code="channels-differ",
        )
    if backbone.width != 1:
        raise CheckpointError(
            f"{path}: weights fit width 1 only, and the network has width {backbone.width:g} ({shapes}); leave out"
            " either",
            code="weights-need-width-one",
        )
    message = f"{path} does not fit {own_kind}: {shapes}; give the weights of an ImageNet {own_kind}"
    raise CheckpointError(message, code="weights-do-not-fit")


def _fully_connected(
    network: nn.Module, backbone: VGG16, state: Mapping[str, Tensor], path: str | Path
) -> dict[str, tuple[str, Tensor]]:
    """Name of a parameter of fc6 or fc7 -> (name in the file, value in the parameter's shape)."""
    found: dict[str, tuple[str, Tensor]] = {}
    for name, conv in network.named_modules():
        source = FULLY_CONNECTED.get(name.rpartition(".")[2], "")
        weight, bias = state.get(f"{source}.weight"), state.get(f"{source}.bias")
        if not isinstance(conv, nn.Conv2d) or weight is None or bias is None:
            continue
        size = CLASSIFIER_SIZE if name.endswith("fc6") else (1, 1)
        read = backbone.channels[-1] if name.endswith("fc6") else weight.shape[1]
        fits = weight.dim() == 2 and weight.shape[1] == read * size[0] * size[1] and bias.shape == weight.shape[:1]
        kernel = weight.reshape(len(weight), -1, *size) if fits else weight
        shape = conv.weight.shape
        if not fits or any(ours > theirs for ours, theirs in zip(shape, kernel.shape, strict=True)):
            raise CheckpointError(
                f"{path} does not fit: {source}.weight is {_times(weight.shape)}, of which {name} cannot be made"
                f" ({_times(shape)}); give the weights of an ImageNet {backbone.kind}",
                code="weights-do-not-fit",
            )
        for axis, length in enumerate(shape):
            if length < kernel.shape[axis]:
                kernel = kernel.index_select(axis, _evenly_spaced(kernel.shape[axis], length, ends=axis >= 2))
        found[f"{name}.weight"] = (f"{source}.weight", kernel)
        if conv.bias is not None:
            found[f"{name}.bias"] = (f"{source}.bias", bias[_evenly_spaced(len(bias), len(conv.bias), ends=False)])
    return found


def _evenly_spaced(before: int, after: int, *, ends: bool) -> Tensor:
    """`after` of `before` indices: with both ends 0, 3, 6 of 7 taps; without the last 0, 4, 8, ... of 4096 filters."""
    if ends and after > 1:
        return torch.linspace(0, before - 1, after, dtype=torch.float64).round().long()
    return torch.arange(after) * before // after


# --- kinds of classifiers ---------------------------------------------------------------------------------------------


def recognise(state: Mapping[str, Tensor]) -> str | None:
    """The classifier to which the names of weights belong; None if it is unknown."""
    if "features.0.weight" in state:
        convs = sum(name.startswith("features.") and value.dim() == 4 for name, value in state.items())
        norm = " with BatchNorm" if "features.1.running_mean" in state else ""
        number = {8: 11, 10: 13, 13: 16, 16: 19}.get(convs)
        return f"VGG{number}{norm}" if number else None
    if "layer1.0.conv1.weight" in state:
        blocks = tuple(_count(state, rf"layer{stage}\.\d+\.conv1\.weight") for stage in range(1, 5))
        depths: dict[tuple[int, ...], int] = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}
        if "layer1.0.conv3.weight" not in state:
            depths = {(2, 2, 2, 2): 18, (3, 4, 6, 3): 34}
        return f"ResNet-{depths[blocks]}" if blocks in depths else None
    number = {13: 41, 21: 65, 23: 71}.get(_count(state, r"blocks\.\d+\.stack\.conv1\.conv_dw\.weight"))
    return f"Xception-{number}" if number else None


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return sum(re.fullmatch(pattern, name) is not None for name in state)


def _times(shape: Iterable[int]) -> str:
    return "x".join(str(length) for length in shape)
