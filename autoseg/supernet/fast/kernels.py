"""With which kernels a supernet is computed: what the settings ask for, and what is taken where they leave it open."""

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
    """The fields of `search.kernels`, each decided. All choices compute the same; the default is the CPU's."""

    layout: str = "channels_last"
    pointwise: str = "convolution"
    depthwise: str = "convolution"
    compile: bool = False
    algorithms: str = "heuristic"

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """While it lasts, cuDNN chooses its algorithms so; other choices are the modules' own."""
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = self.algorithms == "measured"
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = before


DEFAULTS = {
    "cpu": KernelChoice(),
    # Not measured on a card yet. The CPU's choice is the one that has trained networks, so a GPU takes it too until a
    # measurement says otherwise, though cuDNN is known to be slow at grouped 1x1 and depthwise ones in channels_last.
    "cuda": KernelChoice(),
    # mps knows no channels_last of its own: it copies before and after every kernel.
    "mps": KernelChoice(layout="channels_first"),
}
"""By type of device; others do as a CPU does."""


def choose_kernels(config: KernelConfig, device: torch.device, space: SearchSpace | None = None) -> KernelChoice:
    """What the settings ask for, and the device's own where they say `auto`. Reads no data and starts no device.

    `space`: where it is known, what it cannot do is refused; `Supernet.use_kernels` alone would pass over it.
    Raises: ConfigError: Triton without a CUDA GPU or without its package, kernels that a space with GDAS does not have.
    """
    if config.depthwise == "triton":
        _check_triton(device)
    if space is not None and space.relaxation.gdas is not None:
        _check_sampled(config)
    asked = {name: value for name, value in config.model_dump().items() if value != "auto"}
    return DEFAULTS.get(device.type, KernelChoice())._replace(**asked)


def for_sampled(choice: KernelChoice) -> KernelChoice:
    """What of a choice a cell with sampled operations (GDAS) follows."""
    return KernelChoice(layout=choice.layout, algorithms=choice.algorithms)


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
