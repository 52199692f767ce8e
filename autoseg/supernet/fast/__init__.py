"""The supernet's fused form."""
