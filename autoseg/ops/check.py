"""Whether a user's own operation does what a cell needs, said in one line that names its plugin."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from autoseg.errors import PluginError
from autoseg.ops.resize import level_size
from autoseg.registry import OPERATIONS

CHANNELS = 8
SIZE = (9, 12)
"""(H, W) of the trial's input: an odd and an even side."""


def check_operations(names: tuple[str, ...]) -> None:
    """Try those of some operations that are from plugins. Raises: PluginError: one does not do what a cell needs."""
    for name in names:
        if OPERATIONS.plugin_of(name) is not None:
            _try(name, OPERATIONS.plugin_of(name))


@cache
def _try(name: str, plugin: str | None) -> None:
    """Run an operation once at strides 1 and 2, on the CPU, with random numbers of its own."""
    for stride in (1, 2):
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.manual_seed(0)
            state = torch.randn(2, CHANNELS, *SIZE)
            before = state.clone()
            try:
                operation = OPERATIONS[name].build(CHANNELS, stride, nn.BatchNorm2d)
                with torch.no_grad():
                    output = operation(state)
            except Exception as reason:
                raise PluginError(
                    f"{_who(name)} fails at stride {stride} with {CHANNELS} channels:"
                    f" {type(reason).__name__}: {' '.join(str(reason).split())}",
                    code="operation-fails",
                ) from reason
            check_output(name, state, output, stride)
            if not torch.equal(before, state):
                raise PluginError(
                    f"{_who(name)} changes its input, which other operations read too; leave out inplace=True",
                    code="operation-changes-input",
                )
    cost = OPERATIONS[name].multiply_adds(CHANNELS)
    if isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 <= cost < float("inf"):
        raise PluginError(
            f"{_who(name)} gives the cost {cost!r}; multiply_adds must return a number of 0 or more",
            code="operation-cost-invalid",
        )


def check_output(name: str, state: Tensor, output: Tensor, stride: int = 1) -> None:
    """Raises: PluginError: an operation's output (N, C, H, W) has another size than its input, or is not finite."""
    expected = (*state.shape[:2], *level_size((state.shape[-2], state.shape[-1]), stride))
    found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if found != expected:
        raise PluginError(
            f"{_who(name)} makes {_shape(found)} of {_shape(tuple(state.shape))} at stride {stride}; it must make"
            f" {_shape(expected)}",
            code="operation-changes-size",
        )
    if not output.is_meta and bool(state.isfinite().all()) and not bool(output.isfinite().all()):
        raise PluginError(
            f"{_who(name)} returns numbers that are not finite (NaN or infinite) for finite input",
            code="operation-not-finite",
        )


def _who(name: str) -> str:
    return f"operation '{name}' of the plugin {OPERATIONS.plugin_of(name)}"


def _shape(shape: tuple[int, ...] | str) -> str:
    return shape if isinstance(shape, str) else "x".join(map(str, shape))
