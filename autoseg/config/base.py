"""The base model of all settings, merging, and one-line error messages."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    Strict,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from autoseg import limits
from autoseg.errors import AutosegError, ConfigError
from autoseg.files import cut, one_line, parse_yaml, path_fault, short
from autoseg.library import hint

Whole = Annotated[int, Strict()]
"""A whole number; not `true`, `"3"` or 2.5, which pydantic would convert silently."""
Number = Annotated[float, Strict()]
"""A number; not `true` or `"0.1"`."""
Flag = Annotated[bool, Strict()]
"""`true` or `false`; not 1 or `"yes"`."""
Fraction = Annotated[Number, Field(ge=0, le=1)]
LEAST_INPUT_SIDE = 32
"""Least height and width of a network's input in pixels, equal to its greatest stride."""
Side = Annotated[Whole, Field(ge=LEAST_INPUT_SIDE, le=limits.SIDE)]


def _of_few_pixels(size: tuple[int, int]) -> tuple[int, int]:
    if size[0] * size[1] > limits.PIXELS:
        raise ValueError(f"should have at most {limits.PIXELS:,} pixels, not {size[0]:,} x {size[1]:,}")
    return size


Size = Annotated[tuple[Side, Side], AfterValidator(_of_few_pixels)]
"""Height and width, in pixels."""


def _no_fault(path: str) -> str:
    if fault := path_fault(path):
        raise ValueError(f"{short(path)} is no path: {fault}")
    return os.path.expanduser(path)


PathText = Annotated[str, AfterValidator(_no_fault)]
"""A path that a file can have, with `~` resolved."""
UNKNOWN = "unknown_key"
"""Pydantic's type of the mistake of an unknown key."""


class Settings(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)  # `_no_unknown_keys` names the nearest

    def to_dict(self) -> dict[str, Any]:
        """Plain data for YAML."""
        return self.model_dump(mode="json")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other values, which are not checked. What was derived from the old ones is derived anew."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(self).model_fields.keys():  # cached properties, which pydantic copies
            del copied.__dict__[name]
        return copied

    @classmethod
    def file_keys(cls) -> list[str]:
        """The keys that a file may have."""
        return list(cls.model_fields)

    @model_validator(mode="after")
    def _no_unknown_keys(self) -> Self:
        for key in self.model_extra or ():
            advice = hint(key, self.file_keys())
            raise PydanticCustomError(UNKNOWN, "unknown key '{key}' ({advice})", {"key": key, "advice": advice})
        return self


class NamedSettings(Settings):
    """Settings whose `name` selects the subclass that checks them; subclasses have further keys."""

    name: str

    @classmethod
    def model_of(cls, data: Any) -> type[NamedSettings]:
        """The model for plain data or settings. Raises: ValueError: there is none of this name."""
        raise NotImplementedError

    @model_validator(mode="wrap")
    @classmethod
    def _as_its_model(cls, data: Any, check: ModelWrapValidatorHandler[NamedSettings]) -> NamedSettings:
        model = cls.model_of(data)
        return check(data) if issubclass(cls, model) else model.model_validate(data)


Model = TypeVar("Model", bound=BaseModel)


def parse(
    model: type[Model], data: Mapping[str, Any], where: str = "", error: type[AutosegError] = ConfigError
) -> Model:
    """Check `data` against `model`. Raises: `error`: one line on the first mistake.

    `where` names the file or option in messages; validators read it as `info.context["where"]`.
    """
    try:
        return model.model_validate(dict(data), context={"where": where})
    except ValidationError as reason:
        mistakes = [(_place(mistake, data), mistake) for mistake in reason.errors()]
    keys, mistake = _deepest(mistakes)
    suffix = f" ({where})" if where else ""
    place = ".".join(keys)
    if mistake["type"] == UNKNOWN:
        group = f" in {'.'.join(keys[:-1])}" if keys[:-1] else ""
        raise error(
            one_line(f"unknown key '{keys[-1]}'{group}{suffix} ({mistake['ctx']['advice']})"), code="unknown-setting"
        )
    if mistake["type"] == "missing":
        raise error(one_line(f"{place} is missing{suffix}; add it"), code="setting-missing")
    messages = [_message(other) for at, other in mistakes if at == keys]  # several only for `X | Y`
    message = ", or ".join([messages[0], *(other.removeprefix("should be ") for other in messages[1:])])
    if mistake["type"] not in ("value_error", "assertion_error", "too_long", "too_short"):
        message += f", not {short(mistake['input'])}"
    raise error(one_line(f"{place + ': ' if place else ''}{message}{suffix}"), code="setting-invalid")


def _deepest(mistakes: list[tuple[list[str], ErrorDetails]]) -> tuple[list[str], ErrorDetails]:
    """The first mistake; if a setting may have several types, the mistake at the deepest place."""
    first = mistakes[0][0]
    return max((m for m in mistakes if m[0][: len(first)] == first), key=lambda m: len(m[0]))  # the first of equals


def _message(mistake: ErrorDetails) -> str:
    """Pydantic's message in plain words."""
    text = mistake["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if mistake["type"] in ("value_error", "assertion_error"):
        return text
    text = re.sub(r"^(Input|Tuple|List|Dictionary|String) should ", "should ", text)
    text = re.sub(r"a valid (tuple|list)\b", "a list", text)
    text = re.sub(r"a valid dictionary( or instance of \w+)?", "a mapping", text)
    return text[0].lower() + text[1:].replace(" after validation", "")


def _place(mistake: ErrorDetails, data: Any) -> list[str]:
    """The keys and positions of a mistake in the checked `data`.

    Pydantic also adds the types of `X | Y` (`literal['none']`) and `[key]` to a location; they are left out.
    """
    location, keys = mistake["loc"], list[str]()
    for number, part in enumerate(location, start=1):
        is_there = isinstance(data, Mapping) and part in data
        is_absent = mistake["type"] == "missing" and number == len(location)
        if is_there or is_absent or isinstance(part, int) or not keys:
            keys.append(str(part))
            data = data[part] if is_there or (isinstance(data, list | tuple) and part in range(len(data))) else None
    return [*keys, mistake["ctx"]["key"]] if mistake["type"] == UNKNOWN else keys


def merge(base: Mapping[str, Any], *overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Merge `overrides` into `base` in turn, recursively for mappings."""
    merged = dict(base)
    for override in overrides:
        for key, value in override.items():
            old = merged.get(key)
            merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], but: Callable[[str], bool] = lambda _: False, prefix: str = ""
) -> Iterator[str]:
    """What differs in two settings, such as `search.epochs: 40, not 20`. but: keys that may differ."""
    for key in {**old, **new}:
        place, before, after = f"{prefix}{key}", old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from differences(before, after, but, f"{place}.")
        elif before != after and not but(place):
            yield f"{place}: {before}, not {after}"


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """The first of the `differences`; None if the settings are equal."""
    return next(differences(old, new), None)


def part(settings: Mapping[str, Any], takes: Callable[[str], bool], prefix: str = "") -> dict[str, Any]:
    """The nested settings whose dotted key is taken."""
    inner = {
        key: part(value, takes, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in settings.items()
        if isinstance(value, Mapping) or takes(f"{prefix}{key}")
    }
    return {key: value for key, value in inner.items() if value != {}}


def refuse_others(keys: Iterable[str], known: str, example: str) -> None:
    """Raises: ConfigError: `keys` has another than `known`."""
    for key in keys:
        if key != known:
            raise ConfigError(f"unknown key '{key}' (known here: {known}, such as {example})", code="unknown-setting")


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Parse `["search.optimizer.lr=3e-3"]` into nested mappings; values are YAML. Raises: ConfigError: another form."""
    result: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts) or len(parts) > limits.DEPTH:
            raise ConfigError(f"--set {cut(assignment)}: write it as key.sub=value", code="assignment-invalid")
        if not text.strip():
            raise ConfigError(
                f"--set {cut(assignment)}: the value is empty; write null for none", code="assignment-invalid"
            )
        try:
            value = parse_yaml(text)
        except ValueError:
            raise ConfigError(
                f"--set {cut(assignment)}: {short(text)} is not a YAML value", code="assignment-value-unreadable"
            ) from None
        for part in reversed(parts):
            value = {part: value}
        result = merge(result, value)
    return result
