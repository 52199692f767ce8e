"""A check that a device computes operations and their gradients as the CPU does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.errors import ConfigError
from autoseg.files import one_line

TOLERANCE = 1e-3
"""Greatest difference as a share of the greatest value. Rounding in float32 is a thousand times smaller."""

_log = logging.getLogger(__name__)


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
