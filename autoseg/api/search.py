"""`autoseg.search`: search a space on a data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoseg.api.run import Given, carry_out
from autoseg.config.data import DataConfig
from autoseg.config.training import SearchConfig
from autoseg.engine.run_directory import Run
from autoseg.engine.search import SearchTask
from autoseg.setup.settings import Source, search_settings
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
    given = Given(space, data, config, overrides)

    def resolve(own: Path | None) -> SearchConfig:
        return search_settings(space, data, config or own, overrides)

    return carry_out(SearchConfig, SearchTask, out, resolve, given, resume, quick, show_progress)
