"""`autoseg.retrain`: train a network from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoseg.config.data import DataConfig
from autoseg.engine.config import RetrainConfig
from autoseg.engine.retrain import RetrainTask
from autoseg.engine.run_directory import Run
from autoseg.engine.trainer import Trainer
from autoseg.planning.device import memory_errors
from autoseg.planning.fit import smaller_settings
from autoseg.setup.preflight import check_device
from autoseg.setup.settings import Source, retrain_config, retrain_sources
from autoseg.setup.start import Settled, begin, open_run, open_splits, settle, settle_resumed
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
    given = any(value not in (None, {}) for value in (architecture, data, config, overrides, match))
    run = open_run(out, "retrain", resume, given)
    if run is None:
        sources = retrain_sources(architecture, data, config, overrides, match)
        settled = settle(retrain_config(sources, match), sources, quick)
    else:
        settled = Settled(run.config(RetrainConfig), [])
        if given:
            sources = retrain_sources(architecture, data, config or run.config_path, overrides, match)
            settled = settle_resumed(settled.settings, retrain_config(sources, match), sources, quick, out)
    settings = settled.settings
    device = check_device(settings)
    train, val = open_splits(settled)
    task = RetrainTask(settings, train, val, device)
    if run is None or not (run.checkpoints / "last.pt").is_file():
        task.load_weights()
    run = begin(run, out, task, settled.reasons, show_progress)
    with memory_errors(device, f"start anew with {smaller_settings(settings)}; {run.path} holds what was done"):
        Trainer(task, run, show_progress).run()
    return run
