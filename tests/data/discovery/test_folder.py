"""Layouts, pairs and files, each made in the test."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.errors import raises_code
from PIL import Image

from autoseg.config.base import parse
from autoseg.config.data import DataConfig, SplitConfig
from autoseg.data.dataset import open_dataset, resolve, verify
from autoseg.errors import DataError
from autoseg.files import read_yaml, to_yaml

Write = Callable[..., None]
TRAIN_VAL, TRAINING_VALIDATION = ("train", "val"), ("training", "validation")
LAYOUTS = {
    "camvid": ("{split}/{stem}.png", "{split}annot/{stem}.png", TRAIN_VAL),
    "masks beside": ("{split}/{stem}.jpg", "{split}_masks/{stem}_mask.png", TRAIN_VAL),
    "labels beside": ("{split}/{stem}.tif", "{split}_labels/{stem}.tif", TRAINING_VALIDATION),
    "split inside": ("images/{split}/{stem}.JPG", "masks/{split}/{stem}.png", TRAIN_VAL),
    "mmseg": ("img_dir/{split}/{stem}.jpeg", "ann_dir/{split}/{stem}.png", TRAIN_VAL),
    "ade20k": ("images/{split}/{stem}.jpg", "annotations/{split}/{stem}.png", TRAINING_VALIDATION),
    "split outside": ("{split}/images/{stem}.bmp", "{split}/labels/{stem}.PNG", TRAIN_VAL),
    "nested": ("{split}/deep/er/{stem}.webp", "{split}annot/deep/er/{stem}_L.png", TRAIN_VAL),
}


def config(root: Path, **settings: object) -> DataConfig:
    return parse(DataConfig, {"root": str(root), **settings})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, tmp_path: Path, write_pair: Write) -> None:
    image, mask, folders = LAYOUTS[layout]
    for folder in folders:
        for stem in ("a", "b"):
            write_pair(image.format(split=folder, stem=stem), mask.format(split=folder, stem=stem))
        write_pair(None, mask.format(split=folder, stem="of_no_image"))
    assert list(resolve(config(tmp_path)).splits or {}) == ["train", "val"]
    for split, folder in zip(("train", "val"), folders, strict=True):
        dataset = open_dataset(resolve(config(tmp_path)), split)
        paths = [tmp_path / image.format(split=folder, stem=stem) for stem in ("a", "b")]
        assert [dataset.image_path(index) for index in range(len(dataset))] == paths
        assert [name.rsplit("/", 1)[-1] for name in dataset.names] == [path.stem for path in paths]
        sample = dataset.load(1)
        assert sample.image.shape == (32, 40, 3)
        assert abs(int(sample.image.mean()) - 90) <= 1
        assert np.array_equal(sample.mask[5], np.arange(40) % 3)


def test_voc_layout_takes_the_listed_images_in_their_order(tmp_path: Path, write_pair: Write) -> None:
    for stem in "abcd":
        write_pair(f"JPEGImages/{stem}.jpg", f"SegmentationClass/{stem}.png")
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("c\na\n\n")
    (lists / "val.txt").write_text("d\n")
    assert open_dataset(resolve(config(tmp_path)), "train").names == ["c", "a"]
    assert open_dataset(resolve(config(tmp_path)), "val").names == ["d"]


def test_list_files(tmp_path: Path, write_pair: Write) -> None:
    for stem in "abc":
        write_pair(f"images/{stem}.jpg", f"masks/{stem}_mask.png")
    (tmp_path / "train.txt").write_text("# stems\nb.jpg\na\n")
    (tmp_path / "val.txt").write_text("images/c.jpg masks/c_mask.png\nimages/a.jpg\tmasks/a_mask.png\n")
    assert open_dataset(resolve(config(tmp_path)), "train").names == ["b", "a"]
    assert open_dataset(resolve(config(tmp_path)), "val").names == ["images/c", "images/a"]


def test_splits_can_be_given(tmp_path: Path, write_pair: Write) -> None:
    write_pair("photos/a.jpg", "truth/a.png")
    given = config(tmp_path, splits={"train": {"images": "photos", "masks": "truth"}})
    assert open_dataset(resolve(given), "train").names == ["a"]


def test_resolve_finds_classes_splits_and_root(
    tmp_path: Path, write_pair: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pair("train/a.jpg", "trainannot/a.png")
    write_pair("val/a.jpg", "valannot/a.png")
    monkeypatch.chdir(tmp_path.parent)
    resolved = resolve(config(Path(tmp_path.name), resize=(64, 48)))
    assert resolved.root == str(tmp_path)
    assert (resolved.num_classes, resolved.classes) == (3, ("class_0", "class_1", "class_2"))
    assert resolved.splits == {split: SplitConfig(images=split, masks=f"{split}annot") for split in ("train", "val")}
    assert resolve(resolved) == resolved


def test_a_resolved_config_in_yaml_gives_the_same_data_set(tmp_path: Path, write_pair: Write) -> None:
    write_pair("train/a.jpg", "trainannot/a.png")
    resolved = resolve(config(tmp_path, label_map={2: 255, 1: 0, 0: 1}, resize=(64, 48)))
    file = tmp_path / "resolved.yaml"
    file.write_text(to_yaml(resolved.to_dict()))
    again = resolve(parse(DataConfig, read_yaml(file, DataError)))
    assert again == resolved
    assert np.array_equal(open_dataset(again, "train").load(0).mask, open_dataset(resolved, "train").load(0).mask)


def test_number_of_classes_counts_after_the_label_map(tmp_path: Path, write_pair: Write) -> None:
    write_pair("train/a.jpg", "trainannot/a.png")
    assert resolve(config(tmp_path, label_map={2: 255})).num_classes == 2
    assert resolve(config(tmp_path, ignore_label=2)).num_classes == 2
    assert resolve(config(tmp_path, num_classes=7)).num_classes == 7
    assert resolve(config(tmp_path, classes=["a", "b", "c"])).classes == ("a", "b", "c")


def test_label_map_and_resize(tmp_path: Path, write_pair: Write) -> None:
    labels = np.zeros((32, 40), dtype=np.uint8)
    labels[:, 20:] = 200
    write_pair("train/a.png", "trainannot/a.png", labels)
    dataset = open_dataset(resolve(config(tmp_path, label_map={200: 1}, resize=(64, 96))), "train")
    image, mask = dataset.load(0)
    assert image.shape == (64, 96, 3)
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, np.arange(96)[None].repeat(64, 0) >= 48)


def test_resized_mask_matches_pillow(tmp_path: Path, write_pair: Write) -> None:
    labels = np.random.default_rng(0).integers(0, 9, (32, 40), dtype=np.uint8)
    write_pair("train/a.png", "trainannot/a.png", labels)
    mask = open_dataset(resolve(config(tmp_path, resize=(37, 53))), "train").load(0).mask
    expected = Image.fromarray(labels).resize((53, 37), Image.Resampling.NEAREST)
    assert np.array_equal(mask, np.asarray(expected))


def test_files_are_read_once(tmp_path: Path, write_pair: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pair("train/a.png", "trainannot/a.png")
    dataset = open_dataset(resolve(config(tmp_path)), "train")
    done: list[tuple[int, int]] = []
    verify(dataset, lambda *progress: done.append(progress))
    (tmp_path / "train" / "a.png").unlink()
    assert done == [(1, 1)]
    assert dataset.load(0).image.shape == (32, 40, 3)


def test_the_cache_keeps_to_its_budget(tmp_path: Path, write_pair: Write) -> None:
    for stem in "abc":
        write_pair(f"train/{stem}.png", f"trainannot/{stem}.png")
    write_pair("val/a.png", "valannot/a.png")
    dataset = open_dataset(resolve(config(tmp_path)), "train")
    dataset.cache_bytes = 2 * 32 * 40 * 4
    verify(dataset)
    assert [dataset.load(index) is dataset.load(index) for index in range(3)].count(True) == 2


# --- what can be wrong ------------------------------------------------------------------------------------------------


def test_a_missing_folder(tmp_path: Path) -> None:
    with raises_code(DataError, "folder-missing", tmp_path / "nowhere", "data.root"):
        resolve(config(tmp_path / "nowhere"))


def test_a_file_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with raises_code(DataError, "folder-is-file", tmp_path / "file", "data.root"):
        resolve(config(tmp_path / "file"))


def test_an_empty_folder(tmp_path: Path) -> None:
    with raises_code(DataError, "folder-empty", tmp_path, "data.root"):
        resolve(config(tmp_path))


def test_no_known_layout_says_what_was_looked_for(tmp_path: Path, write_pair: Write) -> None:
    write_pair("one/a.jpg", "other/a.png")
    named = tmp_path, "in one, other)", "images/train", "JPEGImages", "train.txt", "data.splits"
    with raises_code(DataError, "unknown-layout", *named):
        resolve(config(tmp_path))


def test_too_few_images_to_split(tmp_path: Path, write_pair: Write) -> None:
    write_pair("images/a.jpg", "masks/a.png")
    assert open_dataset(resolve(config(tmp_path)), "train").names == ["a"]
    with raises_code(DataError, "too-few-images", tmp_path, "(1)"):
        open_dataset(resolve(config(tmp_path)), "val")


def test_a_split_that_is_not_there(tmp_path: Path, write_pair: Write) -> None:
    write_pair("train/a.jpg", "trainannot/a.png")
    write_pair("val/a.jpg", "valannot/a.png")
    with raises_code(DataError, "unknown-split", tmp_path, "'test'", "train, val", "data.splits"):
        open_dataset(resolve(config(tmp_path)), "test")


def test_a_folder_without_images(tmp_path: Path, write_pair: Write) -> None:
    write_pair(None, "trainannot/a.png")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "notes.txt").write_text("")
    with raises_code(DataError, "no-images", tmp_path / "train", ".jpg,"):
        resolve(config(tmp_path))


def test_images_without_masks_are_counted(tmp_path: Path, write_pair: Write) -> None:
    write_pair("train/a.jpg", "trainannot/a.png")
    write_pair("train/b.jpg", None)
    write_pair("train/c.jpg", None)
    with raises_code(DataError, "mask-missing", "train/b.jpg", tmp_path / "trainannot", "2 of 3 images"):
        resolve(config(tmp_path))


def test_a_stem_that_comes_twice(tmp_path: Path, write_pair: Write) -> None:
    write_pair("train/a.jpg", "trainannot/a.png")
    write_pair("train/a.png", None)
    with raises_code(DataError, "same-stem-twice", "train/a.jpg", "train/a.png", tmp_path):
        resolve(config(tmp_path))


def test_a_listed_stem_that_comes_twice(tmp_path: Path, write_pair: Write) -> None:
    write_pair("images/a.jpg", "masks/a.png")
    (tmp_path / "train.txt").write_text("a\na\n")
    with raises_code(DataError, "image-twice", "images/a.jpg", "'train'", tmp_path):
        resolve(config(tmp_path))


@pytest.mark.parametrize(
    ("lines", "code", "named"),
    [
        ("a\nb\nc\n", "listed-file-missing", (" b,", "{root}/images ", "2 of 3")),
        ("images/a.jpg masks/b.png\n", "listed-file-missing", (" masks/b.png,", "in {root};")),
        ("a\tb\tc\n", "list-line-invalid", ("line 1:",)),
        ("\n\n", "list-empty", ()),
    ],
)
def test_a_wrong_list(lines: str, code: str, named: tuple[str, ...], tmp_path: Path, write_pair: Write) -> None:
    write_pair("images/a.jpg", "masks/a.png")
    (tmp_path / "train.txt").write_text(lines)
    with raises_code(DataError, code, tmp_path / "train.txt", *(text.format(root=tmp_path) for text in named)):
        resolve(config(tmp_path))


def test_stems_without_folders(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a\n")
    with raises_code(DataError, "list-without-folders", tmp_path / "train.txt", "images/", "masks/", "data.splits"):
        resolve(config(tmp_path))


def test_a_given_folder_that_is_not_there(tmp_path: Path, write_pair: Write) -> None:
    write_pair("photos/a.jpg", "truth/a.png")
    given = config(tmp_path, splits={"train": {"images": "photos", "masks": "trut"}}, num_classes=3)
    with raises_code(DataError, "folder-missing", f"{tmp_path}/trut ", "data.splits"):
        open_dataset(resolve(given), "train")


def test_a_mask_of_another_size(tmp_path: Path, write_pair: Write) -> None:
    write_pair("train/a.jpg", "trainannot/a.png", np.zeros((16, 20), dtype=np.uint8))
    dataset = open_dataset(resolve(config(tmp_path, num_classes=2)), "train")
    image, mask = tmp_path / "train/a.jpg", tmp_path / "trainannot/a.png"
    with raises_code(DataError, "mask-size-differs", f"{image} is 40x32", f"{mask} is 20x16"):
        verify(dataset)


def test_a_label_outside_the_classes(tmp_path: Path, write_pair: Write) -> None:
    labels = np.full((32, 40), 255, dtype=np.uint8)
    labels[3, 4] = 47
    write_pair("images/train/0007.jpg", "masks/train/0007.png", labels)
    dataset = open_dataset(resolve(config(tmp_path, num_classes=19)), "train")
    named = "label 47 in masks/train/0007.png", "19 classes (0..18)", "ignore label 255", "data.label_map"
    with raises_code(DataError, "label-out-of-range", *named):
        dataset.load(0)


def test_a_label_map_to_no_class(tmp_path: Path, write_pair: Write) -> None:
    write_pair("train/a.jpg", "trainannot/a.png")
    wrong = config(tmp_path, num_classes=3, label_map={2: 5})
    named = "data.label_map", "2 to 5", "3 classes (0..2)", "ignore label 255"
    with raises_code(DataError, "label-map-invalid", *named):
        open_dataset(resolve(wrong), "train")


def test_classes_and_a_label_map_that_are_set_stay(tmp_path: Path, write_pair: Write) -> None:
    """Nothing else is renumbered: 2 is no class of two, although two labels are left."""
    for split in ("train", "val"):
        write_pair(f"{split}/a.png", f"{split}annot/a.png")
    found = resolve(config(tmp_path, num_classes=2, label_map={1: 0}))
    assert (found.label_map, found.num_classes) == ({1: 0}, 2)
    with raises_code(DataError, "label-out-of-range", "label 2 in trainannot/a.png", "2 classes (0..1)"):
        open_dataset(found, "train").load(0)
    ignored = resolve(config(tmp_path, label_map={2: 255}))
    assert (ignored.classes, ignored.label_map) == (("background", "foreground"), {2: 255})
    with raises_code(DataError, "too-few-classes", tmp_path, "label 0 "):
        resolve(config(tmp_path, label_map={1: 255, 2: 255}))  # 255 is ignored, not the second of two classes


def test_one_class_is_too_few(tmp_path: Path, write_pair: Write) -> None:
    write_pair("train/a.jpg", "trainannot/a.png", np.full((32, 40), 255, dtype=np.uint8) * (np.arange(40) > 9))
    write_pair("val/a.jpg", "valannot/a.png")
    with raises_code(DataError, "too-few-classes", tmp_path, "data.ignore_label (255)", "data.label_map"):
        resolve(config(tmp_path, ignore_label=255), training=True)
    assert resolve(config(tmp_path, ignore_label=255)).num_classes == 3, "the classes of all splits"
    assert resolve(config(tmp_path, label_map={255: 1}), training=True).num_classes == 3
    write_pair("val/a.jpg", "valannot/a.png", np.zeros((32, 40), dtype=np.uint8))
    with raises_code(DataError, "too-few-classes", tmp_path, "label 0 ", "data.label_map", "data.ignore_label"):
        resolve(config(tmp_path, ignore_label=255))
    assert resolve(config(tmp_path, label_map={255: 1}), training=True).num_classes == 2


@pytest.mark.parametrize("name", ["train/a.jpg", "train/a.png", "trainannot/a.png"])
def test_a_file_that_is_cut_off(name: str, tmp_path: Path, write_pair: Write) -> None:
    write_pair("train/a.jpg" if name.endswith("jpg") else "train/a.png", "trainannot/a.png", noise())
    write_pair("val/a.jpg", "valannot/a.png")
    file = tmp_path / name
    file.write_bytes(file.read_bytes()[: len(file.read_bytes()) // 2])
    dataset = open_dataset(resolve(config(tmp_path, num_classes=9)), "train")
    with raises_code(DataError, "file-unreadable", file):
        verify(dataset)


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 9, (32, 40), dtype=np.uint8)


def test_a_file_that_is_no_image(tmp_path: Path, write_pair: Write) -> None:
    write_pair("train/a.jpg", "trainannot/a.png")
    write_pair("val/a.jpg", "valannot/a.png")
    (tmp_path / "train" / "a.jpg").write_text("no image")
    with raises_code(DataError, "file-unreadable", tmp_path / "train/a.jpg"):
        resolve(config(tmp_path))
    dataset = open_dataset(resolve(config(tmp_path, num_classes=3)), "train")
    with raises_code(DataError, "file-unreadable", tmp_path / "train/a.jpg"):
        dataset.load(0)


def test_a_pickled_data_set_leaves_its_cache_behind(tmp_path: Path, write_pair: Write) -> None:
    write_pair("train/a.png", "trainannot/a.png")
    write_pair("val/a.jpg", "valannot/a.png")
    dataset = open_dataset(resolve(config(tmp_path)), "train")
    empty = len(pickle.dumps(dataset))
    sample = dataset.load(0)
    copy = pickle.loads(pickle.dumps(dataset))
    assert len(pickle.dumps(dataset)) == empty
    assert np.array_equal(copy.load(0).mask, sample.mask)
    assert copy.load(0).mask is not sample.mask


def test_one_folder_without_names_for_masks(tmp_path: Path, write_pair: Write) -> None:
    write_pair("all/a.jpg", "all/b.png")
    given = config(tmp_path, splits={"train": {"images": "all", "masks": "all"}})
    with raises_code(DataError, "no-mask-in-folder", "'train'", " all,", "a_mask.png", "data.splits"):
        resolve(given)
