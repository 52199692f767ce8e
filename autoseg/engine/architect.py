"""The architecture step: alpha and beta by gradient on trainB, the weights held fixed."""

from __future__ import annotations

from torch import Tensor

from autoseg.config import SearchSchedule
from autoseg.engine.loop import autocast
from autoseg.engine.optim import build_optimizer
from autoseg.objectives.losses import segmentation_loss
from autoseg.supernet import Supernet


class Architect:
    """First-order architecture optimisation (Auto-DeepLab, section 4.1; DARTS, section 2.3, with xi = 0)."""

    def __init__(self, supernet: Supernet, schedule: SearchSchedule, ignore_label: int, weights: Tensor | None) -> None:
        self.supernet, self.schedule, self.ignore_label, self.class_weights = supernet, schedule, ignore_label, weights
        self.optimizer = build_optimizer(schedule.arch_optimizer, supernet.arch.parameters())

    def step(self, images: Tensor, masks: Tensor) -> Tensor:
        """One step on a batch of trainB, (N, 3, H, W) and (N, H, W); returns the loss before it."""
        self.supernet.train_architecture()
        with autocast(images.device, self.schedule.precision):
            logits = self.supernet(images)
        loss = segmentation_loss(logits, masks, self.ignore_label, self.class_weights)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()

    def state(self) -> dict[str, object]:
        """The optimiser's state."""
        return self.optimizer.state_dict()

    def load_state(self, state: dict[str, object]) -> None:
        """Go back to a state."""
        self.optimizer.load_state_dict(state)
