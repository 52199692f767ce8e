"""`autoseg.search`: search a space on a data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoseg.config.data import DataConfig
from autoseg.engine.config import SearchConfig
from autoseg.engine.run_directory import Run
from autoseg.engine.search import SearchTask
from autoseg.engine.trainer import Trainer
from autoseg.planning.device import memory_errors
from autoseg.planning.fit import smaller_settings
from autoseg.setup.preflight import check_device
from autoseg.setup.settings import Source, search_config, search_sources
from autoseg.setup.start import Settled, begin, open_run, open_splits, settle, settle_resumed
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
    """Search a space on a data set and leave a run directory.

    `overrides`: nested settings, such as `{"search": {"epochs": 10}, "seed": 1}`. What is set nowhere and does not fit
    the data is proposed (`setup.from_data`), and printed; `quick`: for a first look in minutes. `resume`: go on with
    the run in `out`, with its own settings, or start it where there is none.
    Raises: AutosegError: something that was given is wrong. Interrupted: stopped, after a clean save.
    """
    given = any(value not in (None, {}) for value in (space, data, config, overrides))
    run = open_run(out, "search", resume, given)
    if run is None:
        sources = search_sources(space, data, config, overrides)
        settled = settle(search_config(sources), sources, quick)
    else:
        settled = Settled(run.config(SearchConfig), [])
        if given:
            sources = search_sources(space, data, config or run.config_path, overrides)
            settled = settle_resumed(settled.settings, search_config(sources), sources, quick, out)
    settings = settled.settings
    device = check_device(settings)
    train, val = open_splits(settled)
    task = SearchTask(settings, train, val, device)
    run = begin(run, out, task, settled.reasons, show_progress)
    with memory_errors(device, f"start anew with {smaller_settings(settings)}; {run.path} holds what was done"):
        Trainer(task, run, show_progress).run()
    return run
