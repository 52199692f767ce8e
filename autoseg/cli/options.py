"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from autoseg.errors import ConfigError, printable

Data = Annotated[str | None, typer.Option(help="A folder of images and masks, a data YAML, or 'generated'.")]
ConfigFile = Annotated[Path | None, typer.Option(help="A YAML file of settings, such as a run's config.yaml.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting: search.epochs=10. Repeatable."),
]
SetNetwork = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change an option of a network of the literature: network.width=0.5. Repeatable.",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(help="auto (a GPU where there is one, else cpu), cpu, cuda, cuda:N, or mps (experimental)."),
]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.")]
Quick = Annotated[bool, typer.Option("--quick", help="A first look in minutes: small images, few steps.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out where it stopped.")]
Checkpoint = Annotated[str, typer.Option(help="best (by mIoU on val) or last.")]
Precision = Annotated[str, typer.Option(help="float32, or bf16: faster where the device has it, and rounder.")]
MatchCost = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Scale the network, a genotype or one of the literature, to the cost of this genotype, network or run, and"
        " train it as that one is; or to a number, such as 1M.",
    ),
]
Match = Annotated[str, typer.Option(help="What --match-cost makes equal: parameters or multiply_adds.")]
OutputStride = Annotated[
    int | None, typer.Option(help="Of a network of the literature: the same weights at 8, 16 or 32, by dilation.")
]
MultiScale = Annotated[bool, typer.Option("--multi-scale", help="Fuse six scales, 0.5 to 1.75.")]
Scales = Annotated[str | None, typer.Option(metavar="LIST", help="Fuse these scales: 0.5,0.75,1.")]
Flip = Annotated[bool, typer.Option("--flip", help="Fuse with the mirrored image.")]
Fuse = Annotated[str, typer.Option(help="By mean of probabilities, or max of logits (DeepLab v2).")]
Window = Annotated[
    tuple[int, int] | None,
    typer.Option(metavar="H W", help="See images in sliding windows of this size, blended."),
]
Overlap = Annotated[float | None, typer.Option(help="Of neighbouring windows, as a share of their length; else 0.5.")]
Crf = Annotated[bool, typer.Option("--crf", help="Refine by a dense CRF; --set crf.iterations=5 changes it.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write over a file that is there.")]


def _load_plugins(sources: list[str] | None) -> list[str] | None:
    """Load plugins while the options are parsed, since other options may name their records."""
    from autoseg.plugins import load_plugin

    for source in sources or []:
        load_plugin(source)
    return sources


Plugin = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE",
        callback=_load_plugins,
        is_eager=True,
        help="A Python file, or an installed module, with operations or other parts of your own. Repeatable.",
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def say(*lines: object) -> None:
    """Print lines, in whose names no letter commands a terminal."""
    typer.echo("\n".join(map(printable, lines)))


def overrides(assignments: list[str] | None, device: str | None = None, seed: int | None = None) -> dict[str, Any]:
    """Return `--set`, `--device` and `--seed` as nested settings."""
    from autoseg.config.base import merge, parse_assignments

    flags = {key: value for key, value in (("device", device), ("seed", seed)) if value is not None}
    return merge(parse_assignments(assignments or []), flags)


def inference(
    settings: dict[str, Any],
    multi_scale: bool,
    scales: str | None,
    flip: bool,
    fuse: str,
    crf: bool,
    window: tuple[int, int] | None,
    overlap: float | None,
) -> dict[str, Any]:
    """The options as settings of `InferenceConfig`. Removes `crf` from the `settings` of --set."""
    from autoseg.config.inference import SCALES

    if multi_scale and scales is not None:
        raise ConfigError("--multi-scale and --scales both name scales; give one of them", code="options-conflict")
    parameters = settings.pop("crf", None)
    if parameters is not None and not crf:
        raise ConfigError(
            "--set crf.KEY=VALUE changes a CRF that is not asked for; give --crf too", code="option-needs-another"
        )
    if overlap is not None and window is None:
        raise ConfigError(
            "--overlap is of sliding windows, which are not asked for; give --window H W too",
            code="option-needs-another",
        )
    chosen: tuple[float, ...] = SCALES if multi_scale else (1.0,)
    if scales is not None:
        try:
            chosen = tuple(float(scale) for scale in scales.split(","))
        except ValueError:
            raise ConfigError(
                f"--scales {scales}: write numbers and commas, such as 0.5,0.75,1", code="option-invalid"
            ) from None
    asked = {"scales": chosen, "flip": flip, "fuse": fuse, "crf": (parameters or {}) if crf else None, "window": window}
    return asked if overlap is None else {**asked, "overlap": overlap}
