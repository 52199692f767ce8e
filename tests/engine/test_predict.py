"""Label maps and overlays of images of any size and kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.errors import raises_code
from helpers.tiny_runs import COMMON, GENOTYPE, RETRAIN, call, files_of, write_config
from PIL import Image

import autoseg
from autoseg.api.predict import find_images
from autoseg.engine.predict import label_map, load_network
from autoseg.errors import DataError, RunError
from autoseg.viz.palette import palette

KINDS = {
    "rgb.png": (50, 40),
    "photo.jpg": (33, 65),
    "grey.png": (32, 32),
    "rgba.png": (47, 80),
    "palette.png": (90, 41),
}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Images of several kinds, of (height, width) as in KINDS."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    (folder / "deeper").mkdir(parents=True)
    for name, (height, width) in KINDS.items():
        pixels = rng.integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
        mode = {"grey.png": "L", "rgba.png": "RGBA", "palette.png": "P"}.get(name, "RGB")
        image.convert(mode).save(folder / "deeper" / name if name == "grey.png" else folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.mark.slow
def test_labels_and_overlays_have_the_size_of_the_image(images: Path, retrained: Path, tmp_path: Path) -> None:
    call("predict", retrained, images, "--out", tmp_path / "out")
    stems = {Path(name).stem for name in KINDS}
    network, config, _ = load_network(retrained)
    for name, size in KINDS.items():
        labels = Image.open(tmp_path / "out" / "labels" / f"{Path(name).stem}.png")
        overlay = Image.open(tmp_path / "out" / "overlays" / f"{Path(name).stem}.png")
        assert (labels.height, labels.width) == (overlay.height, overlay.width) == size
        assert (labels.mode, overlay.mode) == ("P", "RGB")
        source = next(images.rglob(name))
        rgb = np.asarray(Image.open(source).convert("RGB"))
        pixels = (rgb / 255 - np.array(config.data.mean)) / np.array(config.data.std)
        with torch.no_grad():
            logits = network(torch.as_tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None])[0]
        values = np.asarray(labels)
        assert (values == logits.argmax(0).numpy()).mean() > 0.999  # the pixel values are the labels
        colours = np.array(labels.getpalette()).reshape(-1, 3)[:7]
        assert np.array_equal(colours, palette(7))
    for folder in ("labels", "overlays"):
        assert {path.stem for path in (tmp_path / "out" / folder).iterdir()} == stems


@pytest.mark.slow
def test_an_overlay_lies_between_the_image_and_the_colours(images: Path, retrained: Path, tmp_path: Path) -> None:
    ((labels, overlay),) = autoseg.predict(retrained, [images / "rgb.png"], tmp_path / "out", show_progress=False)
    image = np.asarray(Image.open(images / "rgb.png")).astype(int)
    shown = np.asarray(Image.open(overlay)).astype(int)
    colours = palette(7)[np.asarray(Image.open(labels))].astype(int)
    least, most = np.minimum(image, colours), np.maximum(image, colours)
    assert ((least - 1 <= shown) & (shown <= most + 1)).all()
    assert not np.array_equal(shown, image)


@pytest.mark.slow
def test_a_network_that_resizes_answers_at_the_size_of_the_image(images: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.yaml", RETRAIN, {"data": {"resize": [32, 48]}, "retrain": {"epochs": 1}})
    call("retrain", "--config", config, "--out", tmp_path / "run")
    call("predict", tmp_path / "run", images, "--out", tmp_path / "out")
    for name, (height, width) in KINDS.items():
        for folder in ("labels", "overlays"):
            assert Image.open(tmp_path / "out" / folder / f"{Path(name).stem}.png").size == (width, height)
    network, settings, _ = load_network(tmp_path / "run")
    image = np.asarray(Image.open(images / "rgb.png"))
    seen: list[torch.Size] = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    assert label_map(network, image, settings.data, torch.device("cpu")).shape == (50, 40)
    assert seen == [torch.Size((1, 3, 32, 48))]


@pytest.mark.slow
def test_in_bf16_nearly_every_label_is_the_same(images: Path, retrained: Path, tmp_path: Path) -> None:
    for precision in ("float32", "bf16"):
        call("predict", retrained, images, "--out", tmp_path / precision, "--precision", precision)
    pairs = [
        [np.asarray(Image.open(tmp_path / precision / "labels" / f"{Path(name).stem}.png")).ravel() for name in KINDS]
        for precision in ("float32", "bf16")
    ]
    exact, rough = (np.concatenate(labels) for labels in pairs)
    assert 0.9 < (exact == rough).mean() < 1  # a network of two epochs, whose logits are close to each other


@pytest.mark.slow
def test_nothing_is_written_over(images: Path, retrained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    autoseg.predict(retrained, [images / "rgb.png"], out, show_progress=False)
    before = files_of(out)
    with raises_code(RunError, "file-exists", out / "labels" / "rgb.png", "--out"):
        autoseg.predict(retrained, [images], out, show_progress=False)
    assert files_of(out) == before
    autoseg.predict(retrained, [images / "photo.jpg"], out, show_progress=False)  # others may join
    assert before.items() < files_of(out).items()


@pytest.mark.slow
@pytest.mark.parametrize("bad", ["text.jpg", "truncated.png", "small.png"])
def test_a_bad_image_is_found_before_anything_is_written(
    bad: str, images: Path, retrained: Path, tmp_path: Path
) -> None:
    path = images / f"z_{bad}"
    if bad == "text.jpg":
        path.write_text("not an image")
    elif bad == "truncated.png":
        path.write_bytes((images / "rgb.png").read_bytes()[:-200])
    else:
        Image.new("RGB", (100, 1)).save(path)
    code = "image-too-small" if bad == "small.png" else "file-unreadable"
    with raises_code(DataError, code, path.name) as caught:
        autoseg.predict(retrained, [images], tmp_path / "out", show_progress=False)
    if bad == "small.png":
        assert "100x1 pixels" in str(caught.value)
        assert "at least 8" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_images_of_other_channels(tmp_path: Path) -> None:
    """Read as they are in training; the overlay shows the first three channels."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for part in ("images", "masks"):
            (tmp_path / "set" / split / part).mkdir(parents=True)
        for number in range(count):
            np.save(
                tmp_path / "set" / split / "images" / f"{number}.npy", rng.normal(size=(40, 36, 5)).astype(np.float32)
            )
            mask = Image.fromarray(rng.integers(0, 3, (40, 36), dtype=np.uint8))
            mask.save(tmp_path / "set" / split / "masks" / f"{number}.png")
    settings = {"genotype": GENOTYPE, "retrain": {**COMMON, "epochs": 1, "max_steps_per_epoch": 1}, "device": "cpu"}
    config = write_config(tmp_path / "c.yaml", settings)
    call("retrain", "--config", config, "--data", tmp_path / "set", "--out", tmp_path / "run")
    call("predict", tmp_path / "run", tmp_path / "set" / "val" / "images", "--out", tmp_path / "out")
    call("evaluate", tmp_path / "run")
    counts = np.zeros((3, 3), dtype=int)
    for number in range(2):
        labels = np.asarray(Image.open(tmp_path / "out" / "labels" / f"{number}.png"))
        true = np.asarray(Image.open(tmp_path / "set" / "val" / "masks" / f"{number}.png"))
        np.add.at(counts, (true, labels), 1)
        assert Image.open(tmp_path / "out" / "overlays" / f"{number}.png").size == (36, 40)
    confusion = np.array(json.loads((tmp_path / "run" / "evaluation_val.json").read_text())["confusion"])
    assert np.abs(counts - confusion).sum() <= 4  # a tie between two logits may fall either way


def test_find_images(images: Path, tmp_path: Path) -> None:
    assert {path.name for path in find_images([images])} == set(KINDS)
    assert find_images([images / "rgb.png"]) == [images / "rgb.png"]
    with raises_code(DataError, "file-missing", tmp_path / "nope.png"):
        find_images([tmp_path / "nope.png"])
    (tmp_path / "empty").mkdir()
    with raises_code(DataError, "no-images", tmp_path / "empty"):
        find_images([tmp_path / "empty"])
    shutil.copy(images / "rgb.png", images / "deeper" / "photo.png")
    with raises_code(DataError, "image-names-clash", images / "photo.jpg", images / "deeper" / "photo.png"):
        find_images([images])
    with raises_code(DataError, "nothing-to-predict"):
        find_images([])
