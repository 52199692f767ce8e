"""What several trained networks make of the same images, side by side with the truth: label maps, a column a network.

    python scripts/compare_predictions.py runs/a-net runs/unet --out labels.png
    python scripts/compare_predictions.py runs/a-net --crf --indices 3,40,77 --out labels.png

Of the first run's data, split val; `--crf` adds the first network's maps after a dense CRF, `--images` the images.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from autoseg.config.inference import CrfConfig, InferenceConfig
from autoseg.data.dataset import open_dataset
from autoseg.engine.predict import label_map, load_network
from autoseg.errors import AutosegError
from autoseg.network import for_inference
from autoseg.viz.palette import as_picture, colour, palette
from autoseg.viz.samples import class_patches
from autoseg.viz.style import SMALL, save, styled

WIDTH, GAP = 1.55, 0.05
"""Of a picture and between two, in inches."""


@styled
def draw(columns: dict[str, list[np.ndarray]], legend: list) -> Figure:  # type: ignore[type-arg]
    """Pictures (H, W, 3), a column a name; below, the classes."""
    rows = len(next(iter(columns.values())))
    height = WIDTH * next(iter(columns.values()))[0].shape[0] / next(iter(columns.values()))[0].shape[1]
    below = 0.2 * -(-len(legend) // 6) + 0.1
    size = (len(columns) * (WIDTH + GAP) + GAP, rows * (height + GAP) + 0.25 + below)
    figure = Figure(figsize=size)
    for column, (name, pictures) in enumerate(columns.items()):
        for row, picture in enumerate(pictures):
            left, top = GAP + column * (WIDTH + GAP), 0.25 + row * (height + GAP)
            place = (left / size[0], 1 - (top + height) / size[1], WIDTH / size[0], height / size[1])
            axes = figure.add_axes(place)
            axes.imshow(picture, interpolation="nearest")
            axes.set_axis_off()
            if row == 0:
                axes.set_title(name, fontsize=SMALL, loc="center", pad=3)
    figure.legend(handles=legend, loc="lower center", ncols=6, fontsize=SMALL, frameon=False, handlelength=1)
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 where what was given is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="directories of retrainings, NAME=DIRECTORY to name one")
    parser.add_argument("--indices", default="5,40,75", help="which images of val (5,40,75)")
    parser.add_argument("--images", action="store_true", help="a column of the images themselves")
    parser.add_argument("--crf", action="store_true")
    parser.add_argument("--out", type=Path, required=True, help="the picture, .png, .svg or .pdf")
    options = parser.parse_args(arguments)
    device = torch.device("cpu")
    try:
        loaded = []
        for run in options.runs:
            name, _, path = run.rpartition("=")
            network, config, _ = load_network(path)
            loaded.append((name or Path(path).name, for_inference(network, device), config.data))
        dataset = open_dataset(loaded[0][2], "val")
        samples = [dataset.load(int(index)) for index in options.indices.split(",")]
        asked = [(name, network, data, InferenceConfig()) for name, network, data in loaded]
        if options.crf:
            name, network, data = loaded[0]
            asked.insert(1, (f"{name}, CRF", network, data, InferenceConfig(crf=CrfConfig())))
        found = {
            name: [label_map(network, image, data, device, inference) for image, _ in samples]
            for name, network, data, inference in asked
        }
    except AutosegError as reason:
        print(f"error: {reason} [{reason.code}]", file=sys.stderr)
        return 2
    colours, masks = palette(dataset.num_classes), [mask for _, mask in samples]
    maps = {"truth": masks, **found}
    columns = {"image": [as_picture(image) for image, _ in samples]} if options.images else {}
    columns |= {name: [colour(each, colours, dataset.ignore_label) for each in of] for name, of in maps.items()}
    legend = class_patches(
        [*masks, *(each for of in found.values() for each in of)], colours, dataset.classes, dataset.ignore_label
    )
    save(draw(columns, legend), options.out.with_suffix(""), [options.out.suffix.removeprefix(".")])
    return 0


if __name__ == "__main__":
    sys.exit(main())
