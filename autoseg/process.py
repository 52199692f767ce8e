"""Settings of the process that make small parallel kernels fast on a CPU. Loads without torch."""

from __future__ import annotations

import os


def prepare_process() -> None:
    """Set what PyTorch's libraries read from the environment, unless the user has set it.

    The command line does so before torch is loaded. In Python, `autoseg.search` and others do it when they are called;
    the spinning of threads then stays as it is if torch is loaded already.
    """
    # A supernet's steps call more distinct convolutions than the 1,024 that oneDNN keeps; the rest it would make anew
    # in each step. It reads this at the first convolution.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
    # How long PyTorch's threads spin for each other before they give way. GCC's default is a hundred times that, which
    # makes steps ten times as long where other work has one of the cores. It is read when torch is loaded.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
