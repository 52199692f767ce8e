"""From what the user gave to the settings of a run. Later sources win:

defaults < the space's or genotype's recommended schedule < `config` file < arguments < `overrides`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from autoseg.config.base import Settings, merge, parse
from autoseg.config.data import DataConfig, data_settings, with_absolute_paths
from autoseg.config.training import RetrainConfig, RetrainSchedule, SearchConfig, SearchSchedule
from autoseg.data.dataset import resolve
from autoseg.errors import ConfigError
from autoseg.files import read_yaml
from autoseg.genotype.schema import Genotype
from autoseg.setup.preflight import check_device
from autoseg.space.schema import SearchSpace, load_space
from autoseg.zoo.architecture import Architecture, load_architecture, parse_architecture
from autoseg.zoo.match_cost import CostTarget, match_cost
from autoseg.zoo.schema import RECOMMENDED, is_network_name

Source = str | Path | Mapping[str, Any]

ANY_DATA = {"layout": "generated"}
"""Stands in for the data while all else is checked."""


def search_settings(
    space: Source | SearchSpace | None = None,
    data: Source | DataConfig | None = None,
    config: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    check: Callable[[SearchConfig], object] = check_device,
) -> SearchConfig:
    """Every setting of a search, resolved and checked: all but the data before any data is opened.

    `check`: of all settings but the data's.
    Raises: SearchSpaceError, DataError, ConfigError: one line on what is wrong.
    """
    given, overrides, where = _read_config(config), dict(overrides or {}), str(config or "")
    chosen: Any = space if space is not None else given.pop("space", None)
    chosen = overrides.pop("space") if isinstance(overrides.get("space"), str) else chosen
    given.pop("space", None)
    if chosen is None:
        raise ConfigError(
            "no space is given; name one, such as --space tiny (see `autoseg spaces`)", code="space-not-given"
        )
    recommended: dict[str, Any] = {}
    chosen_from: Any = ""
    if isinstance(chosen, SearchSpace):
        chosen = chosen.to_dict()
    elif not isinstance(chosen, Mapping):
        chosen_from = chosen
        loaded, recommended = load_space(chosen)
        chosen = loaded.to_dict()
    of_data = [settings.pop("data", None) for settings in (given, overrides)]
    merged = merge({"space": chosen}, recommended, given, overrides)
    merged["space"] = SearchSpace.parse(_mapping(merged, "space"), where).to_dict()
    try:
        checked_schedule(merged.setdefault("retrain", {}), where)
        check(parse(SearchConfig, {**merged, "data": ANY_DATA}, where))
    except ConfigError as reason:
        raise _placed(reason, recommended, str(chosen_from)) from None
    parsed = parse(SearchConfig, {**merged, "data": _merged_data(data, config, *of_data)}, where)
    return parsed.model_copy(update={"data": resolve(parsed.data)})


def retrain_settings(
    architecture: Source | Architecture | None = None,
    data: Source | DataConfig | None = None,
    config: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    match: CostTarget | None = None,
) -> RetrainConfig:
    """Every setting of a retraining, resolved and checked: all but the data before any data is opened.

    `architecture`: a genotype, or a network of the literature, whose width is chosen so that it costs what `match`
    says; it is then trained as that recommends. Raises: AutosegError: one line on what is wrong.
    """
    given, overrides, where = _read_config(config), dict(overrides or {}), str(config or "")
    source = _chosen_architecture(architecture, given, overrides)
    chosen = load_architecture(source)
    key, other = ("genotype", "network") if isinstance(chosen, Genotype) else ("network", "genotype")
    if other in overrides:
        raise ConfigError(
            f"unknown key '{other}': what is trained here is a {key}, {chosen.name}", code="unknown-setting"
        )
    recommended: Mapping[str, Any] = chosen.retrain if isinstance(chosen, Genotype) else RECOMMENDED
    if match is not None and match.retrain:
        recommended = {**match.retrain, "drop_path": 0.0, "auxiliary_weight": 0.0}  # which only searched ones have
    of_data = [settings.pop("data", None) for settings in (given, overrides)]
    merged = merge({key: chosen.to_dict(), "retrain": recommended}, given, overrides)
    changed = parse_architecture(_mapping(merged, key), where)
    merged[key] = changed.to_dict()
    check_device(parse(RetrainConfig, {**merged, "data": ANY_DATA}, where))
    if isinstance(changed, Genotype) and match is not None:
        raise ConfigError(
            f"{changed.name} is a genotype, whose width is genotype.network.filter_multiplier; only networks of the"
            " literature are scaled to a cost",
            code="genotype-not-scalable",
        )
    parsed = parse(RetrainConfig, {**merged, "data": _merged_data(data, config, *of_data)}, where)
    settings = parsed.model_copy(update={"data": resolve(parsed.data)})
    if isinstance(changed, Genotype):
        return settings
    if isinstance(source, str) and is_network_name(source) and "in_channels" not in overrides.get(key, {}):
        changed = changed.model_copy(update={"in_channels": settings.data.channels or changed.in_channels})
    if match is not None:
        changed = match_cost(changed, match, settings.data.num_classes or 0)
    return settings.model_copy(update={"network": changed.to_dict()})


def _chosen_architecture(
    architecture: Source | Architecture | None, given: dict[str, Any], overrides: dict[str, Any]
) -> Source | Architecture:
    """What is named first of: the argument, `--set network=NAME`, the config file, whose own it takes out."""
    in_file = [given.pop(key, None) for key in ("genotype", "network")]
    by_name = [overrides.pop(key) for key in ("genotype", "network") if isinstance(overrides.get(key), str)]
    candidates: tuple[Source | Architecture | None, ...] = (architecture, *by_name, *in_file)
    for chosen in candidates:
        if chosen is not None:
            return chosen
    raise ConfigError(
        "no genotype or network is given; give a file, a run directory or a name (see `autoseg spaces`)",
        code="network-not-given",
    )


def data_for_run(own: DataConfig, data: Source | None, overrides: Mapping[str, Any] | None = None) -> DataConfig:
    """The data that a trained network is measured on: its run's own, with what `data` and `overrides` change.

    A folder replaces the run's folder and keeps its classes, ignore label, size and normalisation; whether its masks of
    two classes are of 0 and 1 or of 0 and 255 is found anew.
    Raises: ConfigError: other classes or channels than the network has.
    """
    changes = data_overrides(overrides)
    settings = own.to_dict()
    given: Mapping[str, Any] = {} if data is None else _data(data)
    if "root" in {**given, **changes}:
        settings |= _found_anew(own, {**given, **changes})
    if data is not None:
        # another folder has its own splits, another YAML perhaps its own classes: nothing that was found is kept
        settings = {**settings, "splits": None, **({"layout": "auto"} if "root" in given else {}), **given}
        if "classes" in given or "num_classes" in given:
            settings |= {key: given.get(key) for key in ("classes", "num_classes")}
    merged = merge(settings, changes)
    if "root" in changes:
        merged |= {"splits": changes.get("splits"), "layout": changes.get("layout", given.get("layout", "auto"))}
    if merged["channels"] not in (None, own.channels):
        raise ConfigError(
            f"data.channels is {merged['channels']}, but the network was trained on images of {own.channels};"
            " give images with as many channels",
            code="channels-differ",
        )
    resolved = resolve(parse(DataConfig, merged, "data"))
    if resolved.num_classes != own.num_classes:
        raise ConfigError(
            f"the data has {resolved.num_classes} classes, but the network was trained for {own.num_classes};"
            " give data with the same classes",
            code="classes-differ",
        )
    return resolved


def _found_anew(own: DataConfig, said: Collection[str]) -> dict[str, None]:
    """Settings of masks of two classes that another folder may have otherwise, and that neither the user has set.

    A run with masks of 0 and 1 takes 255 for the ignore label, one with masks of 0 and 255 for a class.
    """
    found = own.num_classes == 2 and own.colours is None and own.ignore_label == 255
    if not found or own.label_map not in (None, {255: 1}) or "colours" in said:
        return {}
    return dict.fromkeys({"label_map", "ignore_label", "mask_threshold"} - {*said})


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
    return {} if config is None else read_yaml(Path(config), ConfigError)


def _merged_data(data: Source | DataConfig | None, config: str | Path | None, in_file: Any, in_overrides: Any) -> Any:
    """The settings of the data: those of the config file, then what `data` says, then the overrides."""
    if isinstance(in_file, str):
        in_file = data_settings(Path(config or "").parent / in_file if in_file != "generated" else in_file)
    elif isinstance(in_file, dict):
        in_file = with_absolute_paths(in_file, Path(config or "").parent)
    sources = (in_file, None if data is None else _data(data, in_file), in_overrides)
    merged = merge({}, *({"data": source} for source in sources if source is not None))
    if not merged:
        raise ConfigError("no data is given; give --data a folder, a data YAML, or 'generated'", code="data-not-given")
    return merged["data"]


def _data(data: Source | DataConfig, before: Any = None) -> dict[str, Any]:
    """What `data` says, to be laid over the settings `before`, whose splits do not hold for another folder."""
    if isinstance(data, DataConfig):
        return data.to_dict()
    settings = dict(data) if isinstance(data, Mapping) else data_settings(data)
    if isinstance(before, Mapping) and "root" in settings:
        if settings["root"] != before.get("root"):
            settings = {"splits": None, "layout": "auto", **settings}
        elif settings.get("layout") == "auto":
            del settings["layout"]  # `before` says what was found there
    return settings


def data_overrides(overrides: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The `data` of `overrides`, which may hold nothing else where a trained network is measured."""
    if stray := [key for key in overrides or {} if key != "data"]:
        raise ConfigError(f"unknown key '{stray[0]}' (known here: data, such as data.resize)", code="unknown-setting")
    return _mapping({"data": {}, **(overrides or {})}, "data")


def _mapping(settings: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    if not isinstance(settings[key], Mapping):
        raise ConfigError(f"{key}: should be a mapping, not {settings[key]!r}", code="setting-invalid")
    value: Mapping[str, Any] = settings[key]
    return value


def _placed(reason: ConfigError, recommended: Mapping[str, Any], file: str) -> ConfigError:
    """`reason`, with the space's file named where its recommended schedules alone have the same fault."""
    for key, model in (("search", _Search), ("retrain", _Retrain)):
        try:
            parse(model, {key: recommended.get(key, {})})
        except ConfigError as same:
            if str(same) == str(reason):
                return ConfigError(f"{reason} (in {file})", code=reason.code)
    return reason


def checked_schedule(schedule: Mapping[str, Any], where: str = "") -> RetrainSchedule:
    """A schedule for retraining. Raises: ConfigError: it has a mistake; the message says where in `retrain`."""
    return parse(_Retrain, {"retrain": schedule}, where).retrain


class _Search(Settings):
    """As `_Retrain`."""

    search: SearchSchedule


class _Retrain(Settings):
    """Gives messages about a schedule its place, `retrain.`."""

    retrain: RetrainSchedule
