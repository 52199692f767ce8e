"""Networks and genotypes as files for other programs; a network's file is checked before it gets its name."""

from autoseg.export.formats import load_safetensors
from autoseg.export.genotype import GENOTYPE_FORMATS, export_genotype
from autoseg.export.network import NETWORK_FORMATS, ExportReport, export_network

__all__ = [
    "GENOTYPE_FORMATS", "NETWORK_FORMATS", "ExportReport", "export_genotype", "export_network", "load_safetensors",
]  # fmt: skip
