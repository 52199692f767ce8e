"""Prediction of a run's memory without running it.

The prediction is for one iteration in the middle of a run, when gradients and the optimizers' state exist: a weight
step and an architecture step of a search, or one step of a retraining. The real task runs on tensors without data
(PyTorch's fake tensors). They lie on the CPU but take the code paths of the target device (`ops.devices`), so the GPU
need not be present. The prediction leaves out the process itself and a data set that is kept on the device. With
sampled operations (GDAS) it is for one sample; other samples may need more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

from autoseg.analysis.memory_tracker import LiveStorages, SavedStorages, tensor_bytes
from autoseg.config.base import LEAST_INPUT_SIDE
from autoseg.config.data import DataConfig, GeneratedConfig
from autoseg.config.training import TrainingConfig
from autoseg.data.dataset import SegmentationDataset, open_dataset, resolve
from autoseg.data.loading.loader import Batch
from autoseg.engine.config import AnyConfig, Config, RetrainConfig, RunConfig, SearchConfig
from autoseg.engine.optim import StepGuard, autocast
from autoseg.engine.retrain import RetrainTask
from autoseg.engine.search import HALVES, SearchTask
from autoseg.errors import ConfigError
from autoseg.ops.devices import acting_as
from autoseg.ops.resize import Size
from autoseg.supernet import Supernet, choose_kernels
from autoseg.supernet.fast.cell import Feature
from autoseg.supernet.reference import cell_name

SMALLEST_BATCH, LARGEST_BATCH = 2, 65536
LARGEST_CROP = 16384
CPU = torch.device("cpu")
CUDA_BLOCK_BYTES = 512
"""CUDA's caching allocator rounds each block up to a multiple of this."""
CUDA_WORKSPACE_BYTES = 64 * 2**20
"""Allowance for the workspaces that cuBLAS and cuDNN allocate themselves."""
CUBLAS_WORKSPACE_BYTES = 32 * 2**20
"""Workspace of cuBLAS for each stream on an H100; other GPUs have 8 MiB."""
CUDA_CONTEXT_BYTES = 600 * 10**6
"""GPU memory of a process before its first tensor: kernels and the context."""
MARGIN = 1.1
"""The device must have this many times the predicted peak, for fragmentation and errors of the prediction."""

AnyTask = SearchTask | RetrainTask
Task = TypeVar("Task", bound=AnyTask)
RunConfigT = TypeVar("RunConfigT", bound=RunConfig)
Step = Literal["weight", "architecture"]
STEPS: tuple[Step, ...] = ("weight", "architecture")


@dataclass(frozen=True)
class Memory:
    """Bytes at one setting.

    CUDA's caching allocator reports two figures. `max_memory_allocated` counts the blocks of tensors, each rounded up
    to 512 bytes: `eager_bytes` predicts it for an eager step. `max_memory_reserved` counts the segments that hold the
    blocks: 2 MiB for blocks up to 1 MiB, 20 MiB for blocks up to 10 MiB, else a multiple of 2 MiB. The second figure is
    larger, because of gaps between blocks, and the GPU must have it: `needed_bytes` adds a margin for that.
    """

    peak_bytes: int
    """Peak without the margin: `eager_bytes` and `graph_bytes`."""
    peak_step: Step
    parameter_bytes: int
    """Parameters and buffers."""
    gradient_bytes: int
    """Gradients; with accumulation also their running sum."""
    optimizer_bytes: int
    saved_bytes: int
    """Saved for the backward pass by the step that saves most."""
    recomputed_bytes: int
    """Saved for the backward pass by the cell that saves most, if cells are recomputed in it. 0 if they are not, or if
    only one step was predicted."""
    graph_bytes: int = 0
    """Additional memory of CUDA graphs, see `recorded_bytes`; 0 without them."""

    @property
    def eager_bytes(self) -> int:
        """The peak of eager steps."""
        return self.peak_bytes - self.graph_bytes

    @property
    def fixed_bytes(self) -> int:
        """The part that does not grow with crop and batch size."""
        return self.parameter_bytes + self.gradient_bytes + self.optimizer_bytes

    @property
    def held_bytes(self) -> int:
        """All but inputs and temporary tensors."""
        return self.fixed_bytes + self.saved_bytes + self.recomputed_bytes

    def needed_bytes(self, device: torch.device) -> int:
        """Memory that the device must have: the peak with a margin, and on a GPU the context."""
        return round(self.peak_bytes * MARGIN) + (CUDA_CONTEXT_BYTES if device.type == "cuda" else 0)

    def scaled(self, share: float) -> Memory:
        """The memory of a batch with `share` times as many pixels, by proportion."""
        return replace(self, peak_bytes=self.fixed_bytes + round((self.peak_bytes - self.fixed_bytes) * share))


class Setting(NamedTuple):
    """The settings that decide a run's memory, besides the network and the optimizers."""

    crop: Size
    batch_size: int
    checkpoint_cells: bool
    precision: str

    @property
    def pixels(self) -> int:
        """Pixels of a batch."""
        return self.batch_size * self.crop[0] * self.crop[1]

    @classmethod
    def of(cls, schedule: TrainingConfig) -> Setting:
        """The setting of a schedule. A retraining has no `checkpoint_cells`."""
        again = getattr(schedule, "checkpoint_cells", False)
        return cls(schedule.crop, schedule.batch_size, again, schedule.precision)

    def apply(self, config: RunConfigT) -> RunConfigT:
        """Return `config` with this setting."""
        changes = {key: value for key, value in self._asdict().items() if hasattr(config.schedule, key)}
        return config.with_schedule(**changes)

    def check(self) -> None:
        """Raises: ConfigError: crop or batch size out of range."""
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


# --- one iteration ----------------------------------------------------------------------------------------------------


def predict_memory(config: AnyConfig, device: torch.device, steps: Sequence[Step] = STEPS) -> Memory:
    """Predict the memory of one iteration, or of some `steps` of a search. The device need not be present."""
    schedule = config.schedule
    # building a task seeds the random numbers, and so does a step of a retraining
    with torch.random.fork_rng([]), followed(_stand_in(config, device), device) as (task, live):
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
            peaks[step] = Peak(live.peak_bytes - start, live.peak_bytes_of_streams - start)
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


def take_step(task: AnyTask, step: Step, batches: Sequence[Batch]) -> None:
    """One weight step or one architecture step, which is half of `SearchTask.step`, on accumulated batches."""
    if isinstance(task, RetrainTask):
        task.step(batches, 0, 1)
        return
    half, frozen = HALVES if step == "weight" else HALVES[::-1]
    optimizer, clip = task.optimizer, task.schedule.clip_grad_norm
    if step == "architecture":
        optimizer, clip = task.arch_optimizer, None
    task.gradients.freeze(frozen)
    loss = task.gradients(half, *batches)
    task.scalers[half].check(optimizer, loss, clip)
    task.scalers[half].step(optimizer)
    task.scalers[half].update()


def _network(task: AnyTask) -> nn.Module:
    return task.supernet if isinstance(task, SearchTask) else task.network


def _optimizers(task: AnyTask) -> tuple[torch.optim.Optimizer, ...]:
    return (task.optimizer, *((task.arch_optimizer,) if isinstance(task, SearchTask) else ()))


def follow_streams(supernet: Supernet, live: LiveStorages) -> None:
    """Tell `live` on which stream a recorded step computes each cell, forward and backward: that of its level.

    Heads, and what comes before a cell, count for the main stream; they take little.
    """

    def switch(stream: int | None, *_: object) -> None:
        live.stream = stream

    def after(level: int, _cell: nn.Module, _arguments: object, feature: Feature) -> None:
        switch(None)
        if feature.plain.grad_fn is not None:
            feature.plain.grad_fn.register_prehook(partial(switch, level))
            feature.plain.grad_fn.register_hook(partial(switch, None))

    for node in supernet.space.trellis.nodes:
        cell = supernet.cells[cell_name(node)]
        cell.register_forward_pre_hook(partial(switch, node.level))
        cell.register_forward_hook(partial(after, node.level))


def _recomputed_bytes(task: AnyTask, images: Tensor, own: Sequence[Tensor]) -> int:
    """The most bytes that one cell saves for the backward pass when it is recomputed; 0 without recomputation."""
    if not isinstance(task, SearchTask) or not task.schedule.checkpoint_cells:
        return 0
    supernet, of_cells = task.supernet, [SavedStorages(own) for _ in task.supernet.cells]
    supernet.train_weights()
    supernet.checkpoint_cells = False
    for cell, saved in zip(supernet.cells.values(), of_cells, strict=True):
        cell.register_forward_pre_hook(lambda *_, saved=saved: saved.__enter__())
        cell.register_forward_hook(lambda *_, saved=saved: saved.__exit__())
    with autocast(task.device, task.schedule.precision):
        supernet(images)
    return max(saved.total_bytes for saved in of_cells)


# --- CUDA graphs ------------------------------------------------------------------------------------------------------


class Peak(NamedTuple):
    """Most bytes that a step takes, without those that were live before it."""

    at_once: int
    of_streams: int
    """The sum of the streams' own peaks, which may lie at different times."""


def recorded_bytes(
    peaks: Mapping[Step, Peak], inputs: int, beside: int, streams: int, architecture_later: bool = False
) -> int:
    """Memory of recorded steps beyond the peak of eager steps (`Memory.graph_bytes`).

    Recorded steps share a pool as large as the larger step's peak: gradients, tensors saved for the backward pass, and
    temporary tensors. Gradients of the other half stay in it, as in an eager run. Eager work cannot use the pool
    between replays. So the run also needs:

    - `inputs`: each recorded step's copy of its batch;
    - `beside`: the most that eager work takes at once: validation or an optimizer's step;
    - blocks that streams cannot share: each stream reuses only the blocks that it freed itself (`Peak.of_streams`);
    - a workspace of cuBLAS for each of the `streams`;
    - if `architecture_later`: the eager first steps of the architecture, after the weight step was recorded.

    Blocks that eager steps left cached do not count: `torch.cuda.graph` frees them before it records. The eager step
    that `cuda_graphs: auto` compares with a recorded one does not count either: if it finds no memory, the run drops
    its graphs.
    """
    pool = max(peak.of_streams for peak in peaks.values())
    if architecture_later:
        beside = max(beside, sum(peak.of_streams for peak in peaks.values()) - pool)
    apart = pool - max(peak.at_once for peak in peaks.values())
    return len(peaks) * inputs + beside + apart + streams * CUBLAS_WORKSPACE_BYTES


def uses_graphs(schedule: TrainingConfig, device: torch.device) -> bool:
    """Whether the steps of a schedule are recorded on a device."""
    return device.type == "cuda" and bool(schedule.cuda_graphs)


def _bytes_beside(work: Callable[[], object], live: LiveStorages) -> int:
    """The most bytes that some eager work takes, without those that were live before it."""
    start = live.restart()
    work()
    return live.peak_bytes - start


def _graph_bytes(task: AnyTask, peaks: dict[Step, Peak], batch: Batch, live: LiveStorages) -> int:
    """See `recorded_bytes`. With sampled operations (GDAS) nothing is recorded."""
    network, searching = _network(task), isinstance(task, SearchTask)
    if isinstance(task, SearchTask) and task.space.relaxation.gdas is not None:
        return 0

    @torch.no_grad()
    def validate() -> None:
        network.eval()
        network(batch[0]) if searching else network(batch[0], coarse=True)
        network.train()

    beside = max(_bytes_beside(optimizer.step, live) for optimizer in _optimizers(task))
    validation = _bytes_beside(validate, live)
    if isinstance(task, SearchTask):
        streams, later = len(task.space.network.strides) + 1, task.schedule.arch_start_epoch > 0
        return recorded_bytes(peaks, tensor_bytes(batch), max(beside, validation), streams, later)
    # validation has a copy of the network with folded BatchNorms; the step reads sampled masks and complete ones
    beside = max(beside, validation + tensor_bytes(network.parameters()))
    return recorded_bytes(peaks, tensor_bytes((*batch, batch[1])), beside, streams=1)


# --- stand-ins --------------------------------------------------------------------------------------------------------


@contextmanager
def followed(task: Task, device: torch.device) -> Iterator[tuple[Task, LiveStorages]]:
    """A copy of a CPU task whose tensors have no data and take the code paths of `device`, and its memory tracker."""
    on_gpu = device.type == "cuda"
    live = LiveStorages(CPU, CUDA_BLOCK_BYTES if on_gpu else 1)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, live, acting_as(device.type):
        with FakeCopyMode(fake):
            copy = deepcopy(task)
        del task
        yield copy, live


def make_state(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Make the gradients of an optimizer's parameters, and the state that its first step creates.

    On a GPU PyTorch updates all parameters together (`foreach`), which copies some of them. For tensors without data
    that must be asked for.
    """
    for group in optimizer.param_groups:
        group["foreach"] = device.type == "cuda"
        for parameter in group["params"]:
            parameter.grad = torch.empty_like(parameter)
    optimizer.step()


def stand_in_task(config: SearchConfig, device: torch.device) -> SearchTask:
    """The search of `config` on generated data with the same classes and enough images."""
    share = config.search.train_a_fraction
    images = int(2 * config.search.batch_size / min(share, 1 - share)) + 2
    return SearchTask(*_on_stand_in_data(config, images), device)


def _stand_in(config: AnyConfig, device: torch.device) -> AnyTask:
    """The run of `config` on the CPU, without parts that fake tensors cannot follow or that take no memory in a step.

    The rest takes as much memory as on `device`, or a little more. The moving average is counted separately.
    """
    if config.schedule.precision == "fp16":
        config = config.with_schedule(precision="bf16")  # which takes as much
    if isinstance(config, SearchConfig):
        kernels = config.search.kernels
        if kernels.depthwise == "triton":
            config = config.with_schedule(kernels=kernels.model_copy(update={"depthwise": "convolution"}))
        task = stand_in_task(config, CPU)
        task.scalers |= {half: StepGuard(CPU, scales=False, enabled=False) for half in HALVES}
        task.supernet.use_kernels(choose_kernels(task.schedule.kernels, device))
        return task
    config = config.with_schedule(ema_decay=0.0, compile=False, balanced_sampling=0.0)
    network = RetrainTask(*_on_stand_in_data(config, 2 * config.retrain.batch_size), CPU)
    network.scaler = StepGuard(CPU, scales=False, enabled=False)
    return network


def _on_stand_in_data(config: Config, images: int) -> tuple[Config, SegmentationDataset, SegmentationDataset]:
    """`config`, training and validation set of generated images with the classes and channels of its own data."""
    data = config.data
    alike = DataConfig(
        layout="generated", num_classes=data.num_classes, ignore_label=data.ignore_label, channels=data.channels,
        mean=data.mean, std=data.std, generated=GeneratedConfig(size=(32, 32), train=images, val=1),
    )  # fmt: skip
    weights = "none" if config.schedule.class_weights == "none" else (1.0,) * data.num_classes
    config = config.with_schedule(class_weights=weights, workers=0, accumulate=1)
    config = config.model_copy(update={"data": resolve(alike)})
    return config, open_dataset(config.data, "train"), open_dataset(config.data, "val")


def random_batch(task: AnyTask) -> Batch:
    """Random images (N, C, H, W) and masks (N, H, W) of the schedule's size, on the task's device."""
    shape = (task.schedule.batch_size, *task.schedule.crop)
    images = torch.randn(shape[0], task.train_set.channels, *shape[1:], device=task.device)
    return images, torch.randint(task.train_set.num_classes, shape, device=task.device)
