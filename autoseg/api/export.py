"""`autoseg.export_model`: write a retrained network or a genotype for other programs."""

from __future__ import annotations

from pathlib import Path

from autoseg.errors import ExportError
from autoseg.genotype.schema import Genotype


def export_model(
    source: str | Path, out: str | Path, format: str, *, checkpoint: str = "best", overwrite: bool = False
) -> str:
    """Export a retrained network or a genotype to a file for other programs.

    Args:
        source: The run directory of a retraining. For genotypes also a file or a name.
        out: The file to write.
        format: `onnx`, `pt2` or `safetensors` for a network; `json`, `graphml` or `dot` for a genotype.
        checkpoint: `best` or `last`, the network's weights.
        overwrite: Overwrite an existing file.

    Returns:
        One line with the file and, for a network, its greatest difference from the original.

    Raises:
        AutosegError: an argument is wrong, or the exported network differs from the original.
    """
    from autoseg.export import GENOTYPE_FORMATS, NETWORK_FORMATS, export_genotype, export_network
    from autoseg.zoo.schema import load_architecture

    if format not in (*NETWORK_FORMATS, *GENOTYPE_FORMATS):
        raise ExportError(
            f"unknown format '{format}' (known: {', '.join((*NETWORK_FORMATS, *GENOTYPE_FORMATS))})",
            code="unknown-format",
        )
    if format in GENOTYPE_FORMATS:
        genotype = load_architecture(source)
        if not isinstance(genotype, Genotype):
            raise ExportError(
                f"{format} is for genotypes, and {genotype.name} is a network of the literature; train it and take one"
                f" of {', '.join(NETWORK_FORMATS)}",
                code="format-needs-genotype",
            )
        path = export_genotype(genotype, out, format, overwrite=overwrite)  # type: ignore[arg-type]
        return f"wrote {path}"
    from autoseg.engine.predict import load_network
    from autoseg.export.common import input_metadata
    from autoseg.viz.palette import palette

    network, config, _ = load_network(source, checkpoint)
    settings = config.data.to_dict()
    kept = ("num_classes", "classes", "ignore_label", "mean", "std", "resize", "orientation")
    files = next((place.channel_files for place in (config.data.splits or {}).values() if place.channel_files), ())
    form = input_metadata(config.data.channels, config.data.pixel_type, files)
    metadata = {key: settings[key] for key in kept} | form
    # as `autoseg predict` draws the classes
    metadata["colours"] = settings["palette"] or palette(config.data.num_classes).tolist()
    return str(export_network(network, out, format, metadata=metadata, overwrite=overwrite))  # type: ignore[arg-type]
