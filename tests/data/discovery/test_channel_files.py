"""Images of several files, one a channel or for some channels each."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoseg.api.predict import find_images
from autoseg.config.base import parse
from autoseg.config.data import DataConfig, ResolvedDataConfig
from autoseg.data.check.report import check_dataset
from autoseg.data.dataset import open_dataset, resolve
from autoseg.data.io.channel_files import ChannelFiles, files_of, state_of
from autoseg.data.io.images import read_image
from autoseg.data.io.opening import read_header
from autoseg.data.loading.cache import fingerprint
from autoseg.errors import ConfigError, DataError
from autoseg.setup.other_data import data_for_run
from data.meant.build import blocks, colours, grey, save, save_tiff

STEMS = [f"case_{number:03}" for number in range(5)]


def write_set(root: Path, images: Sequence[str], mask: str, bands: int = 1) -> None:
    """A set of 5 images; `images` and `mask` are paths with {}. File n of image i has the seed 10 i + n."""
    for number, stem in enumerate(STEMS):
        for place, path in enumerate(images):
            seed = 10 * number + place
            save(root / path.format(stem), grey(seed) if bands == 1 else colours(seed))
        save(root / mask.format(stem), blocks((0, 1, 2), number).astype(np.uint8))


def nnunet(root: Path, channels: int, bands: int = 1, names: int | None = None) -> None:
    write_set(root, [f"imagesTr/{{}}_{n:04}.png" for n in range(channels)], "labelsTr/{}.png", bands)
    if names is not None:
        names_of = {str(number): f"T{number}" for number in range(names)}
        labels = {"background": 0, "a": 1, "b": 2}
        (root / "dataset.json").write_text(json.dumps({"channel_names": names_of, "labels": labels}))


def read(root: Path, **settings: Any) -> tuple[ResolvedDataConfig, list[str]]:
    said: list[str] = []
    return resolve(parse(DataConfig, {"root": str(root), **settings}), say=said.append), said


def image_of(config: ResolvedDataConfig, name: str) -> np.ndarray:
    for split in config.splits or {}:
        dataset = open_dataset(config, split)
        if name in dataset.names:
            return dataset.decode(dataset.names.index(name)).image
    raise AssertionError(f"no image {name}")


def stacked(number: int, channels: int) -> np.ndarray:
    return np.stack([grey(10 * number + place) for place in range(channels)], axis=2)


def code_of(root: Path, **settings: Any) -> tuple[str, str]:
    """The code and text of the error of a run, which check-data has too."""

    def run() -> None:
        config, _ = read(root, **settings)
        for split in config.splits or {}:
            open_dataset(config, split)

    with pytest.raises(DataError) as caught:
        run()
    text = str(caught.value)
    try:
        problems = [one.text for one in check_dataset(parse(DataConfig, {"root": str(root), **settings})).problems]
    except DataError as reason:
        problems = [str(reason)]
    assert any(text.replace(f"{root}/", "") == one.replace(f"{root}/", "") for one in problems)
    return caught.value.code, text


# --- nnU-Net ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("named", [True, False])
def test_nnunet_images_are_stacked_in_the_order_of_their_numbers(tmp_path: Path, channels: int, named: bool) -> None:
    nnunet(tmp_path, channels, names=channels if named else None)
    config, said = read(tmp_path)
    files = tuple(f"*_{number:04}" for number in range(channels))
    assert {place.channel_files for place in (config.splits or {}).values()} == {files}
    assert (config.channels, config.pixel_type, len(config.mean)) == (channels, "uint8", channels)
    listed = ", ".join(f"{one} (T{number})" if named else one for number, one in enumerate(files))
    assert f"data: an image is {channels} files, whose channels follow each other so: {listed}" in said
    for number, stem in enumerate(STEMS):
        assert np.array_equal(image_of(config, stem), stacked(number, channels))
    report = check_dataset(parse(DataConfig, {"root": str(tmp_path)}))
    assert report.problems == []
    assert report.scan.config == config
    assert [line.removeprefix("data: ") for line in said] == list(report.scan.said)


@pytest.mark.parametrize(("bands", "names"), [(1, 1), (1, None), (3, 3), (3, None)])
def test_one_file_of_nnunet_is_an_image_of_its_own(tmp_path: Path, bands: int, names: int | None) -> None:
    nnunet(tmp_path, 1, bands, names)
    config, _ = read(tmp_path)
    assert config.channels == bands
    expected = grey(10)[:, :, None] if bands == 1 else colours(10)
    assert np.array_equal(image_of(config, "case_001_0000"), expected)


@pytest.mark.parametrize(("bands", "names"), [(1, 2), (1, 4), (3, 2), (3, 4)])
def test_channels_that_dataset_json_names_and_no_file_has(tmp_path: Path, bands: int, names: int) -> None:
    nnunet(tmp_path, 1, bands, names)
    code, text = code_of(tmp_path)
    assert code == "channels-unclear"
    assert f"names {names} channels (T0, T1" in text
    assert "_0000.png has " in text


def test_dataset_json_may_number_the_names(tmp_path: Path) -> None:
    nnunet(tmp_path, 2)
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"T2": 1, "T1": 0}}))
    _, said = read(tmp_path)
    assert any(line.endswith("follow each other so: *_0000 (T1), *_0001 (T2)") for line in said), said


def test_a_band_that_a_file_of_several_calls_alpha_stops(tmp_path: Path) -> None:
    write_set(tmp_path, ["images/{}_0000.png", "images/{}_0001.png"], "masks/{}.png")
    for number, stem in enumerate(STEMS):
        (tmp_path / f"images/{stem}_0001.png").unlink()
        four = np.dstack([colours(number), grey(number)])
        save_tiff(tmp_path / f"images/{stem}_0001.tif", four, photometric="rgb", extrasamples=["unassalpha"])
    code, text = code_of(tmp_path)
    assert code == "channels-unclear"
    assert "save it as a file of its own" in text
    assert text.endswith("else set data.channels: 4")
    config, _ = read(tmp_path, channels=4)
    assert np.array_equal(image_of(config, STEMS[2]), np.dstack([grey(20), colours(2)]))


def test_files_of_8_bits_beside_16_are_said(tmp_path: Path) -> None:
    write_set(tmp_path, ["images/{}_0000.png", "images/{}_0001.png"], "masks/{}.png")
    line = "files of 8 bits beside files of 16"
    assert not any(line in said for said in read(tmp_path)[1])
    for number, stem in enumerate(STEMS):
        save(tmp_path / f"images/{stem}_0001.png", grey(number).astype(np.uint16) * 200)
    config, said = read(tmp_path)
    assert config.pixel_type == "uint16"
    assert any(line in one for one in said), said
    assert not any(line in one for one in read(tmp_path, pixel_type="uint8")[1])


@pytest.mark.parametrize(
    ("folders", "unread"),
    [
        (["rgb/{}.png", "depth/{}.png", "infrared/{}.png"], "depth, infrared"),
        (["images/rgb/{}.png", "images/height/{}.png"], "images/height"),
        (["rgb/{}_rgb.png", "depth/{}_depth.png"], "depth"),
        (["rgb/{}.png", "red/{}.png", "nir/{}.png"], "nir, red"),
    ],
)
def test_folders_beside_the_images_that_are_not_read_are_said(tmp_path: Path, folders: list[str], unread: str) -> None:
    write_set(tmp_path, folders, "masks/{}.png")
    _, said = read(tmp_path)
    assert [f": {unread} (channel_files" in line for line in said if "not read" in line] == [True], said


def test_other_folders_are_not_taken_for_more_channels(tmp_path: Path) -> None:
    write_set(tmp_path, ["images/{}.png"], "masks/{}.png")
    for stem in ("other", *STEMS[:2]):  # fewer than half of the names
        save(tmp_path / "previews" / f"{stem}.png", grey(3))
    assert not any("not read" in line for line in read(tmp_path)[1])


def test_other_data_has_its_channels_in_the_networks_order(tmp_path: Path) -> None:
    write_set(tmp_path, ["red/{}.png", "nir/{}.png"], "masks/{}.png")
    turned = {"images": ".", "masks": "masks", "channel_files": ["nir/*", "red/*"]}
    own, _ = read(tmp_path, splits={"train": turned, "val": turned})
    said: list[str] = []
    other = data_for_run(own, tmp_path, say=said.append)
    assert np.array_equal(image_of(other, STEMS[1]), stacked(1, 2)[:, :, ::-1])
    assert "data: channels are read in the network's order: nir, red" in said
    write_set(tmp_path / "other", ["images/{}_0000.png", "images/{}_0001.png"], "masks/{}.png")
    data_for_run(own, tmp_path / "other", say=said.append)
    assert "trained on the channels nir, red; the data has, in this order, 0000, 0001" in said[-1]


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"channel_names": ' + "[" * 100_000, '{"channel_names": {"0": Infinity}}', "{"]
)
def test_a_damaged_dataset_json_names_no_channels(tmp_path: Path, text: str) -> None:
    nnunet(tmp_path, 2)
    (tmp_path / "dataset.json").write_text(text)
    config, said = read(tmp_path)
    assert config.channels == 2
    assert any(line.endswith("follow each other so: *_0000, *_0001") for line in said), said


def test_the_only_image_of_a_split_is_found(tmp_path: Path) -> None:
    nnunet(tmp_path, 1)
    save(tmp_path / "imagesTs/x_0000.png", grey(99))
    save(tmp_path / "labelsTs/x.png", blocks((0, 1, 2)).astype(np.uint8))
    config, _ = read(tmp_path)
    assert np.array_equal(open_dataset(config, "test").decode(0).image, grey(99)[:, :, None])


def test_an_image_without_one_channel_is_named(tmp_path: Path) -> None:
    nnunet(tmp_path, 3)
    (tmp_path / "imagesTr/case_002_0001.png").unlink()
    code, text = code_of(tmp_path)
    assert code == "channel-missing"
    assert "case_002_0000.png is one of 3 channel files" in text
    assert "of which case_002_0001 is missing" in text
    problems = check_dataset(parse(DataConfig, {"root": str(tmp_path)})).problems
    assert [one.kind for one in problems] == ["pairing"]
    config, _ = read(tmp_path, on_bad_file="skip")
    left_out = [name for split in config.splits or {} for name, _ in open_dataset(config, split).left_out]
    assert {*left_out} == {"case_002"}


def test_a_channel_that_all_images_lack_is_missing_by_dataset_json(tmp_path: Path) -> None:
    nnunet(tmp_path, 2, names=3)
    code, text = code_of(tmp_path)
    assert (code, "of which case_000_0002 is missing" in text) == ("channel-missing", True)


@pytest.mark.parametrize(("names", "told"), [(None, "none with _0001"), (2, "dataset.json names 2")])
def test_numbers_that_leave_one_out_stop(tmp_path: Path, names: int | None, told: str) -> None:
    nnunet(tmp_path, 3, names=names)
    for stem in STEMS:
        (tmp_path / f"imagesTr/{stem}_0001.png").unlink()
    code, text = code_of(tmp_path)
    assert (code, told in text) == ("channels-unclear", True)
    place = {"images": "imagesTr", "masks": "labelsTr", "channel_files": ["*_0000", "*_0002"]}
    assert 'channel_files: ["*_0000", "*_0002"]' in text
    config, _ = read(tmp_path, splits={"train": {**place, "part": "train"}, "val": {**place, "part": "val"}})
    assert np.array_equal(image_of(config, STEMS[1]), stacked(1, 3)[:, :, [0, 2]])


def test_all_splits_have_the_channels_of_the_whole_set(tmp_path: Path) -> None:
    nnunet(tmp_path, 2)
    save(tmp_path / "imagesTs/x_0000.png", grey(99))
    save(tmp_path / "labelsTs/x.png", blocks((0, 1, 2)).astype(np.uint8))
    config, _ = read(tmp_path)
    with pytest.raises(DataError, match="of which x_0001 is missing"):
        open_dataset(config, "test")


# --- other names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "mask", "files"),
    [
        (["images/{}_B02.png", "images/{}_B03.png", "images/{}_B8A.png", "images/{}_B11.png"], "masks/{}.png",
         ("*_B02", "*_B03", "*_B8A", "*_B11")),
        (["images/{}_red.png", "images/{}_green.png", "images/{}_nir.png"], "masks/{}_mask.png",
         ("*_red", "*_green", "*_nir")),
        (["images/{}.png", "images/{}_NIR.png"], "masks/{}.png", ("*", "*_NIR")),
    ],
)  # fmt: skip
def test_bands_in_one_folder(tmp_path: Path, images: list[str], mask: str, files: tuple[str, ...]) -> None:
    write_set(tmp_path, images, mask)
    config, _ = read(tmp_path)
    assert (config.splits or {})["train"].channel_files == files
    assert np.array_equal(image_of(config, STEMS[3]), stacked(3, len(files)))


def test_bands_beside_their_masks(tmp_path: Path) -> None:
    write_set(tmp_path, ["{}_B03.png", "{}_B02.png", "{}_B11.png"], "{}_mask.png")
    config, _ = read(tmp_path)
    assert (config.splits or {})["train"].channel_files == ("*_B02", "*_B03", "*_B11")
    assert np.array_equal(image_of(config, STEMS[3]), stacked(3, 3)[:, :, [1, 0, 2]])


@pytest.mark.parametrize(
    ("images", "mask", "files"),
    [
        ([f"train_{band}/{band}_{{}}.TIF" for band in ("red", "green", "blue", "nir")], "train_gt/gt_{}.TIF",
         ("train_red/red_*", "train_green/green_*", "train_blue/blue_*", "train_nir/nir_*")),
        (["scenes/RED/{}.png", "scenes/NIR/{}.png"], "masks/{}.png", ("RED/*", "NIR/*")),
        (["B4/x_{}_B4.png", "B8/x_{}_B8.png", "B11/x_{}_B11.png"], "labels/x_{}.png",
         ("B4/*_B4", "B8/*_B8", "B11/*_B11")),
    ],
)  # fmt: skip
def test_a_folder_for_each_band(tmp_path: Path, images: list[str], mask: str, files: tuple[str, ...]) -> None:
    write_set(tmp_path, images, mask)
    config, said = read(tmp_path)
    assert (config.splits or {})["train"].channel_files == files
    assert any(line.endswith(", ".join(files)) for line in said)
    name = f"x_{STEMS[3]}" if "x_" in mask else STEMS[3]
    assert np.array_equal(image_of(config, name), stacked(3, len(files)))
    report = check_dataset(parse(DataConfig, {"root": str(tmp_path)}))
    assert (report.problems, report.scan.config) == ([], config)
    (tmp_path / images[1].format(STEMS[2])).unlink()
    assert code_of(tmp_path)[0] == "channel-missing"


@pytest.mark.parametrize(
    "images",
    [
        ["images/{}_left.png", "images/{}_right.png"],
        ["images/{}_2019.png", "images/{}_2020.png"],
        ["images/{}.png", "images/{}_depth.png"],
        ["images/{}.png", "images/{}_0001.png"],
    ],
)
def test_names_that_tell_no_channels_are_not_stacked(tmp_path: Path, images: list[str]) -> None:
    write_set(tmp_path, images, "masks/{}.png")
    code, text = code_of(tmp_path)
    assert code == "mask-missing"
    assert ("channel_files: ['*', '*" in text) == (images[0] == "images/{}.png")


def test_folders_of_other_scenes_are_no_bands(tmp_path: Path) -> None:
    write_set(tmp_path, ["red/{}.png"], "masks/{}.png")
    save(tmp_path / "nir/other.png", grey(1))
    config, _ = read(tmp_path)
    assert ((config.splits or {})["train"].images, config.channels) == ("red", 1)


def test_frames_with_masks_of_their_own_are_images(tmp_path: Path) -> None:
    for number in range(5):
        save(tmp_path / f"images/film_{number:04}.png", grey(number))
        save(tmp_path / f"masks/film_{number:04}.png", blocks((0, 1), number).astype(np.uint8))
    config, _ = read(tmp_path)
    assert ((config.splits or {})["train"].channel_files, config.channels) == (None, 1)


@pytest.mark.parametrize(
    ("images", "mask", "place"),
    [
        (["rgb/{}.png", "nir/{}.png"], "gt/{}.png",
         {"images": ".", "masks": "gt", "channel_files": ["rgb/*", "nir/*"]}),
        (["red/red_{}.png", "far/far_{}.png"], "gt/gt_{}.png",
         {"images": ".", "masks": "gt", "channel_files": ["red/red_*", "far/far_*"]}),
        (["a/{}.png", "a/{}_dsm.png"], "a/{}_mask.png",
         {"images": "a", "masks": "a", "channel_files": ["*", "*_dsm"]}),
    ],
)  # fmt: skip
def test_files_that_are_set(tmp_path: Path, images: list[str], mask: str, place: dict[str, Any]) -> None:
    write_set(tmp_path, images, mask)
    config, _ = read(tmp_path, splits={"train": {**place, "part": "train"}, "val": {**place, "part": "val"}})
    for number, stem in enumerate(STEMS):
        assert np.array_equal(image_of(config, stem), stacked(number, 2))
    assert ResolvedDataConfig.model_validate(config.to_dict()) == config


def test_a_list_names_images_of_several_files(tmp_path: Path) -> None:
    nnunet(tmp_path, 2)
    place = {"images": "imagesTr", "masks": "labelsTr", "channel_files": ["*_0000", "*_0001"]}
    splits = {"train": {**place, "list": "a.txt"}, "val": {**place, "list": "b.txt"}}
    (tmp_path / "a.txt").write_text("case_000\ncase_001\n")
    (tmp_path / "b.txt").write_text("case_004\n")
    config, _ = read(tmp_path, splits=splits)
    assert open_dataset(config, "val").names == ["case_004"]
    (tmp_path / "b.txt").write_text("imagesTr/case_004_0000.png labelsTr/case_004.png\n")
    with pytest.raises(DataError) as caught:
        open_dataset(config, "val")
    assert caught.value.code == "list-with-channels"


@pytest.mark.parametrize("files", [["*_0000", "_0001"], ["*", "*"], ["*_*"], []])
def test_names_without_one_star_are_refused(tmp_path: Path, files: list[str]) -> None:
    place = {"images": "a", "masks": "b", "channel_files": files}
    with pytest.raises(ConfigError, match="channel_files"):
        parse(DataConfig, {"root": str(tmp_path), "splits": {"train": place}})


# --- the files of one image -------------------------------------------------------------------------------------------


def test_files_of_other_sizes_are_named(tmp_path: Path) -> None:
    nnunet(tmp_path, 2)
    save(tmp_path / "imagesTr/case_003_0001.png", grey(1, (30, 40)))
    code, text = code_of(tmp_path)
    assert code == "channel-sizes-differ"
    assert f"{tmp_path}/imagesTr/case_003_0001.png is 40x30 pixels" in text
    assert f"{tmp_path}/imagesTr/case_003_0000.png, of the same image, 40x32" in text


def test_8_bits_beside_16_are_scaled_to_them(tmp_path: Path) -> None:
    nnunet(tmp_path, 2)
    deep = grey(1).astype(np.uint16) * 7
    for stem in STEMS:
        save(tmp_path / f"imagesTr/{stem}_0001.png", deep)
    config, _ = read(tmp_path)
    assert (config.channels, config.pixel_type) == (2, "uint16")
    image = image_of(config, STEMS[2])
    assert np.array_equal(image[:, :, 0], grey(20).astype(np.uint16) * 257)
    assert np.array_equal(image[:, :, 1], deep)


def test_floats_do_not_mix_with_integers(tmp_path: Path) -> None:
    nnunet(tmp_path, 2)
    for stem in STEMS:
        (tmp_path / f"imagesTr/{stem}_0001.png").unlink()
        save_tiff(tmp_path / f"imagesTr/{stem}_0001.tif", grey(1).astype(np.float32))
    code, text = code_of(tmp_path)
    assert code == "pixel-types-differ"
    assert "case_000_0001.tif holds float32 values, but" in text


def test_colours_and_grey_are_stacked_and_turned(tmp_path: Path) -> None:
    from PIL import Image

    notes = Image.Exif()
    notes[0x0112] = 6
    save(tmp_path / "a_rgb.png", np.dstack([colours(1), grey(9)]), exif=notes)
    save(tmp_path / "a_nir.png", grey(2), exif=notes)
    path = ChannelFiles.of([tmp_path / "a_rgb.png", tmp_path / "a_nir.png"])
    header = read_header(path)
    assert (header.channels, header.bands, header.size, header.orientation) == (4, 5, (32, 40), 6)
    stored = np.dstack([colours(1), grey(2)])
    assert np.array_equal(read_image(path, channels=4, orientation="stored"), stored)
    assert np.array_equal(read_image(path, channels=4), np.rot90(stored, -1))
    with pytest.raises(DataError, match="has 4 channels, but the data set has 3"):
        read_image(path, channels=3)


def test_a_path_of_several_files(tmp_path: Path) -> None:
    files = [tmp_path / "train_red/red_x.TIF", tmp_path / "train_nir/nir_x.TIF"]
    for file in files:
        save_tiff(file, grey(1))
    path = ChannelFiles.of(files)
    assert str(path) == f"{tmp_path}/train_{{red/red,nir/nir}}_x.TIF"
    assert str(ChannelFiles.of([Path("a.png"), Path("a_nir.png")])) == "a{,_nir}.png"
    copy = pickle.loads(pickle.dumps(path))
    assert (copy, files_of(copy)) == (path, tuple(files))
    assert files_of(path.parent) == (path.parent,)
    before = state_of(path)
    save_tiff(files[1], grey(1, (40, 40)))
    assert state_of(path) != before


def test_stored_samples_and_facts_follow_every_file(tmp_path: Path) -> None:
    nnunet(tmp_path, 2)
    config, _ = read(tmp_path)
    before = fingerprint(open_dataset(config, "train"))
    for stem in STEMS:
        save(tmp_path / f"imagesTr/{stem}_0001.png", colours(4))
    after = fingerprint(open_dataset(config, "train"))
    assert before is not None
    assert after is not None
    assert (before[0] == after[0], before[1] == after[1]) == (True, False)
    assert read(tmp_path)[0].channels == 4


def test_images_of_the_same_files_are_told(tmp_path: Path) -> None:
    nnunet(tmp_path, 2)
    for channel in ("0000", "0001"):
        shutil.copy(tmp_path / f"imagesTr/case_001_{channel}.png", tmp_path / f"imagesTr/case_002_{channel}.png")
    shutil.copy(tmp_path / "imagesTr/case_003_0000.png", tmp_path / "imagesTr/case_004_0000.png")  # one file only
    problems = check_dataset(parse(DataConfig, {"root": str(tmp_path)})).problems
    assert [one.file for one in problems] == ["imagesTr/case_002_{0000,0001}.png"]


# --- predictions ------------------------------------------------------------------------------------------------------


def test_images_to_predict_are_grouped_as_those_of_training(tmp_path: Path) -> None:
    nnunet(tmp_path, 2)
    config, _ = read(tmp_path)
    folder = tmp_path / "imagesTr"
    found = find_images([folder], config)
    assert list(found) == STEMS
    assert files_of(found[STEMS[1]]) == (folder / "case_001_0000.png", folder / "case_001_0001.png")
    assert list(find_images([folder / "case_001_0001.png", folder / "case_001_0000.png"], config)) == ["case_001"]
    save(tmp_path / "other.npy", np.zeros((32, 40, 2), np.uint8))
    assert list(find_images([tmp_path / "other.npy"], config)) == ["other"]
    with pytest.raises(DataError, match="of which case_001_0001 is missing"):
        find_images([folder / "case_001_0000.png"], config)
