"""Counts aten operations and convolutions of one forward pass: the fast supernet against the textbook one.

Usage: python scripts/count_operations.py [--size 129] (the paper's space, batch 2)
"""

import argparse
import sys
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from oracles import textbook_of

from autoseg import SearchSpace, build_supernet


class Count(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operations = self.convolutions = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.operations += 1
        self.convolutions += "convolution" in str(function)
        return function(*args, **(kwargs or {}))


def count(network, images):
    with Count() as counted:
        network(images)
    return counted


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=129)
    arguments = parser.parse_args()
    fast = build_supernet(SearchSpace.load("auto_deeplab"), 19)
    images = torch.randn(2, 3, arguments.size, arguments.size)
    ours, textbook = count(fast, images), count(textbook_of(fast, 19), images)
    print(f"fast      {ours.operations:>7,} aten operations, {ours.convolutions:>6,} convolutions")
    print(f"textbook  {textbook.operations:>7,} aten operations, {textbook.convolutions:>6,} convolutions")
    print(f"ratio     {textbook.operations / ours.operations:.1f}")


if __name__ == "__main__":
    main()
