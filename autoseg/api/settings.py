"""From what the user gave to the settings of a run. Later sources win:

defaults < the space's or genotype's recommended schedule < `config` file < arguments < `overrides`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoseg.config import (
    DataConfig,
    RetrainConfig,
    RetrainSchedule,
    SearchConfig,
    Settings,
    data_settings,
    merge,
    parse,
)
from autoseg.data.dataset import resolve
from autoseg.errors import ConfigError
from autoseg.files import read_yaml
from autoseg.genotype.schema import Genotype
from autoseg.space.schema import SearchSpace, load_space

Source = str | Path | Mapping[str, Any]


def search_settings(
    space: Source | SearchSpace | None = None,
    data: Source | DataConfig | None = None,
    config: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> SearchConfig:
    """Every setting of a search, resolved and checked.

    Raises: SearchSpaceError, DataError, ConfigError: one line on what is wrong.
    """
    given, overrides, where = _read_config(config), dict(overrides or {}), str(config or "")
    chosen: Any = space if space is not None else given.pop("space", None)
    chosen = overrides.pop("space") if isinstance(overrides.get("space"), str) else chosen
    given.pop("space", None)
    if chosen is None:
        raise ConfigError("no space is given; name one, such as --space tiny (see `autoseg spaces`)")
    recommended: dict[str, Any] = {}
    if isinstance(chosen, SearchSpace):
        chosen = chosen.to_dict()
    elif not isinstance(chosen, Mapping):
        loaded, recommended = load_space(chosen)
        chosen = loaded.to_dict()
    merged = merge({"space": chosen}, recommended, given, _data(data), overrides)
    merged["space"] = SearchSpace.parse(merged["space"], where).to_dict()
    merged["retrain"] = _checked_schedule(merged.get("retrain", {}), where)
    parsed = parse(SearchConfig, _with_data(merged), where)
    return parsed.model_copy(update={"data": resolve(parsed.data)})


def retrain_settings(
    genotype: Source | Genotype | None = None,
    data: Source | DataConfig | None = None,
    config: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> RetrainConfig:
    """Every setting of a retraining, resolved and checked.

    Raises: GenotypeError, DataError, ConfigError: one line on what is wrong.
    """
    given, overrides, where = _read_config(config), dict(overrides or {}), str(config or "")
    chosen: Any = genotype if genotype is not None else given.pop("genotype", None)
    given.pop("genotype", None)
    if chosen is None:
        raise ConfigError("no genotype is given; give a file, a run directory or a name (see `autoseg spaces`)")
    if not isinstance(chosen, Genotype | Mapping):
        chosen = Genotype.load(chosen)
    if isinstance(chosen, Genotype):
        chosen = chosen.to_dict()
    merged = merge({"genotype": chosen, "retrain": chosen.get("retrain", {})}, given, _data(data), overrides)
    merged["genotype"] = Genotype.parse(merged["genotype"], where).to_dict()
    parsed = parse(RetrainConfig, _with_data(merged), where)
    return parsed.model_copy(update={"data": resolve(parsed.data)})


def data_for_run(own: DataConfig, data: Source | None, overrides: Mapping[str, Any] | None = None) -> DataConfig:
    """The data that a trained network is measured on: its run's own, with what `data` and `overrides` change.

    A folder replaces the run's folder and keeps its classes, ignore label, size and normalisation.
    Raises: DataError: other classes than the network has.
    """
    settings = own.to_dict()
    if data is not None:
        # another folder has its own splits, another YAML perhaps its own classes: nothing that was found is kept
        settings = {**settings, "splits": None, **_data(data)["data"]}
        if "classes" in _data(data)["data"]:
            settings["num_classes"] = None
    merged = merge(settings, (overrides or {}).get("data", {}))
    if "root" in (overrides or {}).get("data", {}):
        merged["splits"] = (overrides or {})["data"].get("splits")
    resolved = resolve(parse(DataConfig, merged, "data"))
    if resolved.num_classes != own.num_classes:
        raise ConfigError(
            f"the data has {resolved.num_classes} classes, but the network was trained for {own.num_classes};"
            " give data with the same classes"
        )
    return resolved


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> str | None:
    """The first setting in which two differ, as `search.epochs: 40, not 20`; None where they are equal."""
    for key in {**old, **new}:
        place, before, after = f"{prefix}{key}", old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            if found := first_difference(before, after, f"{place}."):
                return found
        elif before != after:
            return f"{place}: {before}, not {after}"
    return None


def _read_config(config: str | Path | None) -> dict[str, Any]:
    if config is None:
        return {}
    settings = read_yaml(Path(config), ConfigError)
    data = settings.get("data")
    if isinstance(data, str):
        settings["data"] = data_settings(Path(config).parent / data if data != "generated" else data)
    elif isinstance(data, dict) and isinstance(data.get("root"), str):
        settings["data"] = {**data, "root": os.path.abspath(Path(config).parent / Path(data["root"]).expanduser())}
    return settings


def _data(data: Source | DataConfig | None) -> dict[str, Any]:
    if data is None:
        return {}
    if isinstance(data, DataConfig):
        return {"data": data.to_dict()}
    return {"data": dict(data) if isinstance(data, Mapping) else data_settings(data)}


def _with_data(merged: dict[str, Any]) -> dict[str, Any]:
    if "data" not in merged:
        raise ConfigError("no data is given; give --data a folder, a data YAML, or 'generated'")
    return merged


def _checked_schedule(schedule: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What the space recommends for retraining, as it was written, after a check."""
    parse(_Retrain, {"retrain": schedule}, where)
    return dict(schedule)


class _Retrain(Settings):
    """Gives messages about a schedule its place, `retrain.`."""

    retrain: RetrainSchedule
