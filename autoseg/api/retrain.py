"""`autoseg.retrain`: train a network from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoseg.api.run import Given, carry_out
from autoseg.config.data import DataConfig
from autoseg.config.training import RetrainConfig
from autoseg.engine.retrain import RetrainTask
from autoseg.engine.run_directory import Run
from autoseg.setup.settings import Source, retrain_settings
from autoseg.zoo.architecture import Architecture
from autoseg.zoo.match_cost import CostTarget


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
    """Train a network from scratch and leave a run directory; the other arguments are those of `search`.

    `architecture`: a genotype, or a network of the literature (`FixedNetwork`), by name, file, run directory or as
    settings. `match`: choose the width of the latter for this cost (`cost_target`), and train it as the other one is.
    """
    given = Given(architecture, data, config, overrides, match)

    def resolve(own: Path | None) -> RetrainConfig:
        return retrain_settings(architecture, data, config or own, overrides, match)

    return carry_out(RetrainConfig, RetrainTask, out, resolve, given, resume, quick, show_progress)
