"""Class names from files: more or fewer than labels, ignored ones, encodings, tables with other columns."""

from __future__ import annotations

import json
from pathlib import Path

from data.meant.build import meant_masks, numbered, pairs, write
from data.meant.case import Case, Meant

LABELS = (0, 1, 2)
TISSUE = ("background", "tumor", "normal", "stroma", "fat", "blood", "necrosis")
NAMES = ("sky", "road", "tree")


def more_names(root: Path) -> None:
    pairs(root, range(5))
    write(root / "classes.txt", "\n".join(TISSUE) + "\n")


def more_names_in_json(root: Path) -> None:
    pairs(root, (0, 1, 3))
    write(root / "id2label.json", json.dumps(dict(enumerate(TISSUE))))


def fewer_names(root: Path) -> None:
    pairs(root, range(4))
    write(root / "classes.txt", "sky\nroad\n")


def zero_unnamed(root: Path) -> None:
    pairs(root, range(4))
    write(root / "classes.txt", "1: wall\n2: building\n3: sky\n")


def ignore_last(root: Path) -> None:
    pairs(root, LABELS)
    write(root / "labels.txt", "sky\nroad\nIgnore\n")


def unlabelled_first(root: Path) -> None:
    pairs(root, range(4))
    write(root / "classes.txt", "unlabeled\nsky\nroad\ntree\n")


def utf_16(root: Path) -> None:
    pairs(root, LABELS)
    write(root / "classes.txt", "".join(f"{name}\r\n" for name in NAMES).encode("utf-16"))


def gbk(root: Path) -> None:
    pairs(root, LABELS)
    write(root / "classes.txt", "天空\n道路\n树木\n".encode("gbk"))


def chinese(root: Path) -> None:
    pairs(root, LABELS)
    write(root / "classes.txt", "\ufeff天空\n道路\n树木\n")


def names_below(root: Path) -> None:
    pairs(root / "camvid" / "data", LABELS)
    write(root / "camvid" / "data" / "classes.txt", "sky\nroad\ntree\n")
    write(root / "README.md", "A data set.\n")


def settings_beat_names(root: Path) -> dict[str, object]:
    pairs(root, LABELS)
    write(root / "classes.txt", "a\nb\nc\n")
    return {"classes": NAMES}


def number_and_names(root: Path) -> dict[str, object]:
    pairs(root, LABELS)
    write(root / "id2label.json", json.dumps({str(label): name for label, name in enumerate(NAMES)}))
    return {"num_classes": 3}


def fewer_classes_set(root: Path) -> dict[str, object]:
    pairs(root, range(4))
    return {"classes": NAMES}


def ladder_with_names(root: Path) -> dict[str, object]:
    pairs(root, (0, 127, 255))
    return {"classes": NAMES}


def two_classes_set(root: Path) -> dict[str, object]:
    pairs(root, (0, 255))
    return {"classes": ("background", "coin")}


def label_map_set(root: Path) -> dict[str, object]:
    pairs(root, (0, 1, 2, 4))
    return {"label_map": {4: 3}}


CASES = (
    Case(
        "seven names, five labels occur",
        "https://github.com/Project-MONAI/MONAI/issues/471",
        more_names,
        Meant(TISSUE, meant_masks(range(5))),
    ),
    Case(
        "seven names by label, three labels occur",
        "https://github.com/huggingface/transformers/pull/18640",
        more_names_in_json,
        Meant(TISSUE, meant_masks((0, 1, 3), {0: 0, 1: 1, 3: 3})),
    ),
    Case(
        "two names, four labels",
        "https://github.com/CSAILVision/semantic-segmentation-pytorch/issues/115",
        fewer_names,
        "names-differ",
    ),
    Case(
        "names from 1, and 0 stands for the unlabelled",
        "https://github.com/CSAILVision/semantic-segmentation-pytorch/issues/76",
        zero_unnamed,
        "names-differ",  # 0 may be ignored or a class that the file forgot
    ),
    Case(
        "Ignore is the last of the names",
        "https://github.com/blue-oil/blueoil/pull/177",
        ignore_last,
        Meant(("sky", "road"), meant_masks(LABELS, numbered(LABELS, ignored=[2]))),
    ),
    Case(
        "unlabeled is the first of the names",
        "https://www.frankk.site/blog-en/dataset_cityscapes",
        unlabelled_first,
        Meant(NAMES, meant_masks(range(4), numbered(range(4), ignored=[0]))),
    ),
    Case(
        "names in UTF-16", "https://github.com/ssaru/convert2Yolo/issues/6", utf_16, Meant(NAMES, meant_masks(LABELS))
    ),
    Case("names in GBK", "https://github.com/ultralytics/yolov5/issues/3141", gbk, "file-unreadable"),
    Case(
        "names in UTF-8 with a byte order mark",
        "https://github.com/yangxue0827/R2CNN_FPN_Tensorflow/issues/71",
        chinese,
        Meant(("天空", "道路", "树木"), meant_masks(LABELS)),
    ),
    Case(
        "names two folders below, beside the images",
        "https://github.com/ryouchinsa/Rectlabel-support/issues/108",
        names_below,
        Meant(NAMES, meant_masks(LABELS)),
    ),
    Case(
        "names in the settings and others in a file",
        "https://github.com/open-mmlab/mmdeploy/issues/877",
        settings_beat_names,
        Meant(NAMES, meant_masks(LABELS)),
    ),
    Case(
        "num_classes in the settings, and as many names in a file",
        "https://github.com/huggingface/transformers/pull/18640",
        number_and_names,
        Meant(NAMES, meant_masks(LABELS)),
    ),
    Case(
        "three classes set, four labels",
        "https://github.com/open-mmlab/mmsegmentation/issues/1615",
        fewer_classes_set,
        "label-out-of-range",
    ),
    Case(
        "three classes set, labels 0, 127 and 255",
        "https://github.com/MIC-DKFZ/nnUNet/issues/1678",
        ladder_with_names,
        Meant(NAMES, meant_masks((0, 127, 255))),
    ),
    Case(
        "two classes set, labels 0 and 255",
        "https://github.com/open-mmlab/mmsegmentation/issues/3749",
        two_classes_set,
        Meant(("background", "coin"), meant_masks((0, 255))),
    ),
    Case(
        "a label_map that closes the gap of BraTS",
        "https://github.com/MIC-DKFZ/nnUNet/issues/309",
        label_map_set,
        Meant(4, meant_masks((0, 1, 2, 4))),
    ),
)
