"""`autoseg.search`: search a space on a data set."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from autoseg.analysis.evidence import verdict
from autoseg.config.data import DataConfig
from autoseg.engine.config import SearchConfig
from autoseg.engine.run_directory import Run
from autoseg.engine.search import SearchTask
from autoseg.engine.trainer import Trainer
from autoseg.planning.device import memory_errors
from autoseg.planning.fit import smaller_settings
from autoseg.setup.settings import Source, check_device, search_config, search_sources
from autoseg.setup.start import begin, fixed_settings, open_run, open_splits, settle
from autoseg.space.schema import SearchSpace


def search(
    space: Source | SearchSpace | None = None,
    data: Source | DataConfig | None = None,
    out: str | Path = "runs/search",
    *,
    config: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    quick: bool = False,
    resume: bool = False,
    show_progress: bool = True,
) -> Run:
    """Search a space on a data set: weights on one half of the training images, architecture on the other.

    If the default crop, batch size or epochs do not fit the images or the memory, autoseg picks values that do, prints
    them and saves them in config.yaml.

    Args:
        space: A search space: name, YAML file, settings or `SearchSpace`.
        data: A folder of images and masks, a data YAML, "generated", or the data settings.
        out: The run directory to make.
        config: A YAML file of settings, such as another run's config.yaml.
        overrides: Nested settings, such as `{"search": {"epochs": 10}, "seed": 1, "device": "cpu"}`.
        quick: Use small images and few steps for a first look in minutes.
        resume: Continue the run in `out` with its own settings, or start it if there is none. `overrides` may give it
            settings that change no result (`engine.config.FREE`) and another number of epochs; the schedule is then
            that of the new number from the next step on.
        show_progress: Print the settings that were picked, and show progress.

    Returns:
        The run; its `path` is the directory, `metrics()` the logged figures. `decode` takes it.

    Raises:
        AutosegError: an argument or setting is wrong, or the device runs out of memory.
        Interrupted: Ctrl-C or TERM stopped the run, after a clean save.
    """
    given = any(value not in (None, {}) for value in (space, data, config, fixed_settings(overrides)))
    said = list[str]()
    say = said.append if show_progress else None
    run = open_run(out, "search", resume, given)
    if run is not None and not given:
        settings, reasons, train = run.config(SearchConfig, overrides), list[str](), None
    else:
        sources = search_sources(space, data, config or (run.config_path if run else None), overrides)
        settings, reasons, train = settle(search_config(sources, say=say), sources, quick, run)
    device = check_device(settings)
    task = SearchTask(settings, *open_splits(settings, train), device)
    run = begin(run, out, task, [*said, *reasons], show_progress)
    smaller = f"start anew with {smaller_settings(task.config)}; {run.path} holds what was done"
    with closing(run), memory_errors(device, smaller):
        Trainer(task, run, show_progress).run()
    if show_progress and (evidence := task.gradient_record.latest):
        print(f"evidence: {verdict(evidence, task.supernet.arch.snapshot())}")
    return run
