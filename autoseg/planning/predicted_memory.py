"""What a run's memory is made of, and how it is followed without computing: what `memory` and `training_memory` share.

A step is done on tensors without data (PyTorch's fake tensors) which lie on the CPU and take the way of the device that
is asked about (`ops.acting`). So a GPU need not be there, and the prediction is the same where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

from autoseg.analysis.memory_tracker import LiveStorages
from autoseg.config.data import DataConfig, GeneratedConfig, ResolvedDataConfig
from autoseg.config.training import TrainingConfig
from autoseg.data.dataset import resolve
from autoseg.engine.retrain import RetrainTask
from autoseg.engine.search import SearchTask
from autoseg.ops.acting import acting_as

CPU = torch.device("cpu")
CUDA_BLOCK_BYTES = 512
"""What CUDA's caching allocator rounds a block to."""
CUDA_WORKSPACE_BYTES = 64 * 2**20
"""For the workspaces of cuBLAS and cuDNN, which are allocated inside their kernels."""
CUBLAS_WORKSPACE_BYTES = 32 * 2**20
"""What cuBLAS has on an H100 for each stream; 8 MiB on other GPUs."""
CUDA_CONTEXT_BYTES = 600 * 10**6
"""What a process takes of a GPU before its first tensor: kernels, the context."""
MARGIN = 1.1
"""A setting fits where its predicted peak and a tenth more do: for fragmentation, and since it is a prediction."""

Task = TypeVar("Task", SearchTask, RetrainTask)
Step = Literal["weight", "architecture"]
Batch = tuple[Tensor, Tensor]
"""Images (N, C, H, W) and masks (N, H, W)."""


@dataclass(frozen=True)
class Memory:
    """Bytes at one setting.

    Two figures tell what CUDA's caching allocator does. `max_memory_allocated` counts the blocks that tensors have,
    each rounded up to 512 bytes: `eager_bytes` predicts it for an eager step. `max_memory_reserved` counts the segments
    that these blocks are cut from: 2 MiB for blocks of up to 1 MiB, 20 MiB for blocks of up to 10 MiB, else a multiple
    of 2 MiB. It is more, by what lies unused between blocks, and it is what the card must have: `needed_bytes` adds a
    margin for it.
    """

    peak_bytes: int
    """What the device must hold at most, besides the margin: `eager_bytes` and `graph_bytes`."""
    peak_step: Step
    """The step that has the peak."""
    parameter_bytes: int
    """Parameters and buffers."""
    gradient_bytes: int
    """With accumulation also the sum so far."""
    optimizer_bytes: int
    saved_bytes: int
    """Saved for backward by the step that saves more, of those that were followed."""
    recomputed_bytes: int
    """Saved for backward by the cell that saves most, where cells are computed again in backward; 0 where they are
    not, or where one step alone was followed."""
    graph_bytes: int = 0
    """What CUDA graphs take more, see `recorded_bytes`; 0 without."""

    @property
    def eager_bytes(self) -> int:
        """The peak of steps that are not recorded."""
        return self.peak_bytes - self.graph_bytes

    @property
    def fixed_bytes(self) -> int:
        """What does not grow with crop and batch."""
        return self.parameter_bytes + self.gradient_bytes + self.optimizer_bytes

    @property
    def held_bytes(self) -> int:
        """All but what is there in passing: inputs, and what operations need in between."""
        return self.fixed_bytes + self.saved_bytes + self.recomputed_bytes

    def needed_bytes(self, device: torch.device) -> int:
        """What a device must have for it: the peak with a margin, and on a GPU its context."""
        return round(self.peak_bytes * MARGIN) + (CUDA_CONTEXT_BYTES if device.type == "cuda" else 0)


class Peak(NamedTuple):
    """Bytes that a step takes at most, besides what was there before it."""

    at_once: int
    of_streams: int
    """The sum of the peaks of each stream, at different times."""

    @classmethod
    def since(cls, start: int, live: LiveStorages) -> Peak:
        """Of what `live` has followed since it was restarted; start: the bytes that were there."""
        return cls(live.peak_bytes - start, live.peak_bytes_of_streams - start)


# --- CUDA graphs ------------------------------------------------------------------------------------------------------


def recorded_bytes(
    peaks: Mapping[Step, Peak], inputs: int, beside: int, streams: int, architecture_later: bool = False
) -> int:
    """What steps that are recorded take besides the peak of eager ones (`Memory.graph_bytes`).

    Recorded steps share a pool, which is as large as the larger step's peak: gradients, what is saved for backward, and
    what is there in passing. Gradients of the other half stay in it, as they stay in an eager run. No eager work can
    use the pool between replays. So there are besides it:

    - `inputs`: the copy of its batch that each recorded step reads;
    - `beside`: the most that eager work takes at once: validation, an optimizer's step;
    - what streams do not give each other: each has the pool's blocks that it freed itself (`Peak.of_streams`);
    - a workspace of cuBLAS for each of the `streams`;
    - `architecture_later`: where the architecture starts after the weights' step was recorded, its first steps, which
      are eager.

    Blocks that eager steps left cached do not count: `torch.cuda.graph` gives them back before it records. Nor does the
    eager step with which `cuda_graphs: auto` compares a recorded one: where it finds no memory, the graphs are dropped.
    """
    pool = max(peak.of_streams for peak in peaks.values())
    if architecture_later:
        beside = max(beside, sum(peak.of_streams for peak in peaks.values()) - pool)
    apart = pool - max(peak.at_once for peak in peaks.values())
    return len(peaks) * inputs + beside + apart + streams * CUBLAS_WORKSPACE_BYTES


def uses_graphs(schedule: TrainingConfig, device: torch.device) -> bool:
    """Whether steps are recorded on a device."""
    return device.type == "cuda" and bool(schedule.cuda_graphs)


def bytes_beside(works: Iterable[Callable[[], object]], live: LiveStorages) -> int:
    """The most that one of several works takes at once, besides what was there before it."""
    most = 0
    for work in works:
        start = live.restart()
        work()
        most = max(most, live.peak_bytes - start)
    return most


# --- stand-ins --------------------------------------------------------------------------------------------------------


@contextmanager
def own_random_state(device: torch.device) -> Iterator[None]:
    """Leave the random state as it was: making a task seeds it."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


@contextmanager
def followed(task: Task, device: torch.device) -> Iterator[tuple[Task, LiveStorages]]:
    """A copy of a task that lies on the CPU, whose tensors have no data and take the way of a device.

    With what follows the memory that they would take there.
    """
    on_gpu = device.type == "cuda"
    live = LiveStorages(CPU, CUDA_BLOCK_BYTES if on_gpu else 1)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, live, acting_as(device.type):
        with FakeCopyMode(fake):
            copy = deepcopy(task)
        del task
        yield copy, live


def make_state(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Give an optimizer's parameters gradients, and it the state that its first step makes.

    On a GPU PyTorch updates all parameters together (`foreach`), which takes a copy of some of them; it does not do so
    by itself for tensors without data.
    """
    for group in optimizer.param_groups:
        group["foreach"] = device.type == "cuda"
        for parameter in group["params"]:
            parameter.grad = torch.empty_like(parameter)
    optimizer.step()


def stand_in_data(data: ResolvedDataConfig, images: int) -> ResolvedDataConfig:
    """Generated images, so many, with the classes and channels of other data."""
    alike = DataConfig(
        layout="generated",
        num_classes=data.num_classes,
        ignore_label=data.ignore_label,
        channels=data.channels,
        mean=data.mean,
        std=data.std,
        generated=GeneratedConfig(size=(32, 32), train=images, val=1),
    )
    return resolve(alike)


def random_batch(task: SearchTask | RetrainTask) -> Batch:
    """Images (N, C, H, W) and masks (N, H, W) of the schedule's size, on the task's device."""
    shape = (task.schedule.batch_size, *task.schedule.crop)
    images = torch.randn(shape[0], task.train_set.channels, *shape[1:], device=task.device)
    return images, torch.randint(task.train_set.num_classes, shape, device=task.device)
