"""A network as a file for other programs; the file is compared with the network before it gets its name."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from autoseg.errors import AutosegError, ExportError
from autoseg.export.common import check_target, network_metadata
from autoseg.export.formats import Run, load_onnx, load_pt2, load_safetensors, save_onnx, save_pt2, save_safetensors
from autoseg.files import one_line, write_atomically

NetworkFormat = Literal["onnx", "pt2", "safetensors"]
Save = Callable[[nn.Module, Path, Mapping[str, str]], None]
Shape = tuple[int, int, int]


_FORMATS: dict[str, tuple[Save, Callable[[Path], Run]]] = {
    "onnx": (save_onnx, load_onnx),
    "pt2": (save_pt2, load_pt2),
    "safetensors": (save_safetensors, lambda path: load_safetensors(path)[0]),
}
NETWORK_FORMATS = tuple(_FORMATS)

CHECKED_SIZES: tuple[Shape, ...] = ((1, 32, 32), (3, 33, 47), (1, 64, 64), (2, 65, 129))
"""Images, height and width of each comparison: odd sizes too, and never the size that is traced."""
LARGEST_DIFFERENCE = 1e-3
"""Limit for two logits, as a share of the network's largest one: rounding grows with the numbers that are summed.

Sums in another order differ by 1e-7 to 1e-4 of it; a wrong graph differs by far more.
"""
LEAST_EQUAL_LABELS = 0.999


@dataclass(frozen=True)
class ExportReport:
    """An exported file, and how it compares with the network on random images in eval mode.

    largest_difference: of two logits, as a share of the network's largest one. equal_labels: share of the pixels with
    the same largest class. sizes: images, height and width of each comparison. bytes: size of the file.
    """

    path: Path
    format: str
    largest_difference: float
    equal_labels: float
    sizes: tuple[Shape, ...]
    bytes: int

    def __str__(self) -> str:
        sizes = ", ".join("x".join(map(str, size)) for size in self.sizes)
        return (
            f"{self.path}: {self.format}, {self.bytes / 1e6:.1f} MB; equals the network on random images of {sizes}:"
            f" largest difference of logits {self.largest_difference:.1e} of the largest,"
            f" {self.equal_labels:.3%} of labels the same"
        )


def export_network(
    network: nn.Module, path: str | Path, format: NetworkFormat, *, metadata: Mapping[str, Any], overwrite: bool = False
) -> ExportReport:
    """Write the network as ONNX, `.pt2` or safetensors, and compare the file with it; the network does not change.

    metadata: what a user of the file must know, such as `classes`, `mean`, `std` and `ignore_label`; autoseg adds the
    genotype, the number of classes, the version and the input convention.
    Raises: ExportError: an unknown format, a file that exists, a network that cannot be exported, or a file that
    computes something else. No file is left then.
    """
    size = sum(weight.numel() * 4 for weight in network.parameters())  # float32
    target = check_target(path, format, NETWORK_FORMATS, "network", overwrite, size)
    strings = network_metadata(network, metadata)
    save, load = _FORMATS[format]
    # plain float32 in eval mode on the CPU, whatever device, precision and memory format the network has: a graph that
    # is traced in channels_last demands more than one image
    plain = copy.deepcopy(network).to(device="cpu", dtype=torch.float32).eval().requires_grad_(False)
    plain.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    reports: list[ExportReport] = []

    def write(temporary: Path) -> None:
        with _quiet():
            save(plain, temporary, strings)
            difference, equal = _compare(plain, load(temporary))
        reports.append(ExportReport(target, format, difference, equal, CHECKED_SIZES, temporary.stat().st_size))
        _judge(reports[-1])

    try:
        write_atomically(target, write)
    except AutosegError:
        raise
    except Exception as reason:  # the exporter and the runtime may raise anything
        text = one_line(reason)
        text = text if len(text) <= 300 else f"{text[:300]}..."
        raise ExportError(
            f"the network cannot be exported as {format} ({text}); nothing was written;"
            f" try {' or '.join(other for other in NETWORK_FORMATS if other != format)}",
            code="export-failed",
        ) from reason
    return reports[-1]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings and log records of exporters about their own work; errors pass through."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


def _compare(network: nn.Module, other: Run) -> tuple[float, float]:
    """Largest difference of logits as a share of the largest one, and share of equal labels, at `CHECKED_SIZES`.

    Raises: ExportError: logits of another shape, or the network's own are not finite.
    """
    generator = torch.Generator().manual_seed(0)
    differences, equal, pixels = [], 0, 0
    channels = getattr(network, "in_channels", 3)
    with torch.no_grad():
        for images, height, width in CHECKED_SIZES:
            example = torch.randn(images, channels, height, width, generator=generator)
            expected, logits = network(example), other(example)
            if not expected.isfinite().all():
                raise ExportError(
                    "the network's logits are not all finite numbers, so that no export can be checked; nothing was"
                    " written; look at its training loss, or export an earlier checkpoint",
                    code="logits-not-finite",
                )
            if expected.shape != logits.shape:
                raise ExportError(
                    f"the exported file makes logits {list(logits.shape)} where the network makes"
                    f" {list(expected.shape)}; nothing was written",
                    code="export-differs",
                )
            largest = expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)  # all may be 0
            differences.append((expected - logits).abs().max() / largest)
            same: Tensor = expected.argmax(1) == logits.argmax(1)
            equal, pixels = equal + int(same.sum()), pixels + same.numel()
    return float(torch.stack(differences).max()), equal / pixels


def _judge(report: ExportReport) -> None:
    """Raises: ExportError: the file does not compute what the network does."""
    close = report.largest_difference <= LARGEST_DIFFERENCE  # not if it is NaN
    if not close or report.equal_labels < LEAST_EQUAL_LABELS:
        raise ExportError(
            f"the {report.format} file does not compute what the network does: largest difference of logits"
            f" {report.largest_difference:.1e} of the largest (at most {LARGEST_DIFFERENCE}),"
            f" {report.equal_labels:.3%} of labels the same (at least {LEAST_EQUAL_LABELS:.1%}); nothing was written",
            code="export-differs",
        )
