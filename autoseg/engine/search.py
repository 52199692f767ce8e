"""Searching: weights on trainA and architecture on trainB in turn (Auto-DeepLab, section 4.1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from autoseg.config.training import SearchConfig
from autoseg.data.dataset import SegmentationDataset
from autoseg.data.loading.loader import BatchLoader
from autoseg.data.loading.splits import halve
from autoseg.engine.accumulation import accumulation_notes, steps_in_epoch
from autoseg.engine.architect import Architect
from autoseg.engine.checkpoint import Kind
from autoseg.engine.optim import build_optimizer, learning_rate, set_learning_rate
from autoseg.engine.run_directory import Run
from autoseg.engine.steps import HALVES, Gradients, loss_scale, make_recorder, make_scaler, take_step
from autoseg.engine.trainer import Figures, seed_of
from autoseg.engine.training import batches_of_steps, make_loader, make_loss, validation_figures
from autoseg.errors import DataError
from autoseg.files import to_yaml, write_text
from autoseg.space.schema import SearchSpace
from autoseg.supernet import build_supernet
from autoseg.supernet.fast.kernels import choose_kernels

Batch = tuple[Tensor, Tensor]


class SearchTask:
    """The bilevel search of one space on one data set. The same settings give the same result."""

    kind: Kind = "search"

    def __init__(
        self, config: SearchConfig, train: SegmentationDataset, val: SegmentationDataset, device: torch.device
    ) -> None:
        self.config, self.schedule, self.device = config, config.search, device
        self.space = SearchSpace.parse(config.space)
        self.architecture: Mapping[str, Any] = self.space.to_dict()
        self.train_set, self.val_set = train, val
        self.indices_a, self.indices_b = halve(len(train), self.schedule.train_a_fraction, config.seed)
        for name, indices in (("trainA", self.indices_a), ("trainB", self.indices_b)):
            if len(indices) < self.schedule.batch_size:
                raise DataError(
                    f"{name} has {len(indices)} of the {len(train)} training images, but search.batch_size is"
                    f" {self.schedule.batch_size}; lower search.batch_size or add images",
                    code="batch-too-large",
                )
        self.loader_a = self._loader(self.indices_a.tolist(), "train_a")
        self.loader_b = self._loader(self.indices_b.tolist(), "train_b")
        self.steps_per_epoch = steps_in_epoch(
            len(self.loader_a), self.schedule.accumulate, self.schedule.max_steps_per_epoch, "search"
        )

        torch.manual_seed(config.seed)
        self.supernet = build_supernet(
            self.space,
            train.num_classes,
            self.schedule.arch_init_std,
            train.channels,
            self.schedule.single_output,
        ).to(device)
        self.supernet.checkpoint_cells = self.schedule.checkpoint_cells
        self.supernet.use_kernels(choose_kernels(self.schedule.kernels, device, self.space))
        self.scalers = {half: make_scaler(self.schedule.precision, device) for half in HALVES}
        fused = self.schedule.precision == "fp16" or None
        self.optimizer = build_optimizer(self.schedule.optimizer, self.supernet.weights(), fused)
        self.loss = make_loss(self.schedule, train, device)
        self.gradients = Gradients(
            self.supernet,
            self.schedule.precision,
            self.loss,
            make_recorder(self.supernet, self.schedule, device),
            self.schedule.upsampler_cost,
            compare=self.schedule.cuda_graphs == "auto",
            scalers=self.scalers,
        )
        self.architect = Architect(self.gradients, self.schedule)
        self.notes: Sequence[str] = accumulation_notes(
            self.schedule, "search", batch_norm=True, inexact=self.loss.inexact
        )

    def _loader(self, indices: list[int], stream: str) -> BatchLoader:
        config = self.config
        return make_loader(self.schedule, config.data, config.seed, self.train_set, indices, stream, self.device)

    # --- one iteration --------------------------------------------------------------------------------------------

    def step(self, batches: tuple[Sequence[Batch], Sequence[Batch] | None], epoch: int, step: int) -> Figures:
        """Batches from trainA: weight step. Batches from trainB, once the architecture has started: its step."""
        batches_a, batches_b = batches
        steps = self.schedule.epochs * self.steps_per_epoch
        lr = learning_rate(self.schedule.optimizer.lr, self.schedule.schedule, step, steps, self.steps_per_epoch)
        if not self.supernet.training:  # telling every module so takes milliseconds
            self.supernet.train()

        self._sample(2 * step)
        loss = self.weight_step(self._to_device(batches_a), lr)
        figures: dict[str, Mapping[str, float | Tensor]] = {
            "train": {"loss": loss, "lr": lr, **loss_scale(self.scalers["weights"], loss)}
        }
        if batches_b is not None:
            self._sample(2 * step + 1)
            loss = self.architect.step(self._to_device(batches_b))
            figures["arch"] = {"loss": loss, **loss_scale(self.scalers["architecture"], loss)}
        return figures

    def _sample(self, number: int) -> None:
        """Sample the operations of the pass with this number, where the space asks for it (GDAS)."""
        if self.space.relaxation.gdas is not None:
            first, last = self.space.relaxation.gdas
            share = number / (2 * self.schedule.epochs * self.steps_per_epoch - 1)
            self.supernet.arch.draw(seed_of(self.config.seed, number), first + (last - first) * share)

    def weight_step(self, batches: Sequence[Batch], lr: float) -> Tensor:
        """One step of the weights, the architecture held fixed; returns the loss before it."""
        set_learning_rate(self.optimizer, lr)
        loss = self.gradients("weights", *batches)
        parameters = self.gradients.parameters["weights"]
        take_step(self.optimizer, parameters, self.schedule.clip_grad_norm, self.scalers["weights"])
        return loss

    def batches(self, epoch: int, start_step: int) -> Iterator[tuple[Sequence[Batch], Sequence[Batch] | None]]:
        """Batches of each step from trainA and trainB; before the architecture starts, None instead of the latter."""
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
        """Scores of the supernet on the validation set, and how decided the architecture is."""
        figures = validation_figures(self.supernet, self.val_set, self.config.data, self.schedule, self.device)
        entropy = self.supernet.arch.snapshot().entropy()
        return {"val": {**figures, **{f"{name}_entropy": value for name, value in entropy.items()}}}

    def end_epoch(self, run: Run, epoch: int) -> None:
        """Write the architecture of this epoch."""
        folder = run.path / "arch"
        folder.mkdir(exist_ok=True)
        self.supernet.arch.snapshot().save(folder / f"epoch_{epoch:04d}.npz")

    def begin(self, run: Run) -> None:
        """Write split.yaml: the names of the images in trainA and trainB."""
        names = self.train_set.names
        halves = {
            "train_a": [names[index] for index in self.indices_a],
            "train_b": [names[index] for index in self.indices_b],
        }
        write_text(run.path / "split.yaml", to_yaml(halves))

    def state(self) -> dict[str, Any]:
        """Weights, logits, both optimizers, and the loss scales of fp16."""
        scalers = {half: scaler.state_dict() for half, scaler in self.scalers.items() if scaler is not None}
        return {
            "supernet": self.supernet.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "architect": self.architect.state(),
            **({"scalers": scalers} if scalers else {}),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a state."""
        self.supernet.load_state_dict(state["supernet"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.architect.load_state(state["architect"])
        for half, scaler in self.scalers.items():
            if scaler is not None:
                scaler.load_state_dict(state["scalers"][half])
