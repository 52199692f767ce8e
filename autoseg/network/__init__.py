"""A genotype as an nn.Module."""

from autoseg.network.network import Network, build_network

__all__ = ["Network", "build_network"]
