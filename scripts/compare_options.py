"""What the options that change the mathematics cost and what they do to the search, side by side on one data set.

    python scripts/compare_options.py --out runs/options
    python scripts/compare_options.py --data data_sets/camvid.yaml --set data.root=/data/camvid --out runs/camvid
    python scripts/compare_options.py --variants plain,gdas --seeds 3 --set search.epochs=6 --out runs/options

For the space as it is, with PC-DARTS, with GDAS, with the arrows mixed before the cell, and with the combination of
`fast.yaml`: seconds of a weight step and of an architecture step, bytes that a forward pass keeps for the backward one
(parameters apart), aten operations of a forward pass and multiply-adds of an image, all at the batch and crop of the
space's schedule; then for each seed a search, its genotype, a retraining, and mIoU on val of the supernet and of the
retrained network after their last epochs. What a sampled operation costs differs from draw to draw: figures of GDAS
are means over a few draws, its seconds medians over rounds with a draw each.

Everything goes to --out: the runs, results.json and results.md. Started again with the same settings it goes on where
it stopped.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from bench import machine
from bench.contenders import Contender, Half
from bench.measure import observe, saved_bytes, timed

from autoseg import decode, retrain, search
from autoseg.analysis.flops import count_cost
from autoseg.config.base import first_difference, merge, parse_assignments
from autoseg.engine.config import SearchConfig
from autoseg.engine.environment import pick_device
from autoseg.engine.run_directory import Run
from autoseg.errors import AutosegError, ConfigError
from autoseg.files import write_text
from autoseg.genotype.schema import Genotype
from autoseg.network import build_searched
from autoseg.planning.memory import random_batch, stand_in_task
from autoseg.setup.settings import search_config, search_sources
from autoseg.space.schema import SearchSpace
from autoseg.supernet import build_supernet

HALVES: tuple[Half, Half] = ("weights", "architecture")
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "pc_darts": {"pc_darts": 4},
    "gdas": {"gdas": [10.0, 0.1]},
    "mix_before_cell": {"mix_before_cell": True},
    "combination": SearchSpace.load("fast").relaxation.to_dict(),
}
"""Name -> the space's `relaxation`."""


# --- what a step costs ------------------------------------------------------------------------------------------------


def contender_of(config: SearchConfig, device: torch.device) -> Contender:
    """The supernet of a search with a batch of its size."""
    task = stand_in_task(config, device)
    supernet = task.supernet
    return Contender(supernet, list(supernet.arch.parameters()), random_batch(task), device, config.search.precision)


def draw(contender: Contender, number: int) -> None:
    """Sample operations where the space asks for it."""
    arch: Any = contender.network.arch
    if arch.space.relaxation.gdas is not None:
        arch.draw(number, arch.space.relaxation.gdas[0])


def count(contender: Contender, config: SearchConfig, draws: int) -> dict[str, Any]:
    """The figures that need no clock; those of GDAS are means over `draws`."""
    space = config.space
    found: list[dict[str, Any]] = []
    for number in range(draws if space.relaxation.gdas else 1):
        draw(contender, number)
        contender.step("architecture")
        observed = {half: observe(contender, half) for half in HALVES}
        found.append(
            {
                "operations": observed["weights"]["operations"],
                "peak_bytes": max(observed[half]["peak_bytes"] for half in HALVES),
                **{f"saved_bytes_{half}": saved_bytes(contender, half) for half in HALVES},
                "flops": sum(observed[half]["flops"] for half in HALVES),
            }
        )
    means = {key: round(statistics.mean(one[key] for one in found)) for key in found[0]}
    return {"parameters": sum(p.numel() for p in contender.network.parameters()), **means}


def costs(
    configs: Mapping[str, SearchConfig], device: torch.device, rounds: int, draws: int
) -> dict[str, dict[str, Any]]:
    """Of each variant; all are timed in turn, round after round, so that a disturbance falls on all of them."""
    contenders = {name: contender_of(config, device) for name, config in configs.items()}
    figures = {name: count(contender, configs[name], draws) for name, contender in contenders.items()}
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, contender in contenders.items():
            gc.collect()
            draw(contender, number)
            times = {half: timed(lambda c=contender, h=half: c.step(h), device)[0] for half in HALVES}
            if number:  # the first one warms up
                seconds[name].append(times)
    for name, of_rounds in seconds.items():
        for half in HALVES:
            figures[name][f"seconds_{half}"] = statistics.median(times[half] for times in of_rounds)
    return figures


# --- what it does to the search ---------------------------------------------------------------------------------------


def last_val(run: Run) -> dict[str, Any]:
    """The scores on val after the last epoch."""
    return [row for row in run.metrics() if row["kind"] == "val"][-1]


def run_seed(config: SearchConfig, overrides: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A search, its genotype and a retraining; goes on where it was stopped."""
    searched = _go_on(folder / "search", lambda **how: search(config.space, config.data, overrides=overrides, **how))
    genotype = decode(searched, overwrite=True)
    of_network = {key: value for key, value in overrides.items() if key not in ("search", "space")}
    retrained = _go_on(folder / "retrain", lambda **how: retrain(genotype, config.data, overrides=of_network, **how))
    supernet, network = last_val(searched), last_val(retrained)
    return {
        "supernet_miou": supernet["miou"],
        "retrained_miou": network["miou"],
        "entropy": {key: value for key, value in supernet.items() if key.endswith("_entropy")},
        "strides": list(genotype.network.strides),
        "cell": [[f"{edge.operation}({edge.input})" for edge in block] for block in genotype.cell],
        **network_cost(genotype, config),
    }


def _go_on(out: Path, start: Any) -> Run:
    if (out / "config.yaml").is_file():
        (search if out.name == "search" else retrain)(out=out, resume=True)
        return Run.open(out)
    run: Run = start(out=out)
    return run


def network_cost(genotype: Genotype, config: SearchConfig) -> dict[str, int]:
    """Parameters and multiply-adds of the decoded network at the search's crop."""
    cost = count_cost(lambda: build_searched(genotype, config.data.num_classes), config.search.crop)
    return {"parameters": cost.parameters, "multiply_adds": cost.multiply_adds}


# --- results ----------------------------------------------------------------------------------------------------------


def table(results: Mapping[str, Any]) -> str:
    """Two Markdown tables: costs, and what the searches came to (mean, and range where there are several seeds)."""
    lines = [
        "| | weight step | architecture step | saved, weight step | saved, architecture step | aten operations"
        " | multiply-adds an image | supernet |",
        "|---|---|---|---|---|---|---|---|",
    ]
    plain = next(iter(results["variants"].values())).get("cost")
    for name, one in results["variants"].items():
        if cost := one.get("cost"):
            both = [f"{cost[key]:.3f} s ({plain[key] / cost[key]:.1f}x)" for key in _keys("seconds")]
            saved = [f"{cost[key] / 1e6:.1f} MB ({cost[key] / plain[key]:.2f})" for key in _keys("saved_bytes")]
            tail = f"{cost['operations']} | {cost['multiply_adds'] / 1e9:.2f}B | {cost['parameters'] / 1e6:.2f}M"
            lines.append(f"| {name} | {' | '.join([*both, *saved])} | {tail} |")
    lines += [
        "",
        "| | supernet, val mIoU | retrained, val mIoU | multiply-adds | alpha's entropy |",
        "|---|---|---|---|---|",
    ]
    for name, one in results["variants"].items():
        if runs := list(one.get("runs", {}).values()):
            shown = [_spread([run[key] for run in runs]) for key in ("supernet_miou", "retrained_miou")]
            products = statistics.mean(run["multiply_adds"] for run in runs) / 1e9
            entropy = statistics.mean(run["entropy"]["alpha_entropy"] for run in runs)
            lines.append(f"| {name} | {' | '.join(shown)} | {products:.2f}B | {entropy:.3f} |")
    return "\n".join(lines) + "\n"


def _keys(what: str) -> list[str]:
    return [f"{what}_{half}" for half in HALVES]


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f} to {max(values):.3f})"


class Results:
    """results.json and results.md of --out, written after everything that is done."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Raises: ConfigError: the folder holds results of other settings."""
        self.folder, self.file = folder, folder / "results.json"
        self.data: dict[str, Any] = {"settings": dict(settings), "machine": dict(about), "variants": {}}
        if self.file.is_file():
            self.data = json.loads(self.file.read_text(encoding="utf-8"))
            if difference := first_difference(self.data["settings"], settings):
                raise ConfigError(
                    f"{folder} holds results of other settings ({difference}); give another --out",
                    code="results-settings-differ",
                )
        folder.mkdir(parents=True, exist_ok=True)

    def of(self, name: str) -> dict[str, Any]:
        """Those of one variant."""
        found: dict[str, Any] = self.data["variants"].setdefault(name, {})
        return found

    def save(self) -> None:
        """Write both files."""
        write_text(self.file, json.dumps(self.data, indent=1) + "\n")
        write_text(self.folder / "results.md", table(self.data))


# --- the command line -------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help", code="option-invalid")


def _at_least(least: int) -> Any:
    def read(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"should be a whole number from {least} up, not '{text}'")
        return int(text)

    return read


def _variants(text: str) -> list[str]:
    for name in text.split(","):
        if name not in VARIANTS:
            raise argparse.ArgumentTypeError(f"unknown variant '{name}' (known: {', '.join(VARIANTS)})")
    return text.split(",")


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Raises: ConfigError: one line on what is wrong."""
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--space", default="tiny", help="the base space, by name or path (tiny)")
    add("--data", default="generated", help="generated, a folder or a data YAML")
    add("--out", type=Path, required=True, help="folder of runs and results")
    add("--variants", type=_variants, default=list(VARIANTS), metavar="A,B", help=f"of {', '.join(VARIANTS)} (all)")
    add("--seeds", type=_at_least(0), default=1, help="searches of each variant, seeds 0, 1, ...; 0: costs alone (1)")
    add("--rounds", type=_at_least(1), default=5, help="timed rounds that count (5)")
    add("--draws", type=_at_least(1), default=8, help="over which the figures of GDAS are means (8)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting, such as search.epochs=6")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--threads", type=_at_least(1), help="CPU threads (as PyTorch chooses)")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure and search what is not there yet; returns every figure."""
    if options.threads:
        torch.set_num_threads(options.threads)
    given = parse_assignments(options.set)
    device = pick_device(options.device)
    configs = {}
    for name in options.variants:
        changes = merge({"space": {"relaxation": VARIANTS[name]}, "device": str(device)}, given)
        configs[name] = search_config(search_sources(options.space, options.data, overrides=changes))
    settings = {"space": options.space, "data": options.data, "set": given, "rounds": options.rounds}
    results = Results(options.out, settings, machine.describe(device))
    if any("cost" not in results.of(name) for name in configs):
        for name, cost in costs(configs, device, options.rounds, options.draws).items():
            space, classes = configs[name].space, configs[name].data.num_classes
            counted = count_cost(lambda s=space, c=classes: build_supernet(s, c), configs[name].search.crop)
            results.of(name)["cost"] = {**cost, "multiply_adds": counted.multiply_adds}
        results.save()
    for seed in range(options.seeds):
        for name, config in configs.items():
            runs = results.of(name).setdefault("runs", {})
            if str(seed) not in runs:
                print(f"{name}, seed {seed}", file=sys.stderr)
                changes = merge(given, {"seed": seed, "device": str(device)})
                changes.pop("space", None)  # it is in the config's space already
                runs[str(seed)] = run_seed(config, _with(config, changes), options.out / name / f"seed_{seed}")
                results.save()
    return results.data


def _with(config: SearchConfig, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The base space's schedules, with what was changed."""
    schedules = {"search": config.search.to_dict(), "retrain": dict(config.retrain)}
    return merge(schedules, changes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 where what was given is wrong."""
    try:
        print(table(run(parse_options(arguments))), end="")
    except AutosegError as reason:
        print(f"error: {reason} [{reason.code}]", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
