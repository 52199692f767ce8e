"""`autoseg.measure_gap`: what is lost between a search and the network that is decoded from it."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoseg import limits
from autoseg.config.base import parse
from autoseg.data.dataset import open_dataset
from autoseg.engine.accumulation import steps_in_epoch
from autoseg.engine.checkpoint import has_checkpoint, load_last
from autoseg.engine.config import RetrainConfig, SearchConfig
from autoseg.engine.environment import pick_device, prepare
from autoseg.engine.evaluate import evaluate_network
from autoseg.engine.gap import Rung, difference, load_supernet, shortened, take_statistics, train_all
from autoseg.engine.log import Progress
from autoseg.engine.predict import load_network
from autoseg.engine.retrain import RetrainTask
from autoseg.engine.run_directory import Run
from autoseg.engine.training import make_loader
from autoseg.errors import ConfigError, GenotypeError, RunError
from autoseg.files import check_room, user_path, write_text
from autoseg.genotype.schema import Genotype
from autoseg.network import Network, build_searched, for_inference
from autoseg.planning.device import memory_errors
from autoseg.setup.first_weights import NOT_BUILT
from autoseg.setup.settings import Sources
from autoseg.setup.start import settle
from autoseg.supernet import choose_kernels
from autoseg.supernet.inherit import Inherited, check_inheritable, inherit, with_supernet_head

GAP_FILE = "gap.json"
STATISTICS_IMAGES = 256
"""Default of the training images on which BatchNorm's statistics are taken anew."""


def measure_gap(
    run: str | Path,
    genotype: str | Path | Mapping[str, Any] | Genotype | None = None,
    *,
    retrained: str | Path | None = None,
    steps: int | None = None,
    statistics_images: int = STATISTICS_IMAGES,
    device: str | None = None,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Measure the networks between a search and a retraining on the search's validation images.

    They are the relaxed network; the supernet reduced to the genotype, with BatchNorm's statistics taken anew; the
    decoded network with the supernet's weights and its head (`autoseg.supernet.inherit`), with the supernet's
    statistics and with new ones; the decoded network, with its own decoder, after a short tuning of these weights; and
    a retrained one, if given. Each has as many filters as the supernet, but the retrained one its own.

    Args:
        run: The run directory of a search.
        genotype: What was decoded: name, file, settings or `Genotype`. Default: the run's genotype.yaml.
        retrained: The run directory of a finished retraining of this genotype.
        steps: Steps of the tuning, on all training images, by the genotype's recommended schedule, shortened. Default:
            a twentieth of its steps. 0: no tuning.
        statistics_images: Training images on which BatchNorm's statistics are taken anew, in whole batches; at most one
            epoch's.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`. Default: the search's.
        show_progress: Show a progress bar for each part.

    Returns:
        What gap.json in the run then holds: `networks` with their mIoU (a share of 1) and 95% interval over the images;
        `differences` between successive networks and of each to the first, paired by image; the numbers of images; and
        what of the decoded network differs from the reduced supernet.

    Raises:
        AutosegError: an argument is wrong, or the run or its data cannot be used.
    """
    for name, number, least, most in (
        ("steps", 0 if steps is None else steps, 0, limits.STEPS),
        ("statistics_images", statistics_images, 2, limits.IMAGES),
    ):
        if not least <= number <= most:
            raise ConfigError(f"{name} is {number}; it must be {least} to {most:,}", code="setting-invalid")
    searched = Run.open(run)
    if searched.kind != "search":
        raise RunError(f"{searched.path} is a retraining; give the directory of a search", code="run-kind-differs")
    config, decoded = searched.config(SearchConfig), _genotype(searched, genotype)
    network = decoded.network.model_copy(update={"filter_multiplier": config.space.network.filter_multiplier})
    narrow = decoded.model_copy(update={"network": network})
    check_inheritable(narrow, config.space)
    last = None if retrained is None else _retrained(user_path(retrained, RunError), decoded, config)
    target = pick_device(device or config.device)
    prepare(target)
    check_room(searched.path / GAP_FILE)
    with memory_errors(target, "measure on another device, or without tuning (steps 0)"):
        meter = _Meter(searched, config, target, show_progress)
        meter.relaxed_and_reduced(narrow, statistics_images)
        meter.inherited(narrow, statistics_images)
        if steps != 0:
            meter.tuned(narrow, steps)
        if last is not None:
            meter.retrained(*last)
    result = meter.result(decoded, narrow)
    write_text(searched.path / GAP_FILE, json.dumps(result, indent=2) + "\n")
    return result


def _genotype(run: Run, genotype: str | Path | Mapping[str, Any] | Genotype | None) -> Genotype:
    if isinstance(genotype, Genotype):
        return genotype
    return Genotype.parse(genotype) if isinstance(genotype, Mapping) else Genotype.load(genotype or run.path)


def _retrained(path: Path, genotype: Genotype, search: SearchConfig) -> tuple[nn.Module, RetrainConfig, Path]:
    """The trained network of a run, and its settings. Raises: AutosegError: unfinished, of another genotype or data."""
    network, config, _ = load_network(path)
    run, there = Run.open(path), config.architecture
    done = config.retrain.epochs
    if has_checkpoint(run.checkpoints):  # else best.pt alone was kept
        done = load_last(run.checkpoints, "retrain", there.to_dict(), config.retrain.keep_checkpoints)[1]["epoch"]
    if done < config.retrain.epochs:
        raise RunError(
            f"{path} has done {done} of {config.retrain.epochs} epochs; go on with it by `autoseg retrain --resume`,"
            " or leave it out",
            code="run-unfinished",
        )
    if not isinstance(there, Genotype) or _searched_part(there) != _searched_part(genotype):
        raise GenotypeError(
            f"{path} is a retraining of {there.name}, another network than {genotype.name}; give one of this genotype",
            code="network-differs",
        )
    if (config.data.classes, config.data.channels) != (search.data.classes, search.data.channels):
        raise ConfigError(
            f"{path} was trained on other classes or channels than the search; give a retraining on the same data",
            code="classes-differ",
        )
    return network, config, path


def _searched_part(genotype: Genotype) -> dict[str, Any]:
    """What builds the network, but for its width."""
    data = {key: value for key, value in genotype.to_dict().items() if key not in (*NOT_BUILT, "batch_norm")}
    return {**data, "network": {**data["network"], "filter_multiplier": None}}


def _recommended(genotype: Genotype, config: SearchConfig, device: torch.device) -> tuple[RetrainConfig, list[str]]:
    """The settings with which `retrain` would train the genotype on the search's data, and lines on what was picked."""
    schedule = {**genotype.retrain, "single_output": config.search.single_output}
    plain = {"genotype": genotype.to_dict(), "data": config.data.to_dict(), "seed": config.seed, "device": str(device)}
    wanted = parse(RetrainConfig, {**plain, "retrain": schedule})
    settings, notes, _ = settle(wanted, Sources({"retrain": genotype.retrain}, {}, {}, {}), quick=False, run=None)
    return settings, notes


def _said(inherited: Inherited) -> dict[str, Any]:
    """What a network has from the supernet, as plain data for JSON."""
    taken, anew = len(inherited.taken), len(inherited.anew)
    return {"tensors_taken": taken, "tensors_anew": anew, "differs": list(inherited.differs)}


class _Meter:
    """The networks of one search, measured one after the other."""

    def __init__(self, run: Run, config: SearchConfig, device: torch.device, show_progress: bool) -> None:
        self.run, self.config, self.device, self.show_progress = run, config, device, show_progress
        self.train, self.val = open_dataset(config.data, "train"), open_dataset(config.data, "val")
        self.rungs: list[Rung] = []
        self.facts: dict[str, Any] = {}
        self.supernet, self.saved = load_supernet(run, config)

    def relaxed_and_reduced(self, genotype: Genotype, images: int) -> None:
        """The supernet as it is, and then reduced to the genotype with new statistics. Its weights are read again."""
        supernet = self.supernet.to(self.device)
        supernet.use_kernels(choose_kernels(self.config.search.kernels, self.device, self.config.space))
        self._add("relaxed", "the supernet as it is", supernet)
        supernet.choose(genotype)
        self._take_statistics(supernet, images)
        self._add("reduced", "reduced to the genotype, statistics anew", supernet)
        self.supernet, _ = load_supernet(self.run, self.config)

    def inherited(self, genotype: Genotype, images: int) -> None:
        """The decoded network with the supernet's weights and head, with its statistics and with new ones."""
        torch.manual_seed(self.config.seed)  # for what starts anew
        classes, channels = self.config.data.num_classes, self.config.data.channels
        single_output = self.config.search.single_output
        network = build_searched(genotype, classes, in_channels=channels, single_output=single_output)
        with_supernet_head(network, self.config.space)
        self.facts["inherited"] = _said(inherit(self.supernet, network))
        network.to(self.device)
        self._add("inherited", "decoded, inherited weights and head", network)
        self._take_statistics(network, images)
        self._add("statistics", "the same, statistics anew", network)

    def tuned(self, genotype: Genotype, steps: int | None) -> None:
        """The decoded network after a short training that starts from the inherited weights."""
        settings, notes = _recommended(genotype, self.config, self.device)
        whole = settings.retrain
        per_epoch = steps_in_epoch(max(1, len(self.train) // whole.batch_size), whole, "retrain")
        schedule = shortened(whole, per_epoch, steps)
        task = RetrainTask(settings.model_copy(update={"retrain": schedule}), self.train, self.val, self.device)
        assert isinstance(task.network, Network)
        taken = inherit(self.supernet, task.network)
        if task.average is not None:
            task.average.module.load_state_dict(task.network.state_dict())
        with Progress("tune", task.schedule.epochs * task.steps_per_epoch, enabled=self.show_progress) as progress:
            done = train_all(task, lambda number, _: progress.update(number))
        self.facts["tuning"] = {
            "steps": done, "recommended_steps": whole.epochs * per_epoch, "lr": schedule.optimizer.lr,
            "batch_size": schedule.batch_size, "crop": list(schedule.crop), "notes": notes, **_said(taken),
        }  # fmt: skip
        self._add("tuned", f"decoded, {done} steps of tuning", for_inference(task.trained, self.device))

    def retrained(self, network: nn.Module, config: RetrainConfig, path: Path) -> None:
        """A network that was trained at length."""
        self.facts["retrained"] = {"run": path.as_posix(), "warm_start": config.warm_start is not None}
        self._add("retrained", "retrained", for_inference(network, self.device), config)

    def _take_statistics(self, network: nn.Module, images: int) -> None:
        loader = make_loader(self.config, self.train, list(range(len(self.train))), "statistics", self.device)
        number = min(len(loader), math.ceil(images / self.config.search.batch_size))
        batches = itertools.islice(loader.epoch(0), number)
        self.facts["statistics_images"] = take_statistics(network, (images.to(self.device) for images, _ in batches))

    def _add(self, name: str, what: str, network: nn.Module, config: RetrainConfig | None = None) -> None:
        """Measure a network. config: of the retraining that it is from, whose mean and deviation it needs."""
        data = self.config.data
        if config is not None:
            data = data.model_copy(update={"mean": config.data.mean, "std": config.data.std})
        with Progress(name, len(self.val), enabled=self.show_progress) as progress:
            size = self.config.search.batch_size
            scores, _ = evaluate_network(
                network, self.val, data, self.device, batch_size=size, progress=progress.update
            )
        self.rungs.append(Rung(name, what, scores))

    def result(self, decoded: Genotype, measured: Genotype) -> dict[str, Any]:
        """Plain data for JSON."""
        first, pairs = self.rungs[0], list(itertools.pairwise(self.rungs))
        pairs += [(first, rung) for rung in self.rungs[2:]]
        return {
            "run": self.run.path.as_posix(),
            "checkpoint": self.saved["file"],
            "epochs_of_weights": self.saved["epoch"],
            "genotype": decoded.name,
            "epoch_of_genotype": decoded.source.get("epoch"),
            "filter_multiplier": measured.network.filter_multiplier,
            "filter_multiplier_of_genotype": decoded.network.filter_multiplier,
            "images": len(self.val),
            **self.facts,
            "networks": [rung.to_dict() for rung in self.rungs],
            "differences": [difference(*pair) for pair in pairs],
        }
