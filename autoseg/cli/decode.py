"""`autoseg decode`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoseg.cli import options
from autoseg.errors import ConfigError

if TYPE_CHECKING:
    from autoseg.genotype.schema import Genotype


def decode(
    run: Annotated[Path, typer.Argument(help="The directory of a search, or an .npz file of tables of any program.")],
    space: Annotated[str | None, typer.Option(help="For tables: their search space, by name or file.")] = None,
    epoch: Annotated[int | None, typer.Option(help="Decode after this epoch, counted from 0; else the last.")] = None,
    path_prior: Annotated[
        str | None, typer.Option(help="uniform or paper: how arrows are weighed against each other; else the space's.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Of several paths: the probability from which arrows stay; else the space's.")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(help="Of several paths: billions of multiply-adds a megapixel at most; else the space's."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The file to write; else RUN/genotype.yaml, or TABLES.yaml.")] = None,
    overwrite: options.Overwrite = False,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Measure on val what is lost between search and decoding, to RUN/gap.json."),
    ] = False,
    retrained: Annotated[
        Path | None, typer.Option(help="With --measure: a finished retraining of this genotype.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="With --measure: steps of tuning; else a twentieth of the recommended; 0: none.")
    ] = None,
    statistics_images: Annotated[
        int | None, typer.Option(help="With --measure: training images for BatchNorm's new statistics; else 256.")
    ] = None,
    device: options.Device = None,
    plugin: options.Plugin = None,
    debug: options.Debug = False,
) -> None:
    """Decode what a search has found into a discrete network, a genotype.

    Example: autoseg decode runs/a

    Example: autoseg decode tables.npz --space auto_deeplab_separable

    Example: autoseg decode runs/a --measure --retrained runs/b
    """
    from autoseg.api.decode import decode as decode_api
    from autoseg.api.decode import default_target
    from autoseg.engine.run_directory import Run
    from autoseg.files import shell_quoted

    asked = {"retrained": retrained, "steps": steps, "statistics_images": statistics_images, "device": device}
    given = {key: value for key, value in asked.items() if value is not None}
    if given and not measure:
        raise ConfigError(
            f"--{next(iter(given)).replace('_', '-')} is of a measurement, which is not asked for; give --measure too",
            code="option-needs-another",
        )
    if measure and run.is_file():
        raise ConfigError(
            f"{run} is a file of tables, which has no weights to measure; leave --measure out", code="options-conflict"
        )
    if retrained is not None:
        Run.open(retrained)  # before anything is written
    genotype = decode_api(
        run, space=space, epoch=epoch, path_prior=path_prior, threshold=threshold, budget=budget, out=out,
        overwrite=overwrite,
    )  # fmt: skip
    for name, value in _lines(genotype):
        options.say(f"{name:<5} {value}")
    for line in _evidence(genotype):
        options.say(line)
    target = out or default_target(run)
    options.say(f"wrote {target}; next: autoseg retrain {shell_quoted(target)} --data ... --out ...")
    if measure:
        from autoseg.api.measure_gap import measure_gap  # loads torch

        options.say(*gap_lines(measure_gap(run, genotype, **given)), f"wrote {run / 'gap.json'}")  # type: ignore[arg-type]


def gap_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """What `measure_gap` found, in words: a table of the networks, and which differences are seen."""
    networks, differences = result["networks"], result["differences"]
    width = max(len(network["what"]) for network in networks)
    yield f"{'network':<{width}}  mIoU    95% interval      less the line above, 95% interval"
    for network, step in zip(networks, (None, *differences), strict=False):
        interval = network["miou_interval"]
        between = "-" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"
        miou = "-" if network["miou"] is None else f"{network['miou']:.4f}"
        yield f"{network['what']:<{width}}  {miou:<6}  {between:<16}  {'' if step is None else _change(step)}".rstrip()
    width, wanted = result["filter_multiplier"], result["filter_multiplier_of_genotype"]
    yield (
        f"{result['images']} images of val, paired; new statistics on {result['statistics_images']} images of train;"
        f" weights after {result['epochs_of_weights']} epochs, genotype of epoch {result['epoch_of_genotype']} (from 0)"
    )
    if width != wanted:
        yield f"measured with {width} filters, as the supernet has; the genotype's {wanted} start from scratch"
    for what, facts in (("inherited", result["inherited"]), ("tuned", result.get("tuning"))):
        if facts is not None:
            total = facts["tensors_taken"] + facts["tensors_anew"]
            differs = "; ".join(facts["differs"]) or "computes what the reduced supernet does"
            yield f"{what}: {facts['tensors_taken']} of {total} tensors; {differs}"
    whole = next(step for step in reversed(differences) if step["from"] == networks[0]["name"])
    verdict = "too few images for an interval" if whole["seen"] is None else "no difference is seen on these images"
    if whole["seen"]:
        verdict = f"a {'loss' if whole['difference'] < 0 else 'gain'} is seen on these images"
    yield f"from the supernet to the last line: {_change(whole)}: {verdict}"


def _change(step: Mapping[str, Any]) -> str:
    """A difference with its interval."""
    if step["difference"] is None:
        return "-"
    interval = step["interval"]
    return f"{step['difference']:+.4f}" + (f", {interval[0]:+.4f} to {interval[1]:+.4f}" if interval else "")


def _lines(genotype: Genotype) -> Iterator[tuple[str, str]]:
    """Path or arrows, stages, upsamplers and skips, the decoder's upsamplers, and the cells, one item on each line."""
    from autoseg.genotype.flops import PER_BILLION_A_MEGAPIXEL, topology_cost
    from autoseg.viz.graph import stage_labels

    if genotype.is_path:
        yield "path", f"{' '.join(map(str, genotype.network.strides))}  (output strides)"
    else:
        for layer, arrows in enumerate(genotype.network.arrows, start=1):
            yield f"l{layer}", "  ".join(arrows)
        billions = topology_cost(genotype) / PER_BILLION_A_MEGAPIXEL
        yield "cost", f"{billions:.4g} billion multiply-adds a megapixel, cells and arrows"
    if genotype.stages and "cost" in genotype.source:
        yield "cost", f"{genotype.source['cost']} billion multiply-adds a megapixel, the whole network"
    for label in stage_labels(genotype):
        yield f"s{genotype.stride(label.level)}", f"{label.blocks}, {label.channels}"
    for arrow in genotype.up_arrows if genotype.network.upsamplers or genotype.network.skips else ():
        strides = f"{genotype.stride(arrow.source.level)}->{genotype.stride(arrow.target.level)}"
        yield "up", f"l{arrow.target.layer} {strides} {genotype.upsampler(arrow)}, skip {genotype.skip(arrow)}"
    stages = zip(genotype.decoder_levels, genotype.decoder.upsamplers, strict=False)
    for level, upsampler in stages:
        yield "dec", f"{genotype.stride(level)}->{genotype.stride(level - 1)} {upsampler}"
    for prefix, cell in (("", genotype.cell), ("up ", genotype.up_cell or ())):
        for number, block in enumerate(cell, start=1):
            yield f"{prefix}b{number}", " + ".join(f"{edge.operation}({edge.input})" for edge in block)


def _evidence(genotype: Genotype) -> Iterator[str]:
    """The verdict on the architecture, and the names of its ties."""
    from autoseg.analysis.evidence import said_of, undecided_in
    from autoseg.files import cut

    if said := said_of(genotype):
        yield f"evidence: {said}"
    for name, ties in undecided_in(genotype).items():
        if ties:
            yield f"undecided {name}: {cut('; '.join(sorted(ties)), 300)}"
