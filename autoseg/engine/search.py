"""The search: steps of the weights on trainA and of the architecture on trainB in turn (Auto-DeepLab, section 4.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoseg.config.training import SearchSchedule
from autoseg.data.dataset import SegmentationDataset
from autoseg.data.loading.loader import Batch
from autoseg.data.loading.splits import halve
from autoseg.data.wording import counted
from autoseg.engine.accumulation import accumulated, accumulation_notes, steps_in_epoch
from autoseg.engine.checkpoint import Kind
from autoseg.engine.config import SearchConfig
from autoseg.engine.cuda_graphs import CudaGraphs, Inputs, Recordings
from autoseg.engine.gradient_record import GradientRecord
from autoseg.engine.optim import (
    RunningStatistics,
    StepGuard,
    autocast,
    build_optimizer,
    load_optimizer,
    loss_scale,
    set_learning_rate,
)
from autoseg.engine.run_directory import Run
from autoseg.engine.trainer import Figures
from autoseg.engine.training import batches_of_steps, check_batch, make_loader, make_loss, seed_of, validation_figures
from autoseg.errors import ConfigError
from autoseg.files import make_folder, to_yaml, write_text
from autoseg.losses.losses import SegmentationLoss
from autoseg.supernet import Supernet, build_supernet, choose_kernels
from autoseg.supernet.build import reference_notes
from autoseg.supernet.upsampling import relative_costs

Half = Literal["weights", "architecture"]
HALVES: tuple[Half, Half] = ("weights", "architecture")
"""The two groups of parameters, each trained by one level of the search."""


class SearchTask:
    """The bilevel search of one space on one data set. The same settings give the same result."""

    kind: Kind = "search"

    def __init__(
        self, config: SearchConfig, train: SegmentationDataset, val: SegmentationDataset, device: torch.device
    ) -> None:
        self.config, self.schedule, self.device = config, config.search, device
        self.space = config.space
        self.architecture: Mapping[str, Any] = self.space.to_dict()
        self.train_set, self.val_set = train, val
        groups = train.groups()
        self.indices_a, self.indices_b = halve(len(train), self.schedule.train_a_fraction, config.seed, groups)
        for name, indices in (("trainA", self.indices_a), ("trainB", self.indices_b)):
            said = f"{name} has {len(indices)} of the {len(train)} training images"
            check_batch("search", self.schedule.batch_size, len(indices), said)
        self.loader_a = make_loader(config, train, self.indices_a.tolist(), "train_a", device)
        self.loader_b = make_loader(config, train, self.indices_b.tolist(), "train_b", device)
        self.steps_per_epoch = steps_in_epoch(len(self.loader_a), self.schedule, "search")

        torch.manual_seed(config.seed)
        self.supernet = build_supernet(
            self.space, train.num_classes, self.schedule.arch_init_std, train.channels, self.schedule.single_output
        ).to(device)
        self.supernet.checkpoint_cells = self.schedule.checkpoint_cells
        self.supernet.use_kernels(choose_kernels(self.schedule.kernels, device, self.space))
        self.loss = make_loss(self.schedule, train, device)
        recorder, compare = make_recorder(self.supernet, self.schedule, device), self.schedule.cuda_graphs == "auto"
        self.gradients = Gradients(
            self.supernet, self.schedule.precision, self.loss, recorder, self.schedule.upsampler_cost, compare
        )
        self.scalers = self.gradients.scalers
        self.statistics, self.lr_factor = RunningStatistics(self.supernet), 1.0
        fused = device.type != "cpu" or self.schedule.precision == "fp16" or None  # see `build_optimizer`
        parameters = self.gradients.parameters
        self.optimizer = build_optimizer(self.schedule.optimizer, parameters["weights"], fused)
        self.arch_optimizer = build_optimizer(self.schedule.arch_optimizer, parameters["architecture"], fused)
        self.gradient_record = GradientRecord(config, self.supernet.arch, self.steps_per_epoch)
        self.notes: Sequence[str] = [
            *_halves_said(groups, self.indices_a, self.indices_b),
            *reference_notes(self.space),
            *accumulation_notes(self.schedule, "search", batch_norm=True, inexact=self.loss.inexact),
        ]

    # --- one iteration --------------------------------------------------------------------------------------------

    def step(self, batches: tuple[Sequence[Batch], Sequence[Batch] | None], epoch: int, step: int) -> Figures:
        """One iteration: the weights on trainA, then the architecture on trainB (Auto-DeepLab, section 4.1).

        The architecture step is first-order: it takes the weights as they are (DARTS, section 2.3, with xi = 0).
        batches: `accumulate` batches of trainA and as many of trainB; None for trainB until the architecture starts.
        """
        batches_a, batches_b = batches
        schedule, gradients, scalers = self.schedule, self.gradients, self.scalers
        lr = set_learning_rate(self.optimizer, schedule, step, self.steps_per_epoch, self.lr_factor)
        if not self.supernet.training:  # `train` visits every module, which takes milliseconds
            self.supernet.train()

        # the weights, on trainA; `Gradients.forward_backward` is the forward pass, the loss and the backward pass
        gradients.freeze("architecture")
        self._sample_operations(2 * step)
        statistics = self.statistics.copy()
        loss = gradients("weights", *self._to_device(batches_a))
        lost = scalers["weights"].check(self.optimizer, loss, schedule.clip_grad_norm)
        scalers["weights"].step(self.optimizer)  # the optimizer's step; none if the loss or a gradient is not finite
        scalers["weights"].update()
        self.statistics.restore(statistics, lost)
        figures: Figures = {"train": {"loss": loss, "lr": lr, "skipped": lost, **loss_scale(scalers["weights"], loss)}}
        if batches_b is None:
            return figures

        # the architecture, on trainB
        gradients.freeze("weights")
        self._sample_operations(2 * step + 1)
        arch_lr = schedule.arch_optimizer.lr * self.lr_factor
        for group in self.arch_optimizer.param_groups:
            group["lr"] = arch_lr
        statistics = self.statistics.copy()
        loss = gradients("architecture", *self._to_device(batches_b))
        lost = scalers["architecture"].check(self.arch_optimizer, loss)
        self.gradient_record.add(arch_lr, lost)  # for the evidence, docs/evidence.md
        scalers["architecture"].step(self.arch_optimizer)
        scalers["architecture"].update()
        self.statistics.restore(statistics, lost)
        return {**figures, "arch": {"loss": loss, "skipped": lost, **loss_scale(scalers["architecture"], loss)}}

    def _sample_operations(self, number: int) -> None:
        """Sample the operations of one forward pass, if the space does so (GDAS). number: of the pass in the run."""
        if self.space.relaxation.gdas is not None:
            first, last = self.space.relaxation.gdas
            share = number / (2 * self.schedule.epochs * self.steps_per_epoch - 1)
            self.supernet.arch.draw(seed_of(self.config.seed, number), first + (last - first) * share)

    def batches(self, epoch: int, start_step: int) -> Iterator[tuple[Sequence[Batch], Sequence[Batch] | None]]:
        """The batches of each step from trainA and trainB; None for trainB until the architecture starts."""
        place = epoch, start_step, self.steps_per_epoch, self.schedule.accumulate
        from_a = batches_of_steps(self.loader_a, *place)
        if epoch < self.schedule.arch_start_epoch:
            return ((batches, None) for batches in from_a)
        return zip(from_a, batches_of_steps(self.loader_b, *place), strict=True)

    def _to_device(self, batches: Sequence[Batch]) -> list[Batch]:
        return [
            (images.to(self.device, non_blocking=True), masks.to(self.device, non_blocking=True))
            for images, masks in batches
        ]

    # --- around it ------------------------------------------------------------------------------------------------

    def validate(self, run: Run, epoch: int) -> Figures:
        """Scores of the supernet on the validation set, and the entropy of the architecture's probabilities."""
        figures = validation_figures(self.supernet, self.val_set, self.config, self.device)
        entropy = self.supernet.arch.snapshot().entropy()
        return {"val": {**figures, **{f"{name}_entropy": value for name, value in entropy.items()}}}

    def end_epoch(self, run: Run, epoch: int) -> Figures:
        """Write the architecture's probabilities after this epoch to arch/. Returns the evidence for them, if any."""
        self.supernet.arch.snapshot().save(run.path / "arch" / f"epoch_{epoch:04d}.npz")
        evidence = self.gradient_record.evidence(epoch)
        if evidence is None:
            return {}
        tables = evidence.items()
        return {"evidence": {f"{name}_{key}": value for name, of in tables for key, value in of.figures().items()}}

    def write_record(self) -> None:
        """Append the gradients of the architecture to the run's file, and flush it."""
        self.gradient_record.flush()

    def rewind(self, run: Run, done: int) -> None:
        """Drop the gradients that were recorded after the first `done` steps."""
        self.gradient_record.rewind(run, done)

    def begin(self, run: Run) -> None:
        """Make arch/ and write split.yaml: the names of the images in trainA and trainB."""
        make_folder(run.path / "arch")
        halves = {"train_a": self.indices_a, "train_b": self.indices_b}
        names = {half: [self.train_set.names[index] for index in indices] for half, indices in halves.items()}
        write_text(run.path / "split.yaml", to_yaml(names))

    def state(self) -> dict[str, Any]:
        """Weights, logits, both optimizers, and the loss scales of fp16."""
        scalers = {half: scaler.state_dict() for half, scaler in self.scalers.items() if scaler.scales}
        return {
            "supernet": self.supernet.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "architect": self.arch_optimizer.state_dict(),
            **({"scalers": scalers} if scalers else {}),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self.supernet.load_state_dict(state["supernet"])
        load_optimizer(self.optimizer, state["optimizer"])
        load_optimizer(self.arch_optimizer, state["architect"])
        for half, scaler in self.scalers.items():
            if scaler.scales:
                scaler.load_state_dict(state["scalers"][half])


class Gradients:
    """The loss of batches, and its gradients in `.grad` of a supernet's weights or architecture."""

    def __init__(
        self,
        supernet: Supernet,
        precision: str,
        loss: SegmentationLoss,
        recorder: CudaGraphs | None = None,
        upsampler_cost: float = 0.0,
        compare: bool = False,
    ) -> None:
        """upsampler_cost: as in `SearchSchedule`; a ConfigError in a space without gamma. compare: see `Recordings`."""
        self.supernet, self.precision, self.loss = supernet, precision, loss
        self.gamma_costs = _gamma_costs(supernet, upsampler_cost)
        self.parameters: dict[Half, list[nn.Parameter]] = {
            "weights": supernet.weights(),
            "architecture": list(supernet.arch.parameters()),
        }
        # the gradients of the halves differ by orders of magnitude, so each has its own loss scale
        device = self.parameters["architecture"][0].device
        self.scalers = {half: StepGuard(device, precision == "fp16") for half in HALVES}
        self.recordings = Recordings(recorder, supernet.buffers, compare, precision)

    def freeze(self, half: Half) -> None:
        """Compute no gradients for one half, and gradients for the other."""
        for name, parameters in self.parameters.items():
            for parameter in parameters:
                parameter.requires_grad_(name != half)

    def __call__(self, half: Half, *batches: Batch) -> Tensor:
        """The loss of all batches; `.grad` of `half` alone holds its gradients. Freeze the other half first."""

        def compute(inputs: Inputs, streams: Sequence[torch.cuda.Stream]) -> Tensor:
            return self.forward_backward(half, inputs, 1 / len(batches), streams)

        def gradients(inputs: Inputs) -> Tensor:
            return self.recordings(half, inputs, self.parameters[half], compute, self.supernet.training)

        return accumulated(self.parameters[half], self.loss, batches, gradients)

    def forward_backward(
        self, half: Half, inputs: Inputs, part: float = 1.0, streams: Sequence[torch.cuda.Stream] = ()
    ) -> Tensor:
        """Forward pass, loss and backward pass of one batch; `part`: its share of the step's batches.

        inputs: images (N, C, H, W), masks (N, H, W) and, if the step has several batches, the batch's share of each
        term of the loss. streams: one for each level of the supernet; none: the levels run one after the other.
        """
        images, masks, *share = inputs
        for parameter in self.parameters[half]:
            parameter.grad = None  # not zeros: a recorded step leaves its gradients in tensors of its own
        with self.supernet.kernels.in_use(), self.supernet.on_streams(streams):
            with autocast(images.device, self.precision):
                logits = self.supernet(images)
            loss = self.loss(logits, masks, None, *share)
            gamma_probs = self.supernet.arch.gamma_probs()
            if half == "architecture" and self.gamma_costs is not None and gamma_probs is not None:
                loss = loss + (self.gamma_costs * gamma_probs).sum() * part
            self.scalers[half].scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach()


def _halves_said(groups: Sequence[str] | None, *halves: NDArray[np.int64]) -> list[str]:
    """A line on the groups of each half; none without groups."""
    if groups is None:
        return []
    of = [f"{len({groups[index] for index in half}):,} ({counted(len(half), 'image')})" for half in halves]
    return [f"groups by data.group_by: trainA has {of[0]}, trainB {of[1]}"]


def make_recorder(supernet: Supernet, schedule: SearchSchedule, device: torch.device) -> CudaGraphs | None:
    """The recorder of a search's steps; None if they stay eager."""
    # GDAS samples other operations for each step, so a recorded step could not be repeated
    if device.type != "cuda" or not schedule.cuda_graphs or supernet.space.relaxation.gdas is not None:
        return None
    return CudaGraphs(device, len(supernet.space.network.strides))


def _gamma_costs(supernet: Supernet, weight: float) -> Tensor | None:
    """The factors of gamma's probabilities in the loss, [site, upsampler]; None if `weight` is 0."""
    if not weight:
        return None
    logits, space = supernet.arch.gamma_logits, supernet.space
    if logits is None:
        raise ConfigError(
            f"search.upsampler_cost is {weight:g}, but in space '{space.name}' no upsamplers compete; leave it out, or"
            " name several in resolution.upsamplers or decoder.upsamplers",
            code="no-competing-upsamplers",
        )
    return relative_costs(space, supernet.num_classes).to(logits) * (weight / len(logits))
