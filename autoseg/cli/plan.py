"""`autoseg plan`."""

from __future__ import annotations

from json import dumps
from typing import TYPE_CHECKING, Annotated

import typer

from autoseg.cli import options

if TYPE_CHECKING:
    from autoseg.api.plan import Plan


def plan(
    space: Annotated[str | None, typer.Option(help="A search space by name (see `autoseg spaces`) or file.")] = None,
    crop: Annotated[
        tuple[int, int] | None, typer.Option(help="Height and width; else the space's own.", metavar="H W")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Images a step; else the space's own.")] = None,
    memory: Annotated[str | None, typer.Option(help="16GB, 16GiB, 800MB or bytes; else what the device has.")] = None,
    data: options.Data = None,
    images: Annotated[int | None, typer.Option(help="Training images; else those of the data.")] = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes, where no data is given; else 19.")] = None,
    no_time: Annotated[bool, typer.Option("--no-time", help="Measure no steps.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: bytes, seconds, steps.")] = False,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    device: options.Device = None,
    plugin: options.Plugin = None,
    debug: options.Debug = False,
) -> None:
    """Tell what a search needs on this device, memory and time, and propose crop, batch and checkpointing that fit.

    Memory is predicted; time is measured with a few steps. Nothing is written.

    Example: autoseg plan --space auto_deeplab --crop 321 321 --batch 2 --memory 16GB
    """
    from rich.console import Console

    from autoseg.api.plan import plan as plan_api

    with Console(stderr=True).status("predicting memory and measuring steps"):
        result = plan_api(
            space, data, crop=crop, batch=batch, memory=memory, images=images, classes=classes,
            config=config, overrides=options.overrides(set_, device), measure_time=not no_time,
        )  # fmt: skip
    if json:
        options.say(*dumps(result.to_dict(), indent=2).split("\n"))
        return
    options.say(*_memory(result), "", *_table(result), "", *_time(result), "", *_advice(result))


def _memory(plan: Plan) -> list[str]:
    from autoseg.files import format_bytes

    memory, (crop, batch, checkpoint_cells, precision) = plan.asked.memory, plan.asked.setting
    assert memory is not None  # the setting as asked is always predicted
    absent = "" if plan.device_is_here else " (not on this machine: predicted without it, and no steps are measured)"
    parts = {
        "weights": memory.parameter_bytes,
        "gradients": memory.gradient_bytes,
        "optimisers": memory.optimizer_bytes,
        "saved for backward": memory.saved_bytes,
        "recomputed": memory.recomputed_bytes,
    }
    held = ", ".join(f"{name} {format_bytes(size)}" for name, size in parts.items() if size)
    graphs = f", for CUDA graphs {format_bytes(memory.graph_bytes)}" if memory.graph_bytes else ""
    how = f"{precision}{', with checkpointing' if checkpoint_cells else ''}"
    return [
        f"{plan.space} with {plan.classes} classes on {plan.device},"
        f" {format_bytes(plan.memory_bytes)} of memory{absent}",
        f"crop {_size(crop)}, batch {batch}, {how}: {format_bytes(memory.peak_bytes)} at the peak, predicted",
        f"  held {format_bytes(memory.held_bytes)} ({held}), in passing"
        f" {format_bytes(max(0, memory.eager_bytes - memory.held_bytes))}{graphs}",
    ]


def _table(plan: Plan) -> list[str]:
    from autoseg.files import format_bytes

    rows = [("", "crop", "batch", "checkpointing", "precision", "peak", "")]
    for name, (crop, batch, checkpoint_cells, precision), memory, fits in plan.options:
        values = (name, _size(crop), str(batch), "yes" if checkpoint_cells else "no", precision)
        if memory is None:
            rows.append((*values, "", "not even that fits"))
        else:
            rows.append((*values, format_bytes(memory.peak_bytes), "fits" if fits else "does not fit"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _time(plan: Plan) -> list[str]:
    """Seconds of the steps, how they were found, and hours of the run."""
    lines = []
    if plan.times is not None:
        seconds = plan.times.seconds
        lines = [f"weight step {_seconds(seconds.weight)}, architecture step {_seconds(seconds.architecture)}"]
        if plan.times.extrapolated:
            lines[0] += ", extrapolated: linear in the pixels of a batch, from steps measured here just now"
            lines += [
                f"  crop {_size(at.crop)}, batch {at.batch_size}: {_seconds(weight)} and {_seconds(architecture)}"
                for at, (weight, architecture) in plan.times.measured
            ]
        else:
            lines[0] += ", measured here just now"
    whose = "" if plan.images_given else " (Cityscapes, as in the paper; --images or --data for yours)"
    steps = f"{plan.steps.weight:,} weight steps and {plan.steps.architecture:,} architecture steps"
    hours = "" if plan.hours is None else f": {_hours(plan.hours)} without validation"
    return [*lines, f"{plan.images:,} training images{whose}: {steps}{hours}"]


def _advice(plan: Plan) -> list[str]:
    from autoseg.files import shell_quoted

    assignments = " ".join(f"--set {shell_quoted(value)}" for value in plan.assignments)
    return [
        f"to search {plan.advice.name}:" if plan.advice is plan.asked else f"to make it fit ({plan.advice.name}):",
        f"  {assignments}",
    ]


def _size(crop: tuple[int, int]) -> str:
    return f"{crop[0]}x{crop[1]}"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _hours(hours: float) -> str:
    if hours < 1:
        return f"{hours * 60:.3g} minutes"
    return f"{hours:,.0f} hours" if hours >= 1000 else f"{hours:,.3g} hours"
