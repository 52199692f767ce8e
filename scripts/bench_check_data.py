"""Time and memory of `autoseg check-data` on generated images: JPEG photos, PNG masks, a train and a val split.

    python scripts/bench_check_data.py --images 60
    python scripts/bench_check_data.py --images 3000 --size 1024x2048 --json bench.json

The images are textures with the noise of a camera, so that their JPEGs are as long as photos' (0.3 bytes a pixel);
the masks have 19 classes in regions with curved borders. A few are made, the others are those moved by some pixels, as
making them takes longer than checking them. The command runs in a process of its own; peak memory is that of its
resident set.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES, DIFFERENT = 19, 8
VAL_SHARE = 6
"""One in so many images is for validation."""


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        root = Path(name) / "data"
        began = time.perf_counter()
        image_bytes, mask_bytes = make_images(root, options.images, options.size)
        made = time.perf_counter() - began
        seconds, peak_bytes, last_line = run_check(root, Path(name) / "checked")
    height, width = options.size
    result = {
        "images": options.images,
        "size": [height, width],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "image_bytes": image_bytes,
        "mask_bytes": mask_bytes,
        "seconds": seconds,
        "images_per_second": options.images / seconds,
        "peak_bytes": peak_bytes,
        "said": last_line,
    }
    print(
        f"{options.images} images of {width}x{height} ({image_bytes / 1e6:.0f} MB, and {mask_bytes / 1e6:.0f} MB of"
        f" masks, made in {made:.0f} s)\nchecked in {seconds:.1f} s on {result['cores']} cores"
        f" ({result['images_per_second']:.1f} a second), peak memory {peak_bytes / 2**20:.0f} MiB: {last_line}"
    )
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--size", type=size, default=(1024, 2048), metavar="HxW")
    parser.add_argument("--folder", help="where the temporary folder is made")
    parser.add_argument("--json", help="a file for the figures")
    return parser.parse_args(arguments)


def size(text: str) -> tuple[int, int]:
    height, width = text.lower().split("x")
    return int(height), int(width)


def make_images(root: Path, count: int, size: tuple[int, int]) -> tuple[int, int]:
    """images/train, masks/train, images/val, masks/val; the bytes of all images, and of all masks."""
    rng = np.random.default_rng(0)
    kinds = [(texture(rng, size), regions(rng, size)) for _ in range(min(count, DIFFERENT))]
    lengths = [0, 0]
    for number in range(count):
        split = "val" if number % VAL_SHARE == VAL_SHARE - 1 else "train"
        pictures = kinds[number % len(kinds)]
        shift = 8 * (number // len(kinds))
        for place, (part, suffix) in enumerate((("images", "jpg"), ("masks", "png"))):
            path = root / part / split / f"{number:06}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.roll(pictures[place], shift, axis=1)).save(path, quality=90)
            lengths[place] += path.stat().st_size
    return lengths[0], lengths[1]


def texture(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8."""
    height, width = size
    coarse = rng.integers(0, 256, (height // 32 + 2, width // 32 + 2, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)
    return np.clip(smooth + rng.normal(0, 5, (height, width, 1)), 0, 255).astype(np.uint8)


def regions(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8: contours of a smooth function."""
    height, width = size
    coarse = rng.integers(0, 256, (height // 64 + 2, width // 64 + 2), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return (smooth.astype(np.int64) * CLASSES // 256).astype(np.uint8)


def run_check(root: Path, out: Path) -> tuple[float, int, str]:
    """Seconds, the most bytes resident, and the last line of the command."""
    command = [sys.executable, "-m", "autoseg", "check-data", str(root), "--out", str(out)]
    began = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return seconds, peak * (1 if sys.platform == "darwin" else 1024), done.stdout.strip().splitlines()[-1]


if __name__ == "__main__":
    sys.exit(main())
