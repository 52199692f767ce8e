"""What a step of the search costs: the fast supernet against the textbook one and MONAI's DiNTS, side by side.

    python scripts/bench_supernet.py                                    W2 and W3, against the textbook
    python scripts/bench_supernet.py --workloads W2 --threads 1 --dints --json figures.json
    python scripts/bench_supernet.py --workloads W1 --device cuda --precision bf16 --no-textbook
    python scripts/bench_supernet.py --growth growth.png --threads 1    how the cost grows, as a picture

W1 is L 12, F 8, B 5 at 321x321, batch 2; W2 the same at 129x129; W3 L 6, F 4, B 3 at 96x96, batch 8. All contenders are
timed in turn, each in a process of its own, round after round, after one round that does not count; figures are medians
of the rounds.
Saved bytes: of the distinct storages that a forward pass keeps for the backward one, parameters apart. Peak memory: of
the CUDA allocator on a GPU, on a CPU the most bytes of tensors alive at once. FLOPs: of convolutions and matrix
products as they are run. Bytes read and written: every operation's arguments and results, so that the share of a copy's
rate can be above 100% where features stay in a cache.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from bench import growth, machine
from bench.contenders import WORKLOADS, Contender, Half, Workload, build_contenders
from bench.measure import held_bytes, observe, saved_bytes
from bench.table import frozen_savings, table
from bench.worker import Order, Times, Worker

from autoseg.engine.environment import pick_device
from autoseg.errors import AutosegError, ConfigError
from autoseg.files import write_text
from autoseg.space.schema import SearchSpace
from autoseg.viz.style import FORMATS

HALVES: tuple[Half, Half] = ("weights", "architecture")
STEPS: tuple[Half, ...] = (*HALVES, "everything")


def count(contender: Contender) -> dict[str, Any]:
    """The figures that need no clock; also the round that warms up."""
    contender.step("architecture")
    contender.step("weights")
    observed = {half: observe(contender, half) for half in HALVES}
    saved = {step: saved_bytes(contender, step) for step in STEPS}
    held = held_bytes(contender.held())
    flops, peaks = ({half: observed[half][key] for half in HALVES} for key in ("flops", "peak_bytes"))
    return {
        "images": list(contender.images.shape),
        "parameters": sum(parameter.numel() for parameter in contender.network.parameters()),
        "operations": observed["weights"]["operations"],
        "convolutions": observed["weights"]["convolutions"],
        "flops": {**flops, "iteration": sum(flops.values())},
        "moved_bytes": sum(observed[half]["moved_bytes"] for half in HALVES),
        "saved_bytes": saved,
        "held_bytes": held,
        "training_bytes": held + max(saved[half] for half in HALVES),
        "peak_bytes": {**peaks, "iteration": max(peaks.values())},
    }


def time_rounds(orders: Sequence[Order], repeats: int) -> dict[str, dict[str, Any]]:
    """Name -> seconds and CPU-seconds of every kind of step, each with the median and every round's."""
    workers = {order.name: Worker(order) for order in orders}
    rounds: dict[str, list[Times]] = {name: [] for name in workers}
    for number in range(repeats + 1):
        for name, worker in workers.items():
            times = worker.times(STEPS)
            if number:  # the first one warms up
                rounds[name].append(times)
    for worker in workers.values():
        worker.stop()
    return {name: _medians(of_one) for name, of_one in rounds.items()}


def _medians(rounds: list[Times]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for place, key in enumerate(("seconds", "cpu_seconds")):
        each = {step: [times[step][place] for times in rounds] for step in STEPS}
        each["iteration"] = [sum(both) for both in zip(*(each[half] for half in HALVES), strict=True)]
        result[key] = {step: statistics.median(values) for step, values in each.items()}
        result[f"{key}_of_rounds"] = each
    return result


def run_workload(space: SearchSpace, workload: Workload, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of all contenders at one workload, and the machine's limits, measured before and after."""
    settings = (options.device, options.precision, options.textbook, options.dints, options.checkpoint)
    contenders = build_contenders(space, workload, *settings)
    before = machine.limits(options.device, options.precision)
    figures = {name: count(contender) for name, contender in contenders.items()}
    del contenders
    orders = [Order(name, space.to_dict(), workload, *settings, torch.get_num_threads()) for name in figures]
    times = time_rounds(orders, options.repeats)
    after = machine.limits(options.device, options.precision)
    limits = {name: max(before[name], after[name]) for name in before}
    for name, of_one in figures.items():
        seconds = times[name]["seconds"]["iteration"]
        flops_per_s, bytes_per_s = of_one["flops"]["iteration"] / seconds, of_one["moved_bytes"] / seconds
        of_one |= times[name] | {
            "flops_per_s": flops_per_s,
            "bytes_per_s": bytes_per_s,
            "share_of_product": flops_per_s / limits["flops_per_s"],
            "share_of_copy": bytes_per_s / limits["bytes_per_s"],
        }
    return {"workload": workload._asdict(), "limits": limits, "contenders": figures}


def show(name: str, workload: Workload, space: SearchSpace, result: dict[str, Any], repeats: int) -> None:
    """Print the figures of one workload."""
    limits, contenders = result["limits"], result["contenders"]
    print(f"\n{name}: {space.name} with {workload}; median of {repeats} rounds")
    print(
        f"a large matrix product reaches {limits['flops_per_s'] / 1e9:,.1f} GFLOP/s,"
        f" a large copy {limits['bytes_per_s'] / 1e9:,.1f} GB/s"
    )
    if "dints" in contenders:
        height, width = contenders["dints"]["images"][2:]
        print(f"dints: its images are {height}x{width}, a multiple of 32; two operations a cell")
    print(table(contenders))
    if "textbook" in contenders:
        plain = 2 * contenders["textbook"]["seconds"]["everything"]
        ratio = plain / contenders["fast"]["seconds"]["iteration"]
        print(
            f"textbook, nothing frozen, as ports run it: {plain:.2f} s an iteration, {ratio:.2f} times the fast one's"
        )
    for half, (seconds, saved) in frozen_savings(contenders["fast"]).items():
        print(f"fast: training the {half} alone saves {seconds:.0%} of the time and {saved:.0%} of the saved bytes")


# --- the command line -------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help", code="option-invalid")


def _at_least_one(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"should be a whole number from 1 up, not '{text}'")
    return int(text)


def _factor(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 4:
        raise argparse.ArgumentTypeError(f"should be a number above 0 and up to 4, not '{text}'")
    return value


def _workloads(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in WORKLOADS:
            raise argparse.ArgumentTypeError(f"unknown workload '{name}' (known: {', '.join(WORKLOADS)})")
    return names


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Raises: ConfigError: one line on what is wrong."""
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--workloads", type=_workloads, metavar="W2,W3", help="which (W2,W3); with --growth the base, the first (W3)")
    add("--space", default="auto_deeplab", help="a space by name or path, brought to the workload's L, F and B")
    add("--repeats", type=_at_least_one, default=5, help="rounds that count (5)")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--precision", choices=("float32", "bf16"), default="float32", help="of the forward pass (autocast)")
    add("--checkpoint", action="store_true", help="the fast one keeps less and computes its cells twice")
    add("--threads", type=_at_least_one, help="CPU threads (as PyTorch chooses)")
    add("--no-textbook", dest="textbook", action="store_false", help="the fast supernet without the textbook one")
    add("--dints", type=_factor, nargs="?", const=0.5, metavar="CHANNELS", help="also MONAI's DiNTS (0.5: 16 filters)")
    add("--json", type=Path, metavar="FILE", help="write all figures there")
    add("--growth", type=Path, metavar="FILE", help="only how the fast one's cost grows: a picture (png, svg or pdf)")
    options = parser.parse_args(arguments)
    options.device = pick_device(options.device)
    if options.json and not options.json.parent.is_dir():
        raise ConfigError(f"--json: {options.json.parent} is no folder; make it or give another", code="folder-missing")
    if options.growth and options.growth.suffix[1:] not in FORMATS:
        raise ConfigError(
            f"--growth: {options.growth} should end in one of {', '.join(FORMATS)}", code="unknown-format"
        )
    return options


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure what was asked for, print it, and return every figure."""
    if options.threads:
        torch.set_num_threads(options.threads)
    space = SearchSpace.load(options.space)
    about = {**machine.describe(options.device), "precision": options.precision, "checkpoint": options.checkpoint}
    print("{device}, {threads} threads; torch {torch}, python {python}, {precision}".format(**about), end="")
    print(", cells checkpointed" if options.checkpoint else "")
    result: dict[str, Any] = {"machine": about, "space": space.name}
    if options.growth:
        base = WORKLOADS[options.workloads[0] if options.workloads else "W3"]
        how = {"device": options.device, "precision": options.precision, "checkpoint": options.checkpoint}
        build = partial(build_contenders, space, **how)
        return result | {"growth": growth.run(build, base, options.repeats, options.growth)}
    result["workloads"] = {}
    for name in options.workloads or ("W2", "W3"):
        result["workloads"][name] = run_workload(space, WORKLOADS[name], options)
        show(name, WORKLOADS[name], space, result["workloads"][name], options.repeats)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 where what was given is wrong."""
    try:
        options = parse_options(arguments)
        figures = run(options)
        if options.json:
            write_text(options.json, json.dumps(figures, indent=1) + "\n")
    except AutosegError as reason:
        print(f"error: {reason} [{reason.code}]", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
