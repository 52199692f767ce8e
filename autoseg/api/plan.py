"""What a search will need on a device, and what to change where it does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from autoseg.config.base import merge
from autoseg.config.data import DataConfig
from autoseg.data.dataset import open_dataset
from autoseg.data.loading.splits import halve
from autoseg.engine.config import SearchConfig
from autoseg.engine.environment import describe_device, pick_device
from autoseg.errors import ConfigError
from autoseg.files import read_yaml
from autoseg.ops.resize import Size
from autoseg.planning.device import device_memory, format_bytes, parse_bytes
from autoseg.planning.fit import Limits, Option, Planner
from autoseg.planning.memory import Setting
from autoseg.planning.time import Steps, StepTimes, count_steps, step_times
from autoseg.setup.preflight import check_device
from autoseg.setup.settings import Source, search_settings
from autoseg.space.schema import SearchSpace

CITYSCAPES_IMAGES, CITYSCAPES_CLASSES = 2975, 19
"""The paper's training set, for want of the user's own."""


@dataclass(frozen=True)
class Plan:
    """A search on one device against `memory_bytes`."""

    space: str
    classes: int
    device: str
    device_is_here: bool
    """False where memory was predicted for a GPU that this machine does not have."""
    memory_bytes: int
    options: tuple[Option, ...]
    """As asked first, then what could be changed."""
    advice: Option
    """The first option that fits: as asked, or what changes least."""
    images: int
    images_given: bool
    """False where `images` is Cityscapes' number, by way of example."""
    steps: Steps
    """Of the schedule as asked."""
    times: StepTimes | None
    """As asked; None where nothing was measured."""

    @property
    def asked(self) -> Option:
        """The setting that was asked for."""
        return self.options[0]

    @property
    def hours(self) -> float | None:
        """Of the schedule as asked, without validation."""
        return None if self.times is None else self.steps.hours(self.times.seconds)

    @property
    def assignments(self) -> list[str]:
        """`advice` as values for `--set`."""
        crop, batch_size, checkpoint_cells, precision = self.advice.setting
        return [
            f"search.crop=[{crop[0]},{crop[1]}]",
            f"search.batch_size={batch_size}",
            f"search.checkpoint_cells={str(checkpoint_cells).lower()}",
            f"search.precision={precision}",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; bytes and seconds."""
        times = None
        if self.times is not None:
            measured = [{**at._asdict(), **seconds._asdict()} for at, seconds in self.times.measured]
            times = {**self.times.seconds._asdict(), "extrapolated": self.times.extrapolated, "measured": measured}
        return {
            "space": self.space,
            "classes": self.classes,
            "device": self.device,
            "device_is_here": self.device_is_here,
            "memory_bytes": self.memory_bytes,
            "options": [_option(option) for option in self.options],
            "advice": {**_option(self.advice), "set": self.assignments},
            "images": self.images,
            "images_given": self.images_given,
            "steps": self.steps._asdict(),
            "seconds": times,
            "hours": self.hours,
        }


def _option(option: Option) -> dict[str, Any]:
    memory = {} if option.memory is None else asdict(option.memory)
    return {"name": option.name, **option.setting._asdict(), "fits": option.fits, **memory}


def plan(
    space: Source | SearchSpace | None = None,
    data: Source | DataConfig | None = None,
    *,
    crop: Size | None = None,
    batch: int | None = None,
    memory: str | int | None = None,
    images: int | None = None,
    classes: int | None = None,
    config: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    measure_time: bool = True,
) -> Plan:
    """Predict the peak memory of a search, measure its steps on this device, and propose what fits.

    Where `memory` is given, the device may be a GPU that is not there (`cuda`): then no steps are measured.

    Left out, `crop` and `batch` are those of the space's schedule, `memory` (bytes, or such as "16GB") is the
    device's, `images` and `classes` are the data's, or else Cityscapes'. `measure_time`: False measures no steps.
    Raises: AutosegError: something that was given is wrong, or nothing at all fits into the memory.
    """
    memory_bytes = None if memory is None else parse_bytes(memory)
    overrides = merge(overrides or {}, _asked(crop, batch, classes))
    has_data = data is not None or _names_data(config, overrides)
    if not has_data:
        data = {"layout": "generated", "num_classes": classes or CITYSCAPES_CLASSES}

    def check(settings: SearchConfig) -> None:
        Setting.of(settings.search).check()
        if _is_here(settings.device, memory_bytes):
            check_device(settings)

    settings = search_settings(space, data, config, overrides, check)
    is_here = _is_here(settings.device, memory_bytes)
    device = pick_device(settings.device) if is_here else torch.device("cuda")
    number, limits = _images(settings, images, has_data)
    steps = count_steps(settings, number)
    name = settings.space.name
    planner = Planner(settings, device, device_memory(device) if memory_bytes is None else memory_bytes, limits)
    options = planner.options()
    advice = next((option for option in options if option.fits), None)
    if advice is None:
        least = planner.least()
        needed = format_bytes(planner.predict(least).needed_bytes(device))
        raise ConfigError(
            f"space {name} does not fit into {format_bytes(planner.memory_bytes)}: its least (crop {least.crop[0]}"
            f" {least.crop[1]}, batch {least.batch_size}, with checkpointing) needs {needed}; give more --memory, or a"
            " smaller space",
            code="memory-too-small",
        )
    return Plan(
        space=name,
        classes=settings.data.num_classes,
        device=describe_device(device) if is_here else settings.device,
        device_is_here=is_here,
        memory_bytes=planner.memory_bytes,
        options=tuple(options),
        advice=advice,
        images=number,
        images_given=has_data or images is not None,
        steps=steps,
        times=step_times(settings, device, planner.may_try) if measure_time and is_here else None,
    )


def _is_here(device: str, memory_bytes: int | None) -> bool:
    """Whether this machine may have a device; False for a GPU on a machine without any.

    Raises: ConfigError: such a GPU whose memory is not given.
    """
    if not device.startswith("cuda") or torch.cuda.is_available():
        return True
    if memory_bytes is None:
        raise ConfigError(
            f"device {device} is not there on this machine; give --memory, such as 16GB, to plan for a GPU that is"
            " elsewhere, or use --device cpu",
            code="device-missing",
        )
    return False


def _asked(crop: Size | None, batch: int | None, classes: int | None) -> dict[str, Any]:
    """The arguments as overrides."""
    schedule: dict[str, Any] = {}
    if crop is not None:
        schedule["crop"] = list(crop)
    if batch is not None:
        schedule["batch_size"] = batch
    Setting(crop or (32, 32), 2 if batch is None else batch, False, "float32").check()
    if classes is not None and not 2 <= classes <= 65535:
        raise ConfigError(f"classes is {classes}; it must be 2 to 65535", code="classes-out-of-range")
    return {"search": schedule} if schedule else {}


def _names_data(config: str | Path | None, overrides: Mapping[str, Any]) -> bool:
    """Whether the settings say which data."""
    return "data" in overrides or (config is not None and "data" in read_yaml(Path(config), ConfigError))


def _images(settings: SearchConfig, images: int | None, has_data: bool) -> tuple[int, Limits]:
    """The number of training images, and what it and their size allow to propose.

    Raises: ConfigError: fewer than four images. DataError: data that cannot be used.
    """
    limits = Limits()
    number = CITYSCAPES_IMAGES if images is None else images
    if has_data:
        train = open_dataset(settings.data, "train")
        number = len(train) if images is None else images
        height, width = train.load(0).mask.shape
        limits = limits._replace(crop=(height, width))
    if number < 4:
        raise ConfigError(
            f"images is {number}; a search needs at least 4 training images, two in each half", code="too-few-images"
        )
    if has_data or images is not None:
        halves = halve(number, settings.search.train_a_fraction, settings.seed)
        limits = limits._replace(batch_size=min(len(half) for half in halves))
    return number, limits
