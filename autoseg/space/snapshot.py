"""A snapshot of the architecture: logits and probabilities of alpha, beta and edges, in NumPy, stored as .npz."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import numpy as np

from autoseg import limits
from autoseg.errors import CheckpointError
from autoseg.files import check_members, is_intact, one_line, seal, write_atomically
from autoseg.space.schema import SearchSpace


@dataclass(frozen=True, eq=False)
class ArchProbs:
    """alpha [edge, operation] and beta [layer, level, move] at one moment of a search, in float64.

    `beta_probs` is 0 on illegal arrows; over the legal arrows that leave a node it sums to 1 (eq. 7-8), or is a sigmoid
    of each (`network.paths: multi`). With `cell.up_cell` alpha has the edges of the down path's cell, then those of the
    up path's. None in spaces without them: `edge_logits` [edge] (PC-DARTS), `gamma_logits` [site, upsampler] (the
    space's `gamma_sites` and `upsamplers`), `skip_logits` [level, skip].
    Raises: CheckpointError: shapes of another space, or values that are not finite.
    """

    space: SearchSpace
    alpha_logits: np.ndarray
    beta_logits: np.ndarray
    edge_logits: np.ndarray | None = None
    gamma_logits: np.ndarray | None = None
    skip_logits: np.ndarray | None = None

    def __post_init__(self) -> None:
        shapes = logits_shapes(self.space)
        for name, setting in OPTIONAL.items():
            missing = getattr(self, f"{name}_logits") is None
            if (name in shapes) == missing:
                there, here = ("lacks", "needs") if missing else ("has", "does not have")
                self._refuse(f"it {there} {name}_logits, which space '{self.space.name}' {here} ({setting})")
        for name, shape in shapes.items():
            logits = np.array(getattr(self, f"{name}_logits"), dtype=np.float64)  # a copy: the search goes on
            object.__setattr__(self, f"{name}_logits", logits)
            if logits.shape != shape:
                have, needed = list(logits.shape), list(shape)
                self._refuse(f"{name} has the shape {have}, but space '{self.space.name}' needs {needed}")
            if not np.isfinite(logits).all():
                message = f"{name} has logits that are not finite; decode an earlier epoch"
                raise CheckpointError(message, code="architecture-not-finite")

    @staticmethod
    def _refuse(difference: str) -> NoReturn:
        raise CheckpointError(f"{difference}; it belongs to another space", code="snapshot-of-other-space")

    @classmethod
    def zeros(cls, space: SearchSpace) -> ArchProbs:
        """All logits zero: every choice equally likely."""
        return cls(space, **{f"{name}_logits": np.zeros(shape) for name, shape in logits_shapes(space).items()})

    @cached_property
    def alpha_probs(self) -> np.ndarray:
        """Softmax over the operations of each edge, [edge, operation]."""
        return _softmax(self.alpha_logits)

    @cached_property
    def beta_probs(self) -> np.ndarray:
        """Softmax over the legal arrows leaving each node, or a sigmoid of each, [layer, level, move]."""
        legal = self.space.trellis.legal()
        if self.space.network.paths == "multi":
            return np.where(legal, np.exp(-np.logaddexp(0, -self.beta_logits)), 0.0)
        return _softmax(self.beta_logits, legal)

    @cached_property
    def edge_probs(self) -> np.ndarray | None:
        """Softmax over the edges into each block (PC-DARTS, edge normalisation), [edge]; None in a space without."""
        if self.edge_logits is None:
            return None
        blocks = (self.edge_logits[rows] for rows in self._rows_of_blocks())
        return np.concatenate([_softmax(logits) for logits in blocks])

    @cached_property
    def gamma_probs(self) -> np.ndarray | None:
        """Softmax over the upsamplers that compete at each site, [site, upsampler]; 0 for others."""
        return None if self.gamma_logits is None else _softmax(self.gamma_logits, gamma_legal(self.space))

    @cached_property
    def skip_probs(self) -> np.ndarray | None:
        """Softmax over the skip connections into each level of the up path, [level, skip]."""
        return None if self.skip_logits is None else _softmax(self.skip_logits)

    def _rows_of_blocks(self) -> list[list[int]]:
        """The edges into each block, of all cells."""
        topology = self.space.topology
        return [
            [cell * len(topology.edges) + edge for edge in topology.edges_into(block)]
            for cell in range(self.space.cells)
            for block in range(topology.blocks)
        ]

    def entropy(self) -> dict[str, float]:
        """Mean entropy of each table as a share of its maximum (1: undecided).

        The mean is over alpha's rows, beta's nodes (or arrows, of sigmoids), edges into a block, gamma's sites, skips.
        """
        legal = self.space.trellis.legal()
        entropy = {"alpha": _relative_entropy(self.alpha_probs)}
        if self.space.network.paths == "multi":
            kept = self.beta_probs[legal]
            entropy["beta"] = _relative_entropy(np.stack([kept, 1 - kept], -1))
        else:
            entropy["beta"] = _relative_entropy(self.beta_probs, legal.sum(-1))
        if self.edge_probs is not None:
            of_blocks = [_relative_entropy(self.edge_probs[None, rows]) for rows in self._rows_of_blocks()]
            entropy["edge"] = float(np.mean(of_blocks))
        if self.gamma_probs is not None:
            entropy["gamma"] = _relative_entropy(self.gamma_probs, gamma_legal(self.space).sum(-1))
        if self.skip_probs is not None:
            entropy["skip"] = _relative_entropy(self.skip_probs)
        return entropy

    def save(self, path: Path) -> None:
        """Write an .npz file that plain NumPy can read."""
        names = logits_shapes(self.space)
        arrays = {f"{name}_{form}": getattr(self, f"{name}_{form}") for name in names for form in ("logits", "probs")}
        meanings, optional = meanings_of(self.space), {"upsamplers": "gamma", "gamma_sites": "gamma", "skips": "skip"}
        arrays |= {key: np.array(meanings[key]) for key in meanings if optional.get(key, "alpha") in names}

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            seal(temporary)

        write_atomically(path, write)

    @classmethod
    def load(cls, path: Path, space: SearchSpace) -> ArchProbs:
        """Read a file of `save`. Raises: CheckpointError: unreadable, or of another space."""
        try:
            if not is_intact(path):
                raise ValueError("its checksum differs")
            check_members(path, limits.SNAPSHOT_BYTES)
            with np.load(path, allow_pickle=False) as file:
                there = [key for key in ("upsamplers", "gamma_sites", "skips") if key in file.files]
                meanings = {key: file[key].tolist() for key in ("operations", "strides", *there)}
                optional = [f"{name}_logits" for name in OPTIONAL if f"{name}_logits" in file.files]
                names = ["alpha_logits", "beta_logits", *optional]
                logits = {name: file[name].astype(np.float64, casting="same_kind") for name in names}
        except Exception as reason:  # a damaged file makes NumPy and zipfile raise nearly anything
            message = f"{path} is no readable architecture snapshot ({one_line(reason)[:100]}); decode another epoch"
            raise CheckpointError(message, code="snapshot-unreadable") from None
        for key, meaning in meanings.items():
            if meaning != meanings_of(space)[key]:
                cls._refuse(f"{path} has other {key.replace('_', ' ')} than space '{space.name}'")
        try:
            return cls(space, **logits)
        except CheckpointError as reason:
            raise CheckpointError(f"{path}: {reason}", code=reason.code) from None


OPTIONAL = {
    "edge": "relaxation.pc_darts",
    "gamma": "resolution.upsamplers, decoder.upsamplers",
    "skip": "resolution.skips",
}
"""The logits that only some spaces have, and the settings that need them."""


def meanings_of(space: SearchSpace) -> dict[str, list[object]]:
    """The names of the rows and columns of a snapshot."""
    return {
        "operations": list(space.cell.operations),
        "strides": list(space.network.strides),
        "gamma_sites": [site.name for site in space.gamma_sites],
        "upsamplers": list(space.upsamplers),
        "skips": list(space.resolution.skips),
    }


def logits_shapes(space: SearchSpace) -> dict[str, tuple[int, ...]]:
    """The shapes of a space's logits by name."""
    edges, levels = space.cells * len(space.topology.edges), len(space.network.strides)
    shapes: dict[str, tuple[int, ...]] = {
        "alpha": (edges, len(space.cell.operations)),
        "beta": (space.network.layers, levels, 3),
    }
    if space.relaxation.pc_darts is not None:
        shapes["edge"] = (edges,)
    if space.gamma_sites:
        shapes["gamma"] = (len(space.gamma_sites), len(space.upsamplers))
    if space.resolution.skips != ("none",):
        shapes["skip"] = (levels - 1, len(space.resolution.skips))
    return shapes


def gamma_legal(space: SearchSpace) -> np.ndarray:
    """Boolean mask [site, upsampler] of the competing upsamplers."""
    return np.array([[name in site.candidates for name in space.upsamplers] for site in space.gamma_sites], dtype=bool)


def _softmax(logits: np.ndarray, legal: np.ndarray | bool = True) -> np.ndarray:
    """Softmax over the last axis among the legal entries; 0 elsewhere."""
    highest = np.where(legal, logits, -np.inf).max(-1, keepdims=True)
    weights = np.where(legal, np.exp(np.where(legal, logits - np.where(np.isfinite(highest), highest, 0), 0)), 0.0)
    total = weights.sum(-1, keepdims=True)
    probs: np.ndarray = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return probs


def _relative_entropy(probs: np.ndarray, choices: np.ndarray | None = None) -> float:
    """Mean of H(p) / log(choices) over the rows with more than one choice (default: every column); 0 without any."""
    choices = np.full(probs.shape[:-1], probs.shape[-1]) if choices is None else choices
    entropy = -(probs * np.log(np.where(probs > 0, probs, 1.0))).sum(-1)
    chosen = choices > 1
    return float((entropy[chosen] / np.log(choices[chosen])).mean()) if chosen.any() else 0.0
