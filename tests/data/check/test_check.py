"""What a check finds in a data set: nothing in one that is well, every planted fault by its file, and the settings.

What a check says would stop a run is held against what a run does, for every broken set of `test_broken`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.errors import raises_code
from PIL import Image

from autoseg.config.base import parse
from autoseg.config.data import DataConfig, data_settings
from autoseg.data.check.inspection import check_image
from autoseg.data.check.problems import same_files
from autoseg.data.check.report import DataReport, check_dataset
from autoseg.data.dataset import open_dataset, resolve, verify
from autoseg.data.io.images import read_image
from autoseg.data.io.masks import count_values
from autoseg.data.io.opening import read_header
from autoseg.data.resolve import described
from autoseg.errors import DataError
from autoseg.files import to_yaml
from data.test_broken import BROKEN, SETS, WELL
from data.test_broken import root as broken_root

root = broken_root

TRAIN, VAL = 12, 4
SIZE = (40, 48)


def save(array: np.ndarray, path: Path, **settings: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **settings)


def photo(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def columns(*values: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A mask whose columns take the values in turn."""
    row = np.array([values[column % len(values)] for column in range(size[1])], dtype=np.uint8)
    return np.tile(row, (size[0], 1))


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """JPEG photos, all different, with masks of 0, 1, 2 and the ignore label."""
    for split, count in (("train", TRAIN), ("val", VAL)):
        for number in range(count):
            save(photo(100 * (split == "val") + number), tmp_path / f"set/images/{split}/{number}.jpg")
            save(columns(0, 0, 1, 2, 255, 0), tmp_path / f"set/masks/{split}/{number}.png")
    return tmp_path / "set"


def check(folder: Path, split: str | None = None, **settings: Any) -> DataReport:
    return check_dataset(parse(DataConfig, {"root": str(folder), **settings}), split)


def stops_a_run(folder: Path, **settings: Any) -> bool:
    """Whether resolving, opening or reading the data as a run does it ends with an error."""
    try:
        config = resolve(parse(DataConfig, {"root": str(folder), **settings}), training=True)
        for split in ("train", "val"):
            verify(open_dataset(config, split))
    except DataError:
        return True
    return False


def test_nothing_is_found_in_a_set_that_is_well(clean: Path) -> None:
    calls = []
    report = check_dataset(DataConfig(root=str(clean)), progress=lambda done, total: calls.append((done, total)))
    assert list(report.problems) == []
    assert report.stopping == 0
    assert report.title == f"a folder of images and masks in {clean}: 12 train, 4 val, 3 classes, ignore label 255"
    looks_and_checks = 2 * (TRAIN + VAL)
    assert calls == [(done, looks_and_checks) for done in range(1, looks_and_checks + 1)]
    train, val = report.summary["train"], report.summary["val"]
    assert (train.images, val.images) == (TRAIN, VAL)
    assert train.sizes == (SIZE, SIZE, SIZE)
    assert train.different_sizes == 1
    assert train.pixels.tolist() == [TRAIN * 40 * 24, TRAIN * 40 * 8, TRAIN * 40 * 8]
    assert train.images_with.tolist() == [TRAIN] * 3
    assert train.shares.tolist() == pytest.approx([0.6, 0.2, 0.2])
    assert train.ignore_share == pytest.approx(1 / 6)
    assert {str(kind): count for kind, count in train.image_kinds.items()} == {"JPEG RGB 8 bit": TRAIN}
    assert {str(kind): count for kind, count in val.mask_kinds.items()} == {"PNG L 8 bit": VAL}


def test_sizes_and_kinds_are_told_apart(clean: Path) -> None:
    for number, size in enumerate([(64, 80), (50, 60), (40, 40)]):
        save(photo(number, size)[:, :, 0], clean / f"images/train/{number}.jpg")
        save(columns(0, 1, 2, size=size), clean / f"masks/train/{number}.png")
    train = check(clean).summary["train"]
    assert train.sizes == ((40, 40), SIZE, (64, 80))
    assert train.different_sizes == 4
    assert {str(kind): count for kind, count in train.image_kinds.items()} == {"JPEG RGB 8 bit": 9, "JPEG L 8 bit": 3}


# --- planted faults ---------------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def resized(clean: Path, place: str, size: tuple[int, int]) -> None:
    save(photo(77, size), clean / f"images/{place}.jpg")
    save(columns(0, 1, 2, size=size), clean / f"masks/{place}.png")


def one_pixel_of(label: int) -> np.ndarray:
    mask = columns(0, 1, 2)
    mask[0, 0] = label
    return mask


def relabel(clean: Path, split: str, *values: int) -> None:
    for path in (clean / "masks" / split).iterdir():
        save(columns(*values), path)


Plant = Callable[[Path], object]
PLANTED: dict[str, tuple[Plant, str, str, str, Mapping[str, Any]]] = {
    "image without mask": (
        lambda clean: (clean / "masks/train/3.png").unlink(),
        "pairing", "3", "images/train/3.jpg has no mask in masks/train (1 of 12 images without); add the masks", {},
    ),
    "image without mask, split by seed": (
        lambda clean: (merge(clean), (clean / "masks/3.png").unlink()),
        "pairing", "3", "images/3.jpg has no mask in", {},
    ),
    "mask without image": (
        lambda clean: (clean / "images/val/1.jpg").unlink(),
        "unused", "masks/val/1.png", "masks/val/1.png has no image in images/val; add the image, or remove", {},
    ),
    "truncated image": (
        lambda clean: cut(clean / "images/train/5.jpg"),
        "unreadable", "images/train/5.jpg", "images/train/5.jpg cannot be read as an image, or is cut off", {},
    ),
    "truncated mask": (
        lambda clean: cut(clean / "masks/val/0.png"),
        "unreadable", "masks/val/0.png", "masks/val/0.png cannot be read as an image, or is cut off", {},
    ),
    "mask of another size": (
        lambda clean: save(columns(0, 1, 2, size=(40, 50)), clean / "masks/train/7.png"),
        "size", "images/train/7.jpg", "images/train/7.jpg is 48x40 pixels, but its mask masks/train/7.png is 50x40", {},
    ),
    "tiny image": (
        lambda clean: resized(clean, "train/2", (6, 6)),
        "small", "images/train/2.jpg", "is 6x6 pixels, but images need at least 8 each way; remove it", {},
    ),
    "small image": (
        lambda clean: resized(clean, "train/2", (31, 64)),
        "small", "images/train/2.jpg", "images/train/2.jpg is only 64x31 pixels; set data.resize", {},
    ),
    "label out of range": (
        lambda clean: save(columns(0, 1, 2, 9, 77), clean / "masks/train/4.png"),
        "label", "masks/train/4.png", "labels 9, 77 in masks/train/4.png, but the data set has 3 classes (0..2) and",
        {"num_classes": 3},
    ),
    "label of val out of range": (
        lambda clean: save(columns(0, 1, 2, 3), clean / "masks/val/2.png"),
        "label", "masks/val/2.png", "label 3 in masks/val/2.png, but the data set has 3 classes",
        {"num_classes": 3},
    ),
    "ignored mask": (
        lambda clean: save(columns(255), clean / "masks/train/1.png"),
        "ignored", "masks/train/1.png", "masks/train/1.png holds the ignore label 255 alone; remove it with its", {},
    ),
    "image of training in val": (
        lambda clean: shutil.copy(clean / "images/train/8.jpg", clean / "images/val/3.jpg"),
        "leak", "images/val/3.jpg", "images/val/3.jpg of val is the same file as images/train/8.jpg of train", {},
    ),
    "image twice": (
        lambda clean: shutil.copy(clean / "images/train/2.jpg", clean / "images/train/9.jpg"),
        "duplicate", "images/train/9.jpg", "images/train/9.jpg is the same file as images/train/2.jpg; remove one", {},
    ),
    "class of val alone": (
        lambda clean: save(columns(0, 1, 2, 3), clean / "masks/val/2.png"),
        "unseen", "class_3", "class 3, class_3, is in val, but in no mask of train", {},
    ),
    "class in few pixels": (
        lambda clean: [save(one_pixel_of(3), path) for path in (clean / "masks/train").iterdir()],
        "rare", "class_3", "is in 12 of 12 images of train, 0.052% of the pixels; add images", {},
    ),
    "class in few images": (
        lambda clean: save(columns(0, 1, 2, 3), clean / "masks/train/2.png"),
        "rare", "class_3", "class 3, class_3, is in 1 of 12 images of train", {},
    ),
    "class that is nowhere": (
        lambda clean: None, "absent", "class_3", "class 3, class_3, is in no mask", {"num_classes": 4}
    ),
    "no validation": (
        lambda clean: None,
        "layout", "", "has no split 'val', which a run needs; it has train; set data.splits",
        {"splits": {"train": {"images": "images/train", "masks": "masks/train"}}},
    ),
    "no image in val": (
        lambda clean: [path.unlink() for path in (clean / "images/val").iterdir()],
        "layout", "images/val", "images/val holds no images; looked for", {},
    ),
    "one class": (
        lambda clean: relabel(clean, "train", 0),
        "layout", "", "show the class 'class_0' alone, so that there is nothing to learn", {},
    ),
    "labels far apart": (
        lambda clean: [relabel(clean, split, 0, 100, 255, 200) for split in ("train", "val")],
        "layout", "", "hold the labels 0, 100, 200, 255: 255 may mark ignored pixels", {},
    ),
    "mean of another number of channels": (
        lambda clean: None, "layout", "", "the images have 1 channel, but there are 3 means",
        {"channels": 1, "normalise": "imagenet"},
    ),
}  # fmt: skip
STOPPING = {"pairing", "unreadable", "size", "label", "layout"}


def merge(clean: Path) -> None:
    """images/ and masks/ without splits."""
    for part in ("images", "masks"):
        for path in (clean / part / "train").iterdir():
            path.rename(clean / part / path.name)
        for split in ("train", "val"):
            shutil.rmtree(clean / part / split)


@pytest.mark.slow
@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_fault_is_found_by_its_file(case: str, clean: Path) -> None:
    plant, kind, file, says, settings = PLANTED[case]
    plant(clean)
    report = check(clean, **settings)
    (found,) = [problem for problem in report.problems if problem.kind == kind]
    assert found.file == file
    assert says in found.text.replace(f"{clean}/", "")
    assert "\n" not in found.text
    assert found.stops == (kind in STOPPING or case == "tiny image")
    assert bool(report.stopping) == stops_a_run(clean, **settings)
    assert found._asdict() in report.to_dict()["problems"]


@pytest.mark.parametrize("case", BROKEN)
def test_every_bad_pair_is_found(case: str, root: Path) -> None:
    BROKEN[case].break_it(root)
    report = check(root, **BROKEN[case].settings)
    stopping = [problem for problem in report.problems if problem.stops]
    assert len(stopping) == 1
    assert Path(stopping[0].file).stem == "2"
    assert stopping[0].split == "train"
    assert report.stopping == 1
    left_out = check(root, on_bad_file="skip", **BROKEN[case].settings)
    assert left_out.stopping == 0
    assert [problem.file for problem in left_out.problems if problem.kind == stopping[0].kind] == [stopping[0].file]


@pytest.mark.parametrize("case", SETS)
def test_every_bad_set_is_found(case: str, root: Path) -> None:
    SETS[case].break_it(root)
    try:
        assert check(root).stopping > 0
    except DataError as reason:  # nothing can be understood
        assert "\n" not in str(reason)  # noqa: PT017
        assert reason.code == SETS[case].code  # noqa: PT017


@pytest.mark.parametrize("case", WELL)
def test_what_looks_odd_and_is_well_stops_nothing(case: str, root: Path) -> None:
    WELL[case][0](root)
    assert [problem.text for problem in check(root).problems if problem.stops] == []


def test_the_first_problem_is_the_error_of_a_folder_that_cannot_be_understood(clean: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        shutil.rmtree(clean / "masks" / split)
        (clean / "masks" / split).mkdir()
    with raises_code(DataError, "mask-missing", "images/train/0.jpg", clean / "masks/train", "12 of 12"):
        check(clean)
    with raises_code(DataError, "unknown-split", clean, "'test'", "train, val", "data.splits"):
        check(clean, "test")
    with raises_code(DataError, "no-files-to-check", "generated"):
        check_dataset(DataConfig(layout="generated"))
    (tmp_path / "odd").mkdir()
    save(photo(0), tmp_path / "odd/a.jpg")
    with raises_code(DataError, "unknown-layout", tmp_path / "odd"):
        check(tmp_path / "odd")


def test_masks_without_an_image_in_one_folder(tmp_path: Path) -> None:
    for number in range(6):
        save(photo(number), tmp_path / f"{number}.jpg")
        save(columns(0, 1, 2), tmp_path / f"{number}_mask.png")
    assert list(check(tmp_path).problems) == []
    save(columns(0, 1, 2), tmp_path / "7_mask.png")
    assert [(problem.kind, problem.file) for problem in check(tmp_path).problems] == [("unused", "7_mask.png")]


def test_other_masks_of_an_image_are_not_left_over(clean: Path) -> None:
    for path in list((clean / "masks/train").iterdir()):
        save(photo(0), path.with_name(f"{path.stem}_color.png"))
    assert list(check(clean).problems) == []


def test_one_split_is_checked_alone(clean: Path) -> None:
    cut(clean / "images/train/0.jpg")
    shutil.copy(clean / "images/train/8.jpg", clean / "images/val/3.jpg")
    report = check(clean, "val")
    assert list(report.summary) == ["val"]
    assert list(report.problems) == []
    assert "classes" not in report.proposal, "which training alone tells"
    assert report.summary["val"].pixels.tolist() == [VAL * 40 * 24, VAL * 40 * 8, VAL * 40 * 8]


# --- the proposed settings --------------------------------------------------------------------------------------------


def binary(clean: Path) -> None:
    for split in ("train", "val"):
        relabel(clean, split, 0, 255, 0)


def in_colour(clean: Path, table: str | None) -> None:
    table_of = np.array([[0, 0, 0], [128, 64, 128], [0, 200, 0]], dtype=np.uint8)
    for path in clean.glob("masks/*/*.png"):
        save(table_of[columns(0, 0, 1, 2)], path)
    if table is not None:
        (clean / "class_dict.csv").write_text(table)


def deep(clean: Path) -> None:
    """16 bit, one channel."""
    for number, path in enumerate(sorted(clean.glob("images/*/*.jpg"))):
        path.unlink()
        rng = np.random.default_rng(number)
        save(rng.integers(0, 4000, SIZE).astype(np.uint16), path.with_suffix(".png"))


def many_channels(clean: Path) -> None:
    for number, path in enumerate(sorted(clean.glob("images/*/*.jpg"))):
        path.unlink()
        np.save(path.with_suffix(".npy"), np.random.default_rng(number).normal(3, 2, (*SIZE, 5)).astype(np.float32))


def listed(clean: Path) -> None:
    for split in ("train", "val"):
        stems = sorted(path.stem for path in (clean / "images" / split).iterdir())
        lines = [f"images/{split}/{stem}.jpg\tmasks/{split}/{stem}.png" for stem in stems]
        (clean / f"{split}.txt").write_text("\n".join(lines))
    (clean / "images").rename(clean / "photos")
    (clean / "masks").rename(clean / "drawn")
    for split in ("train", "val"):
        text = (clean / f"{split}.txt").read_text().replace("images/", "photos/").replace("masks/", "drawn/")
        (clean / f"{split}.txt").write_text(text)


PROPOSED: dict[str, tuple[Plant, Mapping[str, Any], Mapping[str, Any]]] = {
    "a folder": (
        lambda clean: None, {},
        {"layout": "folder", "classes": ["class_0", "class_1", "class_2"], "ignore_label": 255},
    ),
    "binary": (binary, {}, {"layout": "folder", "classes": ["background", "foreground"], "ignore_label": 255,
                            "label_map": {255: 1}}),
    "split by seed": (merge, {"val_share": 0.25}, {"val_share": 0.25, "layout": "folder",
                                                   "classes": ["class_0", "class_1", "class_2"], "ignore_label": 255}),
    "lists": (listed, {}, {"layout": "list", "classes": ["class_0", "class_1", "class_2"], "ignore_label": 255}),
    "a table of colours": (
        lambda clean: in_colour(clean, "name,r,g,b\nbackground,0,0,0\nroad,128,64,128\ntree,0,200,0\n"), {},
        {"layout": "folder", "ignore_label": 255,
         "colours": {"background": [0, 0, 0], "road": [128, 64, 128], "tree": [0, 200, 0]}},
    ),
    "names": (lambda clean: None, {"classes": ["a", "b", "c"], "resize": [64, 96]},
              {"layout": "folder", "classes": ["a", "b", "c"], "resize": [64, 96], "ignore_label": 255}),
    "places": (
        lambda clean: (clean / "masks/val").rename(clean / "truth"),
        {"splits": {"train": {"images": "images/train", "masks": "masks/train"},
                    "val": {"images": "images/val", "masks": "truth"}}},
        {"splits": {"train": {"images": "images/train", "masks": "masks/train"},
                    "val": {"images": "images/val", "masks": "truth"}},
         "layout": "folder", "classes": ["class_0", "class_1", "class_2"], "ignore_label": 255},
    ),
}  # fmt: skip


def assert_same_data(one: DataConfig, other: DataConfig) -> None:
    for split in ("train", "val"):
        first, second = open_dataset(one, split), open_dataset(other, split)
        assert first.names == second.names
        assert first.classes == second.classes
        for index in range(len(first)):
            assert np.array_equal(first.load(index).image, second.load(index).image)
            assert np.array_equal(first.load(index).mask, second.load(index).mask)


def reloaded(report: DataReport, folder: Path) -> DataConfig:
    """The proposal after the way through a file that `--data` reads."""
    file = folder / "proposed/data.yaml"
    file.parent.mkdir()
    file.write_text(to_yaml(report.proposal), encoding="utf-8")
    return resolve(parse(DataConfig, data_settings(file)))


@pytest.mark.slow
@pytest.mark.parametrize("case", PROPOSED)
def test_the_proposal_gives_the_same_data(case: str, clean: Path, tmp_path: Path) -> None:
    change, settings, proposed = PROPOSED[case]
    change(clean)
    report = check(clean, **settings)
    assert report.stopping == 0
    assert dict(report.proposal) == {"root": str(clean), **proposed}
    again = reloaded(report, tmp_path)
    original = resolve(parse(DataConfig, {"root": str(clean), **settings}))
    assert again == original
    assert_same_data(again, original)


@pytest.mark.parametrize(("change", "channels", "pixel_type"), [(deep, 1, "uint16"), (many_channels, 5, "float32")])
def test_the_proposal_says_how_other_images_are_normalised(
    change: Plant, channels: int, pixel_type: str, clean: Path, tmp_path: Path
) -> None:
    change(clean)
    report = check(clean)
    assert list(report.problems) == []
    assert (report.proposal["channels"], report.proposal["pixel_type"]) == (channels, pixel_type)
    assert len(report.proposal["mean"]) == len(report.proposal["std"]) == channels
    assert reloaded(report, tmp_path) == resolve(DataConfig(root=str(clean)))


def test_the_proposal_says_how_photos_are_turned(clean: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert "orientation" not in check(clean).proposal, "upright is found without it"
    for path in (clean / "images/train").iterdir():
        save(photo(int(path.stem)), path, exif=exif)
    report = check(clean)
    assert report.proposal["orientation"] == report.to_dict()["orientation"] == "stored"
    assert any("read as stored" in line for line in report.to_dict()["decisions"])
    assert reloaded(report, tmp_path) == resolve(DataConfig(root=str(clean)))


def test_colours_without_a_table_get_names(clean: Path, tmp_path: Path) -> None:
    in_colour(clean, None)
    assert stops_a_run(clean)
    report = check(clean)
    assert [problem.kind for problem in report.problems if problem.stops] == ["layout"]
    assert report.problems[0].file == "masks/train/0.png"
    assert report.proposal["colours"] == {"class_0": [0, 0, 0], "class_1": [0, 200, 0], "class_2": [128, 64, 128]}
    again = reloaded(report, tmp_path)
    assert open_dataset(resolve(again), "train").load(0).mask[0, :4].tolist() == [0, 0, 2, 1]
    assert not stops_a_run(clean, **report.proposal)


def test_labels_far_apart_stop_with_both_readings(clean: Path) -> None:
    for split in ("train", "val"):
        relabel(clean, split, 0, 100, 255, 200)
    assert stops_a_run(clean)
    report = check(clean)
    (problem,) = report.problems
    assert (problem.kind, problem.stops) == ("layout", True)
    assert not {"classes", "num_classes", "label_map"} & set(report.proposal), "the user decides"
    assert report.summary["train"].images_with.tolist() == [TRAIN] * 4, "each label is counted"
    assert "the labels 0, 100, 200, 255" in problem.text
    for said in ("data.ignore_label: 255", "data.num_classes: 4", "data.label_map: {100: 1, 200: 2, 255: 3}"):
        assert said in problem.text
    assert not stops_a_run(clean, num_classes=4, label_map={100: 1, 200: 2, 255: 3})
    assert check(clean, num_classes=4, label_map={100: 1, 200: 2, 255: 3}).stopping == 0


def test_labels_far_apart_are_numbered(clean: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        relabel(clean, split, 0, 100, 255, 200)
    report = check(clean, ignore_label=255)
    assert list(report.problems) == []
    assert report.proposal["label_map"] == {100: 1, 200: 2}
    assert report.proposal["classes"] == ["class_0", "class_100", "class_200"]
    assert open_dataset(reloaded(report, tmp_path), "val").load(0).mask[0, :4].tolist() == [0, 1, 255, 2]
    assert not stops_a_run(clean, **report.proposal)


def test_the_json_is_complete(clean: Path) -> None:
    for number in range(TRAIN - 1):
        cut(clean / f"images/train/{number}.jpg")
    (clean / "masks/val/0.png").unlink()
    content = json.loads(json.dumps(check(clean).to_dict()))
    assert sum(problem["kind"] == "unreadable" for problem in content["problems"]) == TRAIN - 1
    assert content["problems_that_stop_a_run"] == TRAIN
    assert set(content["problems"][0]) == {"kind", "split", "file", "text", "stops"}
    train = content["splits"]["train"]
    assert train["sizes"] == {"smallest": [40, 48], "median": [40, 48], "largest": [40, 48]}
    assert train["image_files"] == [{"format": "JPEG", "mode": "RGB", "channels": 3, "bits": 8, "files": 1}]
    assert train["classes"]["class_1"] == {"share": 0.2, "pixels": 40 * 8 * TRAIN, "images": TRAIN}
    assert content["proposal"]["root"] == content["root"] == str(clean)


# --- samples to look at -----------------------------------------------------------------------------------------------


def test_samples_show_rare_classes_and_leave_out_what_is_broken(clean: Path) -> None:
    save(columns(0, 1, 2, 4), clean / "masks/train/7.png")
    save(columns(0, 1, 2, 3), clean / "masks/val/3.png")
    cut(clean / "images/train/0.jpg")
    samples = check(clean, num_classes=5).samples()
    names = [name for name, _ in samples]
    assert len(names) == len(set(names)) == 12
    assert {"train/7", "val/3"} <= set(names)
    assert "train/0" not in names
    assert names == sorted(names), "the order of the data set"
    assert {int(label) for _, sample in samples for label in np.unique(sample.mask)} == {0, 1, 2, 3, 4, 255}


@pytest.mark.slow
def test_large_samples_are_reduced(clean: Path) -> None:
    resized(clean, "train/0", (100, 2000))
    shapes = {name: sample.image.shape for name, sample in check(clean).samples()}
    assert shapes["train/0"] == (51, 1024, 3)
    assert shapes["train/1"] == (*SIZE, 3)


# --- real images ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_camvid(camvid: Path) -> None:
    report = check(camvid)
    (hint,) = report.problems  # the published split cuts a drive in two; no image looks like another
    assert (hint.kind, hint.stops) == ("names", False)
    assert "3 groups" in hint.text
    assert "1, 0016E5, lies in both train and val" in hint.text
    assert report.title == f"CamVid in {camvid.resolve()}: 367 train, 101 val, 11 classes, ignore label 11"
    assert report.proposal["layout"] == "camvid"
    assert report.summary["train"].ignore_share == pytest.approx(0.039, abs=0.001)
    assert resolve(parse(DataConfig, report.proposal)) == resolve(DataConfig(root=str(camvid)))


def test_voc(voc: Path) -> None:
    report = check(voc)
    assert report.stopping == 0
    assert [problem.file for problem in report.problems if problem.kind == "unseen"] == ["dining_table"]
    assert report.summary["train"].different_sizes == 2
    assert resolve(parse(DataConfig, report.proposal)) == resolve(DataConfig(root=str(voc)))


RESOLVED = described(DataConfig(root="/data", channels=3))


# --- parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["jpeg", "progressive", "png", "grey png", "palette", "deep", "bmp", "tiff", "webp"])
def test_a_quick_look_sees_every_cut_that_reading_sees(form: str, tmp_path: Path) -> None:
    image = Image.fromarray(photo(0, (64, 80)))
    if form in ("grey png", "palette"):
        image = image.convert("L" if form == "grey png" else "P")
    if form == "deep":
        image = Image.fromarray(photo(0, (64, 80))[:, :, 0].astype(np.uint16) * 200)
    suffix = {"jpeg": "jpg", "progressive": "jpg", "bmp": "bmp", "tiff": "tif", "webp": "webp"}.get(form, "png")
    whole = tmp_path / f"whole.{suffix}"
    image.save(whole, progressive=True) if form == "progressive" else image.save(whole)
    header = read_header(whole)
    assert check_image(whole, header, None, RESOLVED)[0] == (64, 80)
    assert header.bits == (16 if form == "deep" else 8)
    data, part = whole.read_bytes(), tmp_path / f"part.{suffix}"
    seen = 0
    for share in np.linspace(0.02, 0.99, 12):
        part.write_bytes(data[: int(len(data) * share)])
        if cannot(lambda: read_image(part)):
            seen += 1
            assert cannot(lambda: check_image(part, header, None, RESOLVED)), share
    assert seen > 8


def cannot(act: Callable[[], object]) -> bool:
    try:
        act()
    except DataError:
        return True
    return False


@pytest.mark.parametrize(("orientation", "size"), [("upright", (48, 40)), ("stored", (40, 48))])
def test_a_turned_photo_is_as_large_as_its_mask(orientation: str, size: tuple[int, int], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(photo(0, (40, 48)), tmp_path / "a.jpg", exif=exif)
    header, data = read_header(tmp_path / "a.jpg"), RESOLVED.model_copy(update={"orientation": orientation})
    for mask_size in (size, size[::-1], (41, 48)):
        assert check_image(tmp_path / "a.jpg", header, mask_size, data)[0] == size


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_labels_are_counted(dtype: type) -> None:
    mask = np.random.default_rng(0).integers(0, 50, (30, 31)).astype(dtype)
    labels, pixels = count_values(mask, at_once=100)
    expected = np.unique(mask, return_counts=True)
    assert labels.tolist() == expected[0].tolist()
    assert pixels.tolist() == expected[1].tolist()


def test_of_very_many_labels_the_commonest_are_kept() -> None:
    mask = np.arange(5000, dtype=np.uint16).repeat(np.arange(5000) % 7 + 1)[None]
    labels, pixels = count_values(mask)
    assert len(labels) == 1024
    assert (np.diff(labels) > 0).all()
    assert pixels.min() == 6


def test_same_files(tmp_path: Path) -> None:
    long = bytes(range(256)) * 400
    contents = [b"a", b"b", b"a", b"", b"", long, long[:-1] + b"x", long, b"a"]
    paths = [tmp_path / str(number) for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    assert same_files([*paths, tmp_path / "none"]) == [[0, 2, 8], [5, 7]]
