"""The relaxed search space as one differentiable network."""

from autoseg.supernet.fast.kernels import KernelChoice, choose_kernels
from autoseg.supernet.supernet import Supernet, build_supernet

__all__ = ["KernelChoice", "Supernet", "build_supernet", "choose_kernels"]
