"""The architecture's logits, and the probabilities that the supernet computes from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.genotype.contains import check_in_supernet, stage_choices
from autoseg.genotype.schema import Genotype
from autoseg.space.schema import SearchSpace
from autoseg.space.snapshot import ArchProbs, gamma_legal, logits_shapes
from autoseg.space.trellis import Arrow, Move
from autoseg.supernet.fast.mixed_op import given


class Sample(NamedTuple):
    """One operation for each edge, the same in all cells that share alpha (GDAS stacks one sampled cell)."""

    operations: tuple[int, ...]
    weights: Tensor
    """(edges,): 1 in the forward pass, the softened probability in the backward pass; times `edge_probs` if any."""
    edge_probs: Tensor | None


class ArchParameters(nn.Module):
    """alpha_logits [edge, operation] and beta_logits [layer, level, move] (Auto-DeepLab, sections 3.1 and 3.2).

    alpha is None where no operations compete (`SearchSpace.searches_cell`). With the space's `relaxation.pc_darts` also
    edge_logits [edge]; with `relaxation.gdas` operations are sampled. If upsamplers compete, also gamma_logits [site,
    upsampler]; if skip connections do, skip_logits [level, skip]. With `cell.up_cell` the edges are those of the down
    path's cell, then those of the up path's. In a wide space also block_logits, depth_logits and width_logits [level or
    1, option] (`SearchSpace.macro_tables`).
    """

    legal: Tensor
    gamma_legal: Tensor | None
    gumbel: Tensor | None

    def __init__(self, space: SearchSpace, std: float = 1e-3) -> None:
        super().__init__()
        self.space = space
        self.chosen: Genotype | None = None
        legal, shapes = torch.as_tensor(space.trellis.legal()), logits_shapes(space)
        competing = torch.as_tensor(gamma_legal(space)) if "gamma" in shapes else None

        def initial(name: str, where: Tensor | None = None) -> nn.Parameter | None:
            if name not in shapes:
                return None
            noise = std * torch.randn(shapes[name])
            return nn.Parameter(noise if where is None else noise * where)

        self.alpha_logits = initial("alpha")
        self.beta_logits = nn.Parameter(std * torch.randn(shapes["beta"]) * legal)
        self.edge_logits = initial("edge")
        self.gamma_logits = initial("gamma", competing)
        self.skip_logits = initial("skip")
        self.block_logits, self.depth_logits, self.width_logits = map(initial, ("block", "depth", "width"))
        self.register_buffer("legal", legal, persistent=False)
        self.register_buffer("gamma_legal", competing, persistent=False)
        self.register_buffer("gumbel", None, persistent=False)
        if space.relaxation.gdas is not None:
            self.draw(0, space.relaxation.gdas[0])

    # --- choosing -----------------------------------------------------------------------------------------------------

    def choose(self, genotype: Genotype) -> None:
        """From now on give probability 1 to the choices of a genotype of this space, and 0 to all others.

        Upsamplers and skips at places that the genotype does not have keep their probabilities.
        Raises: GenotypeError: the space lacks something that it names.
        """
        check_in_supernet(genotype, self.space)
        self.chosen = genotype
        self.chosen_stages = stage_choices(genotype, self.space)

    def _alpha_of(self, genotype: Genotype) -> Tensor:
        alpha = torch.zeros_like(given(self.alpha_logits).data)
        cells = (genotype.cell, genotype.up_cell or genotype.cell)
        for table, cell in zip(self.of_cells(alpha), cells, strict=False):
            for block, edges in enumerate(cell):
                rows = {self.space.topology.edges[row][1]: row for row in self.space.topology.edges_into(block)}
                for edge in edges:
                    table[rows[edge.state], self.space.cell.operations.index(edge.operation)] = 1
        return alpha

    def _gamma_of(self, genotype: Genotype, probs: Tensor) -> Tensor:
        space = self.space
        places = [(space.gamma_row(arrow), genotype.upsampler(arrow)) for arrow in genotype.up_arrows]
        if space.decoder_stages:
            names = genotype.decoder.upsamplers or ("bilinear",) * len(genotype.decoder_levels)
            stages = zip(genotype.decoder_levels, names, strict=True)
            places += [(space.decoder_row(level), name) for level, name in stages]
        return _with_ones(probs, [(row, space.upsamplers.index(name)) for row, name in places if row is not None])

    # --- probabilities ------------------------------------------------------------------------------------------------

    def alpha_probs(self) -> Tensor:
        """Softmax over the operations of each edge (eq. 4), [edge, operation]."""
        return given(self.alpha_logits).softmax(-1) if self.chosen is None else self._alpha_of(self.chosen)

    def beta_probs(self) -> Tensor:
        """Softmax over the legal arrows that leave each node (eq. 7), [layer, level, move]; 0 elsewhere.

        With `network.paths: multi`, a sigmoid of each legal arrow (DiNTS, He et al. 2021).
        """
        if self.chosen is not None:
            beta = torch.zeros_like(self.beta_logits.data)
            for arrow in self.chosen.arrows:
                beta[arrow.source.layer, arrow.source.level, arrow.move] = 1
            return beta
        if self.space.network.paths == "multi":
            return self.beta_logits.sigmoid() * self.legal
        return _softmax(self.beta_logits, self.legal) * self.legal

    def edge_probs(self) -> Tensor | None:
        """Softmax over the edges into each block (PC-DARTS, edge normalisation), [edge]; None in a space without."""
        if self.edge_logits is None:
            return None
        if self.chosen is not None:  # the chosen edges into a block share a probability of 1
            return torch.cat([part / part.sum() for part in self._by_block(self._alpha_of(self.chosen).sum(-1))])
        return torch.cat([part.softmax(0) for part in self._by_block(self.edge_logits)])

    def gamma_probs(self) -> Tensor | None:
        """Softmax over the upsamplers that compete at each site, [site, upsampler], 0 for others; None without."""
        if self.gamma_logits is None or self.gamma_legal is None:
            return None
        probs = _softmax(self.gamma_logits, self.gamma_legal)
        return probs if self.chosen is None else self._gamma_of(self.chosen, probs)

    def skip_probs(self) -> Tensor | None:
        """Softmax over the skip connections into each level of the up path, [level, skip]; None in a space without."""
        if self.skip_logits is None:
            return None
        probs, chosen, names = self.skip_logits.softmax(-1), self.chosen, self.space.resolution.skips
        if chosen is None:
            return probs
        places = [(arrow.target.level, names.index(chosen.skip(arrow))) for arrow in chosen.up_arrows]
        return _with_ones(probs, places)

    def stage_probs(self, name: str) -> Tensor:
        """Softmax over the options of `block`, `depth` or `width` in a wide space, [level or 1, option].

        A single 1 where there is one option.
        """
        logits: Tensor | None = getattr(self, f"{name}_logits")
        if logits is None:
            return self.beta_logits.new_ones(1, 1)
        probs = logits.softmax(-1)
        return probs if self.chosen is None else _with_ones(probs, self.chosen_stages[name])

    def descent_probs(self) -> Tensor:
        """[layer, level] of an hourglass: the probability that a path which leaves a level downwards does so there.

        With several paths, the weights of the down moves, normalised to a sum of 1; 0 if no down move is left.
        """
        beta, down_layers = self.beta_probs(), self.space.network.down_layers or 0
        reach = torch.eye(1, beta.shape[1], device=beta.device, dtype=beta.dtype)[0]
        left = []
        for layer in range(down_layers):
            flow = reach.unsqueeze(1) * beta[layer]
            left.append(flow[:, Move.DOWN])
            reach = flow[:, Move.SAME] + F.pad(flow[:-1, Move.DOWN], (1, 0))
        ways = torch.stack(left)
        return ways / ways.sum(0).clamp_min(torch.finfo(ways.dtype).tiny)

    def of_cells(self, table: Tensor) -> Sequence[Tensor]:
        """A table over the edges of all cells, split by cell."""
        return (table,) if self.space.cells == 1 else torch.split(table, len(self.space.topology.edges))

    def _by_block(self, edges: Tensor) -> Sequence[Tensor]:
        """Values [edge] split by block."""
        sizes = [len(self.space.topology.edges_into(block)) for block in range(self.space.cell.blocks)]
        return torch.split(edges, sizes * self.space.cells)

    def mixture(self) -> Tensor:
        """Each output's factor, [edge, operation]; edge probabilities multiply it and add a column for the bypass."""
        alpha, edges = self.alpha_probs(), self.edge_probs()
        if edges is None:
            return alpha
        return torch.cat([alpha, torch.ones_like(alpha[:, :1])], 1) * edges.unsqueeze(1)

    # --- sampling (GDAS) ----------------------------------------------------------------------------------------------

    def draw(self, seed: int, temperature: float) -> None:
        """Sample the operations of the forward passes in training until the next draw, from seed and logits."""
        logits = given(self.alpha_logits).detach()
        noise = torch.empty(logits.shape, dtype=torch.float64, device="cpu")
        noise.exponential_(generator=torch.Generator("cpu").manual_seed(seed))
        self.gumbel, self.temperature = (-noise.log()).to(logits.dtype).to(logits.device), temperature
        self.drawn = _argmax(logits + self.gumbel)

    def samples(self) -> list[Sample]:
        """For each cell of the space, in training the last draw, in evaluation the operations of greatest alpha.

        The gradient is that of softmax((log alpha + Gumbel noise) / temperature) at the sampled operation (Dong and
        Yang 2019, eq. 6-7); the other operations are not computed.
        """
        edges, logits = self.edge_probs(), given(self.alpha_logits)
        if self.chosen is not None:
            alpha = self.alpha_probs()
            operations, weights = _argmax(alpha), alpha.amax(-1)
        elif not self.training:
            operations = _argmax(logits)
            weights = torch.ones_like(logits[:, 0])
        else:
            assert self.gumbel is not None  # __init__ draws
            operations = self.drawn
            noisy = logits.log_softmax(-1) + self.gumbel
            index = torch.tensor(operations, device=noisy.device).unsqueeze(1)
            soft = (noisy / self.temperature).softmax(-1).gather(1, index).squeeze(1)
            weights = 1 + (soft - soft.detach())
        each = len(self.space.topology.edges)
        by_cell = [operations[first : first + each] for first in range(0, len(operations), each)]
        if edges is None:
            return [Sample(*pair, None) for pair in zip(by_cell, self.of_cells(weights), strict=True)]
        return list(map(Sample, by_cell, self.of_cells(weights * edges), self.of_cells(edges)))

    def beta_of_arrows(self) -> dict[Arrow, Tensor]:
        """The probability of each legal arrow, a scalar each."""
        arrows = self.space.trellis.arrows
        probs = self.beta_probs().flatten().index_select(0, self.index_of(arrows))
        return dict(zip(arrows, probs.unbind(), strict=True))

    def index_of(self, arrows: Sequence[Arrow]) -> Tensor:
        """The index of each arrow in `beta_probs().flatten()`."""
        levels, moves = self.legal.shape[1:]
        places = [(arrow.source.layer * levels + arrow.source.level) * moves + arrow.move for arrow in arrows]
        return torch.tensor(places, device=self.legal.device)

    def snapshot(self) -> ArchProbs:
        """The current logits as NumPy arrays."""
        logits = {name: getattr(self, f"{name}_logits") for name in logits_shapes(self.space)}
        doubles = {name: values.detach().to("cpu", torch.float64).numpy() for name, values in logits.items()}
        return ArchProbs.of(self.space, doubles)


def weighted_sum(weights: Tensor, features: Iterable[Tensor]) -> Tensor:
    """The sum of some features, each times its weight: (n,) and n tensors of one shape."""
    parts = [weight * feature for weight, feature in zip(weights.unbind(), features, strict=True)]
    return sum(parts[1:], parts[0])


def _softmax(logits: Tensor, legal: Tensor) -> Tensor:
    lowest = torch.finfo(logits.dtype).min  # -inf would give NaN at nodes that do not exist
    return logits.masked_fill(~legal, lowest).softmax(-1)


def _with_ones(probs: Tensor, places: Sequence[tuple[int, int]]) -> Tensor:
    """A copy with 1 at these (row, column) and 0 elsewhere in their rows."""
    chosen = probs.detach().clone()
    for row, column in places:
        chosen[row] = 0
        chosen[row, column] = 1
    return chosen


def _argmax(logits: Tensor) -> tuple[int, ...]:
    """The argmax of each row; on meta tensors, which have no values, each operation in turn."""
    if logits.is_meta:
        return tuple(row % logits.shape[1] for row in range(len(logits)))
    return tuple(int(place) for place in logits.argmax(-1).tolist())
