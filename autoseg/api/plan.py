"""The memory and time of a search on a device, and settings that fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from autoseg import limits
from autoseg.config.base import merge
from autoseg.config.data import DataConfig
from autoseg.data.dataset import open_dataset
from autoseg.data.loading.splits import halve
from autoseg.engine.config import SearchConfig
from autoseg.engine.environment import describe_device, pick_device
from autoseg.errors import ConfigError
from autoseg.files import format_bytes
from autoseg.ops.resize import Size
from autoseg.planning.device import device_memory, parse_bytes
from autoseg.planning.fit import UNKNOWN, Limits, Option, Planner
from autoseg.planning.memory import Setting
from autoseg.planning.time import Steps, StepTimes, count_steps, step_times
from autoseg.setup.settings import Source, check_device, read_config, search_config, search_sources
from autoseg.space.schema import SearchSpace

CITYSCAPES_IMAGES, CITYSCAPES_CLASSES = 2975, 19
"""The paper's training set, used if no data is given."""


@dataclass(frozen=True)
class Plan:
    """The predicted memory and measured time of a search on one device."""

    space: str
    classes: int
    device: str
    device_is_here: bool
    """False if memory was predicted for a GPU that this machine lacks."""
    memory_bytes: int
    options: tuple[Option, ...]
    """The setting as asked, then alternatives."""
    advice: Option
    """The first option that fits: as asked, or with the least change."""
    images: int
    images_given: bool
    """False if `images` is Cityscapes' number."""
    steps: Steps
    """Number of steps of the schedule as asked."""
    times: StepTimes | None
    """Measured time of the setting as asked; None if nothing was measured."""

    @property
    def asked(self) -> Option:
        """The setting that was asked for."""
        return self.options[0]

    @property
    def hours(self) -> float | None:
        """Hours of the schedule as asked, without validation; None if nothing was measured."""
        return None if self.times is None else self.steps.hours(self.times.seconds)

    @property
    def assignments(self) -> list[str]:
        """`advice` as values for `--set`."""
        crop, batch_size, checkpoint_cells, precision = self.advice.setting
        cells = str(checkpoint_cells).lower()
        values = (f"crop=[{crop[0]},{crop[1]}]", f"batch_size={batch_size}", f"checkpoint_cells={cells}")
        return [f"search.{value}" for value in (*values, f"precision={precision}")]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; bytes and seconds."""
        times = None
        if self.times is not None:
            measured = [{**at._asdict(), **seconds._asdict()} for at, seconds in self.times.measured]
            times = {**self.times.seconds._asdict(), "extrapolated": self.times.extrapolated, "measured": measured}
        plain = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "times"}
        plain["options"] = [_option(option) for option in self.options]
        plain["advice"] = {**_option(self.advice), "set": self.assignments}
        return {**plain, "steps": self.steps._asdict(), "seconds": times, "hours": self.hours}


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
    """Predict the peak memory of a search, measure its steps on this device, and propose settings that fit.

    Args:
        space: A search space: name, YAML file, settings or `SearchSpace`.
        data: A folder of images and masks, a data YAML, "generated", or the data settings. Default: no data.
        crop: Height and width in pixels. Default: the space's.
        batch: Images in each batch. Default: the space's.
        memory: Memory of the device in bytes, or as "16GB" or "16GiB". Default: what the device has. If it is given,
            the device may be a GPU that this machine lacks (`cuda`); then no steps are measured.
        images: Number of training images. Default: those of the data, else Cityscapes' 2,975.
        classes: Number of classes. Default: those of the data, else Cityscapes' 19.
        config: A YAML file of settings, such as a run's config.yaml.
        overrides: Nested settings, such as `{"search": {"precision": "bf16"}, "device": "cuda:1"}`.
        measure_time: Measure some steps on the device.

    Returns:
        Memory in bytes, time in seconds and hours, and the settings that fit.

    Raises:
        AutosegError: an argument is wrong, or not even the smallest setting fits into the memory.
    """
    memory_bytes = None if memory is None else parse_bytes(memory)
    overrides = merge(overrides or {}, _asked(crop, batch, classes))
    has_data = data is not None or "data" in overrides or "data" in read_config(config)
    if not has_data:
        data = {"layout": "generated", "num_classes": classes or CITYSCAPES_CLASSES}

    def check(settings: SearchConfig) -> None:
        if _is_here(settings.device, memory_bytes):
            check_device(settings)
        else:
            Setting.of(settings.search).check()

    settings = search_config(search_sources(space, data, config, overrides), check)
    is_here = _is_here(settings.device, memory_bytes)
    device = pick_device(settings.device) if is_here else torch.device("cuda")
    number, groups, largest = _images(settings, images, has_data)
    steps = count_steps(settings, number, groups)
    name = settings.space.name
    planner = Planner(settings, device, device_memory(device) if memory_bytes is None else memory_bytes, largest)
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
    """Whether this machine may have a device. Raises: ConfigError: a GPU that it lacks, if its memory is not given."""
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
    """The arguments as overrides. Raises: ConfigError: one is out of range."""
    schedule = {key: value for key, value in (("crop", crop), ("batch_size", batch)) if value is not None}
    Setting(crop or (32, 32), 2 if batch is None else batch, False, "float32").check()
    if classes is not None and not 2 <= classes <= 65535:
        raise ConfigError(f"classes is {classes}; it must be 2 to 65535", code="classes-out-of-range")
    return {"search": schedule} if schedule else {}


def _images(settings: SearchConfig, images: int | None, has_data: bool) -> tuple[int, Sequence[str] | None, Limits]:
    """The number of training images, their groups, and the largest crop and batch size to propose.

    Raises: ConfigError: too few images.
    """
    largest, groups = UNKNOWN, None
    number = CITYSCAPES_IMAGES if images is None else images
    if has_data:
        train = open_dataset(settings.data, "train")
        number, groups = (len(train), train.groups()) if images is None else (images, None)
        height, width = train.load(0).mask.shape
        largest = largest._replace(crop=(height, width))
    if number < 4:
        raise ConfigError(
            f"images is {number}; a search needs at least 4 training images, two in each half", code="too-few-images"
        )
    if number > limits.IMAGES:
        raise ConfigError(f"images is {number}; it must be at most {limits.IMAGES:,}", code="images-out-of-range")
    if has_data or images is not None:
        halves = halve(number, settings.search.train_a_fraction, settings.seed, groups)
        largest = largest._replace(batch_size=min(len(half) for half in halves))
    return number, groups, largest
