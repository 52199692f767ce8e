"""Building blocks of networks: cell operations, stem, heads, and resizing."""
