"""The moving average of a network's weights."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn


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
