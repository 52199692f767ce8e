"""Peak memory of measuring and of labelling one large image of noise, above what the process had before.

    python scripts/bench_evaluation_memory.py --network deeplabv3_shaped --classes 150 --size 3000x4000
    python scripts/bench_evaluation_memory.py --network unet --width 0.125 --classes 21 --size 1500x2000 --flip

Weights are random: they change no memory. `--predict` labels the image instead of measuring it.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import numpy as np
import torch

import autoseg
from autoseg.config.data import DataConfig
from autoseg.config.inference import InferenceConfig
from autoseg.data.base import SegmentationDataset
from autoseg.data.dataset import resolve
from autoseg.engine.evaluate import evaluate_network
from autoseg.engine.predict import label_map
from autoseg.metrics.details import Details
from autoseg.network import for_inference

BYTES = 1 if sys.platform == "darwin" else 1024
"""Of the unit in which a system tells the peak."""


class Noise(SegmentationDataset):
    """One image of noise with a mask of noise."""

    def __init__(self, size: tuple[int, int], classes: int) -> None:
        super().__init__(["noise"], [f"class_{label}" for label in range(classes)])
        self.size = size

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (*self.size, 3), dtype=np.uint8)
        return image, rng.integers(0, self.num_classes, self.size).astype(np.uint16)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * BYTES


def size(text: str) -> tuple[int, int]:
    height, width = text.lower().split("x")
    return int(height), int(width)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="deeplabv3_shaped", help="a genotype or a network of the literature")
    parser.add_argument("--width", type=float, help="of a network of the literature, a share of the published one")
    parser.add_argument("--classes", type=int, default=21)
    parser.add_argument("--size", type=size, default=(1500, 2000), metavar="HxW")
    parser.add_argument("--flip", action="store_true")
    parser.add_argument("--window", type=size, metavar="HxW")
    parser.add_argument("--predict", action="store_true")
    options = parser.parse_args(arguments)
    source = options.network if options.width is None else {"name": options.network, "width": options.width}
    cpu = torch.device("cpu")
    network = for_inference(autoseg.build_network(source, options.classes).eval(), cpu)
    data = resolve(DataConfig(layout="generated", mean=(0.5,) * 3, std=(0.25,) * 3))
    inference = InferenceConfig(flip=options.flip, window=options.window)
    noise = Noise(options.size, options.classes)
    image = noise.load(0).image
    before, began = peak_bytes(), time.perf_counter()
    if options.predict:
        label_map(network, image, data, cpu, inference)
    else:
        details = Details(options.classes, noise.ignore_label)
        evaluate_network(network, noise, data, cpu, inference=inference, details=details)
    seconds, more = time.perf_counter() - began, peak_bytes() - before
    height, width = options.size
    print(
        f"{'predict' if options.predict else 'evaluate'}, {options.classes} classes at {height}x{width}: peak"
        f" {more / 1e9:.2f} GB above {before / 1e9:.2f} GB, in {seconds:.0f} s"
        f" (all classes of all pixels once: {4 * options.classes * height * width / 1e9:.2f} GB)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
