"""A program that follows the words of an exported file gets the labels of `predict`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_runs import COMMON, GENOTYPE, call, write_config
from PIL import Image

from autoseg.export.common import input_metadata
from autoseg.export.formats import load_safetensors

onnxruntime = pytest.importorskip("onnxruntime")

SIZE = (40, 36)
FORMS = {
    "uint8 RGB": (3, np.uint8, 255),
    "uint16 grey": (1, np.uint16, 4000),
    "uint16 of 5 channels": (5, np.uint16, 4000),
    "float grey": (1, np.float32, 3.0),
    "float of 5 channels": (5, np.float32, 3.0),
}
"""Form -> channels, pixel type, largest value."""


def write_set(root: Path, channels: int, dtype: type, most: float) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for part in ("images", "masks"):
            (root / split / part).mkdir(parents=True)
        for number in range(count):
            image = (rng.random((*SIZE, channels)) * most).astype(dtype)
            np.save(root / split / "images" / f"{number}.npy", image)
            mask = np.tile(np.arange(SIZE[1], dtype=np.uint8) % 3, (SIZE[0], 1))
            Image.fromarray(mask).save(root / split / "masks" / f"{number}.png")


def follow(file: Path, image: np.ndarray) -> np.ndarray:
    """Labels by the file alone: image (H, W, C) as stored -> (H, W)."""
    if file.suffix == ".onnx":
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        texts = session.get_modelmeta().custom_metadata_map
        said = {key: json.loads(texts[key]) for key in ("channels", "mean", "std", "divisor")}
        said["pixel_type"] = texts["pixel_type"]
    else:
        network, said = load_safetensors(file)
    assert image.dtype.name == said["pixel_type"]
    assert image.shape[2] == said["channels"]
    values = (image / said["divisor"] - np.array(said["mean"])) / np.array(said["std"])
    images = values.astype(np.float32).transpose(2, 0, 1)[None]
    if file.suffix == ".onnx":
        (logits,) = session.run(None, {"image": images})
    else:
        with torch.no_grad():
            logits = network.eval()(torch.from_numpy(images)).numpy()
    return np.asarray(logits[0].argmax(0))


@pytest.mark.parametrize(
    ("channels", "pixel_type", "order", "divisor", "words"),
    [
        (1, "uint8", "grey", 255, "grey, values of uint8 as float32, NCHW, (x/255 - mean) / std"),
        (2, "uint16", "stored", 65535,
         "2 channels in the order of the files, values of uint16 as float32, NCHW, (x/65535 - mean) / std"),
        (3, "float32", "RGB", 1, "RGB, values of float32 as float32, NCHW, (x - mean) / std"),
        (4, "uint8", "stored", 255,
         "4 channels in the order of the files, values of uint8 as float32, NCHW, (x/255 - mean) / std"),
    ],
)  # fmt: skip
def test_the_words_of_each_form(channels: int, pixel_type: str, order: str, divisor: float, words: str) -> None:
    assert input_metadata(channels, pixel_type) == {
        "input": words, "channels": channels, "channel_order": order, "pixel_type": pixel_type, "divisor": divisor,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_the_files_own_words_give_the_labels_of_predict(form: str, tmp_path: Path) -> None:
    channels, dtype, most = FORMS[form]
    write_set(tmp_path / "set", channels, dtype, most)
    settings = {"genotype": GENOTYPE, "retrain": {**COMMON, "epochs": 1, "max_steps_per_epoch": 2}, "device": "cpu"}
    config = write_config(tmp_path / "c.yaml", settings)
    call("retrain", "--config", config, "--data", tmp_path / "set", "--out", tmp_path / "run")
    suffix = "onnx" if form == "uint16 of 5 channels" else "safetensors"  # the metadata are the same; ONNX takes long
    call("export", tmp_path / "run", "--format", suffix, "--out", tmp_path / f"a.{suffix}")
    image = tmp_path / "set" / "val" / "images" / "0.npy"
    call("predict", tmp_path / "run", image, "--out", tmp_path / "out", "--labels", "classes")
    labels = np.asarray(Image.open(tmp_path / "out" / "labels" / "0.png"))
    assert (follow(tmp_path / f"a.{suffix}", np.load(image)) == labels).mean() > 0.998
    assert len(np.unique(labels)) > 1
