"""The complete settings of a search and of a retraining. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, InstanceOf, ValidationInfo, field_validator, model_validator

from autoseg.config.base import PathText, Settings, Whole, differences, parse
from autoseg.config.data import ResolvedDataConfig
from autoseg.config.training import RetrainSchedule, SearchSchedule, TrainingConfig
from autoseg.errors import ConfigError
from autoseg.genotype.schema import Genotype
from autoseg.space.schema import SearchSpace
from autoseg.zoo.schema import FixedNetwork


def checked_device(name: object) -> str:
    """Return `name` if a device may have it, present or not. Raises: ValueError: it is no name of a device."""
    if not isinstance(name, str) or re.fullmatch(r"auto|cpu|mps|cuda(:(0|[1-9]\d{0,2}))?", name) is None:
        raise ValueError(f"should be auto, cpu, cuda, cuda:N (such as cuda:1) or mps, not {name!r}")
    return name


DeviceName = Annotated[str, BeforeValidator(checked_device)]
Seed = Annotated[Whole, Field(ge=0, lt=2**31)]


FREE = (
    "device", "data.root", "KIND.workers", "KIND.store", "KIND.cache_dir", "KIND.cuda_graphs", "KIND.kernels",
    "KIND.checkpoint_cells", "KIND.compile", "KIND.log_every", "KIND.checkpoint_seconds", "KIND.keep_checkpoints",
)  # fmt: skip
"""Settings with which a run may go on that began with others, as they change no result but by rounding. KIND: `search`
or `retrain`."""


def is_free(key: str) -> bool:
    """Whether a dotted key is one of `FREE`, or in a group of these."""
    place = re.sub("^(search|retrain)(?=[.])", "KIND", key)
    return any(place == free or place.startswith(f"{free}.") for free in FREE)


def may_change(key: str) -> bool:
    """Whether a run that has begun may be given this setting anew: those of `FREE`, and the number of epochs."""
    return is_free(key) or key in ("search.epochs", "retrain.epochs")


class RunConfig(Settings):
    """What the settings of a search and of a retraining have in common."""

    kind: ClassVar[Literal["search", "retrain"]]
    """The group of the schedule."""

    @property
    def schedule(self) -> TrainingConfig:
        """The settings that searches and retrainings share, and those of the kind."""
        schedule: TrainingConfig = getattr(self, self.kind)
        return schedule

    def changes(self, before: Mapping[str, Any] | None, where: str) -> list[str]:
        """What differs from the settings `before` that may not (`may_change`); none if those are not known.

        where: the file that has them.
        """
        if before is None:
            return []
        complete = parse(type(self), before, where)  # an earlier version may not have had all of today's settings
        return [*differences(complete.to_dict(), self.to_dict(), may_change)]

    def with_schedule(self, **changes: Any) -> Self:
        """These settings with another schedule; the changes are not checked."""
        return self.model_copy(update={self.kind: self.schedule.model_copy(update=changes)})


class SearchConfig(RunConfig):
    """The settings of a search. Raises: SearchSpaceError: the space is invalid."""

    kind = "search"
    space: SearchSpace
    data: ResolvedDataConfig
    search: SearchSchedule = SearchSchedule()
    retrain: dict[str, Any] = Field(default_factory=dict)
    """The space's recommended schedule for retraining; decoding writes it into the genotype."""
    seed: Seed = 0
    device: DeviceName = "auto"

    @field_validator("space", mode="before")
    @classmethod
    def _read_space(cls, space: object, info: ValidationInfo) -> object:
        where = (info.context or {}).get("where", "")
        return SearchSpace.parse(space, where) if isinstance(space, Mapping) else space

    def to_dict(self) -> dict[str, Any]:
        """Plain data for YAML."""
        return {"space": self.space.to_dict(), **self.model_dump(mode="json", exclude={"space"})}


class RetrainConfig(RunConfig):
    """The settings of a retraining. Raises: GenotypeError: the genotype is invalid."""

    kind = "retrain"
    weights: PathText | None = None
    """The weights that training starts from: an own run, or its best.pt or last.pt; or a local file with weights of an
    ImageNet classifier, for the network's backbone."""
    warm_start: PathText | None = None
    """A search, the weights of whose supernet training starts from, as far as the network has a place for them."""
    data: ResolvedDataConfig
    architecture: InstanceOf[Genotype] | InstanceOf[FixedNetwork] = Field(None, validate_default=True)
    """A searched network or a network of the literature: `genotype` or `network` in a file."""
    retrain: RetrainSchedule = RetrainSchedule()
    seed: Seed = 0
    device: DeviceName = "auto"

    @model_validator(mode="before")
    @classmethod
    def _read_architecture(cls, data: Mapping[str, Any], info: ValidationInfo) -> Mapping[str, Any]:
        given = [key for key in ("genotype", "network") if data.get(key) is not None]
        others = {key: value for key, value in data.items() if key not in ("genotype", "network")}
        if len(given) != 1 or "architecture" in data:
            return others
        (key,) = given
        if not isinstance(data[key], Mapping):
            raise ConfigError(f"{key}: should be a mapping, not {data[key]!r}", code="setting-invalid")
        kind = Genotype if key == "genotype" else FixedNetwork
        return {**others, "architecture": kind.parse(data[key], (info.context or {}).get("where", ""))}

    @field_validator("architecture", mode="before")
    @classmethod
    def _is_one(cls, architecture: object) -> object:
        if not isinstance(architecture, Genotype | FixedNetwork):
            raise ValueError("needs either 'genotype', a searched network, or 'network', one of the literature")
        return architecture

    @classmethod
    def file_keys(cls) -> list[str]:
        """The keys that a file may have."""
        return ["genotype", "network", *(key for key in super().file_keys() if key != "architecture")]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for YAML, without settings that are None."""
        key = "genotype" if isinstance(self.architecture, Genotype) else "network"
        rest = self.model_dump(mode="json", exclude={"architecture"})
        given = {name: value for name, value in rest.items() if value is not None}
        return {key: self.architecture.to_dict(), **given}


Config = TypeVar("Config", SearchConfig, RetrainConfig)
AnyConfig = SearchConfig | RetrainConfig
