"""From a search space to its supernet: the fused one if possible, else the reference."""

from __future__ import annotations

from typing import Any

from autoseg.errors import SearchSpaceError
from autoseg.genotype.design import macro_of
from autoseg.genotype.held import check_relaxable, held_genes, held_notes
from autoseg.ops.check import check_blocks, check_operations
from autoseg.registry import OPERATIONS
from autoseg.space.schema import SearchSpace
from autoseg.supernet.fast.supernet import FusedSupernet
from autoseg.supernet.reference import Supernet
from autoseg.supernet.stage import StagedSupernet


def build_supernet(
    space: SearchSpace, num_classes: int, arch_init_std: float = 1e-3, in_channels: int = 3, single_output: bool = False
) -> Supernet:
    """The supernet of a space with fresh weights.

    Args:
        space: The search space.
        num_classes: Number of classes K, at least 2.
        arch_init_std: Standard deviation of the initial logits of alpha, beta and gamma.
        in_channels: Number of image channels.
        single_output: One output for two classes; the logits are then 0 and that output.

    Returns:
        A module that maps normalised images (N, in_channels, H, W) to logits (N, K, H, W).

    Raises:
        ConfigError: A single output for more than two classes.
        PluginError: A user's own operation does not do what a cell needs.
        SearchSpaceError: An operation without a fused form in a space with PC-DARTS or GDAS; a wide space with either,
            or one that lacks what a gradient search holds fixed (`autoseg.genotype.held`).
    """
    if space.macro is not None:
        return _build_staged(space, num_classes, arch_init_std, in_channels, single_output)
    check_operations(space.cell.operations)
    unfused = unfused_operations(space)
    if not unfused:
        return FusedSupernet(space, num_classes, arch_init_std, in_channels, single_output)
    for key in ("pc_darts", "gdas"):
        if getattr(space.relaxation, key) is not None:
            raise SearchSpaceError(
                f"relaxation.{key} needs operations with a fused form, which '{unfused[0]}' of space '{space.name}' has"
                f" not; leave relaxation.{key} or the operation out",
                code="operation-without-fused-form",
            )
    return Supernet(space, num_classes, arch_init_std, in_channels, single_output)


def _build_staged(space: SearchSpace, *settings: Any) -> Supernet:
    check_relaxable(space)
    template = held_genes(space).get("cell", ())
    used = space.cell.operations if space.searches_cell else (edge.operation for block in template for edge in block)
    check_operations(tuple(dict.fromkeys(used)))
    check_blocks(macro_of(space).blocks)
    return StagedSupernet(space, *settings)


def unfused_operations(space: SearchSpace) -> list[str]:
    """The operations of a space without a fused form. With any of them the search uses the reference supernet."""
    return [name for name in space.cell.operations if OPERATIONS[name].fused is None]


def reference_notes(space: SearchSpace) -> list[str]:
    """A line if a search runs through the reference supernet or that of a wide space; empty if it is fused."""
    if space.macro is not None:
        return held_notes(space)
    names = unfused_operations(space)
    if not names:
        return []
    have = "has" if len(names) == 1 else "have"
    return [
        f"{', '.join(names)} {have} no fused form: the search runs through the reference supernet, which is several"
        " times slower"
    ]
