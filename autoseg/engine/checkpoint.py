"""Checkpoints: written atomically, read without unpickling code, refused if they belong to another architecture."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from autoseg import limits
from autoseg.config.base import differences
from autoseg.engine.run_directory import RESUME
from autoseg.errors import CheckpointError
from autoseg.files import check_members, cut, is_intact, one_line, seal, write_atomically, writing

_log = logging.getLogger(__name__)

CHECKPOINT_VERSION = 1


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= limits.STEPS


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and abs(value) <= limits.FACTOR)


def _are_counts(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_count, value.values()))


FIELDS: Mapping[str, Callable[[object], bool]] = {
    "architecture": lambda value: isinstance(value, dict),
    "state": lambda value: isinstance(value, dict),
    **dict.fromkeys(("epoch", "step_in_epoch", "metrics_bytes", "returns"), _is_count),
    **dict.fromkeys(("best_miou", "seconds"), _is_number),
    **dict.fromkeys(("skipped", "in_a_row"), _are_counts),
    "config": lambda value: value is None or isinstance(value, dict),
}
"""What every checkpoint has, and whether a value of it is right."""
ADDED: Mapping[str, Any] = {"returns": 0, "skipped": {}, "in_a_row": {}, "config": None}
"""What checkpoints of earlier versions lack, and what it was then."""
LAST, BEST, EPOCH = "last.pt", "best.pt", "epoch.pt"
"""The last checkpoint, that of the best validation, and that of the end of the last good epoch, to which a run goes
back that diverges."""
Kind = Literal["search", "retrain"]


def save_checkpoint(
    path: Path, kind: Kind, architecture: Mapping[str, Any], contents: Mapping[str, Any], keep: int = 1
) -> None:
    """Write a checkpoint with a checksum. `architecture`: the space or genotype of the weights, as plain data.

    keep: number of checkpoints to have then: the one before becomes NAME.1.pt, the one before that NAME.2.pt.
    Raises: RunError: it cannot be written; those before stay as they were.
    """
    payload = {"version": CHECKPOINT_VERSION, "kind": kind, "architecture": dict(architecture), **contents}

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # given the path, PyTorch forgets why it could not write
            torch.save(payload, file)
        seal(temporary)
        _keep_earlier(path, keep)

    write_atomically(path, write, RESUME)


def _keep_earlier(path: Path, keep: int) -> None:
    """Number the checkpoints at `path`, the latest first, so that a new one makes `keep`; `path` stays as well."""
    names = earlier(path, keep)
    for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
        if newer.is_file():
            newer.replace(older)
    if names and path.is_file():
        keep_as(path, names[0])


def keep_as(path: Path, other: Path) -> None:
    """Give a checkpoint a second name, which stays with it when a new one takes the first."""
    with writing(other, RESUME):
        other.unlink(missing_ok=True)
    try:
        os.link(path, other)
    except OSError:  # a file system without links
        write_atomically(other, partial(shutil.copyfile, path), RESUME)


def has_checkpoint(folder: Path) -> bool:
    """Whether a run has saved its state."""
    return any(folder.glob("last*.pt"))


def earlier(path: Path, keep: int) -> list[Path]:
    """Where the checkpoints before `path` lie, the latest first."""
    return [path.with_name(f"{path.stem}.{number}{path.suffix}") for number in range(1, keep)]


def load_last(
    folder: Path, kind: Kind, architecture: Mapping[str, Any], keep: int, first: str = LAST, say: bool = True
) -> tuple[Path, dict[str, Any]]:
    """The last checkpoint of a run that is not damaged, and its file. first: the name to try first. say: if it is
    another one that serves.

    Raises: CheckpointError: as `load_checkpoint`, of the first one, if none can be read.
    """
    try:
        return folder / first, load_checkpoint(folder / first, kind, architecture)
    except CheckpointError as reason:
        if reason.code not in ("checkpoint-damaged", "checkpoint-missing"):
            raise
        last = folder / LAST
        for path in ([last] if first != LAST else []) + earlier(last, keep):
            with contextlib.suppress(CheckpointError):
                found = path, load_checkpoint(path, kind, architecture)
                if say:
                    _log.warning(f"{reason}: going on from {path.name}, the one before")
                return found
        raise


def load_checkpoint(path: Path, kind: Kind, architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Read a checkpoint to the CPU. Raises: CheckpointError: missing, damaged, newer, or of another kind or space."""
    if not path.is_file():
        raise CheckpointError(
            f"{path} does not exist; the run has not got that far, go on with it by --resume", code="checkpoint-missing"
        )
    try:
        if not is_intact(path):
            raise ValueError("its checksum differs")
        check_members(path, path.stat().st_size)  # PyTorch writes them unpacked, and unpacks before it looks
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns of a plain pickle; the error below is enough
            payload = torch.load(path, map_location="cpu", weights_only=True)
            payload = {**ADDED, **payload} if isinstance(payload, dict) else payload
    except Exception as reason:  # a damaged file makes PyTorch and zipfile raise nearly anything
        raise CheckpointError(
            f"{path} is no readable checkpoint ({one_line(reason)[:100]}); {_instead(path)}", code="checkpoint-damaged"
        ) from None
    if not isinstance(payload, dict) or payload.get("kind") != kind or not _is_count(payload.get("version")):
        raise CheckpointError(
            f"{path} is no checkpoint of a {kind}; give one that `autoseg {kind}` wrote", code="checkpoint-kind-differs"
        )
    if payload["version"] > CHECKPOINT_VERSION:
        raise CheckpointError(
            f"{path} has version {payload['version']}, but this autoseg reads up to {CHECKPOINT_VERSION};"
            " update autoseg",
            code="version-too-new",
        )
    wrong = next((key for key, is_right in FIELDS.items() if key not in payload or not is_right(payload[key])), None)
    if wrong is not None:
        raise CheckpointError(
            f"{path} is no complete checkpoint ('{wrong}' is missing or wrong); {_instead(path)}",
            code="checkpoint-damaged",
        )
    if payload["architecture"] != dict(architecture):
        what = "space" if kind == "search" else "genotype" if {"cell", "stages"} & {*architecture} else "network"
        differs = cut(", ".join(differences(payload["architecture"], architecture, prefix=f"{what}.")), 300)
        raise CheckpointError(
            f"{path} belongs to another {what} ({differs}); put config.yaml back, or start another run",
            code="checkpoint-architecture-differs",
        )
    return payload


def _instead(path: Path) -> str:
    """What to use in place of a damaged checkpoint."""
    last = path.with_name(LAST)
    if path.name != BEST or not (last.is_file() and is_intact(last)):
        return "use another"
    return f"use {LAST} in its place (--checkpoint last; as weights, {last})"


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Wrap the use of a checkpoint's contents. Raises: CheckpointError: they do not fit, such as other classes."""
    try:
        yield
    except (RuntimeError, LookupError, ArithmeticError, ValueError, TypeError, AttributeError) as reason:
        raise CheckpointError(
            f"{path} does not fit its run's settings ({one_line(reason)[:100]}); restore the run's own"
            " checkpoint and config.yaml",
            code="checkpoint-settings-differ",
        ) from None
