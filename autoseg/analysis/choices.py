"""The choices of a search space, as columns of its tables of logits. No torch.

P is the number of entries of a table that compete or could: alpha's operations, beta's legal arrows, and so on. Entries
are in the order of the flattened table, without those that are not legal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.space.cell import INPUTS_PER_BLOCK, state_name
from autoseg.space.macro import NETWORK, MacroTable
from autoseg.space.schema import SearchSpace
from autoseg.space.snapshot import ArchProbs, gamma_legal, logits_shapes
from autoseg.space.trellis import Arrow, Node


@dataclass(frozen=True)
class Choice:
    """A decision of decoding: the greatest `kept` of some columns of a table, or whether one exceeds a threshold."""

    name: str
    columns: Sequence[int]
    kept: int = 1
    threshold: float | None = None
    """For a sigmoid: the logit above which the one column stays."""

    def margins(self, logits: np.ndarray) -> np.ndarray:
        """How far the last one that stays is ahead of the first one that does not, (n, P) -> (n,)."""
        values = logits[:, self.columns]
        if self.threshold is not None:
            distances: np.ndarray = np.abs(values[:, 0] - self.threshold)
            return distances
        ordered = np.sort(values, axis=1)
        ahead: np.ndarray = ordered[:, -self.kept] - ordered[:, -self.kept - 1]
        return ahead


@dataclass(frozen=True, eq=False)
class Table:
    """A table of logits: which entries are legal, which rows have a softmax, and the choices."""

    name: str
    legal: np.ndarray
    """Indices of the P legal entries in the flattened table."""
    rows: Sequence[Sequence[int]]
    """The columns of each softmax over two entries or more; of all, in a table of sigmoids."""
    choices: Sequence[Choice]
    noun: str
    """What its choices are called."""
    is_softmax: bool = True

    def centred(self, values: np.ndarray) -> np.ndarray:
        """Values (n, P) without what changes no probability: each row of a softmax minus its mean; 0 elsewhere."""
        found = np.zeros_like(values)
        for row in self.rows:
            part = values[:, row]
            found[:, row] = part - part.mean(1, keepdims=True) if self.is_softmax else part
        return found

    def spreads(self, logits: np.ndarray) -> np.ndarray:
        """Root mean square of the centred logits, in float64: how far they are from undecided, (n, P) -> (n,)."""
        count = sum(map(len, self.rows))
        squares: np.ndarray = np.square(self.centred(logits)).sum(1, dtype=np.float64)
        return np.sqrt(squares / max(count, 1))


def tables_of(space: SearchSpace) -> dict[str, Table]:
    """The tables of a space by name."""
    makers = {"alpha": _alpha, "beta": _beta, "edge": _edge, "gamma": _gamma, "skip": _skip}
    wide = space.macro_tables
    return {name: _wide(name, wide[name]) if name in wide else makers[name](space) for name in logits_shapes(space)}


def legal_logits(probs: ArchProbs, table: Table) -> np.ndarray:
    """The P legal logits of a table in a snapshot."""
    logits: np.ndarray = getattr(probs, f"{table.name}_logits").ravel()[table.legal]
    return logits


def edge_name(space: SearchSpace, cell: int, block: int, state: int | str) -> str:
    """`prev -> b1`; with two cells also `up prev -> b1`."""
    source = state if isinstance(state, str) else state_name(state)
    return f"{'up ' * cell}{source} -> b{block + 1}"


def node_name(node: Node, strides: Sequence[int]) -> str:
    """`stem` or `layer 3, stride 8`: where one of several arrows is chosen."""
    return f"layer {node.layer}, stride {strides[node.level]}" if node.layer else "stem"


def arrow_name(arrow: Arrow, strides: Sequence[int]) -> str:
    """`layer 3, 8->4`: an arrow that stays or does not."""
    return f"layer {arrow.target.layer}, {strides[arrow.source.level]}->{strides[arrow.target.level]}"


def _alpha(space: SearchSpace) -> Table:
    names, edges = space.cell.operations, list(_edges(space))
    rows = [range(row * len(names), (row + 1) * len(names)) for row in range(len(edges))]
    chosen = [[row[column] for column, name in enumerate(names) if name != "none"] for row in rows]  # as `decode_cell`
    choices = [Choice(edge, row) for edge, row in zip(edges, chosen, strict=True) if len(row) > 1]
    return Table("alpha", np.arange(len(edges) * len(names)), _of_several(rows), choices, "edges")


def _edges(space: SearchSpace) -> Iterator[str]:
    for cell in range(space.cells):
        for block, state in space.topology.edges:
            yield edge_name(space, cell, block, state)


def _beta(space: SearchSpace) -> Table:
    legal, strides = space.trellis.legal(), space.network.strides
    places = np.flatnonzero(legal)
    column_of = {int(place): column for column, place in enumerate(places)}

    def column(arrow: Arrow) -> int:
        return column_of[int(np.ravel_multi_index((*arrow.source, arrow.move), legal.shape))]

    arrows = space.trellis.arrows
    if space.network.paths == "multi":
        threshold = space.decoding.threshold
        logit = float(np.log(threshold) - np.log1p(-threshold))
        choices = [Choice(arrow_name(arrow, strides), [column(arrow)], threshold=logit) for arrow in arrows]
        return Table("beta", places, [range(len(places))], choices, "arrows", is_softmax=False)
    nodes = dict.fromkeys(arrow.source for arrow in arrows)
    rows = {node: [column(arrow) for arrow in space.trellis.arrows_from(node)] for node in nodes}
    choices = [Choice(node_name(node, strides), row) for node, row in rows.items() if len(row) > 1]
    return Table("beta", places, _of_several(list(rows.values())), choices, "nodes")


def _edge(space: SearchSpace) -> Table:
    """A block keeps two of its edges, so the choice is between the second and the third."""
    each, topology = len(space.topology.edges), space.topology
    rows = {
        f"{'up ' * cell}b{block + 1}": [cell * each + edge for edge in topology.edges_into(block)]
        for cell in range(space.cells)
        for block in range(topology.blocks)
    }
    kept = INPUTS_PER_BLOCK
    choices = [Choice(name, row, kept) for name, row in rows.items() if len(row) > kept]
    return Table("edge", np.arange(space.cells * each), _of_several(list(rows.values())), choices, "blocks")


def _gamma(space: SearchSpace) -> Table:
    legal = gamma_legal(space)
    columns = np.cumsum(legal).reshape(legal.shape) - 1
    rows = [columns[number][of].tolist() for number, of in enumerate(legal)]
    sites = zip(space.gamma_sites, rows, strict=True)
    choices = [Choice(site.name, row) for site, row in sites if len(row) > 1]
    return Table("gamma", np.flatnonzero(legal), _of_several(rows), choices, "sites")


def _skip(space: SearchSpace) -> Table:
    levels, count = logits_shapes(space)["skip"]
    rows = [range(level * count, (level + 1) * count) for level in range(levels)]
    choices = [Choice(f"stride {space.network.strides[level]}", row) for level, row in enumerate(rows) if len(row) > 1]
    return Table("skip", np.arange(levels * count), _of_several(rows), choices, "levels")


def _wide(name: str, table: MacroTable) -> Table:
    count = len(table.options)
    rows = [range(row * count, (row + 1) * count) for row in range(len(table.rows))]
    choices = [Choice(of, row) for of, row in zip(table.rows, rows, strict=True)]
    noun = "levels" if table.rows[0] != NETWORK else "choices"
    return Table(name, np.arange(len(rows) * count), rows, choices, noun)


def _of_several(rows: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    return [row for row in rows if len(row) > 1]
