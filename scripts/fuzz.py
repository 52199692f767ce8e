"""Fuzz what reads files and settings: nothing but an AutosegError may come out, in 15 seconds and without growth.

Usage: python scripts/fuzz.py [TARGET ...] [--inputs N] [--seed S]      every target, inputs changed at random
       python scripts/fuzz.py TARGET --atheris FOLDER [--inputs N]      guided by coverage (pip install atheris)

Both begin with files that are right (`seeds`). FOLDER keeps the inputs that reach more code. An input that fails is
written to fuzz_failures/ and its traceback printed; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import math
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(tempfile.mkdtemp(prefix="autoseg-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
LONGEST = 15.0
"""Seconds of a processor that one input may take."""
SPACE: dict[str, Any] = {
    "name": "mini",
    "cell": {"blocks": 1, "operations": ["none", "skip_connect", "sep_conv_3x3"]},
    "network": {"layers": 2, "strides": [4, 8], "filter_multiplier": 2},
    "stem": {"channels": [4, 4], "strides": [2, 2]},
    "search": {"epochs": 3, "arch_start_epoch": 1},
}
GENOTYPE: dict[str, Any] = {
    "name": "mini",
    "cell": [[{"input": "prev", "operation": "sep_conv_3x3"}, {"input": "prev_prev", "operation": "skip_connect"}]],
    "network": {"strides": [8, 4], "filter_multiplier": 4},
    "stem": {"channels": [4, 4], "strides": [2, 2]},
}
DATA = {"layout": "folder", "root": ".", "classes": ["a", "b"], "colours": {"a": [1, 2, 3], "b": [4, 5, 6]},
        "label_map": {0: 1}, "mean": [0.5], "std": [0.5], "resize": [64, 64],
        "splits": {"train": {"images": "i", "masks": "m"}, "val": {"list": "l.txt"}}}  # fmt: skip
COCO = {"images": [{"id": 1, "file_name": "0.png", "width": 48, "height": 40}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]},
                        {"id": 2, "image_id": 1, "category_id": 1,
                         "segmentation": {"size": [40, 48], "counts": [10, 20, 1890]}}]}  # fmt: skip
LABELME = {"imagePath": "0.png", "imageHeight": 40, "imageWidth": 48,
           "shapes": [{"label": "a", "shape_type": "polygon", "points": [[1, 1], [9, 1], [9, 9]]},
                      {"label": "b", "shape_type": "circle", "points": [[20, 20], [25, 20]]}]}  # fmt: skip
SUPERVISELY = {"size": {"height": 40, "width": 48}, "tags": [],
               "objects": [{"classTitle": "a", "geometryType": "polygon",
                            "points": {"exterior": [[1, 1], [9, 1], [9, 9]], "interior": []}}]}  # fmt: skip
STUDIO = [{"data": {"image": "0.png"}, "annotations": [{"result": [
    {"type": "polygonlabels", "original_width": 48, "original_height": 40,
     "value": {"points": [[1, 1], [50, 1], [50, 50]], "polygonlabels": ["a"]}}]}]}]  # fmt: skip
CVAT = ('<annotations><meta><labels><label><name>a</name></label></labels></meta><image id="0" name="0.png" width="48"'
        ' height="40"><polygon label="a" points="1,1;9,1;9,9" z_order="0"/><mask label="a" rle="1, 3" left="1" top="1"'
        ' width="2" height="2" z_order="1"/></image></annotations>')  # fmt: skip
INTERESTING = (
    b"0", b"-1", b"1e999", b"NaN", b"Infinity", b"9" * 400, b"\0", b"\xff\xfe", b"[" * 1200, b"{", b"&a *a", b"<<: *a",
    b"~x/", b"x" * 300, b"\\ud800", b'"' + b"y" * 140_000 + b'"', b"!!binary ", b"? ", b"- " * 60, b"2024-99-99",
    b"0x", b"1:1:1", b"null", b"true", b"[]", b"{}", b"\n", b",", b":", b"\xed\xa0\x80",
)  # fmt: skip


# --- targets ----------------------------------------------------------------------------------------------------------


def place(name: str, content: bytes) -> Path:
    path = FOLDER / name
    path.write_bytes(content)
    return path


def settings_of(name: str) -> Callable[[bytes], None]:
    def read(content: bytes) -> None:
        from autoseg.config.base import parse
        from autoseg.config.data import DataConfig, data_settings
        from autoseg.config.training import RetrainSchedule, SearchSchedule
        from autoseg.errors import AutosegError
        from autoseg.genotype.schema import Genotype
        from autoseg.space.schema import load_space
        from autoseg.zoo.schema import load_architecture

        path = place(name, content)
        for one in (
            lambda: load_space(path),
            lambda: Genotype.load(path).to_dict(),
            lambda: load_architecture(path).to_dict(),
            lambda: parse(DataConfig, data_settings(path)).to_dict(),
            lambda: [parse(kind, load_space(path)[1].get("search", {})) for kind in (SearchSchedule, RetrainSchedule)],
        ):
            try:
                one()
            except AutosegError as reason:
                line_of(reason)

    return read


def assignment(content: bytes) -> None:
    from autoseg.config.base import merge, parse, parse_assignments
    from autoseg.engine.config import SearchConfig
    from autoseg.setup.settings import ANY_DATA

    text = content.decode(errors="surrogateescape")
    given = parse_assignments(text.splitlines())
    parse(SearchConfig, merge({"space": {k: v for k, v in SPACE.items() if k != "search"}}, given) | {"data": ANY_DATA})


def name(content: bytes) -> None:
    from autoseg.config.data import data_settings
    from autoseg.engine.run_directory import Run
    from autoseg.errors import AutosegError
    from autoseg.files import user_path
    from autoseg.setup.names import look_up
    from autoseg.setup.start import open_run
    from autoseg.zoo.match_cost import cost_target

    if content[1:2] == b"\0":
        text = content[: len(content) // 2 * 2].decode("utf-16-le", "surrogatepass")
    else:
        text = content.decode(errors="surrogateescape")
    resume = partial(open_run, kind="search", resume=True, given=False)
    for read in (look_up, data_settings, cost_target, Run.open, user_path, resume):
        try:
            read(text)
        except AutosegError as reason:
            line_of(reason)


def table_of(name: str) -> Callable[[bytes], None]:
    def read(content: bytes) -> None:
        from autoseg.data.discovery.label_names import names_beside
        from autoseg.data.io.colour_tables import read_class_table, table_beside

        path = place(f"tables/{name}", content)
        names_beside(path.parent)
        read_class_table(path)
        table_beside(path.parent)

    return read


def list_of(name: str) -> Callable[[bytes], None]:
    def read(content: bytes) -> None:
        from autoseg.api.predict import find_images

        find_images([place(name, content)])

    return read


def image_of(suffix: str) -> Callable[[bytes], None]:
    def read(content: bytes) -> None:
        from autoseg.data.io.images import read_image
        from autoseg.data.io.masks import look_at_mask, read_mask
        from autoseg.data.io.opening import read_header
        from autoseg.errors import AutosegError

        path = place(f"image.{suffix}", content)
        with contextlib.suppress(AutosegError):
            if math.prod(read_header(path).size) > 2**24:
                return  # a legal size, which takes its time
        for one in (read_header, read_image, look_at_mask, read_mask):
            try:
                one(path)
            except AutosegError as reason:
                line_of(reason)

    return read


def annotations_of(name: str) -> Callable[[bytes], None]:
    def read(content: bytes) -> None:
        from autoseg.data.annotations.layout import layout_of
        from autoseg.data.annotations.masks import annotations_in

        place(f"annotated/{name}", content)
        try:
            if found := annotations_in(FOLDER / "annotated", "auto", FOLDER / "cache"):
                layout_of(found)
        finally:
            (FOLDER / f"annotated/{name}").unlink()
            shutil.rmtree(FOLDER / "cache", ignore_errors=True)

    return read


def snapshot(content: bytes) -> None:
    from autoseg.space.schema import SearchSpace
    from autoseg.space.snapshot import ArchProbs

    ArchProbs.load(place("epoch_0001.npz", content), SearchSpace.parse({k: SPACE[k] for k in SPACE if k != "search"}))


def checkpoint(content: bytes) -> None:
    from autoseg.engine.checkpoint import load_checkpoint
    from autoseg.errors import AutosegError
    from autoseg.zoo.weights import read_weights

    path = place("last.pt", content)
    for one in (lambda: load_checkpoint(path, "search", {"name": "mini"}), lambda: read_weights(path)):
        try:
            one()
        except AutosegError as reason:
            line_of(reason)


def safetensors(content: bytes) -> None:
    from autoseg.zoo.weights import read_weights

    read_weights(place("a.safetensors", content))


def metrics(content: bytes) -> None:
    from autoseg.engine.run_directory import Run
    from autoseg.viz.history import draw_history

    place("metrics.jsonl", content)
    run = Run(FOLDER)
    _ = run.diverged
    if rows := run.metrics():
        draw_history(rows[:20])


SUFFIXES = ("png", "tif", "gif", "npy", "jpg", "bmp", "webp")
TABLES = ("classes.csv", "label_colors.txt", "class_dict.csv", "labelmap.txt", "classes.txt", "id2label.json",
          "dataset.json", "data.yaml")  # fmt: skip
LISTS = ("list.txt", "list.csv")
ANNOTATED = {"coco.json": COCO, "0.json": LABELME, "ds/ann/0.png.json": SUPERVISELY, "export.json": STUDIO}
TARGETS: dict[str, Callable[[bytes], None]] = {
    "yaml": settings_of("a.yaml"),
    "json": settings_of("a.json"),
    "assignment": assignment,
    "name": name,
    **{f"table-{one}": table_of(one) for one in TABLES},
    **{one: list_of(one) for one in LISTS},
    **{suffix: image_of(suffix) for suffix in SUFFIXES},
    **{one.replace("/", "-"): annotations_of(one) for one in (*ANNOTATED, "cvat.xml", "0.txt")},
    "snapshot": snapshot,
    "checkpoint": checkpoint,
    "safetensors": safetensors,
    "metrics": metrics,
}


def line_of(reason: Exception) -> None:
    """The line of an error can be printed and is short."""
    text = str(reason)
    assert len(text) < 3000, f"a line of {len(text):,} letters"
    text.encode(errors="backslashreplace")


def seeds(target: str) -> list[bytes]:
    """Inputs that are right, or nearly so."""
    import yaml

    if target in ("yaml", "json"):
        data = (SPACE, GENOTYPE, DATA, {"name": "unet", "width": 0.5})
        texts = [yaml.safe_dump(one) if target == "yaml" else json.dumps(one) for one in data]
        return [
            text.encode()
            for text in (*texts, *(["a: &a {x: [1]}\nb: {<<: *a}\nc: [*a, *a]"] if target == "yaml" else []))
        ]
    if target == "assignment":
        return [
            b"search.epochs=3",
            b"search.crop=[64, 64]\nspace.cell.blocks=2",
            b"search.loss=[{name: focal, gamma: 1}]",
        ]
    if target == "name":
        names = ("tiny", "unet", "2.5B", "~/a", "runs/a", "generated", "a.yaml")
        return [one.encode(form) for one in names for form in ("utf-8", "utf-16-le")]
    if target.startswith("table-"):
        return [b"0,a\n1,b\n", b"0 0 0 a\n1 2 3 b\n", b"name,r,g,b\na,0,0,0\nb,1,2,3\n", b'{"0": "a", "1": "b"}',
                b'{"labels": {"a": 0, "b": 1}}', b"names: [a, b]\n", b"# x\na:0,0,0::\nb:1,2,3::\n"]  # fmt: skip
    if target in LISTS:
        return [b"image,mask\na.png,b.png\n", b"a\nb\n", b"a.png b.png\n", b"id;image\n0;a.png\n"]
    if target in SUFFIXES:
        return images(target)
    if target in ("cvat.xml", "0.txt"):
        return [CVAT.encode()] if target == "cvat.xml" else [b"0 0.1 0.1 0.5 0.1 0.5 0.5\n1 0.2 0.2 0.6 0.2 0.6 0.6\n"]
    if target == "metrics":
        row = {"kind": "val", "epoch": 0, "step": 4, "loss": 1.5, "miou": 0.1}
        rows = (row, {**row, "kind": "train", "epoch": 1, "step": 8, "loss": None})
        return ["".join(json.dumps(one) + "\n" for one in rows).encode()]
    if target in ("snapshot", "checkpoint", "safetensors"):
        return [archive(target)]
    return [json.dumps(content).encode() for one, content in ANNOTATED.items() if one.replace("/", "-") == target]


def images(suffix: str) -> list[bytes]:
    from PIL import Image

    rng, found = np.random.default_rng(0), []
    if suffix == "npy":
        for array in (np.zeros((40, 40), np.uint8), np.zeros((40, 40, 4), np.float32)):
            np.save(out := io.BytesIO(), array)
            found.append(out.getvalue())
        return found
    for mode, shape in (("RGB", (36, 40, 3)), ("L", (36, 40))):
        image = Image.fromarray(rng.integers(0, 9, shape, dtype=np.uint8), mode)
        image.save(out := io.BytesIO(), {"tif": "TIFF", "jpg": "JPEG"}.get(suffix, suffix.upper()))
        found.append(out.getvalue())
    if suffix == "tif":
        import tifffile

        for shape in ((36, 40, 5), (3, 36, 40)):
            tifffile.imwrite(out := io.BytesIO(), np.zeros(shape, np.uint16))
            found.append(out.getvalue())
    return found


def archive(target: str) -> bytes:
    import torch
    from safetensors.torch import save

    from autoseg.engine.checkpoint import save_checkpoint
    from autoseg.space.schema import SearchSpace
    from autoseg.space.snapshot import ArchProbs

    path = FOLDER / "seed"
    if target == "snapshot":
        ArchProbs.zeros(SearchSpace.parse({key: SPACE[key] for key in SPACE if key != "search"})).save(path)
    elif target == "checkpoint":
        rest = {"epoch": 1, "step_in_epoch": 0, "best_miou": 0.1, "seconds": 1.0, "metrics_bytes": 10}
        save_checkpoint(path, "search", {"name": "mini"}, {**rest, "state": {"a": torch.zeros(3)}})
    else:
        return save({"a": torch.zeros(2, 3)})
    return path.read_bytes()


# --- inputs -----------------------------------------------------------------------------------------------------------


def changed(content: bytes, rng: random.Random, corpus: list[bytes]) -> bytes:
    """The content with a few changes; of a zip file, sometimes inside one of its members."""
    if content[:2] == b"PK" and rng.random() < 0.6:
        return rezipped(content, rng, corpus)
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(found) + 1)
        kind = rng.randrange(7)
        if kind == 0 and at < len(found):
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(found):
            found[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        elif kind == 2:
            del found[at : at + rng.choice((1, 2, 4, 8, 64))]
        elif kind == 3:
            found[at:at] = rng.choice(INTERESTING)
        elif kind == 4:
            piece = found[at : at + rng.choice((1, 4, 16, 64))]
            found[at:at] = piece * rng.choice((1, 2, 50))
        elif kind == 5:
            other = rng.choice(corpus)
            start = rng.randrange(len(other) + 1)
            found[at : at + rng.choice((0, 8, 64))] = other[start : start + rng.choice((4, 16, 128))]
        else:
            value = rng.choice((0, 1, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, rng.randrange(2**32)))
            found[at : at + 4] = value.to_bytes(4, rng.choice(("little", "big")))
    return bytes(found[: 2**20])


def rezipped(content: bytes, rng: random.Random, corpus: list[bytes]) -> bytes:
    """A zip file whose members are changed, left out, or doubled, with their checksums right."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            members = {one.filename: file.read(one) for one in file.infolist()}
    except Exception:
        members = {}
    if not members:
        return content[: rng.randrange(len(content) + 1)]
    out, chosen = io.BytesIO(), rng.choice([*members])
    with zipfile.ZipFile(out, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as file:
        for one, inner in members.items():
            if one != chosen:
                file.writestr(one, inner)
            elif kind := rng.randrange(6):
                file.writestr(one, changed(inner, rng, corpus) if kind < 5 else b"\0" * 2**24)
    return out.getvalue()


def check(target: str, content: bytes) -> str | None:
    """What is wrong with how a target takes an input; None if all is right."""
    from autoseg.errors import AutosegError

    started = time.process_time()
    try:
        try:
            TARGETS[target](content)
        except AutosegError as reason:
            line_of(reason)
    except Exception:
        return traceback.format_exc()
    seconds = time.process_time() - started
    return f"{seconds:.1f} seconds\n" if seconds > LONGEST else None


def fuzz(target: str, inputs: int, seed: int) -> tuple[int, set[str]]:
    """Give a target so many inputs. Returns the number that failed, and the last lines of their tracebacks."""
    rng = random.Random(f"{target}{seed}")
    corpus, failed, kinds = seeds(target), 0, set[str]()
    for _ in range(inputs):
        content = rng.choice(corpus)
        for _ in range(rng.choice((1, 1, 2))):
            content = changed(content, rng, corpus)
        if fault := check(target, content):
            failed += 1
            lines = [line for line in fault.splitlines() if "autoseg/" in line][-1:] + fault.splitlines()[-1:]
            if (kind := " ".join(lines)[:300]) not in kinds:
                kinds.add(kind)
                keep(target, content, fault)
    return failed, kinds


def keep(target: str, content: bytes, fault: str) -> None:
    folder = Path("fuzz_failures")
    folder.mkdir(exist_ok=True)
    (folder / f"{target}-{hashlib.sha256(content).hexdigest()[:12]}").write_bytes(content)
    print(f"--- {target}\n{fault[-3000:]}", file=sys.stderr)


def guided(target: str, folder: Path, inputs: int) -> None:
    """Fuzz with atheris, which ends the process."""
    import atheris

    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(seeds(target)):
        (folder / f"seed{number}").write_bytes(content)

    def one(content: bytes) -> None:
        if fault := check(target, content):
            keep(target, content, fault)
            raise RuntimeError(fault)

    options = [
        f"-runs={inputs}",
        f"-timeout={LONGEST:.0f}",
        "-rss_limit_mb=4096",
        "-max_len=65536",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(folder)], one)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atheris", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    for one in ("tables", "annotated/ds/ann"):
        (FOLDER / one).mkdir(parents=True)
    place("annotated/0.png", images("png")[0])
    os.environ["XDG_CACHE_HOME"] = str(FOLDER / "home")
    if arguments.atheris:
        import atheris

        with atheris.instrument_imports(include=["autoseg", "yaml"]):
            import autoseg.api.predict
            import autoseg.data.annotations.layout
            import autoseg.setup.start  # noqa: F401
        guided(arguments.targets[0], arguments.atheris, arguments.inputs)
    total = bad = 0
    for target in arguments.targets or TARGETS:
        before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        failed, kinds = fuzz(target, arguments.inputs, arguments.seed)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        seconds = time.monotonic() - started
        print(f"{target:<24}{arguments.inputs:>8,} inputs {seconds:7.1f} s {failed:>6,} failed {grown:>5} MB more")
        for kind in sorted(kinds):
            print(f"    {kind}")
        total, bad = total + arguments.inputs, bad + failed
    print(f"{total:,} inputs, {bad:,} failed")
    return int(bad > 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)
