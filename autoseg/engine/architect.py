"""The architecture step: alpha and beta by gradient on trainB, the weights held fixed."""

from __future__ import annotations

from torch import Tensor

from autoseg.config import SearchSchedule
from autoseg.engine.optim import build_optimizer
from autoseg.engine.steps import Gradients


class Architect:
    """First-order architecture optimisation (Auto-DeepLab, section 4.1; DARTS, section 2.3, with xi = 0)."""

    def __init__(self, gradients: Gradients, schedule: SearchSchedule) -> None:
        self.gradients = gradients
        self.optimizer = build_optimizer(schedule.arch_optimizer, gradients.parameters["architecture"])

    def step(self, images: Tensor, masks: Tensor) -> Tensor:
        """One step on a batch of trainB, (N, 3, H, W) and (N, H, W); returns the loss before it."""
        loss = self.gradients("architecture", images, masks)
        self.optimizer.step()
        return loss

    def state(self) -> dict[str, object]:
        """The optimiser's state."""
        return self.optimizer.state_dict()

    def load_state(self, state: dict[str, object]) -> None:
        """Go back to a state."""
        self.optimizer.load_state_dict(state)
