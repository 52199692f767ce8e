"""Training a discrete network from scratch (Auto-DeepLab, section 4.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from autoseg.config import RetrainConfig, RetrainSchedule
from autoseg.data.dataset import SegmentationDataset
from autoseg.engine.checkpoint import Kind
from autoseg.engine.compiling import compiled
from autoseg.engine.loop import Figures, autocast, seed_step
from autoseg.engine.optim import build_optimizer, learning_rate, set_learning_rate
from autoseg.engine.run import Run
from autoseg.engine.training import make_loader, make_loss, validation_figures
from autoseg.errors import ConfigError, DataError
from autoseg.genotype.schema import Genotype
from autoseg.network import for_inference
from autoseg.network.base import SegmentationNetwork
from autoseg.objectives.losses import sample_pixels
from autoseg.zoo.architecture import parse_architecture
from autoseg.zoo.build import build_architecture
from autoseg.zoo.schema import FixedNetwork
from autoseg.zoo.weights import load_backbone, read_weights


class RetrainTask:
    """Trains one network, searched or of the literature, on one data set. The same settings give the same result."""

    kind: Kind = "retrain"

    def __init__(
        self, config: RetrainConfig, train: SegmentationDataset, val: SegmentationDataset, device: torch.device
    ) -> None:
        self.config, self.schedule, self.device = config, config.retrain, device
        self.blueprint = parse_architecture(config.architecture)
        self.architecture: Mapping[str, Any] = self.blueprint.to_dict()
        self.train_set, self.val_set = train, val
        if isinstance(self.blueprint, FixedNetwork):
            _check_network(self.blueprint, self.schedule, train.channels)
        if len(train) < self.schedule.batch_size:
            raise DataError(
                f"there are {len(train)} training images, but retrain.batch_size is {self.schedule.batch_size};"
                " lower retrain.batch_size or add images"
            )
        indices = list(range(len(train)))
        self.loader = make_loader(self.schedule, config.data, config.seed, train, indices, "train", device)
        self.steps_per_epoch = min(len(self.loader), self.schedule.max_steps_per_epoch or len(self.loader))

        torch.manual_seed(config.seed)
        network = build_architecture(
            self.blueprint,
            train.num_classes,
            self.schedule.auxiliary_weight > 0,
            train.channels,
            self.schedule.single_output,
        )
        self.network: SegmentationNetwork = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        forward = self.network.forward_with_auxiliary
        self.forward = compiled(forward, device) if self.schedule.compile else forward
        self.optimizer = build_optimizer(self.schedule.optimizer, self.network.parameters())
        self.loss = make_loss(self.schedule, train, device)
        self.average = moving_average(self.network, self.schedule.ema_decay) if self.schedule.ema_decay else None

    def load_weights(self) -> None:
        """Begin from the classifier's weights that the settings name, if any, and print what matched.

        Raises: CheckpointError: they cannot be read or are of another network; the network is then as it was.
        """
        if self.config.weights is None:
            return
        path = Path(self.config.weights).expanduser()
        print(load_backbone(self.network, read_weights(path), path))
        if self.average is not None:
            self.average.module.load_state_dict(self.network.state_dict())

    @property
    def trained(self) -> SegmentationNetwork:
        """The network to measure and use: the moving average where one is kept."""
        return self.network if self.average is None else cast(SegmentationNetwork, self.average.module)

    def step(self, batch: tuple[Tensor, Tensor], epoch: int, step: int) -> Figures:
        """One step of the weights."""
        images, masks = (part.to(self.device, non_blocking=True) for part in batch)
        steps = self.schedule.epochs * self.steps_per_epoch
        lr = learning_rate(self.schedule.optimizer.lr, self.schedule.schedule, step, steps, self.steps_per_epoch)
        set_learning_rate(self.optimizer, lr)
        seed_step(self.config.seed, step)
        drawn = sample_pixels(masks, self.schedule.loss_sampling, self.train_set.ignore_label)
        self.network.train()
        self.network.set_drop_path(self.schedule.drop_path, step / steps)

        with autocast(self.device, self.schedule.precision):
            logits, auxiliary = self.forward(images.contiguous(memory_format=torch.channels_last))
        loss = self.loss(logits, drawn, masks)
        if auxiliary is not None:
            loss = loss + self.schedule.auxiliary_weight * self.loss(auxiliary, drawn, masks)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.schedule.clip_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.schedule.clip_grad_norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.network)
        return {"train": {"loss": loss.detach(), "lr": lr}}

    def batches(self, epoch: int, start_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch."""
        return self.loader.epoch(epoch, start_step, self.steps_per_epoch)

    def validate(self, run: Run, epoch: int) -> Figures:
        """Scores on the validation set."""
        network = for_inference(self.trained, self.device)
        return {"val": validation_figures(network, self.val_set, self.config.data, self.schedule, self.device)}

    def begin(self, run: Run) -> None:
        """Write genotype.yaml, where a genotype is trained."""
        if isinstance(self.blueprint, Genotype):
            self.blueprint.save(run.path / "genotype.yaml")

    def end_epoch(self, run: Run, epoch: int) -> None:
        """Nothing besides checkpoints."""

    def state(self) -> dict[str, Any]:
        """Weights, their moving average, and the optimiser."""
        return {
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go back to a state."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def _check_network(network: FixedNetwork, schedule: RetrainSchedule, channels: int) -> None:
    """Raises: ConfigError: settings that are of searched networks, or other images than the data has."""
    if schedule.drop_path:
        raise ConfigError(f"{network.name} has no branches to drop; set retrain.drop_path to 0")
    if network.in_channels != channels:
        raise ConfigError(
            f"{network.name} takes images of {network.in_channels} channel{'s' * (network.in_channels > 1)}, but the"
            f" data has {channels}; set network.in_channels to {channels}"
        )


def moving_average(network: SegmentationNetwork, decay: float) -> AveragedModel:
    """Exponential moving average of weights and BatchNorm statistics.

    The decay grows to its value, as min(decay, (1 + n) / (10 + n)) after n updates, so that a short training is not
    held back by its first weights.
    """

    def average(old: Tensor, new: Tensor, updates: Tensor | int) -> Tensor:
        if not old.is_floating_point():  # BatchNorm counts its batches in whole numbers
            return new
        count = int(updates)
        return old.lerp(new.to(old.dtype), 1 - min(decay, (1 + count) / (10 + count)))

    return AveragedModel(network, avg_fn=average, use_buffers=True)
