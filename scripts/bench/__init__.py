"""The parts of `scripts/bench_supernet.py`."""
