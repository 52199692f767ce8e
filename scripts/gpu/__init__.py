"""The stages of `scripts/gpu/run.sh`: what is checked, measured and trained on a GPU (docs/gpu.md)."""
