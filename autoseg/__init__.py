"""autoseg: neural architecture search for semantic segmentation.

>>> import autoseg
>>> autoseg.search("tiny", "generated", "runs/a")
>>> genotype = autoseg.decode("runs/a")
>>> autoseg.retrain(genotype, "generated", "runs/b")
>>> autoseg.evaluate("runs/b")["miou"]
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from autoseg._version import __version__ as __version__

if TYPE_CHECKING:
    from autoseg.api.check_data import check_data
    from autoseg.api.convert import convert
    from autoseg.api.decode import decode
    from autoseg.api.demo import demo
    from autoseg.api.evaluate import evaluate
    from autoseg.api.export import export_model
    from autoseg.api.measure_gap import measure_gap
    from autoseg.api.plan import plan
    from autoseg.api.plot import plot
    from autoseg.api.predict import predict
    from autoseg.api.retrain import retrain
    from autoseg.api.search import search
    from autoseg.config.losses import LossTerm
    from autoseg.engine.predict import load_network
    from autoseg.errors import AutosegError
    from autoseg.genotype.sample import sample_genotype
    from autoseg.genotype.schema import Genotype
    from autoseg.plugins import load_plugin
    from autoseg.registry import Block, Decoder, Loss, Network, Operation, Upsampler, register
    from autoseg.space.schema import SearchSpace
    from autoseg.supernet import build_supernet
    from autoseg.zoo.build import build_network
    from autoseg.zoo.schema import FixedNetwork

_HOMES = {
    **dict.fromkeys(("Operation", "Block", "Upsampler", "Decoder", "Loss", "Network", "register"), "autoseg.registry"),
    "AutosegError": "autoseg.errors",
    "LossTerm": "autoseg.config.losses",
    "load_plugin": "autoseg.plugins",
    "Genotype": "autoseg.genotype.schema",
    "SearchSpace": "autoseg.space.schema",
    "FixedNetwork": "autoseg.zoo.schema",
    "build_network": "autoseg.zoo.build",
    "build_supernet": "autoseg.supernet",
    "export_model": "autoseg.api.export",
    "load_network": "autoseg.engine.predict",
    "sample_genotype": "autoseg.genotype.sample",
}
for _name in (
    "check_data", "convert", "decode", "demo", "evaluate", "measure_gap", "plan", "plot", "predict", "retrain",
    "search",
):  # fmt: skip
    _HOMES[_name] = f"autoseg.api.{_name}"

__all__ = [  # noqa: RUF022 - in the order of use
    "search", "decode", "measure_gap", "retrain", "evaluate", "predict", "export_model", "plot", "plan", "check_data",
    "convert", "demo", "SearchSpace", "Genotype", "FixedNetwork", "sample_genotype", "build_supernet", "build_network",
    "load_network", "Operation", "Block", "Upsampler", "Decoder", "Loss", "LossTerm", "Network", "register",
    "load_plugin", "AutosegError",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name at its first use, so that `import autoseg` is quick and loads no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'autoseg' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
