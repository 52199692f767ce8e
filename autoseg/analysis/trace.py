"""Facts about a network, such as which of its stages read which, from a run on PyTorch's meta tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from autoseg.analysis.module_graph import IMAGE, Diagram, Join, Reads, Stage
from autoseg.ops.resize import Size

F = TypeVar("F")


def trace_stages(network: nn.Module, stages: Sequence[str] | Mapping[str, str], size: Size = (512, 512)) -> Diagram:
    """The stages of a network, in the order in which they run, with what each reads directly.

    stages: dotted names of submodules, each called once and returning one (N, C, h, w), or a mapping from these to the
    names to show; a stage may lie within another. size: (H, W) of the image, best a multiple of the greatest stride.
    Raises: ValueError: a stage that is not called, is called twice, or returns something else.
    """
    names = stages if isinstance(stages, Mapping) else {name: name for name in stages}
    mode, images, weights = _Sources(), meta_images(network, 1, size), meta_weights(network)
    mode.facts[images] = _Origin({IMAGE: None})
    left = {name: parameter.numel() for name, parameter in network.named_parameters()}
    for name in left:
        mode.facts[weights[name]] = _Origin({}, frozenset({name}))
    found: list[Stage] = []

    def note(place: str, output: Any) -> None:
        name = names[place]
        if not isinstance(output, Tensor) or output.dim() != 4:
            raise ValueError(f"stage '{place}' does not return one tensor (N, C, h, w)")
        if any(stage.name == name for stage in found):
            raise ValueError(f"stage '{place}' is called twice, or two are named '{name}'")
        origin = mode.fact(output) or _Origin({})
        own = sum(left.pop(weight, 0) for weight in origin.weights)
        found.append(Stage(name, output.shape[1], size[0] / output.shape[2], own, origin.sources))
        mode.facts[output] = _Origin({name: None})

    with ExitStack() as hooks:
        for place in names:
            module = network.get_submodule(place)
            hooks.callback(module.register_forward_hook(lambda _, __, output, at=place: note(at, output)).remove)
        logits = run(network, images, mode, weights)
    missing = set(names.values()) - {stage.name for stage in found}
    if missing:
        raise ValueError(f"stage '{min(missing)}' is not called")
    reads = (mode.fact(logits) or _Origin({})).sources
    return Diagram(tuple(found), reads, images.shape[1], logits.shape[1], sum(left.values()))


# --- running ----------------------------------------------------------------------------------------------------------


class Facts(TorchDispatchMode, Generic[F]):  # type: ignore[no-untyped-call]
    """Carries facts about tensors from the inputs of every operation to its results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.facts = WeakTensorKeyDictionary()

    def fact(self, tensor: Tensor) -> F | None:
        """The fact about a tensor; None if there is none."""
        found: F | None = self.facts.get(tensor)  # type: ignore[no-untyped-call]
        return found

    def carry(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Iterable[F | None]:
        """The facts about the results, in their order."""
        raise NotImplementedError

    def _known(self, values: Any) -> bool:
        return any(isinstance(leaf, Tensor) and leaf in self.facts for leaf in tree_leaves(values))

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self._known(args) or self._known(kwargs):
            if _writes_part(func, args) and self._known(args[1:]):
                raise NotImplementedError(f"{func} writes into a part of a tensor, which is not followed to the whole")
            outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            for output, fact in zip(outputs, self.carry(func, args, kwargs or {}, result), strict=False):
                if fact is not None:
                    self.facts[output] = fact
        return result


def _writes_part(func: Any, args: Sequence[Any]) -> bool:
    """Whether an operation changes its first argument in place, which is a view of a part of another tensor."""
    if not func._schema.is_mutable or not isinstance(args[0], Tensor):
        return False
    return args[0].numel() * args[0].element_size() < args[0].untyped_storage().nbytes()


class _Origin(NamedTuple):
    """The stages that a tensor directly depends on, how these met others, and the parameters used since."""

    sources: Reads
    weights: frozenset[str] = frozenset()


_JOINS: dict[Any, Join] = {
    torch.ops.aten.add: "add",
    torch.ops.aten.add_: "add",
    torch.ops.aten.cat: "concat",
    **dict.fromkeys((torch.ops.aten.gt, torch.ops.aten.ge, torch.ops.aten.lt, torch.ops.aten.le), "unpool"),
}


class _Sources(Facts[_Origin]):  # type: ignore[no-untyped-call]
    """Where each tensor comes from."""

    def carry(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Iterable[_Origin]:
        known = [self.fact(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        origins = [origin for origin in known if origin is not None]
        how = _JOINS.get(func.overloadpacket)
        if how != "unpool" and len({frozenset(origin.sources) for origin in origins if origin.sources}) < 2:
            how = None
        merged: Reads = {}
        for origin in origins:
            for source, before in origin.sources.items():
                merged[source] = merged.get(source) or before or how
        weights = frozenset[str]().union(*(origin.weights for origin in origins))
        return [_Origin(merged, weights)] * len(tree_leaves(result))


def meta_images(network: nn.Module, count: int, size: Size) -> Tensor:
    """Images (count, C, *size) without data, of the network's dtype and its `in_channels`, else of 3 channels."""
    like = next((each for each in network.parameters() if each.is_floating_point()), torch.empty(0))
    return torch.empty(count, getattr(network, "in_channels", 3), *size, dtype=like.dtype, device="meta")


def meta_weights(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, as meta tensors."""
    own = chain(network.named_parameters(), network.named_buffers())
    return {name: torch.empty_like(tensor, device="meta") for name, tensor in own}


def run(network: nn.Module, images: Tensor, mode: TorchDispatchMode, weights: dict[str, Tensor]) -> Tensor:
    """The logits of a network in evaluation mode; it stays as it was, and its weights are neither read nor copied."""
    were = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad(), mode:
            logits: Tensor = functional_call(network, weights, (images,))
    finally:
        for module, training in were:
            module.training = training
    return logits
