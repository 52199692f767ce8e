"""A genotype as an nn.Module."""

from autoseg.network.fold import fold_batch_norm, for_inference
from autoseg.network.network import Network, build_searched

__all__ = ["Network", "build_searched", "fold_batch_norm", "for_inference"]
