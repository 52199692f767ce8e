"""A snapshot of the architecture: logits and probabilities of alpha, beta and edges, in NumPy, stored as .npz."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from autoseg.errors import CheckpointError
from autoseg.files import write_atomically
from autoseg.space.schema import SearchSpace


@dataclass(frozen=True, eq=False)
class ArchProbs:
    """alpha [edge, operation] and beta [layer, level, move] of one moment of a search, in float64.

    `beta_probs` is 0 on arrows that are not legal; over the legal arrows that leave a node it sums to 1 (eq. 7-8).
    In a space with `relaxation.pc_darts` also `edge_logits` [edge]; None in others.
    Raises: CheckpointError: shapes that are not the space's, or values that are not finite.
    """

    space: SearchSpace
    alpha_logits: np.ndarray
    beta_logits: np.ndarray
    edge_logits: np.ndarray | None = None

    def __post_init__(self) -> None:
        shapes = _shapes(self.space)
        if ("edge" in shapes) != (self.edge_logits is not None):
            there, here = ("lacks", "needs") if self.edge_logits is None else ("has", "does not have")
            raise CheckpointError(
                f"it {there} edge_logits, which space '{self.space.name}' {here} (relaxation.pc_darts);"
                " it belongs to another space"
            )
        for name, shape in shapes.items():
            logits = np.array(getattr(self, f"{name}_logits"), dtype=np.float64)  # a copy: the search goes on
            object.__setattr__(self, f"{name}_logits", logits)
            if logits.shape != shape:
                raise CheckpointError(
                    f"{name} has the shape {list(logits.shape)}, but space '{self.space.name}' needs {list(shape)};"
                    " it belongs to another space"
                )
            if not np.isfinite(logits).all():
                raise CheckpointError(f"{name} has logits that are not finite; decode an earlier epoch")

    @classmethod
    def zeros(cls, space: SearchSpace) -> ArchProbs:
        """All logits zero: every choice equally likely."""
        return cls(space, *(np.zeros(shape) for shape in _shapes(space).values()))

    @cached_property
    def alpha_probs(self) -> np.ndarray:
        """Softmax over the operations of each edge, [edge, operation]."""
        return _softmax(self.alpha_logits, np.ones_like(self.alpha_logits, dtype=bool))

    @cached_property
    def beta_probs(self) -> np.ndarray:
        """Softmax over the legal arrows leaving each node, [layer, level, move]."""
        return _softmax(self.beta_logits, self.space.trellis.legal())

    @cached_property
    def edge_probs(self) -> np.ndarray | None:
        """Softmax over the edges into each block (PC-DARTS, edge normalisation), [edge]; None in a space without."""
        if self.edge_logits is None:
            return None
        blocks = (self.edge_logits[list(self.space.topology.edges_into(n))] for n in range(self.space.cell.blocks))
        return np.concatenate([_softmax(logits, np.ones_like(logits, dtype=bool)) for logits in blocks])

    def entropy(self) -> dict[str, float]:
        """Mean entropy of alpha's rows, beta's nodes and, where there are any, the edges into each block.

        Each as a share of its greatest value (1: undecided).
        """
        operations = np.full(len(self.alpha_probs), self.alpha_probs.shape[-1])
        arrows = self.space.trellis.legal().sum(-1)
        entropy = {
            "alpha": _relative_entropy(self.alpha_probs, operations),
            "beta": _relative_entropy(self.beta_probs, arrows),
        }
        if self.edge_probs is not None:
            edges = [list(self.space.topology.edges_into(block)) for block in range(self.space.cell.blocks)]
            of_blocks = [_relative_entropy(self.edge_probs[None, of], np.array([len(of)])) for of in edges]
            entropy["edge"] = float(np.mean(of_blocks))
        return entropy

    def save(self, path: Path) -> None:
        """Write an .npz that NumPy alone can read."""
        arrays = {
            "alpha_logits": self.alpha_logits,
            "alpha_probs": self.alpha_probs,
            "beta_logits": self.beta_logits,
            "beta_probs": self.beta_probs,
            "operations": np.array(self.space.cell.operations),
            "strides": np.array(self.space.network.strides),
        }
        if self.edge_logits is not None and self.edge_probs is not None:
            arrays |= {"edge_logits": self.edge_logits, "edge_probs": self.edge_probs}

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)

        write_atomically(path, write)

    @classmethod
    def load(cls, path: Path, space: SearchSpace) -> ArchProbs:
        """Read what `save` wrote. Raises: CheckpointError: unreadable, or of another space."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in ("alpha_logits", "beta_logits", "operations", "strides")}
                names = ["alpha", "beta", *(["edge"] if "edge_logits" in file.files else [])]
                logits = [file[f"{name}_logits"].astype(np.float64, casting="same_kind") for name in names]
        except Exception:  # a damaged file makes NumPy and zipfile raise nearly anything
            raise CheckpointError(f"{path} is no readable architecture snapshot; decode another epoch") from None
        if arrays["operations"].tolist() != list(space.cell.operations):
            raise CheckpointError(f"{path} has other operations than space '{space.name}'; it belongs to another space")
        if arrays["strides"].tolist() != list(space.network.strides):
            raise CheckpointError(f"{path} has other strides than space '{space.name}'; it belongs to another space")
        try:
            return cls(space, *logits)
        except CheckpointError as reason:
            raise CheckpointError(f"{path}: {reason}") from None


def _shapes(space: SearchSpace) -> dict[str, tuple[int, ...]]:
    """Of the logits of a space, by name."""
    edges = len(space.topology.edges)
    shapes: dict[str, tuple[int, ...]] = {
        "alpha": (edges, len(space.cell.operations)),
        "beta": (space.network.layers, len(space.network.strides), 3),
    }
    return shapes | ({} if space.relaxation.pc_darts is None else {"edge": (edges,)})


def _softmax(logits: np.ndarray, legal: np.ndarray) -> np.ndarray:
    """Softmax over the last axis among the legal entries; 0 elsewhere."""
    highest = np.where(legal, logits, -np.inf).max(-1, keepdims=True)
    weights = np.where(legal, np.exp(np.where(legal, logits - np.where(np.isfinite(highest), highest, 0), 0)), 0.0)
    total = weights.sum(-1, keepdims=True)
    probs: np.ndarray = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return probs


def _relative_entropy(probs: np.ndarray, choices: np.ndarray) -> float:
    """Mean of H(p) / log(choices) over rows that have a choice; 0 where there is none."""
    entropy = -(probs * np.log(np.where(probs > 0, probs, 1.0))).sum(-1)
    chosen = choices > 1
    return float((entropy[chosen] / np.log(choices[chosen])).mean()) if chosen.any() else 0.0
