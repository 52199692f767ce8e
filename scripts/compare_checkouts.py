"""Whether a change made searching slower: the same iteration in two checkouts of autoseg, in turn.

Each checkout computes in a process of its own, and the two take turns, so that what else the machine does meets both
alike. An iteration is a weight step and an architecture step. Its figure is the processor's seconds, not the clock's.
The ratio has a bootstrap interval over the pairs of turns; aten operations of a forward pass are counted as well.

Usage: python scripts/compare_checkouts.py BEFORE AFTER [--workloads W2 W3] [--turns 20]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

WORKLOADS = {
    "W1": {"layers": 12, "filters": 8, "blocks": 5, "size": 321, "batch": 2},
    "W2": {"layers": 12, "filters": 8, "blocks": 5, "size": 129, "batch": 2},
    "W3": {"layers": 6, "filters": 4, "blocks": 3, "size": 96, "batch": 8},
}
"""Layers, filters and blocks of the space `auto_deeplab`; side of the images; images a batch."""
CLASSES = 19

WORKER = """
import json, os, sys, time
import torch
from torch.utils._python_dispatch import TorchDispatchMode
import autoseg
from autoseg.engine.environment import pick_device

workload = json.loads(sys.argv[1])
torch.set_num_threads(1)
pick_device("cpu")  # sets memory up as a run does
torch.manual_seed(0)
data = autoseg.SearchSpace.load("auto_deeplab").to_dict()
data["network"] |= {"layers": workload["layers"], "filter_multiplier": workload["filters"]}
data["cell"]["blocks"] = workload["blocks"]
supernet = autoseg.build_supernet(autoseg.SearchSpace.parse(data), int(sys.argv[2])).train()
images = torch.randn(workload["batch"], 3, workload["size"], workload["size"])
masks = torch.randint(int(sys.argv[2]), (workload["batch"], workload["size"], workload["size"]))
optimizers = (torch.optim.SGD(supernet.weights(), lr=0.01, momentum=0.9), torch.optim.Adam(supernet.arch.parameters()))


class Count(TorchDispatchMode):
    calls = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls += 1
        return function(*args, **(kwargs or {}))


def iterate():
    for freeze, optimizer in zip((supernet.train_weights, supernet.train_architecture), optimizers):
        freeze()
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(supernet(images), masks)
        loss.backward()
        optimizer.step()
    return loss.item()


losses = [iterate() for _ in range(2)]
with Count() as count:
    supernet(images)
print(json.dumps({"file": autoseg.__file__, "operations": count.calls, "losses": losses}), flush=True)
for _ in sys.stdin:
    start = time.process_time()
    iterate()
    print(time.process_time() - start, flush=True)
"""


class Checkout:
    """A process that computes iterations with the autoseg of one folder."""

    def __init__(self, folder: Path, workload: dict[str, int]) -> None:
        command = [sys.executable, "-c", WORKER, json.dumps(workload), str(CLASSES)]
        environment = {**os.environ, "PYTHONPATH": str(folder), "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8192"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment
        )
        self.facts = json.loads(self._line())
        if not Path(self.facts["file"]).is_relative_to(folder):
            raise SystemExit(f"error: {folder} did not give its own autoseg, but {self.facts['file']}")

    def iterate(self) -> float:
        """The processor's seconds of one iteration."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"error: the process of a checkout ended with status {self.process.wait()}")
        return line

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def compare(folders: tuple[Path, Path], workload: dict[str, int], turns: int) -> dict[str, object]:
    """Seconds of both, the ratio after / before with its 95% interval, operations, and whether the losses are equal."""
    both = [Checkout(folder, workload) for folder in folders]
    seconds = np.array([[one.iterate() for one in (both if turn % 2 else both[::-1])] for turn in range(turns)])
    seconds[::2] = seconds[::2, ::-1]  # in even turns the second checkout went first
    for one in both:
        one.close()
    drawn = np.random.default_rng(0).integers(turns, size=(10_000, turns))
    means = seconds[drawn].mean(1)
    low, high = np.quantile(means[:, 1] / means[:, 0], (0.025, 0.975))
    before, after = (one.facts for one in both)
    return {
        "seconds": seconds.mean(0).round(3).tolist(),
        "ratio": round(float(seconds[:, 1].mean() / seconds[:, 0].mean()), 4),
        "interval": [round(float(low), 4), round(float(high), 4)],
        "operations": [before["operations"], after["operations"]],
        "equal_losses": before["losses"] == after["losses"],
    }


def main() -> None:
    """Print a line a workload."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=["W2", "W3"])
    parser.add_argument("--turns", type=int, default=20, help="iterations of each checkout")
    options = parser.parse_args()
    for name in options.workloads:
        folders = options.before.resolve(), options.after.resolve()
        print(name, json.dumps(compare(folders, WORKLOADS[name], options.turns)), flush=True)


if __name__ == "__main__":
    main()
