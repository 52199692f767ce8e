"""Folders as public data sets are distributed: which are found to hold images and masks, and of which split."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.errors import raises_code
from PIL import Image

from autoseg.config.base import parse
from autoseg.config.data import DataConfig, SplitConfig
from autoseg.data.check.report import check_dataset
from autoseg.data.dataset import describe_dataset, open_dataset, resolve
from autoseg.data.discovery.folder_layouts import with_validation, words_of
from autoseg.data.discovery.pairs import match_names
from autoseg.data.io.channel_files import shared_length
from autoseg.errors import DataError

Write = Callable[..., None]
ISIC = "ISIC2018_Task1-2_{}_Input/ISIC_{{}}.jpg", "ISIC2018_Task1_{}_GroundTruth/ISIC_{{}}_segmentation.png"
SEED = {"train": 4, "val": 1}
OWN = {"train": 5, "val": 3}
# images and masks, `{}` for a number; other files; the images of each split that are expected; a mask
SETS: dict[str, tuple[dict[str, str | None], dict[str, int], str]] = {
    "Carvana": ({"train/0c_{}.jpg": "train_masks/0c_{}_mask.gif", "test/t_{}.jpg": None}, SEED, "train_masks/"),
    "CVC-ClinicDB": ({"Original/{}.tif": "Ground Truth/{}.tif"}, SEED, "Ground Truth/"),
    "CVC-ClinicDB twice": (
        {"PNG/Original/{}.png": "PNG/Ground Truth/{}.png", "TIF/Original/{}.tif": "TIF/Ground Truth/{}.tif"},
        SEED, "PNG/Ground Truth/",
    ),
    "ISIC": ({ISIC[0].format("Training"): ISIC[1].format("Training"), ISIC[0].format("Validation"): None}, SEED,
             "ISIC2018_Task1_Training_GroundTruth/"),
    "DRIVE": (
        {
            "training/images/2{}_training.tif": "training/1st_manual/2{}_manual1.gif",
            "training/other/{}.tif": "training/mask/2{}_training_mask.gif",
            "test/images/0{}_test.tif": "test/1st_manual/0{}_manual1.gif",
        },
        SEED | {"test": 5}, "training/1st_manual/",
    ),
    "DeepGlobe": ({"train/{}_sat.jpg": "train/{}_mask.png", "valid/{}_sat.jpg": None}, SEED, "train/"),
    "Massachusetts": (
        {"tiff/train/{}.tiff": "tiff/train_labels/{}.tif", "tiff/val/{}.tiff": "tiff/val_labels/{}.tif"},
        {"train": 5, "val": 5}, "train_labels/",
    ),
    "Inria": ({"Aerial/train/images/a{}.tif": "Aerial/train/gt/a{}.tif", "Aerial/test/images/b{}.tif": None}, SEED,
              "train/gt/"),
    "LoveDA": (
        {f"{split}/{place}/images_png/{place}{{}}.png": f"{split}/{place}/masks_png/{place}{{}}.png"
         for split in ("Train", "Val") for place in ("Urban", "Rural")} | {"Test/Rural/images_png/{}.png": None},
        {"train": 10, "val": 10}, "Train/",
    ),
    "UAVid": (
        {f"uavid_{split}/{place}/Images/{{}}.png": f"uavid_{split}/{place}/Labels/{{}}.png"
         for split in ("train", "val") for place in ("seq1", "seq2")},
        {"train": 10, "val": 10}, "uavid_train/",
    ),
    "Potsdam": (
        {
            "2_Ortho_RGB/top_2_{}_RGB.tif": "5_Labels_all/top_2_{}_label.tif",
            "3_Ortho_IRRG/top_2_{}_IRRG.tif": "5_Labels_all_noBoundary/top_2_{}_label_noBoundary.tif",
            "1_DSM/dsm_2_{}.tif": None,
        },
        SEED,
        "5_Labels_all/",
    ),
    "Vaihingen": ({"top/area{}.tif": "gts_for_participants/area{}.tif"}, SEED, "gts_for_participants/"),
    "BDD100K": (
        {
            "images/10k/train/{}.jpg": "labels/sem_seg/masks/train/{}.png",
            "images/10k/val/{}.jpg": "labels/sem_seg/masks/val/{}.png",
            "images/10k/test/{}.jpg": None,
            "images/100k/train/x{}.jpg": "labels/drivable/masks/train/x{}.png",
            "other/{}.jpg": "labels/sem_seg/colormaps/train/{}.png",
        },
        {"train": 5, "val": 5}, "labels/sem_seg/masks/train/",
    ),
    "nnU-Net": ({"Task/imagesTr/r_{}_0000.png": "Task/labelsTr/r_{}.png", "Task/imagesTs/s_{}_0000.png": None}, SEED,
                "labelsTr/"),
    "Supervisely": ({"ds0/img/a {}.jpg": "ds0/masks_machine/a {}.png", "x/{}.png": "ds0/masks_human/a {}.png"}, SEED,
                    "ds0/masks_machine/"),
    "Roboflow": ({f"{split}/{{}}_jpg.rf.0a.jpg": f"{split}/{{}}_jpg.rf.0a_mask.png" for split in ("train", "valid")},
                 {"train": 5, "val": 5}, "train/"),
    "capitals in one folder": ({f"{split}/a{{}}_RGB.tif": f"{split}/a{{}}_Label.tif" for split in ("Train", "Val")},
                               {"train": 5, "val": 5}, "Train/"),
    "Semantic Drone": (
        {"dataset/semantic_drone/original_images/{}.jpg": "dataset/semantic_drone/label_images_semantic/{}.png",
         "x/{}.jpg": "RGB_color_image_masks/RGB_color_image_masks/{}.png"},
        SEED, "dataset/semantic_drone/label_images_semantic/",
    ),
    "FloodNet": ({f"{split}/{split}-org-img/{{}}.jpg": f"{split}/{split}-label-img/{{}}_lab.png"
                  for split in ("train", "val")}, {"train": 5, "val": 5}, "train/train-label-img/"),
    "a folder for each image": ({f"train/{n}/images/{n}.png": f"train/{n}/masks/{n}.png" for n in range(5)}, SEED, ""),
    "masks in the folder of images": ({"a{}.jpg": "masks/a{}.png"}, SEED, "masks/"),
    "words before numbers": ({"images/img_{}.png": "labels/mask_{}.png"}, SEED, "labels/"),
    "masks without splits": ({"images/train/{}.jpg": "masks/{}.png", "images/val/{}.jpg": None}, {"train": 5, "val": 5},
                             "masks/"),
}  # fmt: skip
for one, other in (
    ("Train", "Val"),
    ("TRAIN", "VALID"),
    ("train", "dev"),
    ("training_set", "validation"),
    ("trn", "val2"),
):
    SETS[f"images/{one}, images/{other}"] = (
        {f"images/{split}/{{}}.png": f"masks/{split}/{{}}.png" for split in (one, other)},
        {"train": 5, "val": 5},
        "masks/",
    )
    SETS[f"{one}/images, {other}/images"] = (
        {f"{split}/images/{{}}.png": f"{split}/masks/{{}}.png" for split in (one, other)},
        {"train": 5, "val": 5},
        "",
    )


def config(root: Path, **settings: object) -> DataConfig:
    return parse(DataConfig, {"root": str(root), **settings})


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_public_layouts(name: str, tmp_path: Path, write_pair: Write) -> None:
    files, expected, place = SETS[name]
    for image, mask in files.items():
        for number in range(5 if "{}" in image else 1):
            write_pair(image.format(number), mask and mask.format(number))
    resolved = resolve(config(tmp_path))
    counts = {split: len(open_dataset(resolved, split)) for split in resolved.splits or {}}
    assert counts == expected
    training = open_dataset(resolved, "train")
    for index, own in enumerate(training.names):
        assert training.where(index).startswith(place)
        image = training.image_path(index)
        assert image is not None
        assert Path(own).name == image.stem
        assert training.load(index).mask.shape == (32, 40)
    assert name != "Potsdam" or (resolved.splits or {})["train"].images == "2_Ortho_RGB"
    assert ("split by seed 0" in describe_dataset(resolved)) == (expected["train"] == 4)
    assert check_dataset(config(tmp_path)).stopping == 0


def test_images_belong_to_the_masks_of_their_own_folder(tmp_path: Path, write_pair: Write) -> None:
    for place, label in (("seq1", 1), ("seq2", 2)):
        for number in range(3):
            labels = np.full((32, 40), label, dtype=np.uint8)
            labels[0, 0] = 0
            write_pair(f"{place}/Images/{number}.png", f"{place}/Labels/{number}.png", labels)
    for split in ("train", "val"):
        dataset = open_dataset(resolve(config(tmp_path)), split)
        for index, name in enumerate(dataset.names):
            assert dataset.load(index).mask[5, 5] == int(name[3])
            assert name.split("/")[0] == Path(str(dataset.image_path(index))).parts[-3]


def test_kitti_has_the_classes_of_cityscapes(tmp_path: Path, write_pair: Write) -> None:
    for number in range(5):
        labels = np.tile(np.array([0, 7, 11, 26, 33], dtype=np.uint8), (32, 8))
        write_pair(f"training/image_2/{number}_10.png", f"training/semantic/{number}_10.png", labels)
        write_pair(f"testing/image_2/{number}_10.png", f"training/semantic_rgb/{number}_10.png")
    assert describe_dataset(resolve(config(tmp_path))).startswith("KITTI: 4 train, 1 val, 19 classes")
    assert open_dataset(resolve(config(tmp_path)), "train").load(0).mask[0, :5].tolist() == [255, 0, 2, 13, 18]


def test_words_of_names() -> None:
    assert words_of("ISIC2018_Task1-2_Training_GroundTruth")[-3:] == ["training", "ground", "truth"]
    assert words_of("trainannot") == ["train", "annot"]
    assert words_of("imagesTr") == ["images", "tr"]
    assert words_of("SegmentationClassAug") == ["segmentation", "class", "aug"]
    assert words_of("JPEGImages") == ["jpeg", "images"]
    assert words_of("valley") == ["valley"]


def test_names_are_matched_by_what_sets_them_apart() -> None:
    def matched(images: list[str], masks: list[str], suffix: str | None = None) -> dict[str, list[str]]:
        indices = ({name: [Path(name)] for name in names} for names in (images, masks))
        return {name: [path.name for path in paths] for name, paths in match_names(*indices, suffix).items()}

    assert matched(["img_1", "img_10"], ["m 1", "m 10"]) == {"img_1": ["m 1"], "img_10": ["m 10"]}
    assert matched(["a1_x", "a2_x"], ["a1_y", "a3_y"]) == {"a1_x": ["a1_y"], "a2_x": []}
    # one that fits as it is shows that names are meant to fit
    assert matched(["i_1", "i_2"], ["i_1", "m_2"]) == {"i_1": ["i_1"], "i_2": []}
    assert matched(["a_1", "a_2"], ["b_1", "b_2"], "_gt") == {"a_1": [], "a_2": []}
    assert matched(["cat", "dog"], ["sky", "sea"]) == {"cat": [], "dog": []}


def test_shared_length() -> None:
    assert shared_length([["a", "b"], ["a", "b", "c"]]) == 2
    assert shared_length([["a"], ["b"]]) == shared_length([["a"]]) == shared_length([]) == 0


def test_validation_is_split_from_training_alone() -> None:
    train, other = SplitConfig(images="i", masks="m"), SplitConfig(images="j", masks="k")
    assert with_validation({"train": train, "val": other}) == {"train": train, "val": other}
    assert with_validation({"test": other}) == {"test": other}
    found = with_validation({"train": train, "test": other})
    assert {split: config.part for split, config in found.items()} == {"train": "train", "val": "val", "test": None}


def test_splits_that_the_user_gives_stay(tmp_path: Path, write_pair: Write) -> None:
    for number in range(3):
        write_pair(f"train/{number}.png", f"train_masks/{number}.png")
    given = {"train": {"images": "train", "masks": "train_masks"}}
    assert len(open_dataset(resolve(config(tmp_path, splits=given)), "train")) == 3


def test_a_star_in_a_folder(tmp_path: Path, write_pair: Write) -> None:
    for place in ("a", "b"):
        write_pair(f"{place}/photos/1.png", f"{place}/drawn/1.png")
    given = {"train": {"images": "*/photos", "masks": "*/drawn"}}
    assert open_dataset(resolve(config(tmp_path, splits=given)), "train").names == ["a/1", "b/1"]
    with raises_code(DataError, "folder-missing", "*/nothing ", "data.splits"):
        resolve(config(tmp_path, splits={"train": {"images": "*/nothing", "masks": "*/drawn"}}))


def test_images_of_test_without_masks_stop_nothing(tmp_path: Path, write_pair: Write) -> None:
    for split in ("train", "val", "test"):
        for stem in "ab":
            write_pair(f"{split}/images/{stem}.png", f"{split}/masks/{stem}.png")
    (tmp_path / "test/masks/b.png").unlink()
    report = check_dataset(config(tmp_path))
    assert (next(problem.kind for problem in report.problems if problem.split == "test"), report.stopping) == (
        "pairing",
        0,
    )
    assert check_dataset(config(tmp_path), "test").stopping == 1
    (tmp_path / "test/masks/a.png").unlink()
    assert "2 train, 2 val, 3 classes" in describe_dataset(resolve(config(tmp_path)))
    lists = {split: {"images": f"{split}/images", "masks": f"{split}/masks"} for split in ("train", "val", "test")}
    assert "2 train, 2 val, 0 test" in describe_dataset(resolve(config(tmp_path, splits=lists)))


@pytest.mark.parametrize(
    ("image", "masks"),
    [
        ("stage1_train/ID{}/images/ID{}.png", "stage1_train/ID{}/masks/{}{}f0.png"),
        ("CelebA HQ Img/{}.jpg", "CelebAMask HQ mask anno/0/0000{}_part{}.png"),
        ("images/x{}.jpg", "masks/x{}_{}.png"),
    ],
)
def test_several_masks_of_an_image(image: str, masks: str, tmp_path: Path, write_pair: Write) -> None:
    for number in range(3):
        write_pair(image.replace("{}", str(number)), None)
        for part in range(2):
            name = masks.format(number, number, part) if masks.count("{}") == 3 else masks.format(number, part)
            write_pair(None, name)
    with raises_code(DataError, "mask-in-parts", image.format(0, 0), "2 masks", masks.split("{")[0]):
        resolve(config(tmp_path))


def test_a_known_set_is_known_in_the_folder_that_its_archive_makes(tmp_path: Path, write_pair: Write) -> None:
    labels = np.tile(np.arange(40, dtype=np.uint8) % 12, (32, 1))
    for split in ("train", "val"):
        write_pair(f"CamVid/{split}/0001TP_006690.png", f"CamVid/{split}annot/0001TP_006690.png", labels)
    (tmp_path / "__MACOSX").mkdir()
    found = resolve(config(tmp_path))
    assert (found.layout, found.classes[0], found.ignore_label) == ("camvid", "sky", 11)
    assert resolve(config(tmp_path, num_classes=11)) == found
    own = resolve(config(tmp_path, num_classes=12))
    assert (own.classes[0], own.num_classes, own.ignore_label) == ("class_0", 12, 255)


def test_the_folders_of_a_known_set_with_labels_that_only_count_are_ones_own(
    tmp_path: Path, write_pair: Write, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for split in ("train", "val"):
        write_pair(f"{split}/0001TP_006690.png", f"{split}annot/0001TP_006690.png")
    found = resolve(config(tmp_path))
    assert (found.layout, found.classes) == ("folder", ("class_0", "class_1", "class_2"))
    assert "data: the folders are those of CamVid, but not the labels" in caplog.text
    assert "data.layout: camvid" in caplog.text
    assert resolve(config(tmp_path, layout="camvid")).num_classes == 11


def test_a_folder_that_says_nothing_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "stuff").mkdir()
    Image.new("L", (40, 32)).save(tmp_path / "stuff/a.png")
    (tmp_path / "more").mkdir()
    with raises_code(DataError, "unknown-layout", tmp_path, "in stuff)"):
        resolve(config(tmp_path))
