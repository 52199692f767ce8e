"""The kernels of a supernet: what the settings ask for, and the defaults of a device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import NamedTuple

import torch

from autoseg.config.training import KernelConfig
from autoseg.errors import ConfigError
from autoseg.space.schema import SearchSpace


class KernelChoice(NamedTuple):
    """The fields of `search.kernels` without `auto`. All choices compute the same; the default is the CPU's."""

    layout: str = "channels_last"
    pointwise: str = "convolution"
    depthwise: str = "convolution"
    compile: bool = False
    algorithms: str = "heuristic"

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Within it, cuDNN chooses its algorithms this way; the modules apply the other choices."""
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = self.algorithms == "measured"
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = before


DEFAULTS = {
    "cpu": KernelChoice(),
    # Not measured on a GPU yet. The CPU's choice has trained networks, so a GPU uses it until a measurement says
    # otherwise, although cuDNN is slow at grouped 1x1 and depthwise convolutions in channels_last.
    "cuda": KernelChoice(),
    # mps has no channels_last: it copies before and after every kernel.
    "mps": KernelChoice(layout="channels_first"),
}
"""By type of device; all others use the CPU's."""


def choose_kernels(config: KernelConfig, device: torch.device, space: SearchSpace | None = None) -> KernelChoice:
    """The kernels that the settings ask for; `auto` means the device's default. Reads no data and starts no device.

    space: if given, kernels that it cannot use are an error; `Supernet.use_kernels` alone would ignore them.
    Raises: ConfigError: Triton without a CUDA GPU or its package, kernels that a space with GDAS does not have.
    """
    if config.depthwise == "triton":
        _check_triton(device)
    if space is not None and space.relaxation.gdas is not None:
        _check_sampled(config)
    asked = {name: value for name, value in config.model_dump().items() if value != "auto"}
    return DEFAULTS.get(device.type, KernelChoice())._replace(**asked)


def _check_triton(device: torch.device) -> None:
    if device.type != "cuda":
        raise ConfigError(
            f"search.kernels.depthwise: triton needs a CUDA GPU, and the device is {device};"
            " set it to auto or convolution",
            code="kernels-need-cuda",
        )
    if find_spec("triton") is None:
        raise ConfigError(
            "search.kernels.depthwise: triton needs the package triton, which is not installed; install it with"
            " `pip install 'autoseg[triton]'`, or set it to auto or convolution",
            code="package-missing",
        )


def _check_sampled(config: KernelConfig) -> None:
    asked = {"pointwise": config.pointwise, "depthwise": config.depthwise, "compile": config.compile}
    for name, value in asked.items():
        if value not in ("auto", getattr(KernelChoice(), name)):
            given = str(value).lower()
            raise ConfigError(
                f"search.kernels.{name}: {given} is not for spaces with GDAS (relaxation.gdas), whose cells compute the"
                f" sampled operations alone; set it to auto",
                code="setting-not-for-space",
            )
