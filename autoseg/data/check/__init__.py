"""What `autoseg check-data` finds."""
