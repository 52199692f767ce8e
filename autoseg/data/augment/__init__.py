"""Random changes to images and masks."""
