"""The device of a run and a check that it computes as the CPU does, and a record of the software and machine."""

from __future__ import annotations

import ctypes
import importlib.metadata
import logging
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg._version import __version__
from autoseg.engine.config import checked_device
from autoseg.errors import ConfigError
from autoseg.files import one_line
from autoseg.process import prepare_process

PACKAGES = ("torch", "numpy", "networkx", "pydantic", "pillow")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt."""
TOLERANCE = 1e-3
"""Greatest difference as a share of the greatest value. Rounding in float32 is a thousand times smaller."""

_log = logging.getLogger(__name__)


def pick_device(name: str) -> torch.device:
    """Return the device of this name and prepare the process for it; a GPU becomes the current one.

    `auto` is the first GPU, or the CPU if there is none, but never mps, which is experimental. `cuda` is the first GPU.
    For the CPU, `keep_freed_memory` is called.

    Raises: ConfigError: an unknown name, or a device that this machine lacks.
    """
    prepare_process()
    try:
        checked_device(name)
    except ValueError as reason:
        raise ConfigError(f"device: {reason}", code="unknown-device") from None
    kind, _, number = name.partition(":")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "mps" and not torch.backends.mps.is_available():
        raise _missing("device mps is not there: it is the GPU of a Mac with Apple silicon")
    if kind == "cuda":
        index = int(number or 0)
        if not torch.cuda.is_available():
            built = torch.version.cuda or torch.version.hip
            why = "" if built else " (this PyTorch is built without CUDA)"
            raise _missing(f"device {name} is not there on this machine", why)
        if index >= (count := torch.cuda.device_count()):
            names = ", ".join(f"cuda:{at}: {torch.cuda.get_device_name(at)}" for at in range(count))
            raise _missing(f"device {name} is not there: this machine has {count} GPU{'s' * (count > 1)} ({names})")
        torch.cuda.set_device(index)
        return torch.device("cuda", index)
    if kind == "cpu":
        keep_freed_memory()
    return torch.device(kind)


def _missing(message: str, why: str = "") -> ConfigError:
    """An error with the advice to take one of this machine's devices."""
    names = ["cpu"]
    if torch.cuda.is_available():
        names = [*(f"cuda:{number}" for number in range(torch.cuda.device_count())), *names]
    elif torch.backends.mps.is_available():
        names.append("mps")
    return ConfigError(f"{message}; use --device {', '.join(names)}, or auto{why}", code="device-missing")


def describe_device(device: torch.device) -> str:
    """The name of a GPU, `cpu`, or `Apple GPU (mps)`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "Apple GPU (mps)" if device.type == "mps" else device.type


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next tensors instead of returning it to the system.

    By default glibc maps each large tensor anew, and the system fills its pages with zeros. With another C library this
    does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(M_MMAP_THRESHOLD, 1 << 30)
    mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def describe_environment(device: torch.device, seed: int) -> dict[str, Any]:
    """Versions, device, seed, git commit of autoseg and command line, as plain data."""
    return {
        "autoseg": __version__,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "device": describe_device(device),
        "threads": torch.get_num_threads(),
        "seed": seed,
        "git_commit": _git_commit(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def _git_commit() -> str | None:
    """The commit of autoseg's checkout; None if it is installed from a wheel."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        result = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


# --- whether a device computes operations and their gradients as the CPU does -----------------------------------------


class Probe(NamedTuple):
    """An operation to test and the shapes of its inputs: features (N, C, H, W), then weights."""

    name: str
    compute: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...]


FEATURES = (2, 8, 9, 10)
PROBES = (
    Probe("BatchNorm", lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), (FEATURES, (8,), (8,))),
    *(
        Probe(
            f"{name} pooling 3x3, stride {stride}", partial(pool, kernel_size=3, stride=stride, padding=1), (FEATURES,)
        )
        for name, pool in (("average", partial(F.avg_pool2d, count_include_pad=False)), ("max", F.max_pool2d))
        for stride in (1, 2)
    ),
    Probe("convolution 3x3, stride 2", partial(F.conv2d, stride=2, padding=1), (FEATURES, (6, 8, 3, 3))),
    Probe("convolution 1x1, 4 groups", partial(F.conv2d, groups=4), (FEATURES, (16, 2, 1, 1))),
    *(
        Probe(f"depthwise convolution 5x5, stride {stride}, rate {rate}", compute, (FEATURES, (8, 1, 5, 5)))
        for stride, rate in ((1, 1), (2, 1), (1, 2))
        for compute in [partial(F.conv2d, stride=stride, padding=2 * rate, dilation=rate, groups=8)]
    ),
    Probe("transposed convolution 3x3", partial(F.conv_transpose2d, stride=2, padding=1), (FEATURES, (8, 6, 3, 3))),
    Probe("bilinear resizing", partial(F.interpolate, size=(17, 13), mode="bilinear", align_corners=True), (FEATURES,)),
)
"""The operations of searches and networks."""


@cache
def prepare(device: torch.device) -> None:
    """Check an experimental device, mps, by `check_gradients`, once in a process, and log that it is one."""
    if device.type == "mps":
        check_gradients(device)
        _log.warning("device mps is experimental: its operations were compared with the CPU's, runs on it were not")


def check_gradients(device: torch.device, probes: Sequence[Probe] = PROBES) -> None:
    """Compare operations and their gradients on small tensors with the CPU's. Raises: ConfigError: one is wrong."""
    for probe in probes:
        expected = _results(probe, torch.device("cpu"))
        try:
            found = _results(probe, device)
        except RuntimeError as reason:  # NotImplementedError is one
            raise ConfigError(
                f"device {device} cannot compute {probe.name} ({one_line(reason)[:100]}); use --device cpu",
                code="device-cannot-compute",
            ) from None
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            error = float((one - other).abs().max() / other.abs().max())
            if not error <= TOLERANCE:  # NaN is not
                what = "the gradient of " * (number > 0) + probe.name
                raise ConfigError(
                    f"device {device} computes {what} wrongly: it is off by {error:.2g} of the greatest value; use"
                    " --device cpu, or another version of PyTorch",
                    code="device-computes-wrongly",
                )


def _results(probe: Probe, device: torch.device) -> list[Tensor]:
    """The result of an operation for random inputs, and the gradients of the inputs, moved to the CPU."""
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator).to(device).requires_grad_() for shape in probe.shapes]
    result = probe.compute(*inputs)
    direction = torch.randn(result.shape, generator=generator).to(device)
    return [part.detach().cpu() for part in (result, *torch.autograd.grad(result, inputs, direction))]
