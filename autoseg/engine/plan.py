"""What a search will need, before it is started: memory predicted without computing, and what fits.

Memory is that of one iteration in the midst of a search: a weight step and an architecture step, with gradients and
the optimisers' state there. The real search is run on tensors without data, so every path that it takes on the device
counts. Not in it: the data set where it is kept on the device, the process itself, a GPU's context. Where operations
are sampled (GDAS) it is that of one sample, and others may need more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

from autoseg.config import DataConfig, GeneratedConfig, SearchConfig, SearchSchedule
from autoseg.data.dataset import open_dataset, resolve
from autoseg.engine.loop import autocast
from autoseg.engine.retrain import RetrainTask
from autoseg.engine.search import SearchTask
from autoseg.errors import ConfigError
from autoseg.objectives.memory import LiveStorages, SavedStorages, tensor_bytes
from autoseg.ops.resize import Size

SMALLEST_BATCH, LARGEST_BATCH = 2, 65536
SMALLEST_CROP, LARGEST_CROP = 32, 16384
LARGEST_PROPOSED_BATCH, LARGEST_PROPOSED_CROP = 1024, 2049
"""Where the number and size of the images are not known."""
CUDA_BLOCK_BYTES = 512
"""What CUDA's caching allocator rounds to."""
CUDA_WORKSPACE_BYTES = 64 * 2**20
"""For the workspaces of cuBLAS (32 MiB on an H100) and cuDNN, which are allocated inside their kernels."""
CUDA_CONTEXT_BYTES = 600 * 10**6
"""What a process takes of a GPU before its first tensor: kernels, the context."""
MARGIN = 1.1
"""A setting fits where its predicted peak and a tenth more do: for fragmentation, and since it is a prediction."""


Task = TypeVar("Task", SearchTask, RetrainTask)
Step = Literal["weight", "architecture"]
STEPS: tuple[Step, ...] = ("weight", "architecture")


@dataclass(frozen=True)
class Memory:
    """Bytes at one setting. `peak_bytes` is what the allocator hands out at most (CUDA: `max_memory_allocated`)."""

    peak_bytes: int
    peak_step: Step
    """The step that has the peak."""
    parameter_bytes: int
    """Parameters and buffers."""
    gradient_bytes: int
    optimizer_bytes: int
    saved_bytes: int
    """Saved for backward by the step that saves more, of those that were followed."""
    recomputed_bytes: int
    """Saved for backward by the cell that saves most, where cells are computed again in backward; 0 where they are
    not, or where one step alone was followed."""

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


class Setting(NamedTuple):
    """What of a search decides its memory, besides the space and the optimisers."""

    crop: Size
    batch_size: int
    checkpoint_cells: bool
    precision: str

    @property
    def pixels(self) -> int:
        """Of a batch."""
        return self.batch_size * self.crop[0] * self.crop[1]

    @classmethod
    def of(cls, schedule: SearchSchedule) -> Setting:
        """That of a schedule."""
        return cls(schedule.crop, schedule.batch_size, schedule.checkpoint_cells, schedule.precision)

    def apply(self, config: SearchConfig) -> SearchConfig:
        """`config` with this setting."""
        return config.model_copy(update={"search": config.search.model_copy(update=self._asdict())})

    def check(self) -> None:
        """Raises: ConfigError: a crop or a batch that makes no sense."""
        height, width = self.crop
        if not all(SMALLEST_CROP <= length <= LARGEST_CROP for length in self.crop):
            raise ConfigError(f"crop {height} {width}: height and width must be {SMALLEST_CROP} to {LARGEST_CROP}")
        if not SMALLEST_BATCH <= self.batch_size <= LARGEST_BATCH:
            raise ConfigError(
                f"batch {self.batch_size}: it must be {SMALLEST_BATCH} to {LARGEST_BATCH} images (BatchNorm of the"
                " pooled image features needs two)"
            )


# --- one iteration ----------------------------------------------------------------------------------------------------


def stand_in_task(config: SearchConfig, device: torch.device) -> SearchTask:
    """The search of `config` on a data set that only has the right number of classes and enough images."""
    schedule, share = config.search, config.search.train_a_fraction
    data = stand_in_data(config.data, int(2 * schedule.batch_size / min(share, 1 - share)) + 2)
    classes = data.num_classes or 2
    weights = "none" if schedule.class_weights == "none" else (1.0,) * classes
    schedule = schedule.model_copy(update={"class_weights": weights, "workers": 0})
    config = config.model_copy(update={"data": data, "search": schedule})
    return SearchTask(config, open_dataset(data, "train"), open_dataset(data, "val"), device)


def stand_in_data(data: DataConfig, images: int) -> DataConfig:
    """Generated images, so many, with the classes and channels of other data."""
    alike = DataConfig(
        layout="generated",
        num_classes=data.num_classes or 2,
        ignore_label=data.ignore_label,
        channels=data.channels,
        mean=data.mean,
        std=data.std,
        generated=GeneratedConfig(size=(32, 32), train=images, val=1),
    )
    return resolve(alike)


def random_batch(task: SearchTask | RetrainTask) -> tuple[Tensor, Tensor]:
    """Images (N, 3, H, W) and masks (N, H, W) of the schedule's size, on the task's device."""
    shape = (task.schedule.batch_size, *task.schedule.crop)
    images = torch.randn(shape[0], task.train_set.channels, *shape[1:], device=task.device)
    return images, torch.randint(task.train_set.num_classes, shape, device=task.device)


@contextmanager
def own_random_state(device: torch.device) -> Iterator[None]:
    """Leave the random state as it was: making a task seeds it."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


@contextmanager
def followed(task: Task, device: torch.device) -> Iterator[tuple[Task, LiveStorages]]:
    """A copy of a task whose tensors have no data, and what follows the memory that they would take on the device."""
    live = LiveStorages(device, CUDA_BLOCK_BYTES if device.type == "cuda" else 1)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, live:
        with FakeCopyMode(fake):
            copy = deepcopy(task)
        del task
        yield copy, live


def predict_memory(config: SearchConfig, device: torch.device, steps: Sequence[Step] = STEPS) -> Memory:
    """The memory of one iteration of the search of `config`, or of some steps of it, without computing it."""
    with own_random_state(device):
        stand_in = stand_in_task(config, device)
    with followed(stand_in, device) as (task, live):
        del stand_in
        own = [*task.supernet.parameters(), *task.supernet.buffers()]
        live.add(own)
        optimizers = (task.optimizer, task.architect.optimizer)
        for optimizer in optimizers:
            _make_state(optimizer)
        batches = {step: random_batch(task) for step in STEPS}
        peaks, saved = {}, {step: SavedStorages(own) for step in steps}
        for step in steps:
            live.peak_bytes = live.live_bytes
            with saved[step]:
                take_step(task, step, batches[step])
            peaks[step] = live.peak_bytes
        recomputes = task.schedule.checkpoint_cells and steps == STEPS
        states = [value for one in optimizers for state in one.state.values() for value in state.values()]
        return Memory(
            peak_bytes=max(peaks.values()) + (CUDA_WORKSPACE_BYTES if device.type == "cuda" else 0),
            peak_step=max(peaks, key=peaks.__getitem__),
            parameter_bytes=tensor_bytes(own),
            gradient_bytes=tensor_bytes(task.supernet.parameters()),
            optimizer_bytes=tensor_bytes(value for value in states if isinstance(value, Tensor)),
            saved_bytes=max(one.total_bytes for one in saved.values()),
            recomputed_bytes=_largest_cell(task, batches["weight"][0], own) if recomputes else 0,
        )


def take_step(task: SearchTask, step: Step, batch: tuple[Tensor, Tensor]) -> None:
    """One weight step or one architecture step on a batch, which stands for all that are accumulated."""
    batches = [batch] * task.schedule.accumulate
    if step == "weight":
        task.weight_step(batches, task.schedule.optimizer.lr)
    else:
        task.architect.step(batches)


def _make_state(optimizer: torch.optim.Optimizer) -> None:
    """Give an optimiser's parameters gradients, and it the state that its first step makes."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.empty_like(parameter)
    optimizer.step()


def _largest_cell(task: SearchTask, images: Tensor, own: Sequence[Tensor]) -> int:
    """The bytes that the weight step of one cell saves for backward, where it is not checkpointed; the most of all."""
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


# --- what fits --------------------------------------------------------------------------------------------------------


class Option(NamedTuple):
    """One line of a plan. `memory` is None where not even the smallest fits; `setting` is then the smallest."""

    name: str
    setting: Setting
    memory: Memory | None
    fits: bool


class Limits(NamedTuple):
    """The largest values to propose."""

    crop: Size = (LARGEST_PROPOSED_CROP, LARGEST_PROPOSED_CROP)
    batch_size: int = LARGEST_PROPOSED_BATCH


Predict = Callable[[Setting], Memory]


class Planner:
    """Compares settings of one search on one device against `memory_bytes`; each is predicted once."""

    def __init__(
        self, config: SearchConfig, device: torch.device, memory_bytes: int, limits: Limits | None = None
    ) -> None:
        self.config, self.device, self.memory_bytes = config, device, memory_bytes
        self.limits = limits or Limits()
        self.asked = Setting.of(config.search)
        self.predict = cache(self._predict)
        self.predict_peak = cache(self._predict_peak)

    def _predict(self, setting: Setting) -> Memory:
        return predict_memory(setting.apply(self.config), self.device)

    def _predict_peak(self, setting: Setting) -> Memory:
        """As `predict`, in half the time: of the step alone that has the peak at the asked crop and batch."""
        known = setting._replace(crop=self.asked.crop, batch_size=self.asked.batch_size)
        if setting == known:
            return self.predict(setting)
        return predict_memory(setting.apply(self.config), self.device, (self.predict(known).peak_step,))

    def fits(self, setting: Setting) -> bool:
        """Whether the device has what a setting needs."""
        return self.predict(setting).needed_bytes(self.device) <= self.memory_bytes

    def options(self) -> list[Option]:
        """The setting as asked and its variants, then the largest batch and the largest crop that fit."""
        asked = self.asked
        other = asked._replace(checkpoint_cells=not asked.checkpoint_cells)
        named = {"as asked": asked, f"{'with' if other.checkpoint_cells else 'without'} checkpointing": other}
        if asked.precision == "float32" and self._has_bf16():
            named["with bf16"] = asked._replace(precision="bf16")
            if not asked.checkpoint_cells:
                named["with both"] = other._replace(precision="bf16")
        options = [Option(name, one, self.predict(one), self.fits(one)) for name, one in named.items()]
        plain, checkpointed = sorted((asked, other), key=lambda one: one.checkpoint_cells)
        for name, candidates in (("largest batch", self._batches), ("largest crop", self._crops)):
            options += [self._largest(name, one, candidates(one), self.predict_peak) for one in (plain, checkpointed)]
        if not any(option.fits for option in options):
            smallest = checkpointed._replace(batch_size=SMALLEST_BATCH)
            options.append(self._largest("smallest batch", smallest, self._crops(smallest), self.predict))
        return options

    def may_try(self, setting: Setting) -> bool:
        """Whether a smaller setting than the asked one will fit, judged without predicting it."""
        asked = self.predict(self.asked)
        share = setting.pixels / self.asked.pixels
        peak = asked.fixed_bytes + round((asked.peak_bytes - asked.fixed_bytes) * share)
        return replace(asked, peak_bytes=peak).needed_bytes(self.device) <= self.memory_bytes

    def least(self) -> Setting:
        """The setting that needs least."""
        return self.asked._replace(
            crop=(SMALLEST_CROP, SMALLEST_CROP), batch_size=SMALLEST_BATCH, checkpoint_cells=True
        )

    def _has_bf16(self) -> bool:
        """On a CPU bf16 saves no time without special instructions, so there it is not proposed."""
        return self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)

    def _largest(self, name: str, start: Setting, candidates: Sequence[Setting], predict: Predict) -> Option:
        def room(memory: Memory) -> int:
            return self.memory_bytes - memory.needed_bytes(self.device)

        found = largest_that_fits(candidates, start, predict, room)
        if found is None:
            return Option(name, candidates[0], None, False)
        return Option(name, found, predict(found), True)

    def _batches(self, start: Setting) -> list[Setting]:
        most = max(SMALLEST_BATCH, self.limits.batch_size)
        return [start._replace(batch_size=count) for count in range(SMALLEST_BATCH, most + 1)]

    def _crops(self, start: Setting) -> list[Setting]:
        """Crops of a multiple of 32 plus 1, as the paper's 321, and 32 itself; the width in the asked proportion."""
        height, width = start.crop
        crops = [(SMALLEST_CROP, SMALLEST_CROP)]
        for step in range(1, self.limits.crop[0] // 32 + 1):
            crop = (32 * step + 1, 32 * max(1, round(step * width / height)) + 1)
            if crop[0] <= self.limits.crop[0] and crop[1] <= self.limits.crop[1]:
                crops.append(crop)
        return [start._replace(crop=crop) for crop in crops]


def largest_that_fits(
    candidates: Sequence[Setting], start: Setting, predict: Predict, room_of: Callable[[Memory], int]
) -> Setting | None:
    """The last of `candidates`, which grow, that fits; None where not even the first does.

    Memory is fixed_bytes and a part that is nearly proportional to the pixels of a batch, so that each prediction,
    `start`'s first, tells which candidate is the last to fit; that one is predicted in turn, until it is told again.
    `room_of`: bytes that a setting's memory leaves free; negative where it does not fit.
    """
    fits_to, fails_from = -1, len(candidates)
    setting = start
    while fails_from - fits_to > 1:
        memory = predict(setting)
        room = room_of(memory)
        if room >= 0:
            reached = [at for at, one in enumerate(candidates) if one.pixels <= setting.pixels]
            fits_to = max(fits_to, *reached[-1:], -1)
        else:
            reached = [at for at, one in enumerate(candidates) if one.pixels >= setting.pixels]
            fails_from = min(fails_from, *reached[:1], len(candidates))
        growth = 1 + room / MARGIN / max(1, memory.peak_bytes - memory.fixed_bytes)
        told = sum(one.pixels <= setting.pixels * growth for one in candidates) - 1
        if told == fits_to >= 0:
            break
        if fails_from - fits_to > 1:
            setting = candidates[min(max(told, fits_to + 1), fails_from - 1)]
    return candidates[fits_to] if fits_to >= 0 else None
