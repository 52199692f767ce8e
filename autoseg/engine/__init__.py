"""Doing the work: searching, retraining, evaluating and predicting."""
