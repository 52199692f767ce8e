"""The settings of a run from several sources. Later sources win:

defaults < the space's or genotype's recommended schedule < `config` file < arguments < `overrides`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from autoseg.config.base import Settings, merge, parse, refuse_others
from autoseg.config.data import DataConfig, data_settings, with_absolute_paths
from autoseg.config.training import RetrainSchedule, SearchSchedule, TrainingConfig
from autoseg.data.dataset import resolve
from autoseg.engine.config import AnyConfig, RetrainConfig, SearchConfig
from autoseg.engine.environment import pick_device, prepare
from autoseg.errors import ConfigError
from autoseg.files import read_yaml, user_path
from autoseg.genotype.schema import Genotype
from autoseg.genotype.templates import check_templates
from autoseg.planning.memory import Setting
from autoseg.setup.first_weights import own_weights, searched_weights
from autoseg.space.schema import SearchSpace, load_space
from autoseg.supernet.fast.kernels import choose_kernels
from autoseg.zoo.match_cost import CostTarget, at_cost
from autoseg.zoo.schema import RECOMMENDED, Architecture, FixedNetwork, load_architecture, network_names

Source = str | Path | Mapping[str, Any]

ANY_DATA = resolve(DataConfig(layout="generated"))
"""A placeholder for the data while the other settings are checked."""


def check_device(config: AnyConfig) -> torch.device:
    """Prepare and return the device of a run. Raises: ConfigError: it is missing or cannot do what the settings ask."""
    device = pick_device(config.device)
    Setting.of(config.schedule).check()
    check_precision(config.schedule, config.kind, device)
    if isinstance(config, SearchConfig):
        choose_kernels(config.search.kernels, device, config.space)
    prepare(device)
    return device


def check_precision(schedule: TrainingConfig, kind: str, device: torch.device) -> None:
    """Raises: ConfigError: fp16 without a CUDA GPU."""
    if schedule.precision == "fp16" and device.type != "cuda":
        raise ConfigError(
            f"{kind}.precision fp16 needs a CUDA GPU, but the device is {device}; use bf16 or float32",
            code="precision-needs-gpu",
        )


@dataclass(frozen=True)
class Sources:
    """The sources of a run's settings, in ascending priority."""

    recommended: Mapping[str, Any]
    """The schedules that the space or network recommends."""
    file: Mapping[str, Any]
    arguments: Mapping[str, Any]
    """The space, genotype or network, and the data as given."""
    overrides: Mapping[str, Any]
    where: str = ""
    """The path of `file`, for messages."""
    recommended_by: str = ""
    """Name or path of the space or network, if it was given by one."""

    def merged(self) -> dict[str, Any]:
        """All settings except those of the data."""
        return {**merge(self.recommended, self.file, self.arguments, self.overrides), "data": ANY_DATA}

    def data(self) -> DataConfig:
        """The settings of the data. Raises: DataError, ConfigError: there is no such data, or a setting is wrong."""
        in_file, data = self.file.get("data"), self.arguments.get("data")
        folder = Path(self.where).parent
        if isinstance(in_file, str):
            in_file = data_settings(folder / in_file if in_file != "generated" else in_file)
        elif isinstance(in_file, dict):
            in_file = with_absolute_paths(in_file, folder)
        sources = (in_file, None if data is None else given_data(data, in_file), self.overrides.get("data"))
        merged = merge({}, *({"data": source} for source in sources if source is not None))
        if not merged:
            raise ConfigError(
                "no data is given; give --data a folder, a data YAML, or 'generated'", code="data-not-given"
            )
        return parse(_Parts, merged, self.where).data

    def set_by_user(self, kind: str) -> set[str]:
        """Names of the settings that the user has set in the group `kind` (`search`, `retrain`) and in the genotype."""
        groups = [source.get(key) for source in (self.file, self.overrides) for key in (kind, "genotype")]
        return {name for group in groups if isinstance(group, Mapping) for name in group}


def search_sources(
    space: Source | SearchSpace | None = None,
    data: Source | DataConfig | None = None,
    config: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Sources:
    """The sources of a search's settings. Raises: SearchSpaceError, ConfigError: no space, or an invalid one."""
    file, changes = read_config(config), dict(overrides or {})
    in_file = file.pop("space", None)
    chosen = space if space is not None else in_file
    if isinstance(changes.get("space"), str):
        chosen = changes.pop("space")
    if chosen is None:
        raise ConfigError(
            "no space is given; name one, such as --space tiny (see `autoseg spaces`)", code="space-not-given"
        )
    name, recommended = "", dict[str, Any]()
    if not isinstance(chosen, Mapping | SearchSpace):
        name = str(chosen)
        chosen, recommended = load_space(name)
    settings = chosen.to_dict() if isinstance(chosen, SearchSpace) else chosen
    return Sources(recommended, file, {"space": settings, "data": data}, changes, str(config or ""), name)


def retrain_sources(
    architecture: Source | Architecture | None = None,
    data: Source | DataConfig | None = None,
    config: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    match: CostTarget | None = None,
) -> Sources:
    """The sources of a retraining's settings. Raises: AutosegError: no genotype or network, or an invalid one."""
    file, changes = read_config(config), dict(overrides or {})
    in_file = [file.pop(key, None) for key in ("genotype", "network")]
    by_name = [changes.pop(key) for key in ("genotype", "network") if isinstance(changes.get(key), str)]
    source = next((one for one in (architecture, *by_name, *in_file) if one is not None), None)
    if source is None and (own := own_weights(changes.get("weights", file.get("weights")))):
        source = own.config.architecture
    if source is None and isinstance(search := changes.get("warm_start", file.get("warm_start")), str):
        source = search  # the genotype that was decoded from it
    if source is None:
        raise ConfigError(
            "no genotype or network is given; give a file, a run directory or a name (see `autoseg spaces`)",
            code="network-not-given",
        )
    chosen = load_architecture(source)
    key, other = ("genotype", "network") if isinstance(chosen, Genotype) else ("network", "genotype")
    if other in changes:
        raise ConfigError(
            f"unknown key '{other}': what is trained here is a {key}, {chosen.name}", code="unknown-setting"
        )
    recommended: Mapping[str, Any] = chosen.retrain if isinstance(chosen, Genotype) else RECOMMENDED
    if match is not None and match.retrain:
        recommended = match.retrain
        if isinstance(chosen, FixedNetwork):
            recommended = {**recommended, "drop_path": 0.0, "auxiliary_weight": 0.0}  # for searched networks only
    arguments = {"data": data}
    if architecture is None and not by_name and isinstance(source, Mapping):
        file[key] = source
    else:
        arguments[key] = chosen.to_dict()
    name = source if isinstance(source, str) else ""
    return Sources({"retrain": recommended}, file, arguments, changes, str(config or ""), name)


def search_config(
    sources: Sources,
    check: Callable[[SearchConfig], object] = check_device,
    say: Callable[[str], object] | None = None,
) -> SearchConfig:
    """All settings of a search. The data is opened only after all other settings are checked.

    `check`: a further check of the settings without those of the data. `say`: is called with each decision on the data.
    """
    try:
        settings = parse(SearchConfig, sources.merged(), sources.where)
        check_templates(settings.space)
        checked_schedule(settings.retrain, sources.where)
        check(settings)
    except ConfigError as reason:
        raise _placed(reason, sources) from None
    return settings.model_copy(update={"data": resolve(sources.data(), training=True, say=say)})


def retrain_config(
    sources: Sources, match: CostTarget | None = None, say: Callable[[str], object] | None = None
) -> RetrainConfig:
    """All settings of a retraining. The data is opened only after all other settings are checked.

    `match`: the cost to which the network is scaled. `say`: is called with each decision
    on the data.
    """
    settings = parse(RetrainConfig, sources.merged(), sources.where)
    check_device(settings)
    network = settings.architecture
    if isinstance(network, Genotype) and network.stages:
        _refuse_width(network, sources.overrides)
    first = searched_weights(settings) or own_weights(settings.weights)
    data = resolve(sources.data(), training=True, say=say, before=None if first is None else first.config.data)
    if first is not None:
        first.check_data(data)
    in_channels_open = "in_channels" not in sources.overrides.get("network", {})
    if isinstance(network, FixedNetwork) and sources.recommended_by in network_names() and in_channels_open:
        network = network.model_copy(update={"in_channels": data.channels})
    if match is not None:
        network = at_cost(network, match, data.num_classes)
    return settings.model_copy(update={"data": data, "architecture": network})


def _refuse_width(genotype: Genotype, overrides: Mapping[str, Any]) -> None:
    """Raises: ConfigError: `--set genotype.network.filter_multiplier` for a genotype whose stages have the channels."""
    changed: Any = overrides.get("genotype", {})
    for key in ("network", "filter_multiplier"):
        changed = changed.get(key) if isinstance(changed, Mapping) else None
    if changed is not None:
        raise ConfigError(
            f"genotype.network.filter_multiplier changes nothing in {genotype.name}, whose channels stand in"
            " genotype.stages; scale all of them by --match-cost, such as --match-cost 1M",
            code="channels-in-stages",
        )


def read_config(config: str | Path | None) -> dict[str, Any]:
    """The settings of a file, as plain data; none without one."""
    return {} if config is None else read_yaml(user_path(config), ConfigError)


def given_data(data: Source | DataConfig, before: Any = None) -> dict[str, Any]:
    """The settings in `data`, to merge over `before`, whose splits do not hold for another folder."""
    if isinstance(data, DataConfig):
        return data.to_dict()
    settings = dict(data) if isinstance(data, Mapping) else data_settings(data)
    if isinstance(before, Mapping) and "root" in settings:
        if settings["root"] != before.get("root"):
            settings = {"splits": None, "layout": "auto", **settings}
        elif settings.get("layout") == "auto":
            del settings["layout"]  # keep the layout in `before`, found in the same folder
    return settings


def data_overrides(overrides: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The group `data` of `overrides`. Raises: ConfigError: they have other groups."""
    refuse_others(overrides or {}, "data", "data.resize")
    data: Mapping[str, Any] = (overrides or {}).get("data", {})
    if not isinstance(data, Mapping):
        raise ConfigError(f"data: should be a mapping, not {data!r}", code="setting-invalid")
    return data


def _placed(reason: ConfigError, sources: Sources) -> ConfigError:
    """Add the space's file to `reason` if its recommended schedules alone have the same mistake."""
    for key in ("search", "retrain"):
        try:
            parse(_Parts, {key: sources.recommended.get(key, {})})
        except ConfigError as same:
            if str(same) == str(reason):
                return ConfigError(f"{reason} (in {sources.recommended_by})", code=reason.code)
    return reason


def checked_schedule(schedule: Mapping[str, Any], where: str = "") -> RetrainSchedule:
    """Check a schedule for retraining. Raises: ConfigError: a mistake, with its place in `retrain`."""
    return parse(_Parts, {"retrain": schedule}, where).retrain


class _Parts(Settings):
    """Puts the group before a setting in messages, such as `retrain.`."""

    data: DataConfig = ANY_DATA
    search: SearchSchedule = SearchSchedule()
    retrain: RetrainSchedule = RetrainSchedule()
