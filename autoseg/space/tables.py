"""Tables of alpha, beta and the like from any program: an .npz file that is decoded with a named space."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from autoseg.errors import CheckpointError
from autoseg.space.schema import SearchSpace
from autoseg.space.snapshot import NAMED_AXES, ArchProbs, gamma_legal, logits_shapes, meanings_of

AXES = {
    "alpha": "[edge, operation]",
    "beta": "[layer, level, move]",
    "edge": "[edge]",
    "gamma": "[site, upsampler]",
    "skip": "[level, skip]",
    "block": "[level, block]",
    "depth": "[level, depth]",
    "width": "[level, width]",
}
CLOSE = 1e-3
"""Probabilities may miss a sum of 1 by this much."""


def read_tables(path: str | Path, space: SearchSpace) -> ArchProbs:
    """The tables of an .npz file for a space; shapes as in `logits_shapes`.

    A table `alpha` is an array `alpha_logits` or `alpha_probs`; `alpha` alone is taken as logits, unless it could be
    probabilities as well. Arrays of names (`operations`, ...) give the order of an axis; else it is the space's.
    Raises: CheckpointError: unreadable, or an array that is missing, too many, or wrong.
    """
    path = Path(path)
    arrays, shapes = _arrays(path), logits_shapes(space)
    strides = list(space.network.strides)
    if "strides" in arrays and (theirs := arrays["strides"].tolist()) != strides:
        raise _wrong(path, f"strides are {theirs}, but those of space '{space.name}' are {strides}")
    forms = {f"{name}{ending}": name for name in shapes for ending in ("_logits", "_probs", "")}
    for key in arrays:
        if key not in (*forms, *NAMED_AXES, "strides"):
            raise _wrong(path, f"{key} is no table of space '{space.name}', which has {', '.join(shapes)}; remove it")
    logits = {}
    for name, shape in shapes.items():
        keys = [key for key, of in forms.items() if of == name and key in arrays]
        if not keys:
            has = f"it has {', '.join(arrays)}" if arrays else "it is empty"
            needed = f"{name}_logits or {name}_probs {AXES[name]} of shape {list(shape)}"
            raise _wrong(path, f"there is no {needed}, which space '{space.name}' needs; {has}")
        if name in keys and len(keys) > 1:
            raise _wrong(path, f"both {name} and {keys[0]} are there; remove one of them")
        if arrays[keys[0]].shape != shape:
            there, needed = list(arrays[keys[0]].shape), f"{list(shape)}, {AXES[name]}"
            raise _wrong(path, f"{keys[0]} has the shape {there}, but space '{space.name}' needs {needed}")
        table = _in_order(path, name, _numbers(path, keys[0], arrays[keys[0]]), arrays, space)
        logits[name] = _logits(path, keys[0], name, table, space)
    return ArchProbs.of(space, logits)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Every array of the file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
            if all(isinstance(array, np.ndarray) for array in arrays.values()):  # else a file of torch.save
                return arrays
            raise ValueError
    except Exception:  # another kind of file, or a damaged one, makes NumPy and zipfile raise nearly anything
        raise CheckpointError(
            f"{path} cannot be read as an .npz file of arrays; write it with numpy.savez(path, alpha_logits=...,"
            " beta_logits=...)",
            code="tables-unreadable",
        ) from None


def _wrong(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: {what}", code="tables-wrong")


def _numbers(path: Path, key: str, array: np.ndarray) -> np.ndarray:
    """A table in float64. Raises: CheckpointError: it holds no real numbers."""
    if array.dtype.kind not in "fiu":
        raise _wrong(path, f"{key} holds {array.dtype}, not real numbers")
    return array.astype(np.float64)


def _in_order(
    path: Path, name: str, table: np.ndarray, arrays: Mapping[str, np.ndarray], space: SearchSpace
) -> np.ndarray:
    """The table with its axes in the space's order. Raises: CheckpointError: other names than the space's."""
    for key, (of, axis) in NAMED_AXES.items():
        if of != name or key not in arrays:
            continue
        theirs, ours = arrays[key].tolist(), meanings_of(space)[key]
        if not isinstance(theirs, list) or sorted(map(str, theirs)) != sorted(map(str, ours)):
            raise _wrong(path, f"{key} are {theirs}, but those of space '{space.name}' are {ours}")
        table = np.take(table, [theirs.index(one) for one in ours], axis)
    return table


def _logits(path: Path, key: str, name: str, table: np.ndarray, space: SearchSpace) -> np.ndarray:
    """Logits of a table, 0 where the space has no choice. Raises: CheckpointError: not finite, or no probabilities."""
    legal = {"beta": space.trellis.legal, "gamma": lambda: gamma_legal(space)}.get(name, lambda: np.True_)()
    table = np.where(legal, table, 0.0)
    if not np.isfinite(table).all():
        raise _wrong(path, f"{key} has a value that is not finite")
    if key.endswith("_logits"):
        return table
    from_probs = _inverse(table, name == "beta" and space.network.paths == "multi")
    zeros = {table: np.zeros(shape) for table, shape in logits_shapes(space).items()}
    back = getattr(ArchProbs.of(space, {**zeros, name: from_probs}), f"{name}_probs")
    is_probs = bool((table >= 0).all()) and np.allclose(table, back, rtol=0, atol=CLOSE)
    if key == name and is_probs:
        raise _wrong(path, f"{key} may be logits or probabilities; name it {name}_logits or {name}_probs")
    if key.endswith("_probs") and not is_probs:
        raise _wrong(path, f"{key} are no probabilities, of 0 to 1 with a sum of 1; name logits {name}_logits")
    return from_probs if is_probs else table


def _inverse(probs: np.ndarray, sigmoid: bool) -> np.ndarray:
    """Logits whose softmax, or sigmoid, is `probs`."""
    least = np.finfo(np.float64).tiny
    logits: np.ndarray = np.log(np.maximum(probs, least))
    return logits - np.log(np.maximum(1 - probs, least)) if sigmoid else logits
