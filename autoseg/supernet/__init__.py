"""The relaxed search space as one differentiable network."""

from autoseg.supernet.build import build_supernet, unfused_operations
from autoseg.supernet.fast.kernels import KernelChoice, choose_kernels
from autoseg.supernet.reference import Supernet

__all__ = ["KernelChoice", "Supernet", "build_supernet", "choose_kernels", "unfused_operations"]
