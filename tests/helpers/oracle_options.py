"""The textbook supernet with PC-DARTS, GDAS and mixing before the cell, straight from their papers.

Slow on purpose, and without code of autoseg's supernet, as `oracle_supernet.py`, whose parts it takes.
"""

from __future__ import annotations

import torch
from torch import nn

from helpers.oracle_supernet import MixedOperation, TextbookCell, TextbookSupernet, parameter_pairs


def channel_shuffle(x, groups):
    """Channel j of group i becomes channel i of group j (Zhang et al. 2018)."""
    size = x.shape[1] // groups
    return torch.stack([x[:, i * size + j] for j in range(size) for i in range(groups)], 1)


class PartialOperation(nn.Module):
    """PC-DARTS, eq. 2: the sum over k of alpha_k * O_k(S * x), and (1 - S) * x; then the shuffle."""

    def __init__(self, operations, channels, arrows, share):
        super().__init__()
        self.mixed, self.share = MixedOperation(operations, channels // share, arrows), share
        self.operations = self.mixed.operations

    def forward(self, x, alphas, arrow):
        width = x.shape[1] // self.share
        passed = self.mixed(x[:, :width], alphas, arrow)
        return channel_shuffle(torch.cat([passed + 0 * x[:, :width], x[:, width:]], 1), self.share)


class SampledOperation(nn.Module):
    """GDAS, eq. 5-7: the operation of the one-hot h alone; h_k = 1 going forward, its softmax going back."""

    def __init__(self, operations, channels, arrows):
        super().__init__()
        self.operations = MixedOperation(operations, channels, arrows).operations

    def forward(self, x, hard, arrow):
        sampled = int(hard.argmax())
        return hard[sampled] * self.operations[sampled](x, arrow)


class OptionsCell(TextbookCell):
    def __init__(self, blocks, operations, channels, prev_prev_channels, arrivals, relaxation):
        super().__init__(blocks, operations, channels, prev_prev_channels, arrivals)
        self.relaxation = relaxation
        arrows = 1 if relaxation.mix_before_cell else len(arrivals)
        share = relaxation.pc_darts or 1
        for name in self.edges:
            operation = PartialOperation(operations, channels, arrows, share)
            if relaxation.gdas:
                operation.mixed = SampledOperation(operations, channels // share, arrows)
                operation.operations = operation.mixed.operations
            self.edges[name] = operation

    def one_cell(self, prev, prev_prev, alphas, arrow):
        """PC-DARTS, eq. 3 (edge normalisation): every block sums its inputs by their edges' probabilities."""
        alphas, edge_probs = alphas
        states, row = [prev_prev, prev], 0
        for block in range(self.blocks):
            total = 0
            for state in range(block + 2):
                total = total + edge_probs[row] * self.edges[f"{block}_{state}"](states[state], alphas[row], arrow)
                row += 1
            states.append(total)
        return torch.cat(states[2:], 1)

    def forward(self, prev_prev, prevs, alphas, betas, size):
        if not self.relaxation.mix_before_cell:
            return super().forward(prev_prev, prevs, alphas, betas, size)
        mixed = sum(b * arrive(prev, size) for b, arrive, prev in zip(betas, self.arrivals, prevs, strict=True))
        return self.one_cell(mixed, self.prev_prev[0](prev_prev, size), alphas, 0)


class OptionsSupernet(TextbookSupernet):
    """`gumbel` [edge, operation] and `temperature` are GDAS' noise and tau."""

    def __init__(self, space, num_classes):
        super().__init__(space, num_classes)
        self.relaxation = space.relaxation
        for name, cell in self.cells.items():
            arrivals = [(a.even.weight.shape[1], 1) if hasattr(a, "even") else (a.conv.weight.shape[1], 0)
                        for a in cell.arrivals]  # fmt: skip
            channels = cell.arrivals[0].norm.num_features
            before = cell.prev_prev[0].conv.weight.shape[1]
            self.cells[name] = OptionsCell(self.blocks, self.operations, channels, before, arrivals, space.relaxation)
        edges = sum(block + 2 for block in range(self.blocks))
        self.edge = nn.Parameter(torch.zeros(edges)) if self.relaxation.pc_darts else None
        self.gumbel, self.temperature = None, None

    def alphas(self):
        """The factors of each operation and of each edge."""
        if self.relaxation.gdas:
            if self.training:
                soft = ((self.alpha.log_softmax(-1) + self.gumbel) / self.temperature).softmax(-1)
            else:
                soft = self.alpha.detach()
            one_hot = torch.nn.functional.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft)
            alphas = one_hot - soft.detach() + soft
        else:
            alphas = self.alpha.softmax(-1)
        if self.edge is None:
            return alphas, torch.ones_like(alphas[:, 0])
        blocks = torch.split(self.edge, [block + 2 for block in range(self.blocks)])
        return alphas, torch.cat([logits.softmax(0) for logits in blocks])


def options_pairs(fast, textbook):
    """As `parameter_pairs`, with the edges' logits."""
    yield from parameter_pairs(fast, textbook)
    if textbook.edge is not None:
        yield fast.arch.edge_logits, (Ellipsis,), textbook.edge


def options_textbook_of(fast, num_classes):
    """A textbook supernet with the weights, the noise and the type of the fast one."""
    textbook = OptionsSupernet(fast.space, num_classes).to(next(fast.parameters()).dtype)
    with torch.no_grad():
        for parameter, index, other in options_pairs(fast, textbook):
            other.copy_(parameter[index])
    if fast.space.relaxation.gdas:
        textbook.gumbel, textbook.temperature = fast.arch.gumbel, fast.arch.temperature
    return textbook
