"""The cells that a wide space takes from other genotypes, `macro.cells`."""

from __future__ import annotations

from autoseg.errors import SearchSpaceError
from autoseg.genotype.schema import Genotype
from autoseg.space.schema import SearchSpace


def check_templates(space: SearchSpace) -> None:
    """Refuse templates that cannot be cells of a space.

    Raises: GenotypeError: an unknown or wrong genotype. SearchSpaceError: a genotype without a cell, or with an
    operation that the space's cell lacks.
    """
    known = space.cell.operations
    for name in space.macro.cells if space.macro is not None else ():
        cell = Genotype.load(name).cell
        if not cell:
            raise SearchSpaceError(
                f"macro.cells of space '{space.name}': {name} has no cell, only stages of other blocks; leave it out",
                code="template-without-cell",
            )
        for operation in (edge.operation for block in cell for edge in block):
            if operation not in known:
                raise SearchSpaceError(
                    f"macro.cells of space '{space.name}': {name} has the operation '{operation}', which"
                    " cell.operations lack; add it there, or take another template",
                    code="template-not-in-space",
                )
