"""Settings of a loss, a weighted sum of terms. The records of the losses define their options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SerializeAsAny

from autoseg import limits
from autoseg.config.base import NamedSettings, Number, Settings
from autoseg.registry import LOSSES


class LossTerm(NamedSettings):
    """A term of a loss: its name and weight. Subclasses add the options of one term, with defaults."""

    weight: Annotated[Number, Field(gt=0, le=1000)] = 1.0

    @classmethod
    def model_of(cls, data: Any) -> type[LossTerm]:
        """See `NamedSettings`."""
        if isinstance(data, LossTerm):
            return type(data)
        model: type[LossTerm] = LOSSES[_with_name(data)["name"]].options
        return model

    @property
    def options(self) -> dict[str, Any]:
        """The settings without name and weight."""
        return {key: getattr(self, key) for key in type(self).model_fields if key not in ("name", "weight")}


def _with_name(term: Any) -> Any:
    """Turn a bare name into a mapping. Raises: ValueError: an unknown name."""
    named = {"name": term} if isinstance(term, str) else term
    if not isinstance(named, Mapping | Settings):
        raise ValueError(f"should be the name of a term or a mapping with one, not {named!r}")
    if isinstance(named, Mapping) and named.get("name") not in tuple(LOSSES):
        raise ValueError(f"'name' should be one of {', '.join(LOSSES)}, not {named.get('name')!r}")
    return named


LossTerms = Annotated[
    tuple[Annotated[SerializeAsAny[LossTerm], BeforeValidator(_with_name)], ...],
    Field(min_length=1, max_length=limits.NAMES),
]
PLAIN_LOSS = (
    LossTerm.model_construct(name="cross_entropy"),
)  # unchecked, since the files of the losses import this one
