"""What a run will need, before it is started: memory predicted without computing.

Memory is that of one iteration in the midst of a run, with gradients and the optimizers' state there: of a search, a
weight step and an architecture step; of a retraining, a step. The real task runs on tensors without data (PyTorch's
fake tensors) which lie on the CPU and take the way of the device that is asked about (`ops.acting`): every path that it
takes there counts, a GPU need not be there, and the prediction is the same where it is. Not in it: the data set where
it is kept on the device, the process itself. Where operations are sampled (GDAS) it is that of one sample, and others
may need more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

from autoseg.analysis.memory_tracker import LiveStorages, SavedStorages, tensor_bytes
from autoseg.config.base import LEAST_INPUT_SIDE
from autoseg.config.data import DataConfig, GeneratedConfig
from autoseg.config.training import TrainingConfig
from autoseg.data.dataset import open_dataset, resolve
from autoseg.engine.config import RetrainConfig, SearchConfig
from autoseg.engine.mixed_precision import autocast
from autoseg.engine.retrain import RetrainTask
from autoseg.engine.search import HALVES, SearchTask
from autoseg.errors import ConfigError
from autoseg.ops.acting import acting_as
from autoseg.ops.resize import Size
from autoseg.supernet import Supernet, choose_kernels
from autoseg.supernet.fast.cell import Feature
from autoseg.supernet.reference import cell_name

SMALLEST_BATCH, LARGEST_BATCH = 2, 65536
LARGEST_CROP = 16384
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

Task = TypeVar("Task", bound=SearchTask | RetrainTask)
Config = TypeVar("Config", SearchConfig, RetrainConfig)
Step = Literal["weight", "architecture"]
STEPS: tuple[Step, ...] = ("weight", "architecture")
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

    def scaled(self, share: float) -> Memory:
        """That of a batch of `share` times as many pixels, by proportion."""
        return replace(self, peak_bytes=self.fixed_bytes + round((self.peak_bytes - self.fixed_bytes) * share))


class Setting(NamedTuple):
    """What of a run decides its memory, besides the network and the optimizers."""

    crop: Size
    batch_size: int
    checkpoint_cells: bool
    precision: str

    @property
    def pixels(self) -> int:
        """Of a batch."""
        return self.batch_size * self.crop[0] * self.crop[1]

    @classmethod
    def of(cls, schedule: TrainingConfig) -> Setting:
        """That of a schedule; a retraining computes no cell again."""
        again = getattr(schedule, "checkpoint_cells", False)
        return cls(schedule.crop, schedule.batch_size, again, schedule.precision)

    def apply(self, config: Config) -> Config:
        """`config` with this setting."""
        kind, schedule = schedule_of(config)
        changes = {key: value for key, value in self._asdict().items() if hasattr(schedule, key)}
        return config.model_copy(update={kind: schedule.model_copy(update=changes)})

    def check(self) -> None:
        """Raises: ConfigError: a crop or a batch that makes no sense."""
        height, width = self.crop
        if not all(LEAST_INPUT_SIDE <= length <= LARGEST_CROP for length in self.crop):
            raise ConfigError(
                f"crop {height} {width}: height and width must be {LEAST_INPUT_SIDE} to {LARGEST_CROP}",
                code="crop-out-of-range",
            )
        if not SMALLEST_BATCH <= self.batch_size <= LARGEST_BATCH:
            raise ConfigError(
                f"batch {self.batch_size}: it must be {SMALLEST_BATCH} to {LARGEST_BATCH} images (BatchNorm of the"
                " pooled image features needs two)",
                code="batch-out-of-range",
            )


def schedule_of(config: SearchConfig | RetrainConfig) -> tuple[str, TrainingConfig]:
    """The name and the settings of a run's schedule."""
    return ("search", config.search) if isinstance(config, SearchConfig) else ("retrain", config.retrain)


# --- one iteration ----------------------------------------------------------------------------------------------------


def predict_memory(config: SearchConfig | RetrainConfig, device: torch.device, steps: Sequence[Step] = STEPS) -> Memory:
    """The memory of one iteration of the run of `config`, or of some steps of a search, without computing it.

    The device need not be there. fp16 counts as bf16, which takes as much.
    """
    _, schedule = schedule_of(config)
    # making a task seeds the random numbers, and so does a step of a retraining
    with own_random_state(CPU), followed(_stand_in(config, device), device) as (task, live):
        network, optimizers = _network(task), _optimizers(task)
        own = [*network.parameters(), *network.buffers()]
        live.add(own)
        for optimizer in optimizers:
            make_state(optimizer, device)
        kinds, steps = (STEPS, steps) if isinstance(task, SearchTask) else (STEPS[:1], STEPS[:1])
        batches = {step: random_batch(task) for step in kinds}
        recorded, batch = uses_graphs(schedule, device), batches["weight"]
        if recorded and isinstance(task, SearchTask):
            follow_streams(task.supernet, live)
        start, saved, peaks = live.live_bytes, {step: SavedStorages(own) for step in steps}, {}
        for step in steps:
            live.restart()
            with saved[step]:
                take_step(task, step, [batches[step]])
            peaks[step] = Peak.since(start, live)
        graphs = _graph_bytes(task, peaks, batch, live) if recorded else 0
        average = tensor_bytes(own) if isinstance(config, RetrainConfig) and config.retrain.ema_decay else 0
        more = schedule.accumulate - 1
        weights = task.supernet.weights() if isinstance(task, SearchTask) else network.parameters()
        sums = tensor_bytes(weights) if more else 0
        workspace = CUDA_WORKSPACE_BYTES if device.type == "cuda" else 0
        states = [value for one in optimizers for state in one.state.values() for value in state.values()]
        peak = start + max(peaks.values()).at_once + average + sums + more * tensor_bytes(batch) + workspace + graphs
        return Memory(
            peak_bytes=peak,
            peak_step=max(peaks, key=peaks.__getitem__),
            parameter_bytes=tensor_bytes(own) + average,
            gradient_bytes=tensor_bytes(network.parameters()) + sums,
            optimizer_bytes=tensor_bytes(value for value in states if isinstance(value, Tensor)),
            saved_bytes=max(one.total_bytes for one in saved.values()),
            recomputed_bytes=_recomputed_bytes(task, batch[0], own) if steps == STEPS else 0,
            graph_bytes=graphs,
        )


def take_step(task: SearchTask | RetrainTask, step: Step, batches: Sequence[Batch]) -> None:
    """One weight step or, in a search, one architecture step: half of `SearchTask.step`, with accumulated batches."""
    if isinstance(task, RetrainTask):
        task.step(batches, 0, 1)
        return
    half, frozen = HALVES if step == "weight" else HALVES[::-1]
    optimizer = task.optimizer if step == "weight" else task.arch_optimizer
    task.gradients.freeze(frozen)
    task.gradients(half, *batches)
    task.scalers[half].unscale_(optimizer)
    if step == "weight" and task.schedule.clip_grad_norm is not None:
        nn.utils.clip_grad_norm_(task.gradients.parameters[half], task.schedule.clip_grad_norm)
    task.scalers[half].step(optimizer)
    task.scalers[half].update()


def _network(task: SearchTask | RetrainTask) -> nn.Module:
    return task.supernet if isinstance(task, SearchTask) else task.network


def _optimizers(task: SearchTask | RetrainTask) -> tuple[torch.optim.Optimizer, ...]:
    return (task.optimizer, *((task.arch_optimizer,) if isinstance(task, SearchTask) else ()))


def follow_streams(supernet: Supernet, live: LiveStorages) -> None:
    """Tell `live` the stream that a recorded step computes each cell on: its level's, forward and backward.

    Heads and what comes before a cell are left on the main stream; they take little.
    """

    def enter(level: int) -> None:
        live.stream = level

    def leave(*_: object) -> None:
        live.stream = None

    def hook(cell: nn.Module, level: int) -> None:
        def after(_cell: nn.Module, _arguments: object, feature: Feature) -> None:
            leave()
            if feature.plain.grad_fn is not None:
                feature.plain.grad_fn.register_prehook(lambda *_: enter(level))
                feature.plain.grad_fn.register_hook(leave)

        cell.register_forward_pre_hook(lambda *_: enter(level))
        cell.register_forward_hook(after)

    for node in supernet.space.trellis.nodes:
        hook(supernet.cells[cell_name(node)], node.level)


def _recomputed_bytes(task: SearchTask | RetrainTask, images: Tensor, own: Sequence[Tensor]) -> int:
    """The most bytes that the weight step of one cell saves for backward when it is computed again; else 0."""
    if not isinstance(task, SearchTask) or not task.schedule.checkpoint_cells:
        return 0
    supernet, of_cells = task.supernet, [SavedStorages(own) for _ in task.supernet.cells]
    supernet.train_weights()
    supernet.checkpoint_cells = False
    for cell, saved in zip(supernet.cells.values(), of_cells, strict=True):
        _around_forward(cell, saved)
    with autocast(task.device, task.schedule.precision):
        supernet(images)
    return max(saved.total_bytes for saved in of_cells)


def _around_forward(module: nn.Module, context: SavedStorages) -> None:
    def enter(*_: object) -> None:
        context.__enter__()

    def leave(*_: object) -> None:
        context.__exit__(None, None, None)

    module.register_forward_pre_hook(enter)
    module.register_forward_hook(leave)


# --- CUDA graphs ------------------------------------------------------------------------------------------------------


class Peak(NamedTuple):
    """Bytes that a step takes at most, besides what was there before it."""

    at_once: int
    of_streams: int
    """The sum of the peaks of each stream, at different times."""

    @classmethod
    def since(cls, start: int, live: LiveStorages) -> Peak:
        """Of what `live` has followed since it was restarted; start: the bytes that were there."""
        return cls(live.peak_bytes - start, live.peak_bytes_of_streams - start)


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


def _graph_bytes(task: SearchTask | RetrainTask, peaks: dict[Step, Peak], batch: Batch, live: LiveStorages) -> int:
    """See `recorded_bytes`.

    With operations that are sampled anew for each step (GDAS) nothing is recorded. A retraining reads the masks that
    its loss sees and the whole ones; its validation has a copy of the network, with BatchNorms folded into its weights.
    """
    network, searching = _network(task), isinstance(task, SearchTask)
    if isinstance(task, SearchTask) and task.space.relaxation.gdas is not None:
        return 0

    @torch.no_grad()
    def validate() -> None:
        network.eval()
        network(batch[0]) if searching else network(batch[0], coarse=True)
        network.train()

    beside = bytes_beside([optimizer.step for optimizer in _optimizers(task)], live)
    validation = bytes_beside([validate], live)
    if isinstance(task, SearchTask):
        streams, later = len(task.space.network.strides) + 1, task.schedule.arch_start_epoch > 0
        return recorded_bytes(peaks, tensor_bytes(batch), max(beside, validation), streams, later)
    beside = max(beside, validation + tensor_bytes(network.parameters()))
    return recorded_bytes(peaks, tensor_bytes((*batch, batch[1])), beside, streams=1)


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


def stand_in_task(config: SearchConfig, device: torch.device) -> SearchTask:
    """The search of `config` on a data set that only has the right number of classes and enough images."""
    share = config.search.train_a_fraction
    config = _on_stand_in_data(config, int(2 * config.search.batch_size / min(share, 1 - share)) + 2)
    return SearchTask(config, open_dataset(config.data, "train"), open_dataset(config.data, "val"), device)


def _stand_in(config: SearchConfig | RetrainConfig, device: torch.device) -> SearchTask | RetrainTask:
    """The run of `config` on the CPU without what has no part in a step's memory, or cannot be followed.

    What is left takes as much memory as on `device`, or a little more; the moving average is counted apart.
    """
    kind, schedule = schedule_of(config)
    changes: dict[str, Any] = {"precision": "bf16" if schedule.precision == "fp16" else schedule.precision}
    if isinstance(config, SearchConfig):
        if config.search.kernels.depthwise == "triton":
            changes["kernels"] = config.search.kernels.model_copy(update={"depthwise": "convolution"})
        task = stand_in_task(config.model_copy(update={kind: schedule.model_copy(update=changes)}), CPU)
        task.supernet.use_kernels(choose_kernels(task.schedule.kernels, device))
        return task
    changes |= {"ema_decay": 0.0, "compile": False, "balanced_sampling": 0.0}
    config = config.model_copy(update={kind: schedule.model_copy(update=changes)})
    config = _on_stand_in_data(config, 2 * schedule.batch_size)
    return RetrainTask(config, open_dataset(config.data, "train"), open_dataset(config.data, "val"), CPU)


def _on_stand_in_data(config: Config, images: int) -> Config:
    """`config` on so many generated images, with the classes and channels of its own data."""
    kind, schedule = schedule_of(config)
    data = config.data
    alike = DataConfig(
        layout="generated",
        num_classes=data.num_classes,
        ignore_label=data.ignore_label,
        channels=data.channels,
        mean=data.mean,
        std=data.std,
        generated=GeneratedConfig(size=(32, 32), train=images, val=1),
    )
    weights = "none" if schedule.class_weights == "none" else (1.0,) * data.num_classes
    schedule = schedule.model_copy(update={"class_weights": weights, "workers": 0, "accumulate": 1})
    return config.model_copy(update={"data": resolve(alike), kind: schedule})


def random_batch(task: SearchTask | RetrainTask) -> Batch:
    """Images (N, C, H, W) and masks (N, H, W) of the schedule's size, on the task's device."""
    shape = (task.schedule.batch_size, *task.schedule.crop)
    images = torch.randn(shape[0], task.train_set.channels, *shape[1:], device=task.device)
    return images, torch.randint(task.train_set.num_classes, shape, device=task.device)
