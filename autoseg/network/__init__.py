"""A genotype as an nn.Module."""

from autoseg.network.fold import fold_batch_norm, for_inference
from autoseg.network.network import Network, build_network

__all__ = ["Network", "build_network", "fold_batch_norm", "for_inference"]
