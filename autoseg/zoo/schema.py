"""The networks of the literature by name, and the options that each of them has. No torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from autoseg.config.base import Flag, Number, Settings, Whole, parse
from autoseg.errors import ConfigError
from autoseg.space.resolution import parse_upsampler

UNET_UPSAMPLER = "transposed_conv_2x2"
"""U-Net's own way up: a transposed convolution of kernel 2, with bias."""


@dataclass(frozen=True)
class Entry:
    """A network as it was published."""

    paper: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """Option -> its value as published; a network has no other options."""
    output_strides: tuple[int, ...] = ()
    backbone: str | None = None
    """The part for which weights of an ImageNet classifier exist: vgg16, resnet50, resnet101 or xception65."""


_FCN = "Long et al., Fully convolutional networks, CVPR 2015"
_V1 = "Chen et al., Semantic image segmentation with deep convolutional nets and fully connected CRFs, ICLR 2015"
_V2 = "Chen et al., DeepLab, TPAMI 2018"
_V3 = "Chen et al., Rethinking atrous convolution, 2017"
_V3_PLUS = "Chen et al., Encoder-decoder with atrous separable convolution, ECCV 2018"
_VGG_STRIDES, _DEEP_STRIDES = (32, 16, 8), (8, 16, 32)


def _fcn() -> Entry:
    options = {"output_stride": 32, "batch_norm": False, "upsampler": "bilinear", "dropout": 0.5}
    return Entry(_FCN, options, _VGG_STRIDES, "vgg16")


def _of_resnet(paper: str, depth: int, **options: Any) -> Entry:
    return Entry(paper, options, _DEEP_STRIDES, f"resnet{depth}")


NETWORKS: dict[str, Entry] = {
    "fcn32s_vgg16": _fcn(),
    "fcn16s_vgg16": _fcn(),
    "fcn8s_vgg16": _fcn(),
    "deeplabv1_vgg16": Entry(
        _V1,
        {"output_stride": 8, "batch_norm": False, "first_classifier": "3x3", "dropout": 0.5},
        _DEEP_STRIDES,
        "vgg16",
    ),
    "deeplabv2_vgg16": Entry(
        _V2,
        {"output_stride": 8, "batch_norm": False, "aspp_rates": (6, 12, 18, 24), "dropout": 0.5},
        _DEEP_STRIDES,
        "vgg16",
    ),
    **{
        f"{name}_resnet{depth}": _of_resnet(paper, depth, **options)
        for name, paper, options in (
            ("deeplabv2", _V2, {"output_stride": 8, "aspp_rates": (6, 12, 18, 24)}),
            ("deeplabv3_cascade", _V3, {"output_stride": 16, "multi_grid": (1, 2, 1)}),
            (
                "deeplabv3",
                _V3,
                {"output_stride": 16, "multi_grid": (1, 2, 4), "aspp_rates": (6, 12, 18), "dropout": 0.1},
            ),
            (
                "deeplabv3plus",
                _V3_PLUS,
                {
                    "output_stride": 16,
                    "multi_grid": (1, 2, 4),
                    "aspp_rates": (6, 12, 18),
                    "separable": False,
                    "dropout": 0.1,
                },
            ),
        )
        for depth in (50, 101)
    },
    "deeplabv3plus_xception65": Entry(
        _V3_PLUS,
        {"output_stride": 16, "aspp_rates": (6, 12, 18), "separable": True, "dropout": 0.1},
        _DEEP_STRIDES,
        "xception65",
    ),
    "unet": Entry(
        "Ronneberger et al., U-Net, MICCAI 2015", {"batch_norm": False, "upsampler": UNET_UPSAMPLER, "dropout": 0.0}
    ),
    "pixeldcn": Entry(
        "Gao et al., Pixel deconvolutional networks, 2017",
        {"batch_norm": True, "upsampler": "pixel_dcl", "dropout": 0.0},
    ),
    "deconvnet": Entry(
        "Noh et al., Learning deconvolution network, ICCV 2015", {"batch_norm": True, "dropout": 0.0}, (), "vgg16"
    ),
    "segnet": Entry("Badrinarayanan et al., SegNet, TPAMI 2017", {"batch_norm": True, "dropout": 0.0}, (), "vgg16"),
}

ALIASES = {
    "fcn32s": "fcn32s_vgg16",
    "fcn16s": "fcn16s_vgg16",
    "fcn8s": "fcn8s_vgg16",
    "deeplabv1": "deeplabv1_vgg16",
    "deeplabv2": "deeplabv2_resnet101",
    "deeplabv3": "deeplabv3_resnet101",
    "deeplabv3_cascade": "deeplabv3_cascade_resnet101",
    "deeplabv3plus": "deeplabv3plus_resnet101",
}
"""Short names, of the form in which the network is best known."""

RECOMMENDED: dict[str, Any] = {
    "epochs": 60,
    "batch_size": 8,
    "crop": [321, 321],
    "augment": {"scale": [0.5, 2.0], "flip": 0.5, "colour": 0.3},
    "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 1e-2},
    "schedule": {"name": "poly", "power": 0.9, "warmup_epochs": 1},
    "clip_grad_norm": 5.0,
    "ema_decay": 0.99,
    "validate_every": 5,
}
"""How to train one from scratch, in the terms of `retrain`. The papers trained from ImageNet weights by SGD: with
`--weights`, optimizer sgd at lr 0.007 is DeepLabv3's."""


class FixedNetwork(Settings):
    """A network of the literature: its name, its width, and its options, those left out as published."""

    name: str
    width: Annotated[Number, Field(gt=0, le=8)] = 1.0
    """Factor of every number of channels but those of images and classes."""
    in_channels: Annotated[Whole, Field(ge=1, le=1024)] = 3
    output_stride: Whole | None = None
    """Input pixels a cell of the backbone's last feature; smaller ones by dilation of the same weights (FCN, section
    3.2; DeepLab)."""
    batch_norm: Flag | None = None
    """BatchNorm after each convolution, where the published network may have none."""
    upsampler: str | None = None
    aspp_rates: Annotated[tuple[Annotated[Whole, Field(ge=1, le=512)], ...], Field(min_length=1)] | None = None
    """Dilation of each branch at the published output stride; twice that at half of it."""
    multi_grid: tuple[Annotated[Whole, Field(ge=1, le=64)], ...] | None = Field(None, min_length=3, max_length=3)
    """Factors of the dilation of the three convolutions of ResNet's last block."""
    separable: Flag | None = None
    """3x3 convolutions of ASPP and decoder as depthwise and 1x1."""
    first_classifier: Literal["3x3", "4x4", "7x7"] | None = None
    """DeepLab v1's first classifier layer: 3x3 is LargeFOV."""
    dropout: Annotated[Number, Field(ge=0, lt=1)] | None = None

    @field_validator("name")
    @classmethod
    def _name_is_known(cls, name: str) -> str:
        full = ALIASES.get(name, name)
        if full not in NETWORKS:
            near = difflib.get_close_matches(name, [*NETWORKS, *ALIASES], n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(NETWORKS)}"
            raise ValueError(f"unknown network '{name}' ({hint})")
        return full

    @model_validator(mode="after")
    def _options_are_its_own(self) -> FixedNetwork:
        for key in OPTIONS:
            if getattr(self, key) is not None and key not in self.entry.options:
                has = ", ".join(("width", "in_channels", *self.entry.options))
                raise ValueError(f"{self.name} has no option '{key}' (it has: {has})")
        stride = self.output_stride
        if stride is not None and stride not in self.entry.output_strides:
            known = ", ".join(map(str, sorted(self.entry.output_strides)))
            raise ValueError(f"{self.name} cannot have output stride {stride} (it can have: {known})")
        if self.upsampler not in (None, UNET_UPSAMPLER):
            parse_upsampler(self.upsampler)
        if self.upsampler == UNET_UPSAMPLER and self.entry.options["upsampler"] == "bilinear":
            raise ValueError(f"upsampler '{UNET_UPSAMPLER}' is U-Net's; take transposed_conv here")
        # what was left out is as published: settings are frozen, and complete where they are written down
        for key, value in self.entry.options.items():
            if getattr(self, key) is None:
                object.__setattr__(self, key, value)
        return self

    @property
    def entry(self) -> Entry:
        """The network as published."""
        return NETWORKS[self.name]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for YAML: the options that this network has."""
        return {key: value for key, value in super().to_dict().items() if value is not None}

    @classmethod
    def parse(cls, data: Mapping[str, Any] | str, where: str = "") -> FixedNetwork:
        """A network from its name, or from plain data. Raises: ConfigError: one line on what is wrong."""
        return parse(cls, {"name": data} if isinstance(data, str) else data, where, ConfigError)


OPTIONS = tuple(key for key in FixedNetwork.model_fields if key not in ("name", "width", "in_channels"))
"""What some networks have and others have not."""


def is_network_name(text: str) -> bool:
    """Is it the name of a network, in full or short?"""
    return text in NETWORKS or text in ALIASES
