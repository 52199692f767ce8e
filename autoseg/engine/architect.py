"""The architecture step: alpha and beta by gradient on trainB, the weights held fixed."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from autoseg.config.training import SearchSchedule
from autoseg.engine.optim import build_optimizer
from autoseg.engine.steps import Gradients, take_step


class Architect:
    """First-order architecture optimisation (Auto-DeepLab, section 4.1; DARTS, section 2.3, with xi = 0)."""

    def __init__(self, gradients: Gradients, schedule: SearchSchedule) -> None:
        self.gradients = gradients
        self.parameters = gradients.parameters["architecture"]
        fused = schedule.precision == "fp16" or None
        self.optimizer = build_optimizer(schedule.arch_optimizer, self.parameters, fused)

    def step(self, batches: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """One step on batches of trainB, (N, C, H, W) and (N, H, W) each; returns the loss before it."""
        loss = self.gradients("architecture", *batches)
        take_step(self.optimizer, self.parameters, None, self.gradients.scalers.get("architecture"))
        return loss

    def state(self) -> dict[str, object]:
        """The optimizer's state."""
        return self.optimizer.state_dict()

    def load_state(self, state: dict[str, object]) -> None:
        """Go back to a state."""
        self.optimizer.load_state_dict(state)
