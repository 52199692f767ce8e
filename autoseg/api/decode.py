"""Decoding a search. No torch here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoseg._version import __version__
from autoseg.analysis.evidence import Evidence, evidence_after, to_source, verdict
from autoseg.analysis.gradient_file import NAME, GradientFile
from autoseg.engine.config import SearchConfig
from autoseg.engine.run_directory import Run
from autoseg.errors import ConfigError, RunError, printable
from autoseg.files import user_path
from autoseg.genotype.decode import decode as decode_probs
from autoseg.genotype.schema import Genotype
from autoseg.space.schema import SearchSpace, load_space
from autoseg.space.snapshot import ArchProbs
from autoseg.space.tables import read_tables

Source = str | Path | Mapping[str, Any]

_log = logging.getLogger(__name__)


def decode(
    run: str | Path | Run,
    *,
    space: Source | SearchSpace | None = None,
    epoch: int | None = None,
    path_prior: str | None = None,
    threshold: float | None = None,
    budget: float | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> Genotype:
    """Decode the architecture of a search into a genotype and write it to a file.

    Needs no torch, but in a wide space with `macro.cost`, to which the network of a run is scaled.

    Args:
        run: The run directory of a search, or an .npz file of tables of any program (`autoseg.space.tables`).
        space: For tables: their search space, by name, YAML file, settings or `SearchSpace`.
        epoch: Decode the architecture after this epoch, counted from 0. Default: the last epoch.
        path_prior: For spaces with a single path: `uniform` or `paper`, how arrows are weighed. Default: the space's.
        threshold: For spaces with several paths: arrows stay from this probability on, 0 to 1. Default: the space's.
        budget: For spaces with several paths: most multiply-adds, in billions for each megapixel of input. Default: the
            space's.
        out: The file to write. Default: genotype.yaml in the run; for tables, their name with `.yaml`.
        overwrite: Overwrite another genotype in `out`.

    Returns:
        The genotype.

    Raises:
        ConfigError: tables without a space, or a run with one.
        CheckpointError: tables that cannot be read, or are not those of the space.
        RunError: no search, no such epoch, or another genotype in `out`.
        GenotypeError, SearchSpaceError: the space does not have this way of decoding, or no network is within `budget`.
        ConfigError: no width of the network has the space's `macro.cost`.
    """
    path, classes = run.path if isinstance(run, Run) else user_path(run, RunError), None
    if path.is_file():
        probs, retrain = _tables(path, space, epoch)
        source: dict[str, Any] = {"tables": path.as_posix()}
    elif space is not None:
        raise ConfigError(
            f"{path} is no file of tables, which --space is for; a run has its own space, leave --space out"
            if path.exists()
            else f"{path} does not exist; give a file of tables",
            code="options-conflict" if path.exists() else "file-missing",
        )
    else:
        probs, config, at = arch_of(run if isinstance(run, Run) else Run.open(run), epoch)
        classes = config.data.num_classes
        source, retrain = {"run": path.as_posix(), "epoch": at, "seed": config.seed}, config.retrain
        if evidence := evidence_of(path, probs, config, at):
            source["evidence"] = to_source(evidence, verdict(evidence, probs, path_prior))
    genotype = decode_probs(
        probs,
        path_prior=path_prior,
        threshold=threshold,
        budget=budget,
        name=printable(f"{path.resolve().stem if path.is_file() else path.resolve().name}_{probs.space.name}"),
        source={"autoseg": __version__, **source},
        retrain=retrain,
    )
    genotype = _at_cost(genotype, probs.space, classes)
    target = user_path(out, RunError) if out is not None else default_target(path)
    if target.is_dir() or not target.parent.is_dir():
        raise RunError(
            f"{target} {'is a folder' if target.is_dir() else 'lies in no folder that exists'}; give --out a file to"
            " write, in a folder that is there",
            code="file-is-folder" if target.is_dir() else "folder-missing",
        )
    if target.exists() and not overwrite and Genotype.load(target) != genotype:
        raise RunError(
            f"{target} already holds another genotype; give another --out, or --overwrite", code="genotype-exists"
        )
    genotype.save(target)
    return genotype


def _at_cost(genotype: Genotype, space: SearchSpace, classes: int | None) -> Genotype:
    """The genotype with the cost that its space asks for, if any; `source.cost` says what was reached."""
    if space.macro is None or space.macro.cost is None:
        return genotype
    if classes is None:
        _log.warning(f"tables have no classes, so the network is not scaled to macro.cost of space '{space.name}'")
        return genotype
    from autoseg.zoo.match_cost import billions_a_megapixel, megapixel_target, scale_to_cost  # loads torch

    scaled = scale_to_cost(genotype, megapixel_target(space.macro.cost), classes)
    reached = {"cost": round(billions_a_megapixel(scaled, classes), 4)}
    return scaled.model_copy(update={"source": {**scaled.source, **reached}})


def default_target(path: Path) -> Path:
    """The file to write for a run directory, or for a file of tables."""
    return path.with_suffix(".yaml") if path.is_file() else path / "genotype.yaml"


def _tables(path: Path, space: Source | SearchSpace | None, epoch: int | None) -> tuple[ArchProbs, Mapping[str, Any]]:
    """The tables in a file, and the schedule that their space recommends for retraining."""
    if space is None:
        raise ConfigError(
            f"{path} is a file of tables, which need their space; name it, such as --space auto_deeplab",
            code="space-not-given",
        )
    if epoch is not None:
        raise ConfigError(f"{path} is a file of tables, which has no epochs; leave --epoch out", code="epoch-missing")
    if isinstance(space, SearchSpace | Mapping):
        return read_tables(path, space if isinstance(space, SearchSpace) else SearchSpace.parse(space)), {}
    loaded, schedules = load_space(space)
    return read_tables(path, loaded), schedules.get("retrain", {})


def arch_of(run: Run, epoch: int | None = None) -> tuple[ArchProbs, SearchConfig, int]:
    """The probabilities after `epoch` (default: the last), the search's settings, and the epoch. Raises: RunError."""
    if run.kind != "search":
        raise RunError(f"{run.path} is a retraining; give the directory of a search", code="run-kind-differs")
    config = run.config(SearchConfig)
    files = {path.stem.removeprefix("epoch_"): path for path in (run.path / "arch").glob("epoch_*.npz")}
    snapshots = {int(epoch): path for epoch, path in files.items() if epoch.isdecimal()}
    if not snapshots:
        raise RunError(
            f"{run.path} diverged at {run.diverged} before its first epoch ended; search again with a lower"
            " search.optimizer.lr"
            if run.diverged
            else f"{run.path} has not finished an epoch yet; wait, or go on with it by `autoseg search --resume`",
            code="no-epoch-yet",
        )
    if where := run.diverged:
        _log.warning(
            f"{run.path} diverged at {where}, so its architecture is not a result; search again with a lower"
            " search.optimizer.lr"
        )
    at = max(snapshots) if epoch is None else epoch
    if at not in snapshots:
        raise RunError(f"{run.path} has no epoch {at}; it has 0 to {max(snapshots)}", code="epoch-missing")
    return ArchProbs.load(snapshots[at], config.space), config, at


def evidence_of(run: Path, probs: ArchProbs, config: SearchConfig, epoch: int) -> Evidence | None:
    """The evidence for a search's architecture after an epoch. None if there is none, and a line says why."""
    path, schedule = run / "arch" / NAME, config.search
    if epoch < schedule.arch_start_epoch:
        _log.warning(f"the architecture of {run} was not trained before epoch {schedule.arch_start_epoch}")
    elif not path.exists():
        _log.warning(f"{run} has recorded no evidence on its architecture ({path.name} is not there)")
    else:
        try:
            file = GradientFile(path, config.space, schedule.arch_optimizer, schedule.arch_start_epoch)
            return evidence_after(epoch, probs, file)
        except RunError as reason:
            _log.warning(str(reason))
    return None
