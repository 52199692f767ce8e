"""Tests of `autoseg.tabular`."""
