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


def stem_of(name: str) -> str:
    """The path of an image of `images`, without suffix."""
    return f"deeper/{Path(name).stem}" if name == "grey.png" else Path(name).stem


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
    stems = {stem_of(name) for name in KINDS}
    network, config, _ = load_network(retrained)
    for name, size in KINDS.items():
        labels = Image.open(tmp_path / "out" / "labels" / f"{stem_of(name)}.png")
        overlay = Image.open(tmp_path / "out" / "overlays" / f"{stem_of(name)}.png")
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
        written = (tmp_path / "out" / folder).rglob("*.png")
        assert {path.relative_to(tmp_path / "out" / folder).with_suffix("").as_posix() for path in written} == stems


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
            assert Image.open(tmp_path / "out" / folder / f"{stem_of(name)}.png").size == (width, height)
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
        [np.asarray(Image.open(tmp_path / precision / "labels" / f"{stem_of(name)}.png")).ravel() for name in KINDS]
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
    assert {path.name for path in find_images([images]).values()} == set(KINDS)
    assert find_images([images])["deeper/grey"] == images / "deeper" / "grey.png"
    assert find_images([images / "rgb.png"]) == {"rgb": images / "rgb.png"}
    assert set(find_images([images / "*.png"])) == {"rgb", "rgba", "palette"}
    assert set(find_images([images / "**" / "*.png"])) == {"rgb", "rgba", "palette", "grey"}
    with raises_code(DataError, "file-missing", tmp_path / "nope.png"):
        find_images([tmp_path / "nope.png"])
    (tmp_path / "empty").mkdir()
    with raises_code(DataError, "no-images", tmp_path / "empty"):
        find_images([tmp_path / "empty"])
    shutil.copy(images / "rgb.png", images / "deeper" / "photo.png")
    assert {"photo", "deeper/photo"} < set(find_images([images]))
    shutil.copy(images / "rgb.png", images / "photo.png")
    with raises_code(DataError, "image-names-clash", images / "photo.jpg", images / "photo.png"):
        find_images([images])
    with raises_code(DataError, "nothing-to-predict"):
        find_images([])


def test_lists_hidden_files_and_folders_named_as_images(images: Path, tmp_path: Path) -> None:
    (images / "._rgb.png").write_bytes(b"junk")
    (images / "Thumbs.db").write_bytes(b"junk")
    (images / "folder.png").mkdir()
    assert len(find_images([images])) == len(KINDS)
    (images / "list.txt").write_text("rgb.png\ndeeper\\grey.png\n")
    assert list(find_images([images / "list.txt"]).values()) == [images / "rgb.png", images / "deeper" / "grey.png"]
    (images / "list.txt").write_text("rgb.png\nnone.png\n")
    with raises_code(DataError, "listed-file-missing", images / "list.txt", "none.png"):
        find_images([images / "list.txt"])


# --- labels of the training masks, probabilities ----------------------------------------------------------------------

PALETTE = [(10, 20, 30), (200, 0, 0), (0, 200, 0)]
STORED = [0, 100, 255]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on masks whose palette has colours of its own, and whose labels are 0, 100 and 255."""
    root = tmp_path_factory.mktemp("palette")
    rng = np.random.default_rng(0)
    for number in range(6):
        for part in ("images", "masks"):
            (root / "set" / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)).save(root / f"set/images/{number}.png")
        mask = Image.fromarray(np.array(STORED, dtype=np.uint8)[np.arange(36) // 12][None].repeat(40, 0))
        colours = np.zeros((256, 3), dtype=np.uint8)
        colours[STORED] = PALETTE
        mask.putpalette(colours.tobytes())
        mask.save(root / f"set/masks/{number}.png")
    settings = {"genotype": GENOTYPE, "retrain": {**COMMON, "epochs": 1, "max_steps_per_epoch": 1}, "device": "cpu"}
    config = write_config(root / "c.yaml", settings)
    settings = ["--set", "data.label_map={100: 1, 255: 2}", "--set", "data.num_classes=3"]
    call("retrain", "--config", config, "--data", root / "set", "--out", root / "run", *settings)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["auto", "stored", "classes"])
def test_predictions_have_the_labels_and_the_palette_of_the_masks(labels: str, trained: Path, tmp_path: Path) -> None:
    image = trained / "set" / "images" / "0.png"
    call("predict", trained / "run", image, "--out", tmp_path, "--labels", labels, "--probabilities")
    written = Image.open(tmp_path / "labels" / "0.png")
    network, config, _ = load_network(trained / "run")
    expected = label_map(network, np.asarray(Image.open(image)), config.data, torch.device("cpu"))
    numbers = np.array([0, 1, 2] if labels == "classes" else STORED)
    assert np.array_equal(np.asarray(written), numbers[expected])
    assert np.array_equal(np.asarray(written.convert("RGB")), np.array(PALETTE, dtype=np.uint8)[expected])
    shares = np.load(tmp_path / "probabilities" / "0.npy")
    assert (shares.shape, shares.dtype) == ((3, 40, 36), np.float16)
    assert np.abs(shares.astype(np.float64).sum(0) - 1).max() < 0.002
    sure = np.sort(shares, 0)[-1] > np.sort(shares, 0)[-2]
    assert np.array_equal(shares.argmax(0)[sure], expected[sure])
