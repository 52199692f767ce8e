"""Searching, retraining, evaluating and predicting."""
