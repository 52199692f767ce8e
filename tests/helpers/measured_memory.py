"""Memory of real search iterations, measured with nothing of `autoseg.planning.memory`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

from autoseg.config.base import merge, parse
from autoseg.data.dataset import open_dataset
from autoseg.engine.config import SearchConfig
from autoseg.engine.search import SearchTask
from helpers.tiny_runs import SEARCH, resolved


def search_config(space: Mapping[str, Any], **search: Any) -> SearchConfig:
    """A search of `space` on generated images; the arguments are `search.*`."""
    settings = {**SEARCH, "space": dict(space), "search": {**SEARCH["search"], "augment": {"scale": [1, 1]}, **search}}
    settings = merge(settings, {"data": {"generated": {"train": 4 * settings["search"]["batch_size"]}}})
    return parse(SearchConfig, resolved(settings))


def real_task(config: SearchConfig, device: str = "cpu") -> SearchTask:
    return SearchTask(
        config, open_dataset(config.data, "train"), open_dataset(config.data, "val"), torch.device(device)
    )


def iterate(task: SearchTask, times: int = 2) -> None:
    """Iterations with both steps, as the loop does them."""
    for _ in range(times):
        batch = next(iter(task.batches(task.schedule.arch_start_epoch, 0)))
        task.step(batch, task.schedule.arch_start_epoch, 0)


def allocated_peak(config: SearchConfig) -> int:
    """The most bytes that PyTorch's CPU allocator had handed out at once, from before the task was made."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        task = real_task(config)
        iterate(task)
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak


def held_bytes(config: SearchConfig) -> int:
    """Parameters, gradients, optimisers' state and tensors saved for backward, of the step that saves more."""
    task = real_task(config)
    iterate(task, 1)
    parameters = list(task.supernet.parameters())
    fixed = sum(2 * parameter.nbytes for parameter in parameters)
    for optimizer in (task.optimizer, task.arch_optimizer):
        tensors = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
        fixed += sum(tensor.nbytes for tensor in tensors)
    batch_a, batch_b = next(iter(task.batches(task.schedule.arch_start_epoch, 0)))
    assert batch_b is not None
    weight = _saved(task.supernet, lambda: task.step((batch_a, None), 0, 0))
    architecture = _saved(task.supernet, lambda: architecture_step(task, batch_b))
    if not task.supernet.checkpoint_cells:
        return fixed + max(weight, architecture)
    task.supernet.checkpoint_cells = False
    task.supernet.train_weights()
    cells = [_saved_by_calls_of(cell, task.supernet, batch_a[0][0]) for cell in task.supernet.cells.values()]
    return fixed + max(weight, architecture) + max(cells)


def architecture_step(task: SearchTask, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
    """The second half of `SearchTask.step` alone."""
    task.gradients.freeze("weights")
    task.gradients("architecture", *batches)
    task.arch_optimizer.step()


def _hooks(network: nn.Module, seen: dict[int, int]) -> saved_tensors_hooks:
    own = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    return saved_tensors_hooks(note, lambda tensor: tensor)


def _saved(network: nn.Module, work: Any) -> int:
    seen: dict[int, int] = {}
    with _hooks(network, seen):
        work()
    return sum(seen.values())


def _saved_by_calls_of(cell: nn.Module, network: nn.Module, images: Tensor) -> int:
    """Saved while `cell` is computed, by one forward pass of the network."""
    seen: dict[int, int] = {}
    forward = cell.forward

    def noted(*arguments: Any) -> Any:
        with _hooks(network, seen):
            return forward(*arguments)

    cell.forward = noted
    try:
        network(images)
    finally:
        cell.forward = forward
    return sum(seen.values())
