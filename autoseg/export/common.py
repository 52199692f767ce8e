"""What exports share: the path is checked, and what a program must know besides the weights becomes strings."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from autoseg._version import __version__
from autoseg.config.base import Settings
from autoseg.data.augment.sample import FULL_SCALES
from autoseg.errors import ExportError
from autoseg.files import check_room, user_path
from autoseg.genotype.schema import Genotype
from autoseg.network.base import SegmentationNetwork


def check_target(
    path: str | Path, format: str, known: Collection[str], what: str, overwrite: bool, size: int = 0
) -> Path:
    """The path to write `size` bytes to, or more.

    Raises: ExportError: a format not in `known`, or a file that may not be written. RunError: the disk has no room.
    """
    if format not in known:
        raise ExportError(f"unknown format {format!r} for a {what} (known: {', '.join(known)})", code="unknown-format")
    target = user_path(path, ExportError)
    if target.is_dir():
        message = f"{target} is a folder; give the path of a file in it, such as {target / what}.{format}"
        raise ExportError(message, code="file-is-folder")
    if target.exists() and not overwrite:
        raise ExportError(f"{target} exists; give another path, or allow it to be overwritten", code="file-exists")
    if not target.parent.is_dir():
        message = f"{target.parent}, the folder of {target.name}, does not exist; create it first"
        raise ExportError(message, code="folder-missing")
    check_room(target, size)
    return target


def input_metadata(channels: int, pixel_type: str, files: Sequence[str] = ()) -> dict[str, Any]:
    """How an image of the data set's form becomes the network's input; `mean` and `std` are of x / divisor.

    input: all of it in words. channel_order: RGB, grey, or `stored`, the order of the files. divisor: the value that
    counts as 1 in an image of `pixel_type`. files: `channel_files` of the data set, if its images have several files.
    """
    divisor = FULL_SCALES[pixel_type]
    order = {1: "grey", 3: "RGB"}.get(channels, "stored") if len(files) < 2 else "stored"
    form = f"{channels} channels in the order of the files" if order == "stored" else order
    form += f" {', '.join(files)}" if len(files) > 1 else ""
    scaled = "x" if divisor == 1 else f"x/{divisor:g}"
    return {
        "input": f"{form}, values of {pixel_type} as float32, NCHW, ({scaled} - mean) / std",
        "channels": channels,
        "channel_order": order,
        "pixel_type": pixel_type,
        "divisor": divisor,
        **({"channel_files": list(files)} if len(files) > 1 else {}),
    }


def network_metadata(network: nn.Module, metadata: Mapping[str, Any]) -> dict[str, str]:
    """Encode `metadata`, what the network itself says, the version and, unless given, the form of 8-bit images.

    A text stays as it is, anything else becomes JSON; `decode` reverses it. Raises: ExportError: a value that JSON
    cannot hold, or a number of class names other than that of classes.
    """
    known = {key: value for key, value in metadata.items() if key != "classes" or value}  # no names, no entry
    if isinstance(network, SegmentationNetwork):
        key = "genotype" if isinstance(network.architecture, Genotype) else "network"
        known |= {
            key: network.architecture,
            "num_classes": network.num_classes,
            "in_channels": network.in_channels,
            "single_output": network.single_output,
        }
        classes = known.get("classes")
        if classes and len(classes) != network.num_classes:
            raise ExportError(
                f"metadata names {len(classes)} classes, but the network has {network.num_classes};"
                " give one name a class",
                code="classes-differ",
            )
    if "input" not in known:
        known |= input_metadata(getattr(network, "in_channels", 3), "uint8")
    known |= {"autoseg_version": __version__}
    return {key: _encode(key, value) for key, value in known.items() if value is not None}


def decode(strings: Mapping[str, str]) -> dict[str, Any]:
    """Plain data from the strings of `network_metadata`; tuples come back as lists."""
    return {key: _decode(text) for key, text in strings.items()}


def _encode(key: str, value: object) -> str:
    plain = value.to_dict() if isinstance(value, Settings) else value
    try:
        is_text = isinstance(value, str) and _decode(value) is value
        text = str(value) if is_text else json.dumps(plain, ensure_ascii=False)
        return text.encode(errors="backslashreplace").decode()  # of a path that is not UTF-8; JSON escapes it so too
    except (TypeError, ValueError) as reason:
        message = f"metadata {key!r} cannot be written as JSON ({reason}); give plain data"
        raise ExportError(message, code="metadata-not-json") from None


def _decode(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
