"""Whether a search space holds a genotype."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from autoseg.errors import GenotypeError
from autoseg.genotype.design import label_of, macro_of, nominal_multiplier, options_of
from autoseg.genotype.scale import STEPS, channels_of
from autoseg.genotype.schema import Cell, Genotype, PathSpec
from autoseg.registry import CELL, DECODERS
from autoseg.space.groups import DecoderSpec
from autoseg.space.macro import NETWORK, NamedNetwork, filters_at_width
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import Trellis


def check_in_space(genotype: Genotype, space: SearchSpace) -> None:
    """Refuse a genotype that is not in the search space.

    Settings that a space fixes and does not search, such as the width, the stem and the decoder, may differ. In a wide
    space stem and decoder are among its options, and all channels are those of options times one factor
    (`fit_channels`).
    Raises: GenotypeError: one line with the first thing that the space lacks.
    """
    _refuse_first(_lacking(genotype, space), genotype, space)


def check_in_supernet(genotype: Genotype, space: SearchSpace) -> None:
    """Refuse a genotype that the supernet of a space cannot be reduced to. Raises: see `check_in_space`."""
    check_in_space(genotype, space)
    _refuse_first(_of_arrows(genotype, space, held=True), genotype, space)
    if space.gamma_sites:
        _refuse_first(_of_upsamplers(genotype, space), genotype, space)


def _refuse_first(lacks: Iterator[str], genotype: Genotype, space: SearchSpace) -> None:
    lack = next(lacks, None)
    if lack is not None:
        message = f"genotype '{genotype.name}' is not in space '{space.name}': {lack}"
        raise GenotypeError(message, code="genotype-not-in-space")


def _lacking(genotype: Genotype, space: SearchSpace) -> Iterator[str]:
    """What the genotype has and the space lacks."""
    if space.macro is not None:
        yield from _lacking_wide(genotype, space)
        return
    if any(stage.block != CELL for stage in genotype.stages):
        yield "it has stages, and the space's networks have the cell at every node"
    yield from _of_cell(genotype.cell, "cell", space)
    if genotype.up_cell is not None:
        if space.cells == 1:
            yield "it has a cell for the up path, up_cell, but the space searches one cell for all layers"
        if genotype.network.down_layers != space.network.down_layers:
            yield (
                f"its up path begins after layer {genotype.network.down_layers}, the space's after layer"
                f" {space.network.down_layers} (network.down_layers)"
            )
        yield from _of_cell(genotype.up_cell, "up_cell", space)
    yield from _of_arrows(genotype, space, held=True)
    yield from _of_upsamplers(genotype, space)


def _of_upsamplers(genotype: Genotype, space: SearchSpace) -> Iterator[str]:
    yield from _of_up_path(genotype, space)
    decoder = genotype.decoder.upsamplers or ("bilinear",) * len(genotype.decoder_levels)
    yield from _unknown("decoder.upsamplers", decoder, space.decoder.upsamplers)


def _of_cell(cell: Cell, where: str, space: SearchSpace) -> Iterator[str]:
    if len(cell) != space.cell.blocks:
        yield f"its {where} has {len(cell)} blocks, the space's {space.cell.blocks}"
    used = (edge.operation for block in cell for edge in block)
    yield from _unknown(where, used, space.cell.operations)


def _of_arrows(genotype: Genotype, space: SearchSpace, held: bool) -> Iterator[str]:
    """held: look at the space's supernet; else at any network of a wide space that does not name its networks."""
    macro, network, trellis = space.macro, space.network, space.trellis
    layers = (network.layers,) if held or macro is None else macro.layers or (network.layers,)
    paths = (network.paths,) if macro is None else macro.paths or (network.paths,)
    if genotype.layers not in layers:
        yield f"it has {genotype.layers} layers, the space {' or '.join(map(str, layers))}"
    if not genotype.is_path and "multi" not in paths and not (macro and macro.networks):
        yield "it has several paths, the space's networks have one (network.paths)"
    if not held:
        stride = genotype.stem.stride
        strides = [stride << level for level in range(6) if stride << level <= network.strides[-1]]
        trellis = Trellis(genotype.layers, strides or [stride], network.moves)
    legal = {(arrow.source.layer, trellis.strides[arrow.source.level], arrow.move) for arrow in trellis.arrows}
    for arrow in genotype.arrows:
        before, after = genotype.stride(arrow.source.level), genotype.stride(arrow.target.level)
        if (arrow.source.layer, before, arrow.move) not in legal:
            yield f"it goes from stride {before} to {after} into layer {arrow.target.layer}, and the space does not"


def _of_up_path(genotype: Genotype, space: SearchSpace) -> Iterator[str]:
    upsamplers = [genotype.upsampler(arrow) for arrow in genotype.up_arrows]
    skips = [genotype.skip(arrow) for arrow in genotype.up_arrows]
    yield from _unknown("network.upsamplers", upsamplers, space.resolution.upsamplers)
    yield from _unknown("network.skips", skips, space.resolution.skips)
    shared: dict[str, tuple[Sequence[str], str]] = {"network.skips": (skips, "resolution.skips")}
    if space.resolution.shared_by == "level":
        shared["network.upsamplers"] = upsamplers, "resolution.shared_by"
    for where, (names, setting) in shared.items():
        chosen: dict[int, str] = {}
        for arrow, name in zip(genotype.up_arrows, names, strict=True):
            level = arrow.target.level
            if chosen.setdefault(level, name) != name:
                yield (
                    f"{where} has '{chosen[level]}' and '{name}' into stride {genotype.stride(level)}, for which the"
                    f" space has one choice ({setting})"
                )


def _unknown(where: str, names: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    for name in names:
        if name not in known:
            yield f"{where} has '{name}', the space {', '.join(known)}"


# --- wide spaces ------------------------------------------------------------------------------------------------------


class Channels(NamedTuple):
    """Channels of a part of a genotype, and what each option of the space makes them before they are scaled."""

    what: str
    have: Sequence[int]
    options: Mapping[int, Sequence[int]]
    """By the number of the option, those with as many parts."""


def stage_choices(genotype: Genotype, space: SearchSpace) -> dict[str, list[tuple[int, int]]]:
    """The (row, column) of each choice of a genotype in `space.macro_tables`. It must be in the space."""
    fitted, found = fit_channels(genotype, space)[0] if "width" in space.macro_tables else {}, {}
    for name, table in space.macro_tables.items():
        places = {}
        for stage in genotype.all_stages:
            row = 0 if table.rows[0] == NETWORK else table.rows.index(f"stride {stage.stride}")
            if name == "width":
                places[row] = fitted[f"width {stage.stride}"]
            elif name == "block" or stage.block != CELL:  # a cell has no depth
                places[row] = table.options.index(getattr(stage, name))
        found[name] = list(places.items())
    return found


def fit_channels(genotype: Genotype, space: SearchSpace) -> tuple[dict[str, int], list[str]]:
    """The options of a wide space whose channels, times one factor, come nearest to a genotype's.

    Channels were rounded when they were scaled, perhaps to multiples of 8, and single ones changed by a step
    (`scale_to_cost`); so they may miss by two steps.

    Returns:
        `stem`, `decoder` and `width 8` -> number of the option; and a phrase for each part that no option fits.
    """
    parts = _parts(genotype, space)
    lacks = [f"{part.what} is none of the space's" for part in parts.values() if not part.options]
    if lacks:
        return {}, lacks

    def distance(have: Sequence[int], option: Sequence[int], factor: float) -> float:
        return sum((here - factor * there) ** 2 for here, there in zip(have, option, strict=True))

    def nearest(part: Channels, factor: float) -> tuple[float, int]:
        return min((distance(part.have, option, factor), number) for number, option in part.options.items())

    pairs = ((part.have, option) for part in parts.values() for option in part.options.values())
    factors = [1.0, *(here / there for have, of in pairs for here, there in zip(have, of, strict=True))]
    best = min(factors, key=lambda factor: sum(nearest(part, factor)[0] for part in parts.values()))
    step = next(step for step in STEPS if all(channels % step == 0 for channels in channels_of(genotype)))
    found = {name: nearest(part, best)[1] for name, part in parts.items()}
    for name, part in parts.items():
        option = part.options[found[name]]
        if any(abs(here - best * there) > 2 * step for here, there in zip(part.have, option, strict=True)):
            lacks.append(f"{part.what} has {' '.join(map(str, part.have))} channels, and no option fits the others")
    if space.macro is not None and space.macro.profiles:
        found |= {f"width {stage.stride}": found["width"] for stage in genotype.all_stages}
    return found, lacks


def _parts(genotype: Genotype, space: SearchSpace) -> dict[str, Channels]:
    options, own, stages = options_of(space), genotype.decoder, genotype.all_stages
    stems = enumerate(options["stem"] or ())
    decoders = enumerate(options["decoder"] or ())
    alike = {number: one for number, one in decoders if _structure(one) == _structure(own)}
    filters = DECODERS[own.name].has_filters
    parts = {
        "stem": Channels(
            f"its stem {label_of(genotype.stem)}",
            genotype.stem.channels,
            {number: stem.channels for number, stem in stems if stem.strides == genotype.stem.strides},
        ),
        "decoder": Channels(
            f"its decoder {label_of(own)}",
            (own.filters, own.low_level_filters) if filters else (),
            {number: (one.filters, one.low_level_filters) if filters else () for number, one in alike.items()},
        ),
    }

    def at(width: float, stride: int) -> int:
        return filters_at_width(nominal_multiplier(space), width, stride / space.network.strides[0])

    if "width" in options:
        profiles = dict(enumerate(options["width"] or ()))
        strides = [stage.stride for stage in stages]
        vectors = {
            number: [at(width, stride) for width, stride in zip(profile.widths, strides, strict=False)]
            for number, profile in profiles.items()
            if len(profile.widths) >= len(strides)
        }
        return {**parts, "width": Channels("its widths", [stage.filters for stage in stages], vectors)}
    for stage in stages:
        widths = enumerate(options.get(name := f"width {stage.stride}") or ())
        vectors = {number: [at(width, stage.stride)] for number, width in widths}
        parts[name] = Channels(f"its stage of stride {stage.stride}", [stage.filters], vectors)
    return parts


def _structure(decoder: DecoderSpec) -> tuple[object, ...]:
    """What makes decoders the same but for their channels and dropout."""
    return decoder.name, decoder.aspp_rates, decoder.low_level_stride


def _wiring(network: NamedNetwork | PathSpec) -> tuple[object, ...]:
    """Strides, or the arrows into each layer, whatever their order."""
    return network.strides, [{arrow.replace(" ", "") for arrow in layer} for layer in network.arrows]


def _lacking_wide(genotype: Genotype, space: SearchSpace) -> Iterator[str]:
    macro, options, stages = macro_of(space), options_of(space), genotype.all_stages
    if genotype.network.down_layers is not None:
        yield "it has an up path of its own (network.down_layers), which no network of a wide space has"
    yield from _unknown("stages", (stage.block for stage in stages), macro.blocks)
    depths = [stage.depth for stage in stages if stage.block != CELL]
    yield from _unknown("stages", (f"depth {depth}" for depth in depths), [f"depth {depth}" for depth in macro.depths])
    if macro.shared_by == NETWORK and max(len({stage.block for stage in stages}), len(set(depths))) > 1:
        yield "its stages differ in block or depth, for which the space has one choice (macro.shared_by)"
    if CELL in {stage.block for stage in stages}:
        if options["cell"] is None:
            yield from _of_cell(genotype.cell, "cell", space)
        elif genotype.cell not in options["cell"]:
            yield f"its cell is none of {', '.join(macro.cells)} (macro.cells)"
    if not macro.networks:
        yield from _of_arrows(genotype, space, held=False)
    elif not any(_wiring(one) == _wiring(genotype.network) for one in macro.networks):
        yield f"its network is none of {', '.join(one.name for one in macro.networks)} (macro.networks)"
    yield from fit_channels(genotype, space)[1]
    if space.gamma_sites and not any(_of_upsamplers(genotype, space)):
        return
    used = {genotype.upsampler(arrow) for arrow in genotype.up_arrows}
    used |= set(genotype.decoder.upsamplers or ("bilinear",) * len(genotype.decoder_levels))
    yield from _unknown("upsamplers", sorted(used), macro.upsamplers)
    if len(used) > 1:
        yield f"it has the upsamplers {' and '.join(sorted(used))}, and networks of the space have one"
