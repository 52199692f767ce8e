"""Images that belong together, such as those of a patient or a video, and channels that do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from data.meant.build import blocks, colours, grey, save, save_tiff, write
from data.meant.case import Case, Meant

LABELS = (0, 1, 2)
VISITS = [f"genius_{patient:02}{visit:02}" for patient in range(6) for visit in range(3)]
FRAMES = [f"{video}_{frame:05}" for video in ("g5b27", "lab4", "fld1") for frame in range(0, 120, 30)]


def sample(root: Path, name: str, seed: int, images: str = "images", masks: str = "masks") -> None:
    save(root / images / f"{name}.png", colours(seed))
    save(root / masks / f"{name}.png", blocks(LABELS, seed).astype(np.uint8))


def flat(names: Sequence[str], by: str | None = None, table: str = "") -> Callable[[Path], dict[str, object]]:
    """Writes images of these names in one folder; `group_by` is set to `by`."""

    def build(root: Path) -> dict[str, object]:
        for seed, name in enumerate(names):
            sample(root, name, seed)
        if table:
            write(root / "metadata.csv", table)
        return {} if by is None else {"group_by": by}

    return build


def splits(train: Sequence[str], val: Sequence[str], by: str | None = None) -> Callable[[Path], dict[str, object]]:
    """Writes images of the user's own splits."""

    def build(root: Path) -> dict[str, object]:
        for split, names in (("train", train), ("val", val)):
            for name in names:
                seed = sum(map(ord, name))
                sample(root, name, seed, f"{split}/images", f"{split}/masks")
        return {} if by is None else {"group_by": by}

    return build


PATIENTS = "file,patient\n" + "".join(f"{name}.png,{'abcdef'[n % 6]}\n" for n, name in enumerate(VISITS))


def depth_beside(root: Path) -> None:
    for number in range(6):
        sample(root, f"{number:04}", number, "image", "segmentation")
        save(root / "depth" / f"{number:04}.png", grey(number).astype(np.uint16) * 99)


def one_of_three(root: Path) -> None:
    for number in range(6):
        save(root / "imagesTr" / f"ProstateX_{number:03}_0000.png", grey(number))
        save(root / "labelsTr" / f"ProstateX_{number:03}.png", blocks(LABELS, number).astype(np.uint8))
    write(root / "dataset.json", '{"channel_names": {"0": "T2", "1": "ADC", "2": "DWI"}, "labels": {"background": 0}}')


def of_8_and_16_bits(root: Path) -> None:
    for number in range(6):
        save(root / "imagesTr" / f"BRATS_{number:03}_0000.png", grey(number))
        save(root / "imagesTr" / f"BRATS_{number:03}_0001.png", grey(number).astype(np.uint16) * 99)
        save(root / "labelsTr" / f"BRATS_{number:03}.png", blocks(LABELS, number).astype(np.uint8))


def infrared_in_a_stack(root: Path) -> None:
    for number in range(6):
        four = np.dstack([colours(number), grey(number)])
        (root / "images").mkdir(exist_ok=True)
        save_tiff(root / "images" / f"t{number}_0000.tif", four, photometric="rgb", extrasamples=["unassalpha"])
        save(root / "images" / f"t{number}_0001.png", grey(number + 9))
        save(root / "masks" / f"t{number}.png", blocks(LABELS, number).astype(np.uint8))


def stack_8_16() -> dict[str, np.ndarray]:
    return {
        f"BRATS_{n:03}": np.dstack([grey(n).astype(np.uint16) * 257, grey(n).astype(np.uint16) * 99]) for n in range(6)
    }


CASES = (
    Case(
        "visits of patients whose number is in the name",
        "https://github.com/MIC-DKFZ/nnUNet/issues/1871",
        flat(VISITS, r"genius_(\d\d)"),
        Meant(3, {}, says=(r"6 groups by data.group_by genius_(\d\d), of 3 images",)),
    ),
    Case(
        "a table that names the patient of each image",
        "https://github.com/Lightning-Universe/lightning-Covid19/issues/11",
        flat(VISITS, "csv:metadata.csv:patient", PATIENTS),
        Meant(3, {}, says=("6 groups by data.group_by csv:metadata.csv:patient",)),
    ),
    Case(
        "a table that lacks a patient",
        "https://github.com/ishaanb92/GeneralizedProbabilisticUNet/issues/1",
        flat(VISITS, "csv:metadata.csv:patient", PATIENTS.rsplit("\n", 2)[0] + "\n"),
        "group-by-misses-images",
    ),
    Case(
        "frames of three recordings, and nothing is set",
        "https://github.com/HULKs/hulk/issues/2831",
        flat(FRAMES),
        Meant(3, {}, says=("suggest 3 groups",)),
    ),
    Case(
        "frames of one recording in train and in val",
        "https://github.com/HULKs/hulk/issues/2831",
        splits(["labdata_1", "labdata_2", "field_1"], ["labdata_3", "hall_1"], "([a-z]+)_"),
        Meant(3, {}, says=("1 group of val is also in train, labdata",)),
    ),
    Case(
        "an expression that puts all images into one group",
        "https://github.com/lingxitong/MIL_BASELINE/issues/29",
        flat(VISITS, "genius"),
        "group-by-one-group",
    ),
    Case(
        "depth maps beside the images",
        "https://github.com/rollthecloudinc/hedge/issues/304",
        depth_beside,
        Meant(3, {"0002": blocks(LABELS, 2)}, {"0002": colours(2)}, says=("names as in image: depth",)),
    ),
    Case(
        "one of three modalities is there",
        "https://github.com/MIC-DKFZ/nnUNet/issues/698",
        one_of_three,
        "channels-unclear",
    ),
    Case(
        "modalities of 8 and of 16 bits",
        "https://github.com/MIC-DKFZ/nnUNet/issues/208",
        of_8_and_16_bits,
        Meant(3, {}, stack_8_16(), says=("files of 8 bits beside files of 16",)),
    ),
    Case(
        "near infrared that one file of several calls alpha",
        "https://github.com/microsoft/PlanetaryComputer/issues/82",
        infrared_in_a_stack,
        "channels-unclear",
    ),
)
