"""Every setting of a run, as frozen models; unknown keys are errors that suggest the right one.

Letters: H height and W width in pixels. Ratios are fractions of 1. Learning rates are per step.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from autoseg.errors import AutosegError, ConfigError
from autoseg.files import one_line, parse_yaml, read_yaml

Whole = Annotated[int, Strict()]
"""A whole number: neither `true`, `"3"` nor 2.5, which pydantic would take for one or round silently."""
Number = Annotated[float, Strict()]
"""A number, whole or not; neither `true` nor `"0.1"`."""
Flag = Annotated[bool, Strict()]
"""`true` or `false`; neither 1 nor `"yes"`."""
Fraction = Annotated[Number, Field(ge=0, le=1)]
Size = tuple[Annotated[Whole, Field(ge=32)], Annotated[Whole, Field(ge=32)]]
Rgb = tuple[Number, Number, Number]


class Settings(BaseModel):
    """A frozen group of settings that refuses keys which it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for YAML."""
        return self.model_dump(mode="json")


# --- data ------------------------------------------------------------------------------------------------------------


class SplitConfig(Settings):
    """Where the images and masks of one split lie, relative to `root`."""

    images: str | None = None
    masks: str | None = None
    list: str | None = None
    """A text file: a stem a line (found in `images` and `masks`), or a pair `image mask` a line."""

    @model_validator(mode="after")
    def _enough(self) -> SplitConfig:
        if self.list is None and (self.images is None or self.masks is None):
            raise ValueError("needs either 'list' or both 'images' and 'masks'")
        return self


class GeneratedConfig(Settings):
    """The built-in generated set: textured shapes of several classes, sizes and depths, with noise."""

    size: Size = (96, 96)
    train: Annotated[Whole, Field(ge=1)] = 256
    val: Annotated[Whole, Field(ge=1)] = 64
    test: Annotated[Whole, Field(ge=1)] = 64
    noise: Annotated[Number, Field(ge=0, le=1)] = 0.08
    """Standard deviation of the pixel noise; images are in 0..1."""
    seed: Annotated[Whole, Field(ge=0)] = 0


class DataConfig(Settings):
    """A data set: where it lies, its classes, and the size at which it is used."""

    layout: Literal["auto", "generated"] = "auto"
    root: str | None = None
    splits: dict[str, SplitConfig] | None = None
    """Left out, the splits are found by looking at the folder."""
    classes: tuple[str, ...] | None = None
    num_classes: Annotated[Whole, Field(ge=2, le=65535)] | None = None
    """Left out, the number of `classes`, or else found by reading the training masks."""
    ignore_label: Annotated[Whole, Field(ge=0, le=65535)] = 255
    label_map: dict[int, Whole] | None = None
    """Label in the mask file -> label used; labels that are not named stay."""
    resize: Size | None = None
    """Bring every image and mask to this (H, W) first; masks by nearest neighbour."""
    mean: Rgb = (0.485, 0.456, 0.406)
    std: Rgb = (0.229, 0.224, 0.225)
    generated: GeneratedConfig = GeneratedConfig()

    @field_validator("std")
    @classmethod
    def _std_is_positive(cls, std: Rgb) -> Rgb:
        if min(std) <= 0:
            raise ValueError("every value must be greater than 0")
        return std

    @model_validator(mode="after")
    def _classes_agree(self) -> DataConfig:
        if self.classes is not None:
            if len(self.classes) < 2:
                raise ValueError("'classes' needs at least two names")
            if self.num_classes not in (None, len(self.classes)):
                raise ValueError(f"num_classes is {self.num_classes}, but 'classes' has {len(self.classes)} names")
        if self.layout == "auto" and self.root is None:
            raise ValueError("needs 'root', the folder of the data set (or layout: generated)")
        return self


# --- optimisation ----------------------------------------------------------------------------------------------------


class OptimizerConfig(Settings):
    """SGD (with momentum), Adam or AdamW."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: Annotated[Number, Field(gt=0, le=10)] = 0.025
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.9
    nesterov: Flag = False
    betas: tuple[Annotated[Number, Field(ge=0, lt=1)], Annotated[Number, Field(ge=0, lt=1)]] = (0.9, 0.999)
    weight_decay: Annotated[Number, Field(ge=0, le=1)] = 3e-4


class LrScheduleConfig(Settings):
    """The learning rate over the run: warm-up by a straight line, then `name` from lr down to min_lr."""

    name: Literal["constant", "cosine", "poly"] = "cosine"
    power: Annotated[Number, Field(gt=0)] = 0.9
    min_lr: Annotated[Number, Field(ge=0)] = 0.0
    warmup_epochs: Annotated[Number, Field(ge=0)] = 0.0


class AugmentConfig(Settings):
    """Random changes to a training image and its mask, made jointly."""

    scale: tuple[Annotated[Number, Field(gt=0, le=16)], Annotated[Number, Field(gt=0, le=16)]] = (0.5, 2.0)
    flip: Fraction = 0.5
    colour: Fraction = 0.0
    """Strength of brightness, contrast and saturation jitter; 0 is none."""

    @model_validator(mode="after")
    def _ordered(self) -> AugmentConfig:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale must be [least, greatest], not {list(self.scale)}")
        return self


class TrainingConfig(Settings):
    """What a search and a retraining have in common."""

    epochs: Annotated[Whole, Field(ge=1)] = 40
    batch_size: Annotated[Whole, Field(ge=2)] = 2
    """Images a step; at least two, since BatchNorm of the pooled image features needs them."""
    crop: Size = (321, 321)
    augment: AugmentConfig = AugmentConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: LrScheduleConfig = LrScheduleConfig(min_lr=1e-3)
    class_weights: Literal["none", "enet", "median_frequency"] | tuple[Annotated[Number, Field(ge=0)], ...] = "none"
    """Of the cross-entropy: none, from the training masks (ENet, Paszke et al. 2016; median frequency, Eigen and
    Fergus 2015), or one number a class."""
    precision: Literal["float32", "bf16"] = "float32"
    clip_grad_norm: Annotated[Number, Field(gt=0)] | None = None
    validate_every: Annotated[Whole, Field(ge=1)] = 1
    """Epochs between validations; the last epoch is always validated."""
    val_images: Annotated[Whole, Field(ge=1)] | None = None
    """Validate on this many images, evenly spaced over the split; left out, on all of them."""
    max_steps_per_epoch: Annotated[Whole, Field(ge=1)] | None = None
    log_every: Annotated[Whole, Field(ge=1)] = 10
    checkpoint_seconds: Annotated[Number, Field(ge=0)] = 60.0
    """Save at least this often, mid-epoch too; 0 saves after every step."""
    workers: Annotated[Whole, Field(ge=0, le=256)] = 0
    """Processes that read images; 0 reads in the main process, which is right where the set fits in memory."""

    @model_validator(mode="after")
    def _weights_are_not_all_zero(self) -> TrainingConfig:
        if isinstance(self.class_weights, tuple) and not any(self.class_weights):
            raise ValueError("class_weights needs at least one number greater than 0")
        return self


class SearchSchedule(TrainingConfig):
    """How the architecture is searched. The defaults are Auto-DeepLab's (section 4.1)."""

    arch_start_epoch: Annotated[Whole, Field(ge=0)] = 20
    """Weights alone before this epoch, weights and architecture in turn from it on."""
    arch_optimizer: OptimizerConfig = OptimizerConfig(name="adam", lr=3e-3, weight_decay=1e-3)
    arch_init_std: Annotated[Number, Field(ge=0)] = 1e-3
    """Standard deviation of the initial logits."""
    train_a_fraction: Annotated[Number, Field(gt=0, lt=1)] = 0.5
    """Share of the training set that is trainA (weights); the rest is trainB (architecture)."""

    @model_validator(mode="after")
    def _architecture_starts(self) -> SearchSchedule:
        if self.arch_start_epoch >= self.epochs:
            raise ValueError(
                f"arch_start_epoch is {self.arch_start_epoch}, but there are only {self.epochs} epochs, so the"
                " architecture would never be searched; lower arch_start_epoch"
            )
        return self


class RetrainSchedule(TrainingConfig):
    """How a decoded network is trained from scratch."""

    optimizer: OptimizerConfig = OptimizerConfig(name="sgd", lr=0.05, weight_decay=4e-5)
    schedule: LrScheduleConfig = LrScheduleConfig(name="poly", warmup_epochs=0)
    drop_path: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Greatest probability of dropping a branch, reached by the last cell at the last step."""
    auxiliary_weight: Annotated[Number, Field(ge=0)] = 0.0
    """Weight of the loss of an auxiliary head after two thirds of the layers; 0 builds none."""
    ema_decay: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Keep an exponential moving average of the weights and use it to evaluate; 0 keeps none."""


# --- whole runs ------------------------------------------------------------------------------------------------------


class SearchConfig(Settings):
    """Everything that `autoseg search` needs besides an output directory. `space` is checked by `SearchSpace`."""

    space: dict[str, Any]
    data: DataConfig
    search: SearchSchedule = SearchSchedule()
    retrain: dict[str, Any] = {}
    """What the space recommends for retraining; decoding hands it on to the genotype."""
    seed: Annotated[Whole, Field(ge=0, lt=2**31)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"


class RetrainConfig(Settings):
    """Everything that `autoseg retrain` needs besides an output directory. `genotype` is checked by `Genotype`."""

    genotype: dict[str, Any]
    data: DataConfig
    retrain: RetrainSchedule = RetrainSchedule()
    seed: Annotated[Whole, Field(ge=0, lt=2**31)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"


# --- reading ---------------------------------------------------------------------------------------------------------

Model = TypeVar("Model", bound=BaseModel)


def parse(
    model: type[Model], data: Mapping[str, Any], where: str = "", error: type[AutosegError] = ConfigError
) -> Model:
    """Check `data` against `model`.

    `where` names the file or option in the message. Raises: `error` with one line on the first mistake.
    """
    try:
        return model.model_validate(dict(data))
    except ValidationError as reason:
        mistakes = [(_place(model, mistake["loc"])[0], mistake) for mistake in reason.errors()]
    keys, mistake = _deepest(mistakes)
    suffix = f" ({where})" if where else ""
    place = ".".join(keys)
    if mistake["type"] == "extra_forbidden":
        known = _keys_at(model, mistake["loc"][:-1])
        near = difflib.get_close_matches(keys[-1], known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
        group = f" in {'.'.join(keys[:-1])}" if keys[:-1] else ""
        raise error(one_line(f"unknown key '{keys[-1]}'{group}{suffix} ({hint})"))
    if mistake["type"] == "missing":
        raise error(one_line(f"{place} is missing{suffix}; add it"))
    messages = [_message(other) for at, other in mistakes if at == keys]  # more than one for `X | Y` only
    message = ", or ".join([messages[0], *(other.removeprefix("should be ") for other in messages[1:])])
    if mistake["type"] not in ("value_error", "assertion_error", "too_long", "too_short"):
        message += f", not {_short(mistake['input'])}"
    raise error(one_line(f"{place + ': ' if place else ''}{message}{suffix}"))


def _deepest(mistakes: list[tuple[list[str], ErrorDetails]]) -> tuple[list[str], ErrorDetails]:
    """The first mistake, or, where a setting may be of several types, the one that came furthest into a type."""
    first = mistakes[0][0]
    return max((m for m in mistakes if m[0][: len(first)] == first), key=lambda m: len(m[0]))  # the first of equals


def _message(mistake: ErrorDetails) -> str:
    """Pydantic's message in a user's words."""
    text = mistake["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if mistake["type"] in ("value_error", "assertion_error"):
        return text
    text = re.sub(r"^(Input|Tuple|List|Dictionary|String) should ", "should ", text)
    text = re.sub(r"a valid (tuple|list)\b", "a list", text)
    text = re.sub(r"a valid dictionary( or instance of \w+)?", "a mapping", text)
    return text[0].lower() + text[1:].replace(" after validation", "")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _place(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[list[str], list[Any]]:
    """The keys and positions in pydantic's `location`, and the types that they lead to.

    Pydantic also puts a name for each type of `X | Y` there (`literal['none']`), and `[key]`: these are left out.
    """
    keys: list[str] = []
    found: list[Any] = [model]
    is_key = True
    for part in location:
        found = [member for annotation in found for member in _members(annotation)]
        is_key = len(found) <= 1 or not is_key
        if is_key and part != "[key]":
            keys.append(str(part))
            found = [inner for annotation in found for inner in _inside(annotation, part)]
    return keys, [member for annotation in found for member in _members(annotation)]


def _members(annotation: Any) -> list[Any]:
    """The types of `X | Y | None`, without None; `X` of `Annotated[X, ...]`."""
    if typing.get_origin(annotation) is Annotated:
        return _members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [member for choice in typing.get_args(annotation) for member in _members(choice)]
    return [] if annotation is type(None) else [annotation]


def _inside(annotation: Any, part: int | str) -> list[Any]:
    """The type of the field, item or value `part` of `annotation`, or nothing."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation.model_fields[str(part)].annotation] if part in annotation.model_fields else []
    arguments = [argument for argument in typing.get_args(annotation) if argument is not Ellipsis]
    if isinstance(part, int) and typing.get_origin(annotation) in (tuple, list):
        return arguments[part : part + 1] or arguments[:1]
    return arguments[-1:]  # the value of a mapping


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys that the model nested at `location` knows."""
    _, nested = _place(model, location)
    return [key for one in nested if isinstance(one, type) and issubclass(one, BaseModel) for key in one.model_fields]


def merge(base: Mapping[str, Any], *overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `overrides` laid over it in turn, mapping by mapping."""
    merged = dict(base)
    for override in overrides:
        for key, value in override.items():
            old = merged.get(key)
            merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def parse_assignments(assignments: typing.Iterable[str]) -> dict[str, Any]:
    """`["search.optimizer.lr=3e-3"]` as nested mappings; values are YAML.

    Raises: ConfigError: an assignment without `=` or without a key.
    """
    result: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise ConfigError(f"--set {assignment}: write it as key.sub=value")
        try:
            value = parse_yaml(text)
        except Exception:
            raise ConfigError(f"--set {assignment}: {text!r} is not a YAML value") from None
        for part in reversed(parts):
            value = {part: value}
        result = merge(result, value)
    return result


def data_settings(source: str | Path) -> dict[str, Any]:
    """What `--data` means: `generated`, a folder, or a data YAML (whose relative `root` counts from its own folder).

    Raises: DataError: there is no such folder or file.
    """
    from autoseg.errors import DataError

    if str(source) == "generated":
        return {"layout": "generated"}
    path = Path(source).expanduser()
    if path.is_dir():
        return {"layout": "auto", "root": str(path.resolve())}
    if path.suffix not in (".yaml", ".yml"):
        raise DataError(f"{path} is no folder; give --data a folder of images and masks, a data YAML, or 'generated'")
    settings = read_yaml(path, DataError)
    if isinstance(settings.get("root"), str):
        settings["root"] = str((path.parent / Path(settings["root"]).expanduser()).resolve())
    return settings
