"""What is measured of predictions."""
