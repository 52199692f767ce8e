"""`autoseg.retrain`: train a network, from scratch or from weights."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from autoseg.config.data import DataConfig
from autoseg.engine.checkpoint import has_checkpoint
from autoseg.engine.config import RetrainConfig
from autoseg.engine.retrain import RetrainTask
from autoseg.engine.run_directory import Run
from autoseg.engine.trainer import Trainer
from autoseg.planning.device import memory_errors
from autoseg.planning.fit import smaller_settings
from autoseg.setup.first_weights import load_first_weights
from autoseg.setup.settings import Source, check_device, retrain_config, retrain_sources
from autoseg.setup.start import begin, fixed_settings, open_run, open_splits, settle
from autoseg.zoo.match_cost import CostTarget
from autoseg.zoo.schema import Architecture


def retrain(
    architecture: Source | Architecture | None = None,
    data: Source | DataConfig | None = None,
    out: str | Path = "runs/retrain",
    *,
    config: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    match: CostTarget | None = None,
    quick: bool = False,
    resume: bool = False,
    show_progress: bool = True,
) -> Run:
    """Train a network from scratch: that of a genotype, or a network of the literature.

    As in `search`, settings that do not fit the images or the memory are replaced, printed and saved.

    Args:
        architecture: A genotype or a network of the literature: name, YAML file, run directory, settings, `Genotype` or
            `FixedNetwork`. Default: that of the run in `overrides["weights"]` or `overrides["warm_start"]`, if given.
        data: A folder of images and masks, a data YAML, "generated", or the data settings.
        out: The run directory to make.
        config: A YAML file of settings, such as another run's config.yaml.
        overrides: Nested settings, such as `{"retrain": {"epochs": 10}, "seed": 1, "device": "cpu"}`. With `"weights"`,
            training starts from the weights of an own run, given by its directory, or of an ImageNet classifier's file;
            with `"warm_start"`, from those of a search's supernet.
        match: Scale the network to this cost (`autoseg.zoo.match_cost.cost_target`): the width of a network of the
            literature, or the channels of all parts of a genotype. Train it with the schedule of the network that has
            the cost.
        quick: Use small images and few steps for a first look in minutes.
        resume: Continue the run in `out` with its own settings, or start it if there is none. `overrides` may give it
            settings that change no result (`engine.config.FREE`) and another number of epochs; the schedule is then
            that of the new number from the next step on.
        show_progress: Print the settings that were picked, and show progress.

    Returns:
        The run; its `path` is the directory, `metrics()` the logged figures.

    Raises:
        AutosegError: an argument or setting is wrong, or the device runs out of memory.
        Interrupted: Ctrl-C or TERM stopped the run, after a clean save.
    """
    given = any(value not in (None, {}) for value in (architecture, data, config, fixed_settings(overrides), match))
    said = list[str]()
    say = said.append if show_progress else None
    run = open_run(out, "retrain", resume, given)
    if run is not None and not given:
        settings, reasons, train = run.config(RetrainConfig, overrides), list[str](), None
    else:
        sources = retrain_sources(architecture, data, config or (run.config_path if run else None), overrides, match)
        settings, reasons, train = settle(retrain_config(sources, match, say), sources, quick, run)
    device = check_device(settings)
    task = RetrainTask(settings, *open_splits(settings, train), device)
    begins = run is None or not has_checkpoint(run.checkpoints)
    if begins:
        reasons += load_first_weights(task)
    run = begin(run, out, task, [*said, *reasons], show_progress)
    smaller = f"start anew with {smaller_settings(task.config)}; {run.path} holds what was done"
    with closing(run), memory_errors(device, smaller):
        trainer = Trainer(task, run, show_progress)
        if begins and (settings.weights or settings.warm_start):
            trainer.save_start()
        trainer.run()
    return run
