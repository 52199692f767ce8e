"""Bad input for the public commands: each case writes files into a folder and gives the words of a command.

A case names the code of the error, and what its one line must name.
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from helpers.data_sets import write_folder
from helpers.tiny_runs import GENOTYPE, SPACE

Words = list[object]


class Place(NamedTuple):
    """A case's own folder, and copies of a finished search and a finished retraining in it."""

    folder: Path
    searched: Path
    retrained: Path


class Case(NamedTuple):
    """A command that must fail. `code`: that of its error; `named`: what its line has in it."""

    write: Callable[[Place], Words]
    code: str
    named: tuple[str, ...] = ()


# --- YAML and JSON ----------------------------------------------------------------------------------------------------

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(9)
)
"""Nine lists, each nine times the one before it: a billion texts."""
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n + 1}: &a{n + 1} {{<<: [{', '.join([f'*a{n}'] * 9)}]}}\n" for n in range(9))
"""The same with merge keys."""
DIGITS = "1" * 5000

YAMLS = {
    "laughs": LAUGHS,
    "merges": MERGES,
    "recursive": "a: &a [*a]\nname: x\n",
    "recursive-merge": "a: &a {<<: *a}\n",
    "deep-flow": "name: " + "[" * 20_000,
    "deep-closed": "name: " + "[" * 300 + "]" * 300,
    "deep-block": "".join(" " * n + "a:\n" for n in range(500)),
    "deep-dashes": "name: \n  " + "- " * 20_000 + "x",
    "long": "name: [" + "x, " * 3_000_000 + "]\n",
    "digits": f"version: {DIGITS}\n",
    "hexadecimal": f"version: 0x{'f' * 5000}\n",
    "sixties": f"version: {':'.join(['59'] * 3000)}\n",
    "date": "version: 2024-99-99\n",
    "list-as-key": "? [a]\n: 1\n",
    "merge-of-number": "<<: 3\n",
    "zero-byte": "name: a\0b\n",
    "surrogate": 'name: "\\ud800"\n',
    "twice": "name: a\nname: b\n",
}  # fmt: skip
JSONS = {
    "infinity": json.dumps({**GENOTYPE, "version": float("inf")}),
    "nan": json.dumps({**GENOTYPE, "name": float("nan")}),
    "deep": '{"name": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "less-deep": '{"name": ' + "[" * 900 + "]" * 900 + "}",
    "digits": f'{{"version": {DIGITS}}}',
    "surrogate": '{"name": "\\ud800"}',
}


def text_case(name: str, text: str, *words: str) -> Case:
    """A file with this text, which stands for `FILE` in the command."""

    def write(place: Place) -> Words:
        (place.folder / name).write_text(text, encoding="utf-8", newline="\n")
        return [place.folder / name if word == "FILE" else word for word in words]

    return Case(write, "file-malformed", (name,))


def text_cases() -> dict[str, Case]:
    found: dict[str, Case] = {}
    for name, text in YAMLS.items():
        found[f"yaml-{name}"] = text_case("a.yaml", text, "show", "FILE")
    for name, text in JSONS.items():
        found[f"json-{name}"] = text_case("a.json", text, "show", "FILE")
    return found


# --- names of files ---------------------------------------------------------------------------------------------------

NAMES = {"long": "x" * 300, "user": "~nosuchuser/x", "zero": "a\0b", "surrogate": "a\ud800b", "deep": "x/" * 3000 + "x"}
COMMANDS = {
    "show NAME": "path-invalid",
    "search --space NAME --data generated --out OUT": "path-invalid",
    "search --space tiny --data NAME --out OUT": "path-invalid",
    "search --space tiny --data generated --out NAME": "",
    "search --config NAME --out OUT": "path-invalid",
    "search --space tiny --data generated --out OUT --set search.cache_dir=NAME": "setting-invalid",
    "search --space tiny --out OUT --set data.root=NAME": "setting-invalid",
    "search --space tiny --out OUT --set data.layout=NAME.yaml": "assignment-value-unreadable",
    "retrain NAME --data generated --out OUT": "path-invalid",
    "retrain --network unet --data generated --weights NAME --out OUT": "path-invalid",
    "retrain --network unet --match-cost NAME --data generated --out OUT": "path-invalid",
    "decode NAME": "path-invalid",
    "decode SEARCHED --out NAME": "",
    "evaluate NAME": "",
    "evaluate RETRAINED --data NAME": "path-invalid",
    "evaluate RETRAINED --out NAME": "path-invalid",
    "evaluate RETRAINED --split NAME": "unknown-split",
    "evaluate RETRAINED --checkpoint NAME": "unknown-checkpoint",
    "predict NAME IMAGE --out OUT": "",
    "predict RETRAINED NAME --out OUT": "path-invalid",
    "predict RETRAINED IMAGE --out NAME": "path-invalid",
    "export NAME --format json --out OUT": "path-invalid",
    "export RETRAINED --format json --out NAME": "",
    "plot NAME --out OUT": "path-invalid",
    "plot tiny --out NAME": "path-invalid",
    "check-data NAME": "path-invalid",
    "check-data DATA --out NAME": "path-invalid",
    "check-data DATA --json NAME": "",
    "convert NAME OUT": "path-invalid",
    "convert DATA NAME": "path-invalid",
    "plan --space NAME --no-time": "path-invalid",
    "plan --config NAME --no-time": "path-invalid",
    "show tiny --plugin NAME": "path-invalid",
    "demo --out NAME": "",
}
"""A command with a name of a file, and the code of its error; none where the parser of paths refuses it."""


def fill(place: Place, command: str, name: str = "") -> Words:
    """The words of a command: `NAME`, `OUT`, `DATA` and the like become paths."""
    if "DATA" in command:
        write_folder(place.folder / "data", {"train": [(40, 48)] * 4, "val": [(40, 48)] * 2}, labels=3)
    if "IMAGE" in command:
        Image.new("RGB", (40, 40)).save(place.folder / "image.png")
    paths = {
        "OUT": place.folder / "out", "SEARCHED": place.searched, "RETRAINED": place.retrained,
        "DATA": place.folder / "data", "IMAGE": place.folder / "image.png",
    }  # fmt: skip
    return [paths.get(word, word.replace("NAME", name)) for word in command.split()]


def name_cases() -> dict[str, Case]:
    """Each command with one kind of name, in turn, and one command with every kind."""
    kinds = [*NAMES]
    chosen = [(command, kinds[number % len(kinds)], code) for number, (command, code) in enumerate(COMMANDS.items())]
    chosen += [("show NAME", kind, "path-invalid") for kind in kinds[1:]]
    return {
        f"name-{kind}: {command}": Case(
            lambda place, command=command, kind=kind: fill(place, command, NAMES[kind]), code
        )
        for command, kind, code in chosen
    }


# --- numbers ----------------------------------------------------------------------------------------------------------

HUGE = "9" * 30
NUMBERS = {
    f"show tiny --classes {HUGE}": "classes-out-of-range",
    "show tiny --size 1000000 1000000": "size-too-large",
    f"show tiny --size {HUGE} {HUGE}": "size-too-large",
    "show unet --size 1000000000 1000000000": "size-too-large",
    f"show unet --set network.width={HUGE}": "setting-invalid",
    f"search --space tiny --data generated --out OUT --seed {HUGE}": "setting-invalid",
    f"search --space tiny --data generated --out OUT --seed {DIGITS}": "",
    "search --space tiny --data generated --out OUT --set search.batch_size=1000000000": "setting-invalid",
    f"search --space tiny --data generated --out OUT --set search.batch_size={DIGITS}": "assignment-value-unreadable",
    "search --space tiny --data generated --out OUT --set search.crop=[1000000,1000000]": "setting-invalid",
    f"search --space tiny --data generated --out OUT --set search.epochs={HUGE}": "setting-invalid",
    f"search --space tiny --data generated --out OUT --set search.accumulate={HUGE}": "setting-invalid",
    f"search --space tiny --data generated --out OUT --set search.checkpoint_seconds={HUGE}": "setting-invalid",
    "search --space tiny --data generated --out OUT --set data.generated.train=1000000000000": "setting-invalid",
    "search --space tiny --data generated --out OUT --set data.generated.size=[1000000,1000000]": "setting-invalid",
    f"search --space tiny --data generated --out OUT --set data.generated.seed={HUGE * 20}": "assignment-value-unreadable",  # noqa: E501
    "search --space tiny --data DATA --out OUT --set data.resize=[1000000,1000000]": "setting-invalid",
    f"search --space tiny --data DATA --out OUT --set data.split_seed={HUGE * 20}": "assignment-value-unreadable",
    f"search --space tiny --data DATA --out OUT --set data.label_map={{{HUGE}:0}}": "setting-invalid",
    f"search --space tiny --data DATA --out OUT --set data.label_map={{0:{HUGE}}}": "setting-invalid",
    f"search --space tiny --data DATA --out OUT --set data.mean=[{HUGE * 12},1,1] --set data.std=[1,1,1]": "assignment-value-unreadable",  # noqa: E501
    ("search --space tiny --data generated --out OUT --set " + "a." * 5000 + "b=1"): "assignment-invalid",
    ("search --space tiny --data generated --out OUT --set search.epochs=" + "[" * 5000): "assignment-value-unreadable",
    f"evaluate RETRAINED --batch-size {HUGE}": "batch-out-of-range",
    f"evaluate RETRAINED --window {HUGE} {HUGE}": "setting-invalid",
    "evaluate RETRAINED --window 64 64 --overlap nan": "setting-invalid",
    "evaluate RETRAINED --scales nan": "setting-invalid",
    "evaluate RETRAINED --scales 1e999": "setting-invalid",
    ("evaluate RETRAINED --scales " + ",".join(["1"] * 5000)): "setting-invalid",
    f"evaluate RETRAINED --crf --set crf.bilateral_xy_std={HUGE}": "setting-invalid",
    f"evaluate RETRAINED --output-stride {HUGE}": "output-stride-of-genotype",
    f"decode SEARCHED --epoch {HUGE}": "epoch-missing",
    "decode SEARCHED --threshold nan": "setting-not-for-space",
    "decode SEARCHED --budget inf": "setting-not-for-space",
    f"plan --space tiny --no-time --batch {HUGE}": "batch-out-of-range",
    f"plan --space tiny --no-time --crop {HUGE} {HUGE}": "crop-out-of-range",
    f"plan --space tiny --no-time --images {HUGE}": "images-out-of-range",
    f"plan --space tiny --no-time --classes {HUGE}": "classes-out-of-range",
    "plan --space tiny --no-time --memory 1e999GB": "memory-not-a-size",
    f"plan --space tiny --no-time --memory {DIGITS}GB": "memory-out-of-range",
    f"retrain --network unet --match-cost {HUGE}M --data generated --out OUT": "cost-unreachable",
    f"retrain --network unet --match-cost {DIGITS} --data generated --out OUT": "cost-out-of-range",
    "retrain --network unet --match-cost 1e999 --data generated --out OUT": "cost-out-of-range",
    f"retrain --network unet --data generated --out OUT --device cuda:{HUGE}": "setting-invalid",
}
"""A command, and the code of its error; none where the command line's own parser refuses it."""


def number_cases() -> dict[str, Case]:
    return {
        f"number: {command[:90]}": Case(lambda place, command=command: fill(place, command), code)
        for command, code in NUMBERS.items()
    }


# --- spaces and genotypes ---------------------------------------------------------------------------------------------

PATH = {"strides": [4] * 100_000, "filter_multiplier": 4}
EDGE = {"input": "prev", "operation": "sep_conv_3x3"}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "layers": {**GENOTYPE, "network": PATH},
    "arrows": {**GENOTYPE, "network": {"arrows": [["4->4"]] * 50_000, "filter_multiplier": 4}},
    "blocks": {**GENOTYPE, "cell": [[EDGE]] * 20_000},
    "edges": {**GENOTYPE, "cell": [[EDGE] * 20_000]},
    "layers-of-blocks": {**GENOTYPE, "cell": [[EDGE] * 16] * 64, "network": {**PATH, "strides": [4] * 256}},
    "stem": {**GENOTYPE, "stem": {"channels": [4] * 20_000, "strides": [2, 2, *[1] * 19_998]}},
    "rates": {**GENOTYPE, "decoder": {"aspp_rates": [1] * 20_000}},
    "stages": {**GENOTYPE, "stages": [{"stride": 4, "block": "cell", "filters": 4}] * 20_000},
    "deep-stages": {
        **GENOTYPE,
        "network": {**PATH, "strides": [4] * 256},
        "stages": [{"stride": 4, "block": "residual", "depth": 64, "filters": 4}],
    },
    "wide-networks": {**SPACE, "macro": {"networks": [{"name": "a", "strides": [4, 8]}] * 20_000}},
    "wide-arrows": {**SPACE, "macro": {"networks": [{"name": "a", "arrows": [["4->4"] * 20_000] * 2}]}},
    "wide-cells": {**SPACE, "macro": {"blocks": ["cell"], "cells": ["auto_deeplab_s"] * 20_000}},
    "wide-channels": {**SPACE, "network": {**SPACE["network"], "filter_multiplier": 4096}, "macro": {"widths": [16]}},
    "space-layers": {**SPACE, "network": {"layers": 256, "strides": [4, 8, 16, 32]}, "cell": {"blocks": 16}},
    "space-stem": {**SPACE, "stem": {"channels": [4] * 20_000, "strides": [2, 2, *[1] * 19_998]}},
}


def architecture_cases() -> dict[str, Case]:
    def case(data: dict[str, Any]) -> Case:
        def write(place: Place) -> Words:
            (place.folder / "a.json").write_text(json.dumps(data), encoding="utf-8")
            return ["show", place.folder / "a.json"]

        return Case(write, "setting-invalid", ("a.json", "at most"))

    return {f"whole-{name}": case(data) for name, data in ARCHITECTURES.items()}


# --- images -----------------------------------------------------------------------------------------------------------


def npy_header(shape: str, dtype: str = "|u1", version: int = 1, length: int | None = None) -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    packed = struct.pack("<H" if version == 1 else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + packed + text


def sparse(path: Path, start: bytes, size: int) -> None:
    """A file with this start, and `size` bytes of holes behind it."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(len(start) + size)


def tiff(ifds: list[list[tuple[int, int, int, int]]], chain: int | None = None, rest: bytes = b"") -> bytes:
    """A little-endian TIFF of these directories of (tag, type, count, value). `chain`: where the last one points."""
    out = b"II*\0" + struct.pack("<I", 8)
    for number, entries in enumerate(ifds):
        size = 2 + 12 * len(entries) + 4
        following = len(out) + size if number + 1 < len(ifds) else chain or 0
        out += struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
        out += struct.pack("<I", following)
    return out + rest


def page(width: int, height: int, bits: int = 8, offset: int = 0, count: int = 64) -> list[tuple[int, int, int, int]]:
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: offset, 277: 1, 278: height, 279: count}
    return [(tag, 4, 1, value) for tag, value in tags.items()]


def many_pages(pages: int, width: int = 64) -> bytes:
    """Pages of zeros which share their pixels."""
    rest = bytes(64 * width * 2)
    return tiff([page(width, 64, 16, 8 + pages * (2 + 12 * 9 + 4), len(rest)) for _ in range(pages)], rest=rest)


BIG = 2**31 - 1


def image_files() -> dict[str, Callable[[Path], None]]:
    """File name -> how it is written."""

    def put(content: bytes) -> Callable[[Path], None]:
        return lambda path: path.write_bytes(content) and None

    def hole(start: bytes, size: int) -> Callable[[Path], None]:
        return lambda path: sparse(path, start, size)

    gif = b"GIF89a" + struct.pack("<HHBBB", 40, 40, 0, 0, 0)
    return {
        "sparse.npy": hole(npy_header("(60000, 60000)"), 3_600_000_000),
        "third.npy": hole(npy_header("(48, 40, 4000000)"), 48 * 40 * 4_000_000),
        "first.npy": hole(npy_header("(3, 13000, 13000)", "<f8"), 3 * 13000 * 13000 * 8),
        "claims.npy": put(npy_header("(13000, 13000, 3)", "<f8")),
        "flat.npy": hole(npy_header("(4000000000,)"), 4_000_000_000),
        "negative.npy": put(npy_header("(-1, 40)")),
        "beyond.npy": put(npy_header(f"({10**30}, 40)")),
        "digits.npy": put(npy_header(f"({DIGITS}, 40)")),
        "nested.npy": put(npy_header("(" * 3000 + ")" * 3000)),
        "long.npy": put(npy_header("(4, 4)", version=2, length=4_000_000_000)),
        "type.npy": put(npy_header("(40, 40)", "zz")),
        "text.npy": put(npy_header("(40, 40)", "<U100000000")),
        "words.npy": put(npy_header("'ab'")),
        "booleans.npy": put(npy_header("(True, 40)")),
        "empty.npy": put(b""),
        "cut.npy": put(b"\x93NUMPY\x01"),
        "pages.tif": put(many_pages(20_000)),
        "large_pages.tif": put(many_pages(4000, 4096)),
        "circle.tif": put(tiff([page(40, 40, 16)] * 3, chain=8)),
        "size.tif": put(tiff([page(2**31, 2**31)])),
        "deep_size.tif": put(tiff([page(2**31, 2**31, 16)])),
        "no_tags.tif": put(tiff([[]])),
        "half.tif": put(tiff([page(40, 40, 16)])[:30]),
        "bits.tif": put(tiff([[*page(40, 40)[:2], (258, 3, 2**20, 8), *page(40, 40)[3:]]])),
        "cut.gif": put(gif),
        "frames.gif": put(gif + b"\x2c" + struct.pack("<HHHHB", 0, 0, 40, 40, 0) + b"\x02\x01\0"),
        "size.gif": put(b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"\x2c"),
        "table.gif": put(b"GIF89a" + struct.pack("<HHBBB", 40, 40, 0xF7, 0, 0) + b"\x01\x02"),
        "size.png": put(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", BIG, BIG, 8, 2, 0, 0, 0))),
        "zero.png": put(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 0, 8, 2, 0, 0, 0))),
        "size.bmp": put(b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, BIG, BIG, 1, 24, 0, 0, 0, 0, 0, 0)),
    }  # fmt: skip


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG, with its checksum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


# --- runs -------------------------------------------------------------------------------------------------------------


def deflated(path: Path, size: int, name: str | None = None) -> None:
    """Rewrite a zip file with one member of `size` zero bytes more, or in place of `name`, all of them deflated."""
    with zipfile.ZipFile(path) as file:
        members = {info.filename: file.read(info) for info in file.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for member, content in members.items():
            if member != name:
                file.writestr(member, content)
        with file.open(name or "more.npy", "w", force_zip64=True) as out:
            start = members[name][:128] if name and name.endswith(".npy") else b""
            out.write(start)
            for _ in range(size // 2**24):
                out.write(bytes(2**24))


def npz_of_bomb(path: Path) -> None:
    """alpha_logits of 2^24 float64, deflated."""
    with np.load(path) as file:
        arrays = dict(file)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as out:
                if name == "alpha_logits":
                    out.write(npy_header("(16777216,)", "<f8"))
                    for _ in range(8):
                        out.write(bytes(2**24))
                else:
                    np.lib.format.write_array(out, array)


def npz_that_claims(path: Path, shape: str, dtype: str = "<f8") -> None:
    with np.load(path) as file:
        arrays = dict(file)
    with zipfile.ZipFile(path, "w") as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w") as out:
                if name == "alpha_logits":
                    out.write(npy_header(shape, dtype))
                else:
                    np.lib.format.write_array(out, array)


def in_search(change: Callable[[Path], object], *words: str) -> Callable[[Place], Words]:
    """`change` the newest snapshot of the search, then decode it."""

    def write(place: Place) -> Words:
        change(max((place.searched / "arch").glob("epoch_*.npz")))
        return [*(words or ("decode",)), place.searched]

    return write


def in_best(change: Callable[[dict[str, Any]], object]) -> Callable[[Place], Words]:
    """`change` what best.pt of the retraining holds, then evaluate it."""

    def write(place: Place) -> Words:
        file = place.retrained / "checkpoints" / "best.pt"
        content = torch.load(file, weights_only=True)
        torch.save(change(content), file)
        return ["evaluate", place.retrained]

    return write


def without(content: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != key}


SAID = {"bomb": ("unpacks to",), "more": ("unpacks to",)}
"""What the line of a file that inflates says: its sizes were read, and nothing was unpacked."""


def run_cases() -> dict[str, Case]:
    changes: dict[str, Callable[[Path], object]] = {
        "bomb": npz_of_bomb,
        "more": lambda path: deflated(path, 2**27),
        "claims": lambda path: npz_that_claims(path, "(100000000000,)"),
        "claims-text": lambda path: npz_that_claims(path, "(1,)", "<U100000000"),
        "negative": lambda path: npz_that_claims(path, "(-1, 5)"),
        "is-npy": lambda path: sparse(path, npy_header("(4000000000,)"), 4 * 10**9),
    }
    found = {f"npz-{name}": Case(in_search(change), "snapshot-unreadable", ("epoch_0002.npz", *SAID.get(name, ())))
             for name, change in changes.items()}  # fmt: skip
    for what, change in {
        "bomb": lambda path: deflated(path, 2**27, _record(path)),
        "more": lambda path: deflated(path, 2**27),
        "empty": lambda path: path.write_bytes(b""),
        "text": lambda path: path.write_text("hello"),
        "zip": lambda path: zipfile.ZipFile(path, "w").close(),
        "sparse": lambda path: sparse(path, b"", 4 * 10**9),
    }.items():

        def damaged(place: Place, change: Callable[[Path], object] = change) -> Words:
            change(place.retrained / "checkpoints" / "best.pt")
            return ["evaluate", place.retrained]

        found[f"checkpoint-{what}"] = Case(damaged, "checkpoint-damaged", ("best.pt", *SAID.get(what, ())))
    keys = (
        "version", "kind", "architecture", "state", "epoch", "step_in_epoch", "seconds", "best_miou", "metrics_bytes",
    )  # fmt: skip
    wrong = {"text": "x", "none": None, "negative": -5, "huge": 10**30, "nan": float("nan"), "list": [[]], "map": {}}
    for key, (what, value) in zip(keys, [*wrong.items()] * 2, strict=False):
        code = "checkpoint-kind-differs" if key in ("version", "kind") else "checkpoint-damaged"
        found[f"checkpoint-without-{key}"] = Case(in_best(partial(without, key=key)), code, ("best.pt",))
        found[f"checkpoint-{key}-{what}"] = Case(
            in_best(lambda content, key=key, value=value: {**content, key: value}), code, ("best.pt",)
        )
    found["checkpoint-is-list"] = Case(in_best(lambda content: [content]), "checkpoint-kind-differs", ("best.pt",))
    return found


def _record(path: Path) -> str:
    """The name of a record of tensors in a checkpoint."""
    with zipfile.ZipFile(path) as file:
        return next(name for name in file.namelist() if "/data/" in name)


# --- tables, lists and annotations ------------------------------------------------------------------------------------

CELL = "x" * 200_000
TABLES = {
    "classes.csv": f"0,{CELL}\n1,b\n",
    "_classes.csv": f"Pixel Value, Class\n0, {CELL}\n",
    "class_dict.csv": f"name,r,g,b\n{CELL},0,0,0\n",
    "label_colors.txt": f"{DIGITS} 0 0 a\n0 0 0 b\n",
    "labelmap.txt": f"# label:color_rgb:parts:actions\na:{DIGITS},0,0::\n",
    "classes.txt": f"{DIGITS} a\n1 b\n",
    "classes.json": '{"' + DIGITS + '": "a"}',
    "id2label.json": "[" * 100_000,
    "dataset.json": '{"labels": {"a": Infinity, "b": 1}}',
    "data.yaml": LAUGHS,
    "data.yml": "names: " + "[" * 20_000,
    "dataset.yaml": f"names: {{{DIGITS}: a}}\n",
}
COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "0.png", "width": 48, "height": 40}],
    "categories": [{"id": 1, "name": "a"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]], "iscrowd": 0}],
}


def list_and_annotation_cases() -> dict[str, Case]:
    found: dict[str, Case] = {}
    lists = {
        "cell.csv": (f"image,mask\n{CELL},b\n", "file-unreadable"),
        "quote.csv": ('image,mask\n"' + CELL + ",b\n", "file-unreadable"),
        "zero.csv": ("image,mask\na\0b.png,b.png\n", "list-line-invalid"),
        "zero.txt": ("a\0b\n", "list-line-invalid"),
        "long.txt": ("x" * 5000 + "\n", "list-line-invalid"),
        "user.txt": ("~nosuchuser/x.png\n", "listed-file-missing"),
        "accents.txt": ("\u00ff" * 120 + ".png\n", "listed-file-missing"),  # short enough with the accents composed
        "surrogate.txt": ("a\udcffb.png\n", "listed-file-missing"),
        "digits.csv": (f"{DIGITS},a.png\n", "list-line-invalid"),
    }
    for name, (text, code) in lists.items():

        def write_list(place: Place, name: str = name, text: str = text) -> Words:
            (place.folder / name).write_text(text, encoding="utf-8", errors="surrogateescape")
            return ["predict", place.retrained, place.folder / name, "--out", place.folder / "out"]

        found[f"list-{name}"] = Case(write_list, code, (name,))
    coco = json.dumps(COCO)
    changed = {
        "infinity": (coco.replace("[[1, 1", "[[Infinity, 1"), "annotation-invalid"),
        "beyond": (coco.replace("[[1, 1", "[[1e999, 1"), "annotation-invalid"),
        "digits": (coco.replace("[[1, 1", f"[[{DIGITS}, 1"), "unknown-layout"),
        "many-digits": (coco.replace("[[1, 1", f"[[{'1' * 400}, 1"), "annotation-invalid"),
        "deep": (coco.replace("[[1, 1", "[" * 900 + "1, 1"), "unknown-layout"),
        "nested": (coco.replace("[[1, 1, 9, 1, 9, 9]]", "[" * 900 + "]" * 900), "annotation-invalid"),
        "name-nested": (coco.replace('"a"', "[" * 900 + "]" * 900), "class-without-name"),
        "width": (coco.replace('"width": 48', f'"width": {10**30}'), "image-too-large"),
        "both": (
            coco.replace('"width": 48, "height": 40', '"width": 1000000000, "height": 1000000000'),
            "image-too-large",
        ),
        "image-id": (coco.replace('"image_id": 1', f'"image_id": {10**30}'), "listed-file-missing"),
        "category": (coco.replace('"category_id": 1', '"category_id": [1]'), "annotation-invalid"),
        "file-name": (coco.replace("0.png", "x" * 300), "listed-file-missing"),
        "zero": (coco.replace("0.png", "a\\u0000b.png"), "listed-file-missing"),
        "surrogate": (coco.replace("0.png", "a\\ud800b.png"), "listed-file-missing"),
        "runs": (
            coco.replace("[[1, 1, 9, 1, 9, 9]]", '{"size": [40, 48], "counts": [' + "9" * 30 + "]}"),
            "runs-of-another-size",
        ),
        "rle": (
            coco.replace("[[1, 1, 9, 1, 9, 9]]", '{"size": [1000000000, 1000000000], "counts": "0"}'),
            "runs-of-another-size",
        ),
        "rle-text": (
            coco.replace("[[1, 1, 9, 1, 9, 9]]", '{"size": [40, 48], "counts": "' + "o" * 5000 + '"}'),
            "annotation-invalid",
        ),
        "far": (coco.replace("[[1, 1", "[[1e300, -1e300"), "polygon-outside"),
    }
    for name, (text, code) in changed.items():

        def write_coco(place: Place, text: str = text) -> Words:
            (place.folder / "data" / "images").mkdir(parents=True)
            Image.new("RGB", (48, 40)).save(place.folder / "data" / "images" / "0.png")
            (place.folder / "data" / "coco.json").write_text(text, encoding="utf-8")
            return ["convert", place.folder / "data", place.folder / "out"]

        found[f"coco-{name}"] = Case(write_coco, code, ("data",))
    return found


CASES: dict[str, Case] = {
    **text_cases(),
    **name_cases(),
    **number_cases(),
    **architecture_cases(),
    **run_cases(),
    **list_and_annotation_cases(),
}
