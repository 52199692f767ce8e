"""Checks of a user's own operation, block or upsampler; an error is one line that names the plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from autoseg.errors import PluginError
from autoseg.ops.resize import level_size
from autoseg.registry import BLOCKS, OPERATIONS, REGISTRIES, UPSAMPLERS, Block, Operation, Registry
from autoseg.space.resolution import find_upsampler, parse_upsampler

CHANNELS = 8
OUT_CHANNELS = 5
SIZE = (9, 12)
"""(H, W) of the trial's input: one odd and one even side."""
NOT_FINITE = "returns numbers that are not finite (NaN or infinite) for finite input"


def check_operations(names: Iterable[str]) -> None:
    """Try the operations that are from plugins. Raises: PluginError: one does not do what a cell needs."""
    for name, plugin in OPERATIONS.owners(names).items():
        _try_layer(Operation, name, plugin, CHANNELS)


def check_blocks(names: Iterable[str]) -> None:
    """Try the blocks that are from plugins. Raises: PluginError: one does not do what a stage needs."""
    for name, plugin in BLOCKS.owners(names).items():
        for channels in (CHANNELS, OUT_CHANNELS):
            _try_layer(Block, name, plugin, CHANNELS, channels)


@cache
def _try_layer(kind: type[Operation | Block], name: str, plugin: str, *channels: int) -> None:
    """Run an operation or block once at strides 1 and 2, on the CPU, with random numbers of its own.

    channels: what the builder takes before the stride.
    """
    registry, is_block = REGISTRIES[kind], kind is Block
    who = _who(name, registry)
    for stride in (1, 2):
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.manual_seed(0)
            state = torch.randn(2, CHANNELS, *SIZE)
            before, build = state.clone(), partial(registry[name].build, *channels, stride, nn.BatchNorm2d)
            where = f"{who} fails at stride {stride} with {' to '.join(map(str, channels))} channels"
            output = _try(build, [state], where, registry)
            check_output(name, state, output, stride, registry, channels[-1])
            if not torch.equal(before, state):
                raise PluginError(
                    f"{who} changes its input, which other {registry.kind}s read too; leave out inplace=True",
                    code="block-changes-input" if is_block else "operation-changes-input",
                )
        _check_cost(name, registry, *channels, *((stride,) if is_block else ()))


def check_upsampler(name: str) -> None:
    """Try an upsampler if it is from a plugin. Raises: PluginError: it does not do what it must."""
    plugin = UPSAMPLERS.plugin_of(parse_upsampler(name).base)
    if plugin is not None:
        _try_upsampler(name, plugin)


@cache
def _try_upsampler(name: str, plugin: str) -> None:
    """Run an upsampler to twice the size and to one less, on the CPU, with random numbers of its own."""
    upsampler, base = find_upsampler(name), parse_upsampler(name).base
    who = _who(base, UPSAMPLERS)
    for less in (0, 1):
        size = (2 * SIZE[0] - less, 2 * SIZE[1] - less)
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.manual_seed(0)
            features, guide = torch.randn(2, CHANNELS, *SIZE), torch.randn(2, CHANNELS, *size)
            build, inputs = partial(upsampler.build, CHANNELS, OUT_CHANNELS), [features, size if less else None, guide]
            channels = f"{CHANNELS} channels in and {OUT_CHANNELS} out"
            where = f"{who} fails at size {_shape(size)} from {_shape(SIZE)} with {channels}"
            output = _try(build, inputs, where, UPSAMPLERS)
        found, expected = _shape_of(output), (2, OUT_CHANNELS, *size)
        if found != expected:
            raise PluginError(
                f"{who} makes {_shape(found)} of {_shape(tuple(features.shape))}; it must make {_shape(expected)}, as"
                " it is called with (features, size, guide)",
                code="upsampler-changes-size",
            )
        if _is_broken(output):
            raise PluginError(f"{who} {NOT_FINITE}", code="upsampler-not-finite")
    _check_cost(base, UPSAMPLERS, CHANNELS, CHANNELS)


def _try(build: Callable[[], Any], inputs: Sequence[Any], where: str, registry: Registry[Any]) -> Any:
    """The output of what `build` makes. Raises: PluginError: either fails."""
    try:
        module = build()
        with torch.no_grad():
            return module(*inputs)
    except Exception as reason:
        raise PluginError(
            f"{where}: {_said(reason)}",
            code="upsampler-fails"
            if registry is UPSAMPLERS
            else "block-fails"
            if registry is BLOCKS
            else "operation-fails",
        ) from reason


def check_output(
    name: str, state: Tensor, output: Tensor, stride: int = 1, registry: Registry[Any] = OPERATIONS,
    channels: int | None = None,
) -> None:  # fmt: skip
    """Refuse an output (N, C, H, W) of another size than an operation or block must make, or that is not finite.

    channels: C. Default: those of `state`, the input.
    Raises: PluginError: it does so.
    """
    size = level_size((state.shape[-2], state.shape[-1]), stride)
    expected = (state.shape[0], channels or state.shape[1], *size)
    found = _shape_of(output)
    if found != expected:
        raise PluginError(
            f"{_who(name, registry)} makes {_shape(found)} of {_shape(tuple(state.shape))} at stride {stride}; it must"
            f" make {_shape(expected)}",
            code="block-changes-size" if registry is BLOCKS else "operation-changes-size",
        )
    if _is_broken(output) and not _is_broken(state):
        raise PluginError(
            f"{_who(name, registry)} {NOT_FINITE}",
            code="block-not-finite" if registry is BLOCKS else "operation-not-finite",
        )


def _is_broken(output: Tensor) -> bool:
    """Whether some value is not finite; false for tensors without values, on which memory is predicted."""
    has_values = type(output) is Tensor and not output.is_meta
    return has_values and not bool(output.isfinite().all())


def _check_cost(name: str, registry: Registry[Any], *arguments: int) -> None:
    """Raises: PluginError: a record's `multiply_adds` fails or returns no number."""
    try:
        cost = registry[name].multiply_adds(*arguments)
    except Exception as reason:
        cost = _said(reason)
    if isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 <= cost < float("inf"):
        raise PluginError(
            f"{_who(name, registry)} gives the cost {cost!r}; multiply_adds must return a number of 0 or more",
            code="upsampler-cost-invalid"
            if registry is UPSAMPLERS
            else "block-cost-invalid"
            if registry is BLOCKS
            else "operation-cost-invalid",
        )


def _who(name: str, registry: Registry[Any] = OPERATIONS) -> str:
    return f"{registry.kind} '{name}' of the plugin {registry.plugin_of(name)}"


def _said(reason: Exception) -> str:
    return f"{type(reason).__name__}: {' '.join(str(reason).split())}"


def _shape_of(output: object) -> tuple[int, ...] | str:
    return tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__


def _shape(shape: tuple[int, ...] | str) -> str:
    return shape if isinstance(shape, str) else "x".join(map(str, shape))
