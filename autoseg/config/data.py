"""Settings of a data set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from autoseg import limits
from autoseg.config.base import Number, PathText, Settings, Size, Whole
from autoseg.errors import DataError
from autoseg.files import read_yaml, user_path
from autoseg.library import hint, library, names_in

Value = Annotated[Number, Field(ge=-limits.VALUE, le=limits.VALUE)]
Rgb = Annotated[tuple[Value, ...], Field(max_length=limits.CHANNELS)]
"""One number for each channel."""
Deviations = Annotated[tuple[Annotated[Number, Field(gt=0, le=limits.VALUE)], ...], Field(max_length=limits.CHANNELS)]
Names = Annotated[tuple[str, ...], Field(max_length=limits.CLASSES)]
Stored = Annotated[int, Field(ge=-limits.STORED, le=limits.STORED)]
"""A label as a file has it."""
Label = Annotated[Whole, Field(ge=0, le=limits.CLASSES)]
PixelType = Literal["uint8", "uint16", "float32"]
Orientation = Literal["upright", "stored", "by_size"]
Byte = Annotated[Whole, Field(ge=0, le=255)]

ANNOTATIONS = {
    "labelme": "labelme annotations",
    "coco": "COCO annotations",
    "label_studio": "Label Studio annotations",
    "supervisely": "Supervisely annotations",
    "yolo": "YOLO labels",
    "cvat": "CVAT annotations",
    "parts": "several masks an image",
}
"""Values of `data.layout` for annotations, and their titles; parts: such as a folder of masks for each class."""
TITLES = ANNOTATIONS | {
    "generated": "generated images",
    "folder": "a folder of images and masks",
    "list": "lists of images and masks",
}
LAYOUTS = ("auto", "generated", "folder", "list", *ANNOTATIONS)
"""Values of `data.layout` besides the data sets in `data_sets/`."""
FOLDER, GROUP_TABLE = "folder", re.compile(r"csv:(.+):([^:]+)")
"""Values of `data.group_by` that are no regular expressions: the images' folders, and a column of a table."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class SplitConfig(Settings):
    """The places of one split's images and masks, relative to `root`. `*` stands for any folder, the same in both."""

    images: PathText | None = None
    masks: PathText | None = None
    list: PathText | None = None
    """A text file or CSV with one stem (of files in `images` and `masks`) or one pair `image mask` on each line."""
    image_suffix: str | None = None
    """Ending of the stems of all images, which their masks lack. Other files in the folder are no images."""
    channel_files: Annotated[tuple[str, ...], Field(min_length=1, max_length=limits.CHANNELS)] | None = None
    """For images of several files, one a channel or for some channels each: the files' names in `images`, without
    suffix, in the order of the channels. `*` stands for the name of the image: [`*_0000`, `*_0001`], or [`red/*`,
    `nir/*`]. A file that fits several belongs to the longest, and one that fits none is no image."""
    mask_suffix: str | None = None
    """Ending that masks' stems add to their images'. Default: autoseg tries the usual endings."""
    annotations: str | None = None
    """For annotations such as COCO's: the split as their folders or files name it, or `all`."""
    without: Annotated[tuple[PathText, ...], Field(max_length=limits.CLASSES)] | None = None
    """Lists of images that do not belong to the split, such as those of validation."""
    part: Literal["train", "val"] | None = None
    """For images without given splits: the part that the split by seed assigns to training or to validation."""

    @model_validator(mode="after")
    def _enough(self) -> SplitConfig:
        if self.list is None and self.annotations is None and (self.images is None or self.masks is None):
            raise ValueError("needs either 'list' or both 'images' and 'masks'")
        if self.channel_files is None:
            return self
        if self.images is None or self.masks is None or self.image_suffix is not None:
            raise ValueError("'channel_files' needs 'images' and 'masks', and no 'image_suffix'")
        if len({*self.channel_files}) < len(self.channel_files) or any(
            one.count("*") != 1 for one in self.channel_files
        ):
            raise ValueError("'channel_files' needs names that differ, each with one *, such as '*_0000'")
        return self


class GeneratedConfig(Settings):
    """The built-in generated set: textured shapes of several classes, sizes and depths, with noise."""

    size: Size = (96, 96)
    train: Annotated[Whole, Field(ge=1, le=limits.GENERATED)] = 256
    val: Annotated[Whole, Field(ge=1, le=limits.GENERATED)] = 64
    test: Annotated[Whole, Field(ge=1, le=limits.GENERATED)] = 64
    noise: Annotated[Number, Field(ge=0, le=1)] = 0.08
    """Standard deviation of the pixel noise; images are in 0..1."""
    seed: Annotated[Whole, Field(ge=0, le=limits.SEED)] = 0


class DataConfig(Settings):
    """A data set: its folder, its classes, and the size and scale of its images."""

    layout: str = "auto"
    """`auto` (autoseg looks at the folder), `generated`, `folder`, `list`, a name in `data_sets/`, or the path of your
    own YAML file like those."""
    root: PathText | None = None
    splits: dict[str, SplitConfig] | None = None
    """Default: the splits that autoseg finds in the folder."""
    val_share: Annotated[Number, Field(gt=0, lt=1)] = 0.2
    """Share of the (training) images used for validation if the data set has no validation images."""
    split_seed: Annotated[Whole, Field(ge=0, le=limits.SEED)] = 0
    """Seed of that split."""
    group_by: str | None = None
    """What tells images that belong together, such as those of one patient, which splits by autoseg then keep on one
    side: `folder` (the image's folder below that of all images), `csv:FILE:COLUMN` (a table relative to `root` that
    names images and their groups), or a regular expression that is looked for in the image's path relative to `root`.
    The group is what its parts in parentheses hold, else all that it matches."""
    classes: Names | None = None
    num_classes: Annotated[Whole, Field(ge=2, le=limits.CLASSES)] | None = None
    """Number of classes. Default: the number of names in `classes`, else the classes in the masks of all splits."""
    ignore_label: Label | None = None
    """Default: the layout's own (CamVid: 11), else 255."""
    label_map: dict[Stored, Stored] | None = None
    """Label in the mask file -> label used; other labels stay. Default: the layout's own; if the masks tell the
    classes, the labels that occur get the numbers 0, 1, ... in their order."""
    label_names: Names | None = None
    """For annotations: the names for which `label_map` was written; their labels are 1, 2, ... in this order. If the
    annotations have other names, a run stops. A run writes them into its config.yaml."""
    colours: dict[str | int, tuple[Byte, Byte, Byte]] | None = None
    """For colour-coded masks: class name or label -> [red, green, blue]. The names `ignore` and `void` are ignored
    pixels. Default: a table beside the data (label_colors.txt, class_dict.csv, labelmap.txt)."""
    mask_threshold: Annotated[Whole, Field(ge=1, le=65535)] | None = None
    """For black and white masks with blurred edges, such as JPEGs: values from this on are class 1, lower ones class 0.
    Default: 128 if the masks look like that."""
    on_bad_file: Literal["fail", "skip"] = "fail"
    """fail: the first unusable pair of image and mask ends the run. skip: such pairs are left out and counted."""
    resize: Size | None = None
    """Resize every image and mask to this (H, W) first; masks by nearest neighbour."""
    channels: Annotated[Whole, Field(ge=1, le=limits.CHANNELS)] | None = None
    """Number of image channels. Default: that of all images; grey images among colours count as colours."""
    pixel_type: PixelType | None = None
    """Pixel type of the images. Default: that of all images. Integers are scaled to 0..1, floats are not."""
    orientation: Orientation | None = None
    """upright: images, and masks with a note of their own, are turned as EXIF says. stored: nothing is turned. by_size:
    an image is turned unless only its stored size is that of its mask. Default: what the sizes of the files tell, else
    upright."""
    palette: Annotated[tuple[tuple[Byte, Byte, Byte], ...], Field(max_length=limits.CLASSES)] | None = None
    """Colour of each class in predictions, which then hold the masks' own labels. Default: the masks' own palette or
    colours, if they have one."""
    normalise: Literal["imagenet", "data"] | None = None
    """Source of `mean` and `std`. Default: ImageNet's for 8 or 16 bit colours, else the training images'."""
    mean: Rgb = ()
    """Mean of each channel as a share of the full scale. Default: see `normalise`."""
    std: Deviations = ()
    """Standard deviation of each channel as a share of the full scale. Default: see `normalise`."""
    generated: GeneratedConfig = GeneratedConfig()

    @field_validator("layout")
    @classmethod
    def _layout_is_known(cls, layout: str) -> str:
        known = (*LAYOUTS, *names_in(library("data_sets")))
        if layout not in known and not _is_yaml(layout):
            advice = hint(layout, known, "; or the path of a YAML file")
            raise ValueError(f"unknown layout {layout!r} ({advice})")
        return layout

    @field_validator("group_by")
    @classmethod
    def _group_by_is_clear(cls, by: str | None) -> str | None:
        if by is not None and by.startswith("csv:") and not GROUP_TABLE.fullmatch(by):
            raise ValueError(f"write csv:FILE:COLUMN, such as csv:patients.csv:patient, not {by!r}")
        try:
            re.compile(by or "")
        except re.error as reason:
            raise ValueError(f"{by!r} is no regular expression ({reason})") from None
        return by

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _left_out(cls, value: object) -> object:
        return () if value is None else value

    @field_validator("colours", mode="before")
    @classmethod
    def _labels_are_numbers(cls, colours: object) -> object:
        if not isinstance(colours, dict):
            return colours
        return {int(key) if isinstance(key, str) and key.isdecimal() else key: rgb for key, rgb in colours.items()}

    @model_validator(mode="after")
    def _colours_and_channels_agree(self) -> DataConfig:
        if self.colours is not None and len({type(key) for key in self.colours}) != 1:
            raise ValueError("'colours' needs names of classes, or labels, for all colours alike")
        if self.channels and any(len(values) not in (0, self.channels) for values in (self.mean, self.std)):
            raise ValueError(f"'mean' and 'std' need one number for each of {self.channels} channels")
        if self.mean and self.std and len(self.mean) != len(self.std):
            raise ValueError("'mean' and 'std' need as many numbers as each other, one a channel")
        return self

    @model_validator(mode="after")
    def _classes_agree(self) -> DataConfig:
        if self.classes is not None:
            if len(self.classes) < 2:
                raise ValueError("'classes' needs at least two names")
            if twice := next((name for name in self.classes if self.classes.count(name) > 1), None):
                raise ValueError(f"'classes' has the name {twice!r} twice")
            if self.num_classes not in (None, len(self.classes)):
                raise ValueError(f"num_classes is {self.num_classes}, but 'classes' has {len(self.classes)} names")
        if self.layout != "generated" and self.root is None:
            raise ValueError("needs 'root', the folder of the data set (or layout: generated)")
        if self.layout == "generated" and self.group_by is not None:
            raise ValueError("'group_by' is for images in files; leave it out with layout: generated")
        return self


class ResolvedDataConfig(DataConfig):
    """A completely specified data set, as `data.dataset.resolve` returns it and config.yaml holds it."""

    layout: str
    classes: Names
    num_classes: Annotated[Whole, Field(ge=2, le=limits.CLASSES)]
    ignore_label: Label
    channels: Annotated[Whole, Field(ge=1, le=limits.CHANNELS)] = 3  # older config.yaml files lack these three
    pixel_type: PixelType = "uint8"
    orientation: Orientation = "by_size"
    mean: Annotated[Rgb, Field(min_length=1)]
    std: Annotated[Deviations, Field(min_length=1)]

    @model_validator(mode="after")
    def _is_found(self) -> ResolvedDataConfig:
        if self.layout == "auto" or (self.layout != "generated" and not self.splits):
            raise ValueError("'layout' and 'splits' must say where the images and masks lie")
        return self


def data_settings(source: str | Path) -> dict[str, Any]:
    """Settings from the value of `--data`: `generated`, a folder, a data YAML, or the YAML of a known data set.

    Relative paths in a data YAML are relative to its folder. Raises: DataError: no such folder or file.
    """
    if str(source) == "generated":
        return {"layout": "generated"}
    path = user_path(source, DataError)
    if path.is_dir():
        return {"layout": "auto", "root": str(path.resolve())}
    if not _is_yaml(path):
        raise DataError(
            f"{path} is no folder; give --data a folder of images and masks, a data YAML, or 'generated'",
            code="folder-missing",
        )
    settings = read_yaml(path, DataError)
    if "title" in settings:
        shipped = path.resolve().parent == library("data_sets").resolve()
        return {"layout": path.stem if shipped else str(path.resolve())}
    return with_absolute_paths(settings, path.parent)


def with_absolute_paths(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make the paths in `root` and `layout` absolute; they are relative to `folder`."""
    paths = {key: settings[key] for key in ("root", "layout") if isinstance(settings.get(key), str)}
    if not _is_yaml(paths.get("layout", "")):
        paths.pop("layout", None)
    return {**settings, **{key: str((folder / user_path(path, DataError)).resolve()) for key, path in paths.items()}}


def _is_yaml(path: str | Path) -> bool:
    return Path(path).suffix in (".yaml", ".yml")
