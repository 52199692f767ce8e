"""`autoseg.export_model`: write a retrained network or a genotype for other programs."""

from __future__ import annotations

from pathlib import Path

from autoseg.errors import ExportError
from autoseg.genotype.schema import Genotype
from autoseg.setup.trained_network import checkpoint_name


def export_model(
    source: str | Path, out: str | Path, format: str, *, checkpoint: str = "best", overwrite: bool = False
) -> str:
    """Export a retrained network (onnx, pt2, safetensors), or any genotype (json, graphml, dot).

    A network's file is checked against the network; returns one line that says how they compare.
    Raises: AutosegError: something that was given is wrong, or the file differs from the network.
    """
    from autoseg.export import GENOTYPE_FORMATS, NETWORK_FORMATS, export_genotype, export_network
    from autoseg.zoo.architecture import load_architecture

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

    network, config, _ = load_network(source, checkpoint_name(checkpoint))
    metadata = {
        "num_classes": config.data.num_classes,
        "classes": list(config.data.classes),
        "ignore_label": config.data.ignore_label,
        "mean": list(config.data.mean),
        "std": list(config.data.std),
        "resize": list(config.data.resize) if config.data.resize else None,
    }
    return str(export_network(network, out, format, metadata=metadata, overwrite=overwrite))  # type: ignore[arg-type]
