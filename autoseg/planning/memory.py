"""What a search will need, before it is started: memory predicted without computing, and what fits.

Memory is that of one iteration in the midst of a search: a weight step and an architecture step, with gradients and
the optimisers' state there. The real search is run on tensors without data, so every path that it takes on the device
counts. Not in it: the data set where it is kept on the device, the process itself, a GPU's context. Where operations
are sampled (GDAS) it is that of one sample, and others may need more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from autoseg.analysis.memory_tracker import LiveStorages, SavedStorages, tensor_bytes
from autoseg.config.base import LEAST_INPUT_SIDE
from autoseg.config.training import SearchSchedule
from autoseg.data.dataset import open_dataset
from autoseg.engine.config import SearchConfig
from autoseg.engine.mixed_precision import autocast
from autoseg.engine.search import SearchTask
from autoseg.errors import ConfigError
from autoseg.ops.resize import Size
from autoseg.planning.predicted_memory import (
    CPU,
    CUDA_WORKSPACE_BYTES,
    MARGIN,
    Batch,
    Memory,
    Peak,
    Step,
    bytes_beside,
    followed,
    make_state,
    own_random_state,
    random_batch,
    recorded_bytes,
    stand_in_data,
    uses_graphs,
)
from autoseg.supernet import Supernet, choose_kernels
from autoseg.supernet.fast.cell import Feature
from autoseg.supernet.reference import cell_name

SMALLEST_BATCH, LARGEST_BATCH = 2, 65536
LARGEST_CROP = 16384
LARGEST_PROPOSED_BATCH, LARGEST_PROPOSED_CROP = 1024, 2049
"""Where the number and size of the images are not known."""
STEPS: tuple[Step, ...] = ("weight", "architecture")


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


def stand_in_task(config: SearchConfig, device: torch.device) -> SearchTask:
    """The search of `config` on a data set that only has the right number of classes and enough images."""
    schedule, share = config.search, config.search.train_a_fraction
    data = stand_in_data(config.data, int(2 * schedule.batch_size / min(share, 1 - share)) + 2)
    weights = "none" if schedule.class_weights == "none" else (1.0,) * data.num_classes
    schedule = schedule.model_copy(update={"class_weights": weights, "workers": 0, "accumulate": 1})
    config = config.model_copy(update={"data": data, "search": schedule})
    return SearchTask(config, open_dataset(data, "train"), open_dataset(data, "val"), device)


def predict_memory(config: SearchConfig, device: torch.device, steps: Sequence[Step] = STEPS) -> Memory:
    """The memory of one iteration of the search of `config`, or of some steps of it, without computing it.

    The device need not be there. fp16 counts as bf16, which takes as much.
    """
    schedule, config = config.search, _followable(config)
    with own_random_state(CPU):
        stand_in = stand_in_task(config, CPU)
        stand_in.supernet.use_kernels(choose_kernels(config.search.kernels, device))
    with followed(stand_in, device) as (task, live):
        del stand_in
        own = [*task.supernet.parameters(), *task.supernet.buffers()]
        live.add(own)
        optimizers = (task.optimizer, task.arch_optimizer)
        for optimizer in optimizers:
            make_state(optimizer, device)
        batches = {step: random_batch(task) for step in STEPS}
        if uses_graphs(schedule, device):
            follow_streams(task.supernet, live)
        start, saved, peaks = live.live_bytes, {step: SavedStorages(own) for step in steps}, {}
        for step in steps:
            live.restart()
            with saved[step]:
                take_step(task, step, [batches[step]])
            peaks[step] = Peak.since(start, live)
        batch = batches["weight"]
        graphs = _graph_bytes(task, peaks, batch, live) if uses_graphs(schedule, device) else 0
        sums = _sum_bytes(task, batch, schedule.accumulate)
        workspace = CUDA_WORKSPACE_BYTES if device.type == "cuda" else 0
        states = [value for one in optimizers for state in one.state.values() for value in state.values()]
        return Memory(
            peak_bytes=start + max(peaks.values()).at_once + sum(sums) + workspace + graphs,
            peak_step=max(peaks, key=peaks.__getitem__),
            parameter_bytes=tensor_bytes(own),
            gradient_bytes=tensor_bytes(task.supernet.parameters()) + sums[0],
            optimizer_bytes=tensor_bytes(value for value in states if isinstance(value, Tensor)),
            saved_bytes=max(one.total_bytes for one in saved.values()),
            recomputed_bytes=_largest_cell(task, batch[0], own) if schedule.checkpoint_cells and steps == STEPS else 0,
            graph_bytes=graphs,
        )


def take_step(task: SearchTask, step: Step, batches: Sequence[Batch]) -> None:
    """One weight step or one architecture step on batches that are accumulated: half of `SearchTask.step`."""
    if step == "weight":
        task.gradients.freeze("architecture")
        task.gradients("weights", *batches)
        optimizer, scaler, clip = task.optimizer, task.scalers["weights"], task.schedule.clip_grad_norm
    else:
        task.gradients.freeze("weights")
        task.gradients("architecture", *batches)
        optimizer, scaler, clip = task.arch_optimizer, task.scalers["architecture"], None
    scaler.unscale_(optimizer)
    if clip is not None:
        nn.utils.clip_grad_norm_(task.gradients.parameters["weights"], clip)
    scaler.step(optimizer)
    scaler.update()


def _followable(config: SearchConfig) -> SearchConfig:
    """`config` with nothing that needs a GPU; what is left takes as much memory, or a little more."""
    schedule = config.search
    changes: dict[str, object] = {"precision": "bf16" if schedule.precision == "fp16" else schedule.precision}
    if schedule.kernels.depthwise == "triton":
        changes["kernels"] = schedule.kernels.model_copy(update={"depthwise": "convolution"})
    return config.model_copy(update={"search": schedule.model_copy(update=changes)})


def _sum_bytes(task: SearchTask, batch: Batch, accumulate: int) -> tuple[int, int]:
    """The sum of the weights' gradients over the batches of a step, and its batches besides the first."""
    if accumulate == 1:
        return 0, 0
    return tensor_bytes(task.supernet.weights()), (accumulate - 1) * tensor_bytes(batch)


def _graph_bytes(task: SearchTask, peaks: dict[Step, Peak], batch: Batch, live: LiveStorages) -> int:
    """See `recorded_bytes`. With operations that are sampled anew for each step (GDAS) nothing is recorded."""
    if task.space.relaxation.gdas is not None:
        return 0

    @torch.no_grad()
    def validate() -> None:
        task.supernet.eval()
        task.supernet(batch[0])
        task.supernet.train()

    beside = bytes_beside((task.optimizer.step, task.arch_optimizer.step, validate), live)
    streams = len(task.space.network.strides) + 1
    return recorded_bytes(peaks, tensor_bytes(batch), beside, streams, task.schedule.arch_start_epoch > 0)


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
        """As `predict`, in half the time: of the step alone that has the peak at the asked crop and batch.

        Of both where CUDA graphs need the memory of both (`recorded_bytes`).
        """
        known = setting._replace(crop=self.asked.crop, batch_size=self.asked.batch_size)
        if setting == known:
            return self.predict(setting)
        later = uses_graphs(self.config.search, self.device) and self.config.search.arch_start_epoch > 0
        steps = STEPS if later else (self.predict(known).peak_step,)
        return predict_memory(setting.apply(self.config), self.device, steps)

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
            crop=(LEAST_INPUT_SIDE, LEAST_INPUT_SIDE), batch_size=SMALLEST_BATCH, checkpoint_cells=True
        )

    def _has_bf16(self) -> bool:
        """On a CPU bf16 saves no time without special instructions, so there it is not proposed.

        A GPU that is not there is taken for one that has it, as all since 2020 (Ampere).
        """
        if self.device.type != "cuda":
            return False
        return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)

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
        crops = [(LEAST_INPUT_SIDE, LEAST_INPUT_SIDE)]
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
