"""The errors that a user can cause. The command line prints each as one line and exits with status 2."""

from __future__ import annotations


class AutosegError(Exception):
    """What the user gave is wrong; the message says what, where, and what to do."""


class ConfigError(AutosegError):
    """A setting that is unknown or out of range."""


class SearchSpaceError(AutosegError):
    """A search space that cannot be read or makes no sense."""


class GenotypeError(AutosegError):
    """A genotype that cannot be read, or that its space does not hold."""


class DataError(AutosegError):
    """A data set, image or mask that cannot be used as it is."""


class RunError(AutosegError):
    """A run directory that is missing, incomplete, or already in use."""


class CheckpointError(AutosegError):
    """A checkpoint that cannot be read or belongs to something else."""


class ExportError(AutosegError):
    """An export that cannot be made."""


class Interrupted(Exception):  # noqa: N818 - no mistake of anyone's
    """Raised at a step boundary, after a clean save, when the user asked a run to stop."""
