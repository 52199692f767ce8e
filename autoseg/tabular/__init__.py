"""Tables of trained networks."""
