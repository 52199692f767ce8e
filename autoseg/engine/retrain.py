"""Training a discrete network from scratch (Auto-DeepLab, section 4.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from autoseg.config.training import RetrainSchedule
from autoseg.data.dataset import SegmentationDataset
from autoseg.data.loading.loader import Batch
from autoseg.data.wording import counted
from autoseg.engine.accumulation import accumulated, accumulation_notes, steps_in_epoch
from autoseg.engine.checkpoint import Kind
from autoseg.engine.config import RetrainConfig
from autoseg.engine.cuda_graphs import CudaGraphs, Inputs, Recordings
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
from autoseg.files import one_line
from autoseg.genotype.schema import Genotype
from autoseg.losses.losses import sample_pixels
from autoseg.network import for_inference
from autoseg.network.base import SegmentationNetwork
from autoseg.ops.devices import preferred_format
from autoseg.ops.layers import DropPath
from autoseg.zoo.build import build_network
from autoseg.zoo.schema import FixedNetwork

Function = TypeVar("Function", bound=Callable[..., object])


class RetrainTask:
    """Trains one network, searched or of the literature, on one data set. The same settings give the same result."""

    kind: Kind = "retrain"

    def __init__(
        self, config: RetrainConfig, train: SegmentationDataset, val: SegmentationDataset, device: torch.device
    ) -> None:
        self.config, self.schedule, self.device = config, config.retrain, device
        self.blueprint = config.architecture
        self.architecture: Mapping[str, Any] = self.blueprint.to_dict()
        self.train_set, self.val_set = train, val
        _check_network(self.blueprint, self.schedule, train.channels)
        said = f"the data has {counted(len(train), 'training image')}"
        check_batch("retrain", self.schedule.batch_size, len(train), said)
        self.loader = make_loader(config, train, list(range(len(train))), "train", device)
        self.steps_per_epoch = steps_in_epoch(len(self.loader), self.schedule, "retrain")

        torch.manual_seed(config.seed)
        has_auxiliary, single = self.schedule.auxiliary_weight > 0, self.schedule.single_output
        network = build_network(self.blueprint, train.num_classes, has_auxiliary, train.channels, single)
        self.network: SegmentationNetwork = network.to(device=device, memory_format=preferred_format(device))  # type: ignore[call-overload]
        forward = self.network.forward_with_auxiliary
        self.forward = compiled(forward, device) if self.schedule.compile else forward
        self.parameters = list(self.network.parameters())
        self.statistics, self.lr_factor = RunningStatistics(self.network), 1.0
        self.scaler = StepGuard(device, self.schedule.precision == "fp16")
        fused = device.type != "cpu" or self.scaler.scales or None  # see `build_optimizer`
        self.optimizer = build_optimizer(self.schedule.optimizer, self.parameters, fused)
        self.loss = make_loss(self.schedule, train, device)
        normalised = any(isinstance(module, nn.BatchNorm2d) for module in self.network.modules())
        self.notes: Sequence[str] = accumulation_notes(self.schedule, "retrain", normalised, self.loss.inexact)
        graphs = self.schedule.cuda_graphs
        recorder = CudaGraphs(device) if graphs and device.type == "cuda" else None
        self.recordings = Recordings(recorder, self.network.buffers, graphs == "auto", self.schedule.precision)
        self.average = MovingAverage(self.network, self.schedule.ema_decay) if self.schedule.ema_decay else None

    @property
    def trained(self) -> SegmentationNetwork:
        """The network to evaluate: the moving average if there is one."""
        return self.network if self.average is None else cast(SegmentationNetwork, self.average.module)

    def step(self, batches: Sequence[Batch], epoch: int, step: int) -> Figures:
        """One step of the weights on `accumulate` batches of images (N, C, H, W) and masks (N, H, W)."""
        schedule = self.schedule
        lr = set_learning_rate(self.optimizer, schedule, step, self.steps_per_epoch, self.lr_factor)
        torch.manual_seed(seed_of(self.config.seed, step))  # for dropout and drop path
        self.network.train()
        self.network.set_drop_path(schedule.drop_path, step / (schedule.epochs * self.steps_per_epoch))

        # `_forward_backward` is the forward pass, the loss and the backward pass
        prepared = [self._prepared(*batch) for batch in batches]
        statistics = self.statistics.copy()
        loss = accumulated(self.parameters, self.loss, prepared, self._gradients)
        lost = self.scaler.check(self.optimizer, loss, schedule.clip_grad_norm)
        self.scaler.step(self.optimizer)  # the optimizer's step; none if the loss or a gradient is not finite
        self.scaler.update()
        self.statistics.restore(statistics, lost)
        if self.average is not None:
            self.average.update(self.network)
        return {"train": {"loss": loss, "lr": lr, "skipped": lost, **loss_scale(self.scaler, loss)}}

    def _prepared(self, images: Tensor, masks: Tensor) -> Inputs:
        """Images, masks with only the sampled pixels, and complete masks, on the device."""
        images, masks = (part.to(self.device, non_blocking=True) for part in (images, masks))
        drawn = sample_pixels(masks, self.schedule.loss_sampling, self.train_set.ignore_label)
        return images.contiguous(memory_format=preferred_format(self.device)), drawn, masks

    def _gradients(self, inputs: Inputs) -> Tensor:
        return self.recordings("weights", inputs, self.parameters, lambda given, _: self._forward_backward(given))

    def _forward_backward(self, inputs: Inputs) -> Tensor:
        """Forward pass, loss and backward pass. inputs: from `_prepared`, and from `accumulated` the share, if any."""
        images, masks, whole, *share = inputs
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device, self.schedule.precision):
            logits, auxiliary = self.forward(images)
        loss = self.loss(logits, masks, whole, *share)
        if auxiliary is not None:
            loss = loss + self.schedule.auxiliary_weight * self.loss(auxiliary, masks, whole, *share)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def batches(self, epoch: int, start_step: int) -> Iterator[Sequence[Batch]]:
        """The batches of each step of an epoch."""
        return batches_of_steps(self.loader, epoch, start_step, self.steps_per_epoch, self.schedule.accumulate)

    def validate(self, run: Run, epoch: int) -> Figures:
        """Scores on the validation set."""
        network = for_inference(self.trained, self.device)
        return {"val": validation_figures(network, self.val_set, self.config, self.device)}

    def begin(self, run: Run) -> None:
        """Write genotype.yaml if a genotype is trained."""
        if isinstance(self.blueprint, Genotype):
            self.blueprint.save(run.path / "genotype.yaml")

    def end_epoch(self, run: Run, epoch: int) -> Figures:
        """Nothing: a retraining writes only checkpoints."""
        return {}

    def write_record(self) -> None:
        """Nothing: a retraining records no gradients."""

    def rewind(self, run: Run, done: int) -> None:
        """Nothing, as `write_record`."""

    def state(self) -> dict[str, Any]:
        """Weights, their moving average, the optimizer's state, and the loss scale of fp16."""
        return {
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **({"scaler": self.scaler.state_dict()} if self.scaler.scales else {}),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self.network.load_state_dict(state["network"])
        load_optimizer(self.optimizer, state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self.scaler.scales:
            self.scaler.load_state_dict(state["scaler"])


def _check_network(network: Genotype | FixedNetwork, schedule: RetrainSchedule, channels: int) -> None:
    """Raises: ConfigError: drop path without branches, or another number of image channels than the data has."""
    if schedule.drop_path and not _has_branches(network):
        raise ConfigError(
            f"{network.name} has no branches to drop; set retrain.drop_path to 0", code="drop-path-without-branches"
        )
    if isinstance(network, FixedNetwork) and network.in_channels != channels:
        raise ConfigError(
            f"{network.name} takes images of {network.in_channels} channel{'s' * (network.in_channels > 1)}, but the"
            f" data has {channels}; set network.in_channels to {channels}",
            code="channels-differ",
        )


def _has_branches(network: Genotype | FixedNetwork) -> bool:
    """Whether drop path has something to drop: operations of a cell, or the branch of a residual block."""
    if isinstance(network, FixedNetwork):
        return False
    with torch.device("meta"):
        parts = build_network(network, 2).modules()
        return any(isinstance(part, DropPath) for part in parts)


class MovingAverage(nn.Module):
    """Exponential moving average of weights and BatchNorm statistics.

    After n updates the decay is min(decay, (1 + n) / (10 + n)), so that the first weights do not dominate a short
    training. The state has the keys of `torch.optim.swa_utils.AveragedModel`. That class reads the number of updates
    from the device for every tensor; here the number stays on the CPU, and no update waits for the device.
    """

    n_averaged: Tensor

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.module = deepcopy(network)
        self.decay = decay
        self.register_buffer("n_averaged", torch.tensor(0, dtype=torch.int64))

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Include the current weights and statistics. The first ones become the average."""
        count = int(self.n_averaged)
        share = 1.0 if count == 0 else 1 - min(self.decay, (1 + count) / (10 + count))
        olds, news = ([*module.parameters(), *module.buffers()] for module in (self.module, network))
        pairs = [(old.detach(), new.detach()) for old, new in zip(olds, news, strict=True)]
        averaged = [pair for pair in pairs if count and pair[0].is_floating_point()]
        if averaged:
            torch._foreach_lerp_([old for old, _ in averaged], [new for _, new in averaged], share)
        for old, new in pairs:
            if not count or not old.is_floating_point():  # BatchNorm's number of batches is an integer
                old.copy_(new)
        self.n_averaged += 1


def compiled(function: Function, device: torch.device) -> Function:
    """Return `function`, to be compiled at its first call. Raises: ConfigError: not even a small program compiles."""
    import torch._inductor.config as settings  # slow to import

    try:
        with settings.patch(fx_graph_cache=False):  # a cached program would prove nothing
            torch.compile(lambda numbers: numbers + 1)(torch.ones(2, device=device))
    except Exception as reason:  # whatever the compilers raise
        said = one_line(str(reason).split("\n\n")[0])
        raise ConfigError(
            f"torch.compile does not work here ({said}); install a C++ compiler such as g++, or leave compile off",
            code="compiling-fails",
        ) from reason
    return cast(Function, torch.compile(function))
