"""Which file is the mask of which image: suffixes, endings, numbers, letters, duplicates, broken files, links."""

from __future__ import annotations

import os
import sys
import unicodedata
from pathlib import Path

import numpy as np
from PIL import Image

from data.meant.build import blocks, colours, grey, meant_masks, pairs, png_bytes, save, stems, write
from data.meant.case import Case, Meant

LABELS = (0, 1, 2)
DOTTED = [f"0250_London_2004.01.12_12.48.0{number}_testvid" for number in range(5)] + ["0250_London_2004"]
NUMBERS = ["1", "2", "10", "11", "12", "111"]
MODAL = ["002", "005", "007", "011", "012", "020"]
MODALITIES = ("an image is 2 files, whose channels follow each other so: *_0000 (T1), *_0001 (T2)",)
UMLAUTS = ["Übung", "Müller", "Café", "Größe", "naïve", "Łódź"]
OTHER_BYTES = os.fsdecode(b"a1\xe9\xb5") if sys.platform == "linux" else "a1é"
"""A name in GBK; macOS and Windows keep none that is no Unicode."""
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:6fd5d72fe4589f189f8ebc006442dbb5\nsize 4212\n"


def named(root: Path, images: list[str], masks: list[str], values: tuple[int, ...] = LABELS) -> None:
    """Write the n-th image and the n-th mask under these paths."""
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        save(root / image, colours(number))
        save(root / mask, blocks(values, number).astype(np.uint8))


# --- endings and suffixes ---------------------------------------------------------------------------------------------


def upper_case(root: Path) -> None:
    suffixes = (".PNG", ".Jpg", ".JPEG", ".png", ".TIF", ".Bmp")
    named(
        root,
        [f"image/{stem}{suffix}" for stem, suffix in zip(stems(), suffixes, strict=True)],
        [f"mask/{stem}.PNG" for stem in stems()],
    )


def several_suffixes(root: Path) -> None:
    named(
        root,
        [f"images/0{number}.{'jpg' if number == 3 else 'png'}" for number in range(1, 7)],
        [f"masks/0{number}.png" for number in range(1, 7)],
    )


def jfif(root: Path) -> None:
    pairs(root, LABELS)
    for number in (1, 4):
        (root / "images" / f"a{number}.png").unlink()
        with (root / "images" / f"a{number}.jfif").open("wb") as file:
            Image.fromarray(colours(number)).save(file, format="JPEG")


def whole_name_kept(root: Path) -> None:
    named(root, [f"images/{stem}.jpg" for stem in stems()], [f"masks/{stem}.jpg.png" for stem in stems()])


def unusual_ending(root: Path) -> None:
    numbers = ("00002", "00156", "00262", "00301", "00310", "00477")
    named(root, [f"images/{one}.jpg" for one in numbers], [f"masks/{one}_bgrem.png" for one in numbers])


def image_and_masks(root: Path) -> None:
    named(root, [f"brabra{n}_image.tiff" for n in range(6)], [f"brabra{n}_masks.tiff" for n in range(6)])


def masks_inside_images(root: Path) -> None:
    named(root, [f"training/image{n}.tif" for n in range(6)], [f"training/masks/image{n}_mask.tif" for n in range(6)])


def pickled(root: Path) -> None:
    for number in range(6):
        save(root / "train" / f"B3_8_pre_release000{number}.tif", grey(number))
        content = np.array({"masks": blocks(LABELS, number), "outlines": None}, dtype=object)
        place = root / "train" / f"B3_8_pre_release000{number}_seg.npy"
        with place.open("wb") as file:
            np.save(file, content, allow_pickle=True)


# --- numbers and letters ----------------------------------------------------------------------------------------------


def dots(root: Path) -> None:
    named(root, [f"images/{stem}.jpg" for stem in DOTTED], [f"masks/{stem}.png" for stem in DOTTED])


def numbers(root: Path) -> None:
    named(root, [f"imgs/{one}.png" for one in NUMBERS], [f"masks/{one}_mask.png" for one in NUMBERS])


def leading_zeros(root: Path) -> None:
    named(root, [f"images/{one}.jpg" for one in NUMBERS], [f"masks/{int(one):012d}.png" for one in NUMBERS])


def letters_of_another_case(root: Path) -> None:
    named(root, [f"images/IMG_{one}.JPG" for one in NUMBERS], [f"masks/img_{one}.png" for one in NUMBERS])


def composed(root: Path) -> None:
    named(
        root,
        [f"images/{unicodedata.normalize('NFC', one)}.png" for one in UMLAUTS],
        [f"masks/{unicodedata.normalize('NFD', one)}.png" for one in UMLAUTS],
    )


def names_in_gbk(root: Path) -> None:
    pairs(root, LABELS)
    for folder in ("images", "masks"):
        (root / folder / "a1.png").rename(root / folder / f"{OTHER_BYTES}.png")


def masks_of_another_patient(root: Path) -> None:
    for number in range(1, 7):
        save(root / "images" / f"p{number}_s1.png", colours(number))
        save(root / "masks" / f"m_p1_s{number}.png", blocks(LABELS, number).astype(np.uint8))


def spaces_and_brackets(root: Path) -> None:
    for kind in ("benign", "malignant"):
        for number in range(1, 4):
            stem = root / "Dataset_BUSI_with_GT" / kind / f"{kind} ({number})"
            save(stem.with_name(f"{stem.name}.png"), colours(number))
            save(stem.with_name(f"{stem.name}_mask.png"), blocks((0, 1), number).astype(bool))


def spaces_and_brackets_masks() -> dict[str, np.ndarray]:
    return {f"{kind}/{kind} ({n})": blocks((0, 1), n) for kind in ("benign", "malignant") for n in range(1, 4)}


# --- several masks an image -------------------------------------------------------------------------------------------


def second_mask(root: Path) -> None:
    spaces_and_brackets(root)
    folder = root / "Dataset_BUSI_with_GT" / "benign"
    save(folder / "benign (2)_mask_1.png", blocks((0, 1), 7).astype(bool))


def nuclei(root: Path) -> None:
    for number, stem in enumerate(stems()):
        save(root / "stage1_train" / stem / "images" / f"{stem}.png", colours(number))
        for part in range(3):
            mask = (blocks(range(4), number) == part + 1).astype(np.uint8) * 255
            save(root / "stage1_train" / stem / "masks" / f"{part}e5f{number}.png", mask)


def nuclei_masks() -> dict[str, np.ndarray]:
    return {f"{stem}/images/{stem}": (blocks(range(4), n) > 0).astype(int) for n, stem in enumerate(stems())}


def objects_and_classes(root: Path) -> None:
    for number, stem in enumerate(stems()):
        mask = blocks(LABELS, number).astype(np.uint8)
        save(root / "images" / f"{stem}.jpg", colours(number))
        save(root / "masks" / f"{stem}_all_objects.png", mask)
        save(root / "masks" / f"{stem}_class_cat.png", (mask == 1).astype(np.uint8) * 255)
        save(root / "masks" / f"{stem}_object0.png", (mask == 2).astype(np.uint8) * 255)


def task_numbers(root: Path) -> None:
    for number in range(6):
        save(root / "images" / f"frame_{number + 190}.jpg", colours(number))
        mask = blocks((0, 255), number).astype(np.uint8)
        save(root / "masks" / f"task-{number + 3}-annotation-{number + 3}-by-1-tag-tree-0.png", mask)


def twice_in_two_formats(root: Path) -> None:
    pairs(root, LABELS)
    with (root / "masks" / "a3.jpg").open("wb") as file:
        Image.fromarray(blocks(LABELS, 8).astype(np.uint8)).save(file, format="PNG")


def two_modalities(root: Path) -> None:
    for number, stem in enumerate(MODAL):
        save(root / "imagesTr" / f"{stem}_0000.png", grey(number))
        save(root / "imagesTr" / f"{stem}_0001.png", grey(number + 10))
        save(root / "labelsTr" / f"{stem}.png", blocks(LABELS, number).astype(np.uint8))
    labels = {"background": 0, "a": 1, "b": 2}
    names = str({"channel_names": {"0": "T1", "1": "T2"}, "labels": labels, "file_ending": ".png"})
    write(root / "dataset.json", names.replace("'", '"'))


def both_modalities() -> dict[str, np.ndarray]:
    return {stem: np.stack([grey(number), grey(number + 10)], axis=2) for number, stem in enumerate(MODAL)}


# --- files that are missing or broken, links, and what programs leave -------------------------------------------------


def pointer(root: Path) -> None:
    pairs(root, LABELS)
    write(root / "masks" / "a3.png", POINTER)


def zero_bytes(root: Path) -> None:
    pairs(root, LABELS)
    write(root / "masks" / "a3.png", b"")


def cut_off(root: Path) -> None:
    pairs(root, LABELS)
    whole = (root / "images" / "a1.png").read_bytes()
    write(root / "images" / "a1.png", whole[: len(whole) // 2])


def left_out(root: Path) -> dict[str, object]:
    cut_off(root)
    return {"on_bad_file": "skip"}


def huge(root: Path) -> None:
    pairs(root, LABELS)
    write(root / "images" / "a3.png", png_bytes(np.zeros((2, 2), np.uint8), header=(20000, 22292)))


def unlabelled(root: Path) -> None:
    pairs(root, LABELS)
    (root / "masks" / "a3.png").unlink()


def a_row_more(root: Path) -> None:
    pairs(root, LABELS)
    save(root / "images" / "a3.png", colours(3, (33, 40)))


def sides_swapped(root: Path) -> None:
    pairs(root, LABELS)
    save(root / "masks" / "a3.png", blocks(LABELS, 3).astype(np.uint8).T.copy())


def linked_masks(root: Path) -> None:
    pairs(root.parent / "elsewhere", LABELS, masks="batch1")
    (root.parent / "elsewhere" / "images").rename(root / "images")
    (root / "labels").symlink_to(root.parent / "elsewhere" / "batch1", target_is_directory=True)


def notebook_checkpoints(root: Path) -> None:
    pairs(root, LABELS)
    save(root / "images" / ".ipynb_checkpoints" / "a1-checkpoint.png", colours(1))
    save(root / "masks" / ".ipynb_checkpoints" / "a1-checkpoint.png", np.full((32, 40), 9, dtype=np.uint8))


def thumbnails_of_a_server(root: Path) -> None:
    pairs(root, LABELS)
    for number, stem in enumerate(stems()):
        for folder in ("images", "masks"):
            thumbnail = blocks((0, 1), number, (16, 20)).astype(np.uint8)
            save(root / folder / "@eaDir" / f"{stem}.png" / "SYNOPHOTO_THUMB_M.png", thumbnail)


def raw_volumes(root: Path) -> None:
    for stem in stems():
        for folder in ("imgs", "masks"):
            write(root / folder / f"{stem}.mhd", f"ObjectType = Image\nElementDataFile = {stem}.raw\n")
            write(root / folder / f"{stem}.raw", bytes(64))


def same_in_both(root: Path) -> None:
    for number, stem in enumerate(stems()):
        split = "train" if number < 4 else "val"
        save(root / split / "images" / f"{stem}.png", colours(0 if number == 5 else number))
        save(root / split / "masks" / f"{stem}.png", blocks(LABELS, 0 if number == 5 else number).astype(np.uint8))


def same_in_both_masks() -> dict[str, np.ndarray]:
    return meant_masks(LABELS) | {"a5": blocks(LABELS, 0)}


CASES = (
    Case(
        "suffixes in upper case",
        "https://github.com/PeterL1n/BackgroundMattingV2/issues/51",
        upper_case,
        Meant(3, meant_masks(LABELS)),
    ),
    Case(
        "one JPEG among PNG images",
        "https://github.com/knazeri/edge-connect/pull/8",
        several_suffixes,
        Meant(3, meant_masks(LABELS, names=[f"0{number}" for number in range(1, 7)])),
    ),
    Case(
        "some images end in .jfif",
        "https://github.com/lstein/PhotoMapAI/issues/364",
        jfif,
        Meant(3, meant_masks(LABELS)),
    ),
    Case(
        "masks named a.jpg.png",
        "https://github.com/colmap/colmap/pull/3611",
        whole_name_kept,
        Meant(3, meant_masks(LABELS)),
    ),
    Case(
        "an ending that only this set has",
        "https://github.com/smlab-niser/clean-gs/issues/2",
        unusual_ending,
        Meant(3, meant_masks(LABELS, names=["00002", "00156", "00262", "00301", "00310", "00477"])),
    ),
    Case(
        "_image.tiff and _masks.tiff in one folder",
        "https://github.com/MouseLand/cellpose/issues/396",
        image_and_masks,
        Meant(3, meant_masks(LABELS, names=[f"brabra{number}_image" for number in range(6)]), only=True),
    ),
    Case(
        "the folder of masks inside that of images",
        "https://github.com/MouseLand/cellpose/issues/1064",
        masks_inside_images,
        Meant(3, meant_masks(LABELS, names=[f"image{number}" for number in range(6)]), only=True),
    ),
    Case("masks in pickled arrays", "https://github.com/MouseLand/cellpose/issues/1124", pickled, "file-unreadable"),
    Case(
        "dots within names",
        "https://github.com/meituan/YOLOv6/issues/150",
        dots,
        Meant(3, meant_masks(LABELS, names=DOTTED)),
    ),
    Case(
        "1, 11 and 111",
        "https://github.com/milesial/Pytorch-UNet/issues/122",
        numbers,
        Meant(3, meant_masks(LABELS, names=NUMBERS)),
    ),
    Case(
        "leading zeros in the masks' names alone",
        "https://github.com/leoxiaobin/deep-high-resolution-net.pytorch/issues/109",
        leading_zeros,
        Meant(3, meant_masks(LABELS, names=NUMBERS)),
    ),
    Case(
        "IMG_1.JPG and img_1.png",
        "https://github.com/mcneilco/acas/pull/548",
        letters_of_another_case,
        Meant(3, meant_masks(LABELS, names=[f"IMG_{one}" for one in NUMBERS])),
    ),
    Case(
        "composed and decomposed letters",
        "https://github.com/llmsresearch/paperbanana/pull/240",
        composed,
        Meant(3, meant_masks(LABELS, names=[unicodedata.normalize("NFC", one) for one in UMLAUTS])),
    ),
    Case(
        "a name that is no UTF-8",
        "https://github.com/run-llama/llama_index/issues/10369",
        names_in_gbk,
        Meant(
            3,
            meant_masks(LABELS, names=["a0", OTHER_BYTES, "a2", "a3", "a4", "a5"]),
            or_stops="file-name-invalid",
        ),
    ),
    Case(
        "images of six patients, masks of one",
        "https://github.com/PARMAGroup/UNet-Instance-Cell-Segmentation/issues/3",
        masks_of_another_patient,
        "mask-missing",
    ),
    Case(
        "spaces and brackets, 'benign (1)_mask.png'",
        "https://github.com/FengheTan9/CMUNeXt/issues/3",
        spaces_and_brackets,
        Meant(("background", "foreground"), spaces_and_brackets_masks(), only=True),
    ),
    Case(
        "a second mask, 'benign (2)_mask_1.png'",
        "https://github.com/FengheTan9/CMU-Net/issues/7",
        second_mask,
        "mask-in-parts",
    ),
    Case(
        "a folder an image, a mask a nucleus",
        "https://github.com/himashi92/Duo-SegNet/issues/2",
        nuclei,  # each mask is one of the objects, and all objects together are the foreground
        Meant(("background", "foreground"), nuclei_masks(), only=True),
    ),
    Case(
        "a mask of all objects beside one a class and one an object",
        "https://github.com/ryouchinsa/Rectlabel-support/issues/268",
        objects_and_classes,
        "mask-in-parts",
    ),
    Case(
        "masks named after tasks",
        "https://github.com/HumanSignal/label-studio/issues/8561",
        task_numbers,
        "mask-missing",
    ),
    Case(
        "a mask as a.png and as a.jpg",
        "https://github.com/unmannedlab/RELLIS-3D/issues/35",
        twice_in_two_formats,
        "same-stem-twice",
    ),
    Case(
        "a file for each modality, 002_0000 and 002_0001",
        "https://github.com/MIC-DKFZ/nnUNet/issues/1763",
        two_modalities,
        Meant(("background", "a", "b"), meant_masks(LABELS, names=MODAL), both_modalities(), MODALITIES),
    ),
    Case("a Git LFS pointer", "https://github.com/git-lfs/git-lfs/issues/4240", pointer, "file-unreadable"),
    Case("a mask of zero bytes", "https://github.com/LeiaLi/ReLoBlur/issues/5", zero_bytes, "file-unreadable"),
    Case("an image that is cut off", "https://github.com/LeiaLi/ReLoBlur/issues/4", cut_off, "file-unreadable"),
    Case(
        "an image that is cut off, and bad files are to be left out",
        "https://github.com/LeiaLi/ReLoBlur/issues/4",
        left_out,
        Meant(
            3,
            {name: mask for name, mask in meant_masks(LABELS).items() if name != "a1"},
            says=("left out 1 of",),
            only=True,
        ),
    ),
    Case(
        "an image of 445 million pixels",
        "https://github.com/Project-MONAI/MONAILabel/issues/1230",
        huge,
        "image-too-large",
    ),
    Case(
        "an image without a mask",
        "https://github.com/Dhananjay42/crackseg9k/issues/4",
        unlabelled,
        "mask-missing",
    ),
    Case(
        "an image one row higher than its mask",
        "https://github.com/Lsan2401/RMSIN/issues/12",
        a_row_more,
        "mask-size-differs",
    ),
    Case(
        "a mask with its sides swapped",
        "https://github.com/visipedia/inat_loc/issues/2",
        sides_swapped,
        "mask-size-differs",
    ),
    Case(
        "the masks' folder is a link to elsewhere",
        "https://github.com/ultralytics/yolov5/issues/28",
        linked_masks,
        Meant(3, meant_masks(LABELS)),
    ),
    Case(
        "copies in .ipynb_checkpoints",
        "https://github.com/open-mmlab/mmsegmentation/pull/849",
        notebook_checkpoints,
        Meant(3, meant_masks(LABELS), only=True),
    ),
    Case(
        "thumbnails in @eaDir",
        "https://github.com/photonixapp/photonix/pull/214",
        thumbnails_of_a_server,
        Meant(3, meant_masks(LABELS), only=True),
    ),
    Case(
        "volumes of .mhd and .raw",
        "https://github.com/lalonderodney/SegCaps/issues/24",
        raw_volumes,
        "no-images",
    ),
    Case(
        "a validation image that is also in train",
        "https://github.com/tqwei05/PlantSeg/issues/11",
        same_in_both,
        Meant(3, same_in_both_masks(), val=("a4", "a5")),  # `check-data` reports copies; a run reads no bytes for it
    ),
)
