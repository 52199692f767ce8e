"""What is measured: supernets with random weights, on one batch of random images."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from autoseg.config.training import SearchSchedule
from autoseg.engine.optim import autocast, build_optimizer
from autoseg.errors import ConfigError
from autoseg.losses.losses import SegmentationLoss
from autoseg.space.schema import SearchSpace
from autoseg.supernet import Supernet, build_supernet

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))

from helpers.oracle_supernet import TextbookSupernet, textbook_of

CLASSES, IGNORE = 19, 255
SCHEDULE = SearchSchedule()

Half = Literal["weights", "architecture", "everything"]
"""What is trained: the weights alone, alpha and beta alone, or nothing is frozen."""


class Workload(NamedTuple):
    """One size of the search; `size` is the images' height and width."""

    layers: int
    filters: int
    blocks: int
    size: int
    batch: int

    def __str__(self) -> str:
        return f"L {self.layers}, F {self.filters}, B {self.blocks}, {self.size}x{self.size}, batch {self.batch}"


WORKLOADS = {
    "W1": Workload(12, 8, 5, 321, 2),
    "W2": Workload(12, 8, 5, 129, 2),
    "W3": Workload(6, 4, 3, 96, 8),
}


def resized(space: SearchSpace, workload: Workload) -> SearchSpace:
    """A space with the layers, blocks and filters of a workload."""
    data = space.to_dict()
    data["network"] |= {"layers": workload.layers, "filter_multiplier": workload.filters}
    data["cell"]["blocks"] = workload.blocks
    return SearchSpace.parse(data)


class Contender:
    """A supernet with its two optimisers and a batch on a device; makes the steps of a search, as the engine does."""

    def __init__(
        self,
        network: nn.Module,
        architecture: list[nn.Parameter],
        batch: tuple[Tensor, Tensor],
        device: torch.device,
        precision: str,
    ) -> None:
        """batch: images (N, 3, H, W) and masks (N, H, W)."""
        self.network, self.architecture = network.to(device).train(), architecture
        self.images, self.masks = (tensor.to(device) for tensor in batch)
        self.device, self.precision = device, precision
        mine = {id(parameter) for parameter in architecture}
        self.weights = [parameter for parameter in network.parameters() if id(parameter) not in mine]
        self.of_weights = build_optimizer(SCHEDULE.optimizer, self.weights)
        self.of_architecture = build_optimizer(SCHEDULE.arch_optimizer, architecture)

    def train(self, half: Half) -> None:
        """From now on gradients reach one half alone, or everything."""
        if isinstance(self.network, Supernet) and half != "everything":
            (self.network.train_weights if half == "weights" else self.network.train_architecture)()
            return
        for parameters, other in ((self.weights, "architecture"), (self.architecture, "weights")):
            for parameter in parameters:
                parameter.requires_grad_(half != other)

    def logits(self) -> Tensor:
        """The forward pass."""
        with autocast(self.device, self.precision):
            logits: Tensor = self.network(self.images)
        return logits

    def update(self, half: Half, logits: Tensor) -> None:
        """The backward pass and the optimiser's step; where nothing is frozen, the weights' optimiser."""
        optimizer = self.of_architecture if half == "architecture" else self.of_weights
        loss = SegmentationLoss(IGNORE)(logits, self.masks)
        (self.network if half == "everything" else optimizer).zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def step(self, half: Half) -> None:
        """A whole step."""
        self.train(half)
        self.update(half, self.logits())

    def held(self) -> Iterator[Tensor]:
        """What stays between steps: parameters, gradients, buffers, the optimisers' state and the batch."""
        for parameter in self.network.parameters():
            yield parameter.data
            if parameter.grad is not None:
                yield parameter.grad
        yield from self.network.buffers()
        for optimizer in (self.of_weights, self.of_architecture):
            for state in optimizer.state.values():
                yield from (value for value in state.values() if isinstance(value, Tensor))
        yield from (self.images, self.masks)


def random_batch(size: int, batch: int) -> tuple[Tensor, Tensor]:
    """Images (N, 3, size, size) and masks (N, size, size)."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, size, size, generator=generator)
    return images, torch.randint(CLASSES, (batch, size, size), generator=generator)


def build_contenders(
    space: SearchSpace,
    workload: Workload,
    device: torch.device,
    precision: str = "float32",
    textbook: bool = False,
    dints: float | None = None,
    checkpoint: bool = False,
) -> dict[str, Contender]:
    """Name -> supernet at one workload: the fast one, and on request the textbook one and MONAI's DiNTS."""
    torch.manual_seed(0)
    batch = random_batch(workload.size, workload.batch)
    fast = build_supernet(resized(space, workload), CLASSES)
    fast.checkpoint_cells = checkpoint
    networks: list[tuple[str, nn.Module, list[nn.Parameter], tuple[Tensor, Tensor]]] = [
        ("fast", fast, list(fast.arch.parameters()), batch)
    ]
    if textbook:
        slow: TextbookSupernet = textbook_of(fast, CLASSES)
        networks.append(("textbook", slow, [slow.alpha, slow.beta], batch))
    if dints is not None:
        network, of_space = build_dints(workload.layers, dints, device)
        # its stem halves the images and its space has four depths, each half the one before
        smaller = random_batch(max(32, workload.size // 32 * 32), workload.batch)
        networks.append(("dints", network, [of_space.log_alpha_a, of_space.log_alpha_c], smaller))
    return {
        name: Contender(network, architecture, data, device, precision)
        for name, network, architecture, data in networks
    }


def build_dints(blocks: int, channels: float, device: torch.device) -> tuple[nn.Module, nn.Module]:
    """MONAI's DiNTS in two dimensions and its search space; `channels` multiplies its 32 filters at full resolution.

    Raises: ConfigError: MONAI is not installed.
    """
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from monai.networks.nets.dints import DiNTS, TopologySearch
        except ImportError as reason:
            raise ConfigError(
                f"--dints needs MONAI ({reason}); install it with `pip install monai`", code="package-missing"
            ) from None
        space = TopologySearch(
            channel_mul=channels, num_blocks=blocks, num_depths=4, spatial_dims=2, device=str(device)
        )
        return DiNTS(space, in_channels=3, num_classes=CLASSES, spatial_dims=2), space
