"""The relaxed search space as one differentiable network."""

from autoseg.supernet.supernet import Supernet, build_supernet

__all__ = ["Supernet", "build_supernet"]
