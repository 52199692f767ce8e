"""The checks of `autoseg check-data`."""
