"""The weights that a retraining starts from: those of an own run, of a search, or of an ImageNet classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from autoseg.config.base import first_difference
from autoseg.config.data import ResolvedDataConfig
from autoseg.data.discovery.channels import channel_words
from autoseg.data.discovery.label_names import has_names, plain_words
from autoseg.data.wording import counted, first_of
from autoseg.engine.checkpoint import fitting, load_checkpoint
from autoseg.engine.config import RetrainConfig, SearchConfig
from autoseg.engine.gap import load_supernet
from autoseg.engine.predict import trained_weights
from autoseg.engine.retrain import RetrainTask
from autoseg.engine.run_directory import Run
from autoseg.errors import CheckpointError, ConfigError, RunError
from autoseg.files import user_path
from autoseg.genotype.schema import Genotype
from autoseg.network import Network
from autoseg.ops.heads import number_of_outputs
from autoseg.supernet.inherit import check_inheritable, inherit
from autoseg.zoo.build import build_network
from autoseg.zoo.weights import by_prefix, load_backbone, read_weights

CHECKPOINTS = ("best.pt", "last.pt")
FEWEST = 0.5
"""Least share of a network's tensors, without the classifier's, that weights of the same network fit."""
NOT_BUILT = ("version", "name", "source", "retrain", "plugins")
"""Keys of an architecture that do not change the network."""


class OwnWeights(NamedTuple):
    """The trained weights of an own run."""

    run: Path
    file: Path
    """The checkpoint."""
    config: RetrainConfig
    """The run's settings."""

    def check_data(self, data: ResolvedDataConfig) -> None:
        """Raises: CheckpointError: see `_check_channels`."""
        _check_channels(self.file, self.config.data, data)


class SearchedWeights(NamedTuple):
    """The weights of a search's supernet."""

    run: Run
    config: SearchConfig
    """The run's settings."""

    def check_data(self, data: ResolvedDataConfig) -> None:
        """Raises: CheckpointError: see `_check_channels`. ConfigError: the search had other classes."""
        _check_channels(self.run.path, self.config.data, data)
        if (there := self.config.data.classes) != (here := data.classes):
            difference = f"{len(there)} classes, the data {len(here)}"
            if len(there) == len(here):
                number = next(number for number, pair in enumerate(zip(there, here, strict=True)) if len(set(pair)) > 1)
                difference = f"the class {there[number]!r} where the data has {here[number]!r}"
            raise ConfigError(
                f"the search {self.run.path} had {difference}; train on the classes of the search, or leave warm_start"
                " out",
                code="classes-differ",
            )


def _check_channels(file: Path, own: ResolvedDataConfig, data: ResolvedDataConfig) -> None:
    """Raises: CheckpointError: the run's images had another number of channels, or the same in another order."""
    if own.channels != data.channels:
        raise CheckpointError(
            f"{file} holds weights for images of {counted(own.channels, 'channel')}, but the"
            f" data has {data.channels}; give images of as many channels, or leave the weights out",
            code="channels-differ",
        )
    words, theirs = channel_words(own), channel_words(data)
    if words != theirs and sorted(words) == sorted(theirs):
        raise CheckpointError(
            f"{file} holds weights for the channels {', '.join(words)}, but the data has them in the order"
            f" {', '.join(theirs)}; give channel_files in data.splits the order of the weights, or leave these out",
            code="channels-differ",
        )


def own_weights(weights: object) -> OwnWeights | None:
    """What the setting `weights` names: best.pt of a run directory, or its best.pt or last.pt; None for other files.

    Raises: RunError: a folder without a run, or a search.
    """
    path = user_path(weights) if isinstance(weights, str) else Path()
    is_checkpoint = path.name in CHECKPOINTS and (path.parent.parent / "config.yaml").is_file()
    if not isinstance(weights, str) or not (path.is_dir() or is_checkpoint):
        return None
    run, file = (path.parent.parent, path) if is_checkpoint else (path, path / "checkpoints" / CHECKPOINTS[0])
    opened = Run.open(run)
    if opened.kind != "retrain":
        raise RunError(
            f"{run} is a search, whose weights are those of a supernet; give it as warm_start (--warm-start), or a run"
            " of `autoseg retrain` as weights",
            code="run-kind-differs",
        )
    return OwnWeights(run, file, opened.config(RetrainConfig))


def searched_weights(settings: RetrainConfig) -> SearchedWeights | None:
    """What the setting `warm_start` names; None without it. It fits the network, so far as that is known without data.

    Raises: RunError: no search. ConfigError: weights are given too, or the network is none of a search with as many
    outputs. GenotypeError: it is of another space, width or stem.
    """
    if settings.warm_start is None:
        return None
    if settings.weights is not None:
        raise ConfigError(
            "both weights and warm_start are given; start from one of them, leave the other out",
            code="options-conflict",
        )
    run, genotype = Run.open(settings.warm_start), settings.architecture
    if run.kind != "search":
        raise RunError(
            f"{run.path} is a retraining; give it as weights (--weights), or a search as warm_start",
            code="run-kind-differs",
        )
    if not isinstance(genotype, Genotype):
        raise ConfigError(
            f"warm_start is for networks that were searched, not for {genotype.name}; leave it out",
            code="network-differs",
        )
    config = run.config(SearchConfig)
    check_inheritable(genotype, config.space)
    if (here := settings.retrain.single_output) != (there := config.search.single_output):
        raise ConfigError(
            f"retrain.single_output is {str(here).lower()}, the search {run.path} had {str(there).lower()}; set it"
            " alike, or leave warm_start out",
            code="network-differs",
        )
    return SearchedWeights(run, config)


def load_first_weights(task: RetrainTask) -> list[str]:
    """Fill a network with the weights that the settings name, if any; returns lines that say what was taken.

    Raises: CheckpointError, RunError: they cannot be read, or are those of another network.
    """
    weights, searched = task.config.weights, searched_weights(task.config)
    if searched is not None:
        supernet, saved = load_supernet(searched.run, searched.config)
        assert isinstance(task.network, Network)  # `searched_weights` refuses others
        where = f"{searched.run.path} ({saved['file']}, epoch {saved['epoch']})"
        said = f"warm start from {where}: {inherit(supernet, task.network)}"
    elif weights is None:
        return []
    elif (own := own_weights(weights)) is not None:
        said = take_over(task, own)
    else:
        path = user_path(weights)
        said = str(load_backbone(task.network, read_weights(path), path))
    if task.average is not None:
        task.average.module.load_state_dict(task.network.state_dict())
    return said.splitlines()


@torch.no_grad()
def take_over(task: RetrainTask, own: OwnWeights) -> str:
    """Copy every tensor of a run's network that has the same name and shape; returns one line on what was taken.

    A classifier of the same classes is taken too. If the classes differ, the new classifier takes those of the same
    names, if both have names, and starts anew for the rest.
    Raises: CheckpointError: unusable, or of another network.
    """
    old, new = own.config, task.config
    saved = load_checkpoint(own.file, "retrain", old.architecture.to_dict())
    with fitting(own.file):
        there = trained_weights(saved["state"])
    here, heads = task.network.state_dict(), classifier_axes(task)
    single = old.retrain.single_output, new.retrain.single_output
    same = (old.data.classes, single[0]) == (new.data.classes, single[1])
    fitting_ones = [name for name, value in here.items() if name in there and there[name].shape == value.shape]
    taken = [name for name in fitting_ones if same or name not in heads]
    trunk = [name for name in here if name not in heads]
    if len([name for name in taken if name not in heads]) < FEWEST * len(trunk):
        raise _another_network(own, task, len(taken), len(here))
    for name in taken:
        here[name].copy_(there[name])
    pairs = [] if same or any(single) else same_names(old.data.classes, new.data.classes)
    for name, axes in heads.items() if pairs else ():
        _take_classes(here[name], there.get(name), axes, pairs, len(old.data.classes))
    said = f"weights of {own.run} ({own.file.name}, epoch {saved['epoch']}): {len(taken)} of {len(here)} tensors"
    anew = [name for name in trunk if name not in taken]
    others = f"; anew: {by_prefix(anew)}" if anew else ""
    return f"{said}; {_of_classifier(old, new, pairs, same)}{others}"


def classifier_axes(task: RetrainTask) -> dict[str, list[int]]:
    """Name of each tensor of a network whose shape depends on the number of classes -> the axes that do."""
    config, here = task.config, task.network.state_dict()
    classes, single = config.data.num_classes, config.retrain.single_output
    has_auxiliary = config.retrain.auxiliary_weight > 0
    with torch.device("meta"):
        other = build_network(
            config.architecture, classes + (not single), has_auxiliary, config.data.channels
        ).state_dict()
    axes = {
        name: [axis for axis, length in enumerate(value.shape) if length != other[name].shape[axis]]
        for name, value in here.items()
    }
    return {name: found for name, found in axes.items() if found}


def same_names(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]]:
    """(old, new) places of the classes of the same name, but for case, `-` and `_`; none if either has no names."""
    if not (has_names(old) and has_names(new)):
        return []
    places = {plain_words(name): place for place, name in enumerate(old)}
    return [(places[plain_words(name)], place) for place, name in enumerate(new) if plain_words(name) in places]


def _take_classes(
    here: Tensor, there: Tensor | None, axes: Sequence[int], pairs: Sequence[tuple[int, int]], old_classes: int
) -> None:
    """Copy the entries of the classes in `pairs` along `axes`, if the tensors are else of one shape."""
    expected = tuple(old_classes if axis in axes else length for axis, length in enumerate(here.shape))
    if there is None or tuple(there.shape) != expected:
        return
    for_old, for_new = (
        torch.meshgrid(
            *(torch.tensor(places) if axis in axes else torch.arange(length) for axis, length in enumerate(here.shape)),
            indexing="ij",
        )
        for places in zip(*pairs, strict=True)
    )
    here[for_new] = there[for_old].to(here.device)


def _of_classifier(old: RetrainConfig, new: RetrainConfig, pairs: Sequence[tuple[int, int]], same: bool) -> str:
    """What becomes of the classifier, in words."""
    if same:
        return "the classifier is taken too"
    before, after = (number_of_outputs(of.data.num_classes, of.retrain.single_output) for of in (old, new))
    if not pairs:
        counts = f"{counted(after, 'class')} in place of {before}{' others' * (before == after)}"
        if old.retrain.single_output != new.retrain.single_output:
            counts = f"{counted(after, 'output')} in place of {before}"
        return f"the classifier starts anew: {counts}"
    known = {place for _, place in pairs}
    rest = [name for place, name in enumerate(new.data.classes) if place not in known]
    said = f"the classifier takes {len(pairs)} of {counted(after, 'class')} by name"
    if not rest:
        return said
    return f"{said} and starts anew for {first_of(rest, 8)}"


def _another_network(own: OwnWeights, task: RetrainTask, taken: int, needed: int) -> CheckpointError:
    there, here = own.config.architecture, task.blueprint
    old, new = ({key: value for key, value in of.to_dict().items() if key not in NOT_BUILT} for of in (there, here))
    difference = f"{there.name}, not {here.name}"
    if there.name == here.name:
        difference = (first_difference(old, new) or "other settings")[:100]
    return CheckpointError(
        f"{own.file} holds weights of another network ({difference}): {taken} of {needed} tensors fit; train the"
        f" network of {own.run}, or leave the weights out",
        code="network-differs",
    )
