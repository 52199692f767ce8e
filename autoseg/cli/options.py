"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from autoseg.errors import ConfigError

Data = Annotated[str | None, typer.Option(help="A folder of images and masks, a data YAML, or 'generated'.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="A YAML file of settings, such as a run's config.yaml.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting: search.epochs=10. Repeatable."),
]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out where it stopped.")]
Checkpoint = Annotated[str, typer.Option(help="best (by mIoU on val) or last.")]
Precision = Annotated[str, typer.Option(help="float32, or bf16: faster where the device has it, and rounder.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write over a file that is there.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def overrides(assignments: list[str] | None, device: str | None = None, seed: int | None = None) -> dict[str, Any]:
    """`--set`, `--device` and `--seed` as nested settings."""
    from autoseg.settings import merge, parse_assignments

    flags = {key: value for key, value in (("device", device), ("seed", seed)) if value is not None}
    return merge(parse_assignments(assignments or []), flags)


def pick(name: str, value: str, choices: tuple[str, ...]) -> str:
    """Check an option that has few values."""
    if value not in choices:
        raise ConfigError(f"--{name} {value}: it must be one of {', '.join(choices)}")
    return value
