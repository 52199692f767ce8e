"""From a folder to a measured network on data sets of every kind: check-data, a quick search, a quick retraining.

    python scripts/try_data_sets.py --camvid /data/camvid --voc /data/VOC2012 --out runs/data-sets

CamVid and PASCAL VOC as they are; from CamVid's images folders laid out as Cityscapes, as ADE20K and with 0/255 masks
(road), and images of one 16-bit channel; colour-coded masks from generated images. Left out, all are made of generated
images (tests/helpers/data_layouts.py). No settings are given, but for the colours' YAML. --out gets table.md and
pictures.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from helpers.data_layouts import MAKERS, Source, generated, source

import autoseg
from autoseg.api.demo import commonest_class
from autoseg.config.data import DataConfig
from autoseg.data.dataset import open_dataset
from autoseg.engine.predict import label_map, load_network
from autoseg.errors import AutosegError
from autoseg.files import write_text
from autoseg.viz.palette import as_picture, colour, palette
from autoseg.viz.style import SMALL, save, styled

TRAIN, VAL = 120, 40
"""Images of a set that is made."""
SIZE = (96, 128)
"""Of generated images: height and width."""
TITLES = {
    "cityscapes": "as Cityscapes",
    "ade20k": "as ADE20K",
    "binary": "0/255",
    "colour_coded": "in colour",
    "sixteen_bit": "16 bit",
}
SHOWN = 3
"""Images of each set in the picture."""
WIDTH, GAP, NAME = 1.08, 0.04, 0.22
"""Of a picture, between two, and of the column of names, in inches."""


class Tried(NamedTuple):
    """A line of the table, and truth and prediction, after the image if wanted, as pictures (H, W, 3)."""

    name: str
    line: str
    pictures: list[tuple[np.ndarray, ...]]


def data_sets(options: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """A name, and what `--data` takes."""
    drawn = generated(SIZE, TRAIN, VAL)
    photos: Source = drawn
    if options.camvid:
        yield "CamVid", options.camvid
        photos = source(DataConfig(root=str(options.camvid)), TRAIN, VAL)
    if options.voc:
        yield "PASCAL VOC", options.voc
    for name, make in MAKERS.items():
        folder = options.out / "made" / name
        made = folder / "colours.yaml" if name == "colour_coded" else folder
        if not folder.exists():
            made = make(drawn if name == "colour_coded" else photos, folder)
        yield TITLES[name], made


def attempt(name: str, data: Path, out: Path, images: bool) -> Tried:
    """Check, search, decode, retrain and evaluate; what is there of an earlier call is taken."""
    began = time.perf_counter()
    report = autoseg.check_data(data, out=out / "checked", overwrite=True, show_progress=False)
    checked = time.perf_counter() - began
    net = out / "net"
    search = autoseg.search("tiny", data, out / "search", quick=True, resume=True, show_progress=False)
    genotype = autoseg.decode(search.path)
    autoseg.retrain(genotype, data, net, quick=True, resume=True, show_progress=False)
    result = autoseg.evaluate(net, show_progress=False)
    network, config, saved = load_network(net)
    val = open_dataset(config.data, "val")
    baseline = commonest_class(open_dataset(config.data, "train"), val).miou
    samples = [val.load(index * len(val) // SHOWN) for index in range(SHOWN)]
    found = [label_map(network, image, config.data, torch.device("cpu")) for image, _ in samples]
    colours = palette(val.num_classes)
    pictures = [
        (*[as_picture(image)] * images, *(colour(labels, colours, val.ignore_label) for labels in (mask, labels)))
        for (image, mask), labels in zip(samples, found, strict=True)
    ]
    low, high = result["miou_interval"]
    lines = len(data.read_text().splitlines()) if data.suffix == ".yaml" else 0
    seconds = torch.load(search.path / "checkpoints/last.pt", weights_only=True)["seconds"]
    line = (
        f"| {name} | {said(report.title)} | {lines or 'none'} | {checked:.1f} s | {seconds:.0f} s |"
        f" {saved['seconds']:.0f} s | {result['miou']:.3f} ({low:.3f} to {high:.3f}) | {baseline:.3f} |"
    )
    return Tried(name, line, pictures)


def said(title: str) -> str:
    """A title without the folder's place."""
    name, counts = title.split(" in ", 1)[0], title.rsplit(": ", 1)[-1]
    return f"{name}: {counts}"


@styled
def draw(tried: Sequence[Tried]) -> Figure:
    """A row a data set: truth and prediction, perhaps after the image, of some images."""
    titles = ("image", "truth", "prediction")[-len(tried[0].pictures[0]) :]
    heights = [WIDTH * max(each[0].shape[0] / each[0].shape[1] for each in row.pictures) for row in tried]
    width = NAME + len(titles) * SHOWN * (WIDTH + GAP) + GAP
    height = 0.25 + sum(heights) + GAP * len(tried)
    figure = Figure(figsize=(width, height))
    top = 0.25
    for row, tall in zip(tried, heights, strict=True):
        middle = 1 - (top + tall / 2) / height
        figure.text(NAME / 2 / width, middle, row.name, rotation=90, ha="center", va="center", fontsize=SMALL)
        for place, picture in enumerate(picture for sample in row.pictures for picture in sample):
            left = NAME + place * (WIDTH + GAP)
            axes = figure.add_axes((left / width, 1 - (top + tall) / height, WIDTH / width, tall / height))
            axes.imshow(picture, interpolation="nearest")
            axes.set_axis_off()
            if row is tried[0]:
                axes.set_title(titles[place % len(titles)], fontsize=SMALL, loc="center", pad=3)
        top += tall + GAP
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 where what was given is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", type=Path, metavar="DIR")
    parser.add_argument("--voc", type=Path, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs; call again to go on")
    parser.add_argument("--images", action="store_true", help="show the images too in the picture")
    parser.add_argument("--only", help="data sets whose names begin so, such as A,B")
    options = parser.parse_args(arguments)
    table = [
        "| data set | said | YAML lines | check | search | retrain | val mIoU (95% interval) | commonest class |",
        "|---|---|---:|---:|---:|---:|---|---:|",
    ]
    tried: list[Tried] = []
    try:
        for name, data in data_sets(options):
            if options.only is None or name.lower().startswith(tuple(options.only.lower().split(","))):
                out = options.out / re.sub("[^a-z0-9]+", "_", name.lower())
                tried.append(attempt(name, data, out, options.images))
                print(tried[-1].line, file=sys.stderr)
    except AutosegError as reason:
        print(f"error: {reason} [{reason.code}]", file=sys.stderr)
        return 2
    text = "\n".join([*table, *(each.line for each in tried)])
    write_text(options.out / "table.md", text + "\n")
    save(draw(tried), options.out / "predictions", ["png"])
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
