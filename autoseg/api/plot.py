"""Drawing runs, genotypes, spaces and the networks of the literature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoseg.analysis.evidence import to_source, undecided_in
from autoseg.api.decode import arch_of, evidence_of
from autoseg.engine.config import RetrainConfig
from autoseg.engine.run_directory import Run
from autoseg.errors import ConfigError
from autoseg.files import check_room, user_path
from autoseg.genotype.decode import decode
from autoseg.genotype.schema import Genotype
from autoseg.setup.names import Found, look_up, with_changes
from autoseg.space.schema import SearchSpace
from autoseg.space.snapshot import ArchProbs
from autoseg.viz.cell import draw_cell
from autoseg.viz.diagram import draw_network
from autoseg.viz.graph import cells
from autoseg.viz.heat_maps import draw_alpha, draw_gamma, draw_skips, draw_stages
from autoseg.viz.history import draw_history
from autoseg.viz.style import FORMATS, save
from autoseg.viz.trellis import draw_path, draw_trellis


def plot(
    source: str | Path,
    out: str | Path | None = None,
    formats: Sequence[str] = ("svg", "png", "pdf"),
    *,
    overrides: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Draw a search, a retraining, a genotype, a space or a network of the literature.

    A search becomes its trellis with beta and the decoded path, alpha, gamma, skips, blocks, depths and widths if they
    compete, the decoded cell, and the curves. A retraining or genotype becomes path and cell, a retraining also its
    curves. A space becomes its trellis, a network of the literature a diagram of its stages. Only the last needs torch.

    Args:
        source: A run directory, or a name or file of a genotype, space or network.
        out: The folder for the figures. Default: figures/ in the run, or figures/NAME.
        formats: Some of `svg`, `png` and `pdf`.
        overrides: Options of a network of the literature, such as `{"network": {"width": 0.5}}`.

    Returns:
        The paths of the figures.

    Raises:
        AutosegError: unknown source or format.
    """
    if not formats or any(name not in FORMATS for name in formats):
        raise ConfigError(
            f"format must be some of {', '.join(FORMATS)}, not {', '.join(formats) or 'none'}",
            code="unknown-format",
        )
    place = user_path(source)
    folder = None if out is None else user_path(out)
    check_room(folder or (place if place.is_dir() else Path()))
    figures, name = _figures(source, overrides or {})
    folder = folder or (place / "figures" if place.is_dir() else Path("figures") / name)
    return [path for stem, figure in figures.items() for path in save(figure, folder / stem, formats)]


def _figures(source: str | Path, overrides: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The figures of a source by file name, and the source's name."""
    if not user_path(source).is_dir():
        found = [with_changes(each, overrides) for each in look_up(source)]
        return {stem: figure for each in found for stem, figure in _figures_of(each).items()}, found[0].name
    run = Run.open(source)
    if run.kind == "search":
        probs, config, epoch = arch_of(run)
        genotype = Genotype.load(run.path) if (run.path / "genotype.yaml").is_file() else None
        shown = genotype
        if shown is None or shown.source.get("epoch") != epoch:
            evidence = evidence_of(run.path, probs, config, epoch)
            shown = decode(probs, source={"evidence": to_source(evidence, "")} if evidence else {})
        figures = _search_figures(probs, epoch, shown) | (_cell_figures(genotype) if genotype else {})
    else:
        figures = _figures_of(run.config(RetrainConfig).architecture)
    if metrics := run.metrics():
        figures["history"] = draw_history(metrics)
    return figures, run.path.name


def _figures_of(found: Found) -> dict[str, Any]:
    if isinstance(found, SearchSpace):
        return {"trellis": draw_trellis(found, title=found.name)}
    if isinstance(found, Genotype):
        return {"path": draw_path(found), **_cell_figures(found)}
    from autoseg.zoo.build import diagram

    return {"network": draw_network(diagram(found), found.name)}


def _search_figures(probs: ArchProbs, epoch: int, genotype: Genotype) -> dict[str, Any]:
    """The probabilities of a search by file name, with the genotype of this epoch and its ties."""
    ties = undecided_in(genotype)
    title = f"{probs.space.name} after epoch {epoch + 1}"
    figures = {"trellis": draw_trellis(probs.space, probs, genotype, title)}
    if probs.alpha_logits is not None:
        figures["alpha"] = draw_alpha(probs, ties.get("alpha", ()))
    if probs.gamma_probs is not None:
        figures["gamma"] = draw_gamma(probs, ties.get("gamma", ()))
    if probs.skip_probs is not None:
        figures["skips"] = draw_skips(probs, ties.get("skip", ()))
    for table in probs.space.macro_tables:
        figures[f"{table}s"] = draw_stages(probs, table, ties.get(table, ()))
    return figures


def _cell_figures(genotype: Genotype) -> dict[str, Any]:
    """The figures of `cell` and, if the decoder has its own cell, `up_cell`."""
    return {name: draw_cell(genotype, name) for name in cells(genotype)}
