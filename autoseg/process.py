"""Environment variables that make small parallel kernels fast on a CPU. Loads without torch."""

from __future__ import annotations

import os


def prepare_process() -> None:
    """Set the environment variables that PyTorch's libraries read, unless the user has set them.

    The command line calls this before torch is loaded, `autoseg.search` and others when they are called. If torch is
    loaded already, the spinning of threads stays as it is.
    """
    # A supernet's step calls more distinct convolutions than the 1,024 that oneDNN caches; it would rebuild the others
    # in each step. oneDNN reads the variable at the first convolution.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
    # PyTorch's threads spin this long before they yield. GCC's default is a hundred times as long, which makes steps
    # ten times slower while another process uses one of the cores. The variable is read when torch is loaded.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
