"""A snapshot of the architecture: logits and probabilities of alpha, beta and edges, in NumPy, stored as .npz."""

from __future__ import annotations

from collections.abc import Mapping
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
    up path's. None in spaces without them: `alpha_logits`, `edge_logits` [edge] (PC-DARTS), `gamma_logits` [site,
    upsampler] (the space's `gamma_sites` and `upsamplers`), `skip_logits` [level, skip], and in wide spaces
    `block_logits`, `depth_logits`, `width_logits` [level or 1, option] (the space's `macro_tables`).
    Raises: CheckpointError: shapes of another space, or values that are not finite.
    """

    space: SearchSpace
    alpha_logits: np.ndarray | None
    beta_logits: np.ndarray
    edge_logits: np.ndarray | None = None
    gamma_logits: np.ndarray | None = None
    skip_logits: np.ndarray | None = None
    block_logits: np.ndarray | None = None
    depth_logits: np.ndarray | None = None
    width_logits: np.ndarray | None = None

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
        return cls.of(space, {name: np.zeros(shape) for name, shape in logits_shapes(space).items()})

    @classmethod
    def of(cls, space: SearchSpace, logits: Mapping[str, np.ndarray]) -> ArchProbs:
        """The tables of these names."""
        others = {f"{name}_logits": table for name, table in logits.items() if name != "alpha"}
        return cls(space, logits.get("alpha"), **others)

    @cached_property
    def alpha_probs(self) -> np.ndarray:
        """Softmax over the operations of each edge, [edge, operation]; only where `space.searches_cell`."""
        assert self.alpha_logits is not None
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

    @cached_property
    def block_probs(self) -> np.ndarray | None:
        """Softmax over the blocks of each level's stages, [level or 1, block]."""
        return None if self.block_logits is None else _softmax(self.block_logits)

    @cached_property
    def depth_probs(self) -> np.ndarray | None:
        """Softmax over the depths of each level's stages, [level or 1, depth]."""
        return None if self.depth_logits is None else _softmax(self.depth_logits)

    @cached_property
    def width_probs(self) -> np.ndarray | None:
        """Softmax over the widths of each level, or over the profiles, [level or 1, width or profile]."""
        return None if self.width_logits is None else _softmax(self.width_logits)

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

        The mean is over alpha's rows, beta's nodes (or arrows, of sigmoids), edges into a block, gamma's sites, and the
        rows of the others.
        """
        legal = self.space.trellis.legal()
        entropy = {} if self.alpha_logits is None else {"alpha": _relative_entropy(self.alpha_probs)}
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
        rows = {name: getattr(self, f"{name}_probs") for name in ("skip", "block", "depth", "width")}
        return entropy | {name: _relative_entropy(probs) for name, probs in rows.items() if probs is not None}

    def save(self, path: Path) -> None:
        """Write an .npz file that plain NumPy can read."""
        names = logits_shapes(self.space)
        arrays = {f"{name}_{form}": getattr(self, f"{name}_{form}") for name in names for form in ("logits", "probs")}
        meanings = meanings_of(self.space)
        arrays |= {key: np.array(meanings[key]) for key in meanings if NAMED_AXES.get(key, ("beta",))[0] in names}

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            seal(temporary)

        write_atomically(path, write)

    @classmethod
    def load(cls, path: Path, space: SearchSpace) -> ArchProbs:
        """Read a file of `save`. Raises: CheckpointError: unreadable, or of another space."""
        needed = {"alpha", "beta"} & set(logits_shapes(space))
        try:
            if not is_intact(path):
                raise ValueError("its checksum differs")
            check_members(path, limits.SNAPSHOT_BYTES)
            with np.load(path, allow_pickle=False) as file:
                there = [key for key, (name, _) in NAMED_AXES.items() if name in needed or key in file.files]
                meanings = {key: file[key].tolist() for key in ("strides", *there)}
                names = [name for name in ("beta", *OPTIONAL) if name in needed or f"{name}_logits" in file.files]
                logits = {name: file[f"{name}_logits"].astype(np.float64, casting="same_kind") for name in names}
        except Exception as reason:  # a damaged file makes NumPy and zipfile raise nearly anything
            message = f"{path} is no readable architecture snapshot ({one_line(reason)[:100]}); decode another epoch"
            raise CheckpointError(message, code="snapshot-unreadable") from None
        for key, meaning in meanings.items():
            if meaning != meanings_of(space).get(key):
                cls._refuse(f"{path} has other {key.replace('_', ' ')} than space '{space.name}'")
        try:
            return cls.of(space, logits)
        except CheckpointError as reason:
            raise CheckpointError(f"{path}: {reason}", code=reason.code) from None


OPTIONAL = {
    "alpha": "cell.operations",
    "edge": "relaxation.pc_darts",
    "gamma": "resolution.upsamplers, decoder.upsamplers",
    "skip": "resolution.skips",
    "block": "macro.blocks",
    "depth": "macro.depths",
    "width": "macro.widths, macro.profiles",
}
"""The logits that only some spaces have, and the settings that need them."""
NAMED_AXES = {
    "operations": ("alpha", 1), "upsamplers": ("gamma", 1), "gamma_sites": ("gamma", 0), "skips": ("skip", 1),
    "blocks": ("block", 1), "depths": ("depth", 1), "widths": ("width", 1),
}  # fmt: skip
"""Arrays of names that a file may have -> the table and the axis whose order they give."""


def meanings_of(space: SearchSpace) -> dict[str, list[object]]:
    """The names of the rows and columns of a snapshot."""
    return {
        "operations": list(space.cell.operations),
        "strides": list(space.network.strides),
        "gamma_sites": [site.name for site in space.gamma_sites],
        "upsamplers": list(space.upsamplers),
        "skips": list(space.resolution.skips),
        **{f"{name}s": table.names for name, table in space.macro_tables.items()},
    }


def logits_shapes(space: SearchSpace) -> dict[str, tuple[int, ...]]:
    """The shapes of a space's logits by name."""
    edges, levels = space.cells * len(space.topology.edges), len(space.network.strides)
    shapes: dict[str, tuple[int, ...]] = {"alpha": (edges, len(space.cell.operations))} if space.searches_cell else {}
    shapes["beta"] = (space.network.layers, levels, 3)
    if space.relaxation.pc_darts is not None:
        shapes["edge"] = (edges,)
    if space.gamma_sites:
        shapes["gamma"] = (len(space.gamma_sites), len(space.upsamplers))
    if space.resolution.skips != ("none",):
        shapes["skip"] = (levels - 1, len(space.resolution.skips))
    return shapes | {name: (len(table.rows), len(table.options)) for name, table in space.macro_tables.items()}


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
