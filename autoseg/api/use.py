"""Measuring, using, exporting and drawing what was found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoseg.api.decoding import arch_of
from autoseg.config import RetrainConfig
from autoseg.engine.run import Run
from autoseg.errors import AutosegError, ConfigError, ExportError, GenotypeError, RunError
from autoseg.files import write_text
from autoseg.genotype.decode import decode
from autoseg.genotype.schema import Genotype
from autoseg.settings import parse
from autoseg.space.arch_probs import ArchProbs
from autoseg.space.schema import SearchSpace, space_names


def evaluate(
    run: str | Path,
    data: str | Path | Mapping[str, Any] | None = None,
    *,
    split: str = "val",
    multi_scale: bool = False,
    flip: bool = False,
    checkpoint: str = "best",
    device: str = "auto",
    precision: str = "float32",
    overrides: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Measure a retrained network on a split of its own data, or of other data with the same classes.

    `precision`: float32 or bf16, which is faster where the device has it and rounds logits by a few hundredths.
    Returns mIoU, IoU by class, pixel and mean accuracy and the confusion matrix, with what was measured on; also
    written to `out`, a new file; left out, to RUN/evaluation_SPLIT.json, anew each time.
    Raises: AutosegError: something that was given is wrong.
    """
    from autoseg.api.settings import data_for_run
    from autoseg.data.dataset import open_dataset
    from autoseg.engine.environment import pick_device
    from autoseg.engine.evaluate import SCALES, evaluate_network
    from autoseg.engine.log import Progress
    from autoseg.engine.predict import load_network
    from autoseg.network import for_inference

    target = pick_device(device)
    if out is not None:
        _refuse_target(Path(out))
    network, config, saved = load_network(run, _which(checkpoint))
    network = for_inference(network, target, precision)
    settings = data_for_run(config.data, data, overrides)
    dataset = open_dataset(settings, split)
    with Progress("evaluate", len(dataset), enabled=show_progress) as progress:
        scores, loss = evaluate_network(
            network,
            dataset,
            settings,
            target,
            scales=SCALES if multi_scale else (1.0,),
            flip=flip,
            progress=lambda done, _: progress.update(done),
        )
    result = {
        "run": Path(run).as_posix(),
        "checkpoint": checkpoint,
        "epoch": saved["epoch"],
        "split": split,
        "images": len(dataset),
        "size": list(settings.resize) if settings.resize else None,
        "multi_scale": multi_scale,
        "flip": flip,
        "precision": precision,
        "loss": loss,
        **scores.to_dict(),
    }
    write_text(Path(out) if out else Path(run) / f"evaluation_{split}.json", json.dumps(result, indent=2) + "\n")
    return result


def predict(
    run: str | Path,
    images: Sequence[str | Path],
    out: str | Path,
    *,
    checkpoint: str = "best",
    device: str = "auto",
    precision: str = "float32",
    show_progress: bool = True,
) -> list[tuple[Path, Path]]:
    """Label images, or folders of them: OUT/labels/NAME.png and OUT/overlays/NAME.png at each image's own size.

    `precision`: float32 or bf16, as for `evaluate`.
    A label PNG holds the labels as pixel values and shows them in colour. Returns both paths of each image.
    Raises: AutosegError: something that was given is wrong; nothing is written over.
    """
    from autoseg.engine.environment import pick_device
    from autoseg.engine.log import Progress
    from autoseg.engine.predict import find_images, load_network, predict_files
    from autoseg.network import for_inference

    target = pick_device(device)
    network, config, _ = load_network(run, _which(checkpoint))
    network = for_inference(network, target, precision)
    files = []
    with Progress("predict", len(find_images(images)), enabled=show_progress) as progress:
        for pair in predict_files(network, images, Path(out), config.data, target):
            files.append(pair)
            progress.update(len(files))
    return files


def export_model(
    source: str | Path, out: str | Path, format: str, *, checkpoint: str = "best", overwrite: bool = False
) -> str:
    """Export a retrained network (onnx, pt2, safetensors), or any genotype (json, graphml, dot).

    A network's file is checked against the network; returns one line that says how they compare.
    Raises: AutosegError: something that was given is wrong, or the file differs from the network.
    """
    from autoseg.export import GENOTYPE_FORMATS, NETWORK_FORMATS, export_genotype, export_network

    if format not in (*NETWORK_FORMATS, *GENOTYPE_FORMATS):
        raise ExportError(f"unknown format '{format}' (known: {', '.join((*NETWORK_FORMATS, *GENOTYPE_FORMATS))})")
    if format in GENOTYPE_FORMATS:
        path = export_genotype(Genotype.load(source), out, format, overwrite=overwrite)  # type: ignore[arg-type]
        return f"wrote {path}"
    from autoseg.engine.predict import load_network

    network, config, _ = load_network(source, _which(checkpoint))
    metadata = {
        "genotype": config.genotype,
        "num_classes": config.data.num_classes,
        "classes": list(config.data.classes or ()),
        "ignore_label": config.data.ignore_label,
        "mean": list(config.data.mean),
        "std": list(config.data.std),
        "resize": list(config.data.resize) if config.data.resize else None,
    }
    return str(export_network(network, out, format, metadata=metadata, overwrite=overwrite))  # type: ignore[arg-type]


def plot(
    source: str | Path, out: str | Path | None = None, formats: Sequence[str] = ("svg", "png", "pdf")
) -> list[Path]:
    """Draw a search, a retraining, a genotype or a space into the folder `out` (a run's own figures/). No torch.

    Search: the trellis by beta with the decoded path, alpha, gamma and skips where they compete, the decoded cell, the
    curves. Retraining or genotype: the path and the cell, and a retraining's curves. Space: its trellis. Returns the
    files.
    """
    from autoseg.viz import draw

    if not formats or any(name not in draw.FORMATS for name in formats):
        raise ConfigError(f"format must be some of {', '.join(draw.FORMATS)}, not {', '.join(formats) or 'none'}")
    figures, name = _figures(source)
    if out is None:
        out = Path(source) / "figures" if Path(source).is_dir() else Path("figures") / name
    return [path for stem, figure in figures.items() for path in draw.save(figure, Path(out) / stem, formats)]


def _figures(source: str | Path) -> tuple[dict[str, Any], str]:
    """The figures of a source by file name, and a name for it."""
    from autoseg.viz import draw

    if Path(source).is_dir():
        run = Run.open(source)
        history = {"history": draw.draw_history(run.metrics())} if run.metrics() else {}
        if run.kind == "search":
            probs, _, epoch = arch_of(run)
            genotype = Genotype.load(run.path) if (run.path / "genotype.yaml").is_file() else None
            cells = _cell_figures(genotype) if genotype else {}
            return _search_figures(probs, epoch, genotype) | cells | history, run.path.name
        genotype = Genotype.parse(parse(RetrainConfig, run.settings).genotype)
        return {"path": draw.draw_path(genotype), **_cell_figures(genotype)} | history, run.path.name
    found = space_or_genotype(source)
    if isinstance(found, SearchSpace):
        return {"trellis": draw.draw_trellis(found, title=found.name)}, found.name
    return {"path": draw.draw_path(found), **_cell_figures(found)}, found.name


def _search_figures(probs: ArchProbs, epoch: int, genotype: Genotype | None) -> dict[str, Any]:
    """What competes in a search, by file name, and on the trellis the genotype, if it is of this epoch."""
    from autoseg.viz import draw

    if genotype is None or genotype.source.get("epoch") != epoch:
        genotype = decode(probs)
    title = f"{probs.space.name} after epoch {epoch + 1}"
    figures = {"trellis": draw.draw_trellis(probs.space, probs.beta_probs, genotype, title)}
    figures["alpha"] = draw.draw_alpha(probs)
    if probs.gamma_probs is not None:
        figures["gamma"] = draw.draw_gamma(probs)
    if probs.skip_probs is not None:
        figures["skips"] = draw.draw_skips(probs)
    return figures


def _cell_figures(genotype: Genotype) -> dict[str, Any]:
    """`cell`, and `up_cell` where the way up has its own."""
    from autoseg.viz import draw
    from autoseg.viz.graph import cells

    return {name: draw.draw_cell(genotype, name) for name in cells(genotype)}


def space_or_genotype(source: str | Path) -> SearchSpace | Genotype:
    """A space or a genotype by name or file.

    Raises: AutosegError: neither; the message is that of what the file seems to be.
    """
    path = Path(source)
    if str(source) in space_names():
        return SearchSpace.load(source)
    if path.is_file():
        from autoseg.files import read_yaml

        keys = read_yaml(path, ConfigError)
        return Genotype.load(path) if isinstance(keys.get("cell"), list) else SearchSpace.load(path)
    try:
        return Genotype.load(source)
    except GenotypeError as reason:
        if path.is_dir():
            raise
        try:
            return SearchSpace.load(source)
        except AutosegError as other:
            better = other if "did you mean" in str(other) else reason
            raise type(better)(f"{better}") from None


def _refuse_target(path: Path) -> None:
    """Raise RunError where a file cannot be written without harm."""
    if path.exists():
        raise RunError(f"{path} is there already; give another --out")
    if not path.parent.is_dir():
        raise RunError(f"{path.parent}, the folder of {path.name}, does not exist; create it, or give another --out")


def _which(checkpoint: str) -> Any:
    if checkpoint not in ("best", "last"):
        raise ConfigError(f"checkpoint must be best or last, not {checkpoint}")
    return checkpoint
