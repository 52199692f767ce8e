"""Batches, and keeping decoded samples."""
