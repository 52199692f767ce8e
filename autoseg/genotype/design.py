"""The networks of a wide space as genes: drawing, changing and listing them. Pure functions, without torch.

Genes are a mapping from a part of the network to what it is: `stem`, `network`, `width`, `block`, `depth`, `decoder`,
`upsampler`, `cell`; what each level chooses has its stride in its name, such as `block 8`. `genotype_of` builds the
genotype, whose channels `autoseg.zoo.match_cost.scale_to_cost` brings to a cost.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

from autoseg.errors import SearchSpaceError
from autoseg.genotype.draws import sample_cell, sample_path, sample_topology
from autoseg.genotype.schema import (
    Cell,
    Genotype,
    GenotypeDecoderSpec,
    PathSpec,
    StageSpec,
    parse_arrows,
    path_arrows,
    write_arrows,
)
from autoseg.registry import CELL, DECODERS
from autoseg.space.groups import DecoderSpec, StemSpec
from autoseg.space.macro import KnownDesign, MacroSpec, NamedNetwork, filters_at_width
from autoseg.space.resolution import PLAIN_UPSAMPLERS
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import Arrow, Trellis

T = TypeVar("T")
Genes = Mapping[str, Any]
FREE = None
"""In place of a list of options: the gene is drawn, and they are too many to list."""
TRIES = 100
"""Draws of a changed gene before it is given up: two genes may make the same network."""


def macro_of(space: SearchSpace) -> MacroSpec:
    """The wide choices of a space. Raises: SearchSpaceError: it has none."""
    if space.macro is None:
        message = f"space '{space.name}' has no group 'macro'; take a wide space, such as wide_small"
        raise SearchSpaceError(message, code="space-not-wide")
    return space.macro


def options_of(space: SearchSpace) -> dict[str, Sequence[Any] | None]:
    """The options of each gene; FREE where they are too many. Raises: SearchSpaceError: the space is not wide."""
    macro = macro_of(space)
    stems = macro.stems or (space.stem,)
    strides = [1 << level for level in range(6)]
    strides = [one for one in strides if min(stem.stride for stem in stems) <= one <= space.network.strides[-1]]

    def by_level(name: str, options: Sequence[Any], shared: bool = False) -> dict[str, Sequence[Any] | None]:
        return {name: options} if shared else {f"{name} {stride}": options for stride in strides}

    shared = macro.shared_by == "network"
    widths = {"width": macro.profiles} if macro.profiles else by_level("width", macro.widths)
    genes: dict[str, Sequence[Any] | None] = {
        "stem": stems,
        "network": macro.networks or FREE,
        **widths,
        **by_level("block", macro.blocks, shared),
        **by_level("depth", macro.depths, shared),
        "decoder": macro.decoders or (_fixed_decoder(space),),
        "upsampler": macro.upsamplers,
    }
    if CELL in macro.blocks:
        genes["cell"] = [_template(name) for name in macro.cells] or FREE
    return genes


def sample_genes(space: SearchSpace, rng: np.random.Generator) -> Genes:
    """Genes drawn uniformly, each by itself; a path or topology uniformly among those with a drawn number of layers."""
    genes: dict[str, Any] = {}
    for name, options in options_of(space).items():
        genes[name] = _drawn(space, name, genes, rng) if options is FREE else _one_of(options, rng)
    return genes


def mutate(space: SearchSpace, genes: Genes, rng: np.random.Generator) -> Genes:
    """Genes of which one is another, drawn uniformly among those with a choice; the network they make is another.

    A path or topology that does not begin at a new stem's stride is drawn anew.
    Raises: SearchSpaceError: the space has one network.
    """
    options = options_of(space)
    names = [name for name, known in options.items() if known is FREE or len(known) > 1]
    before = key_of(genotype_of(space, genes))
    for _ in range(TRIES if names else 0):
        name = _one_of(names, rng)
        known, changed = options[name], dict(genes)
        changed[name] = _drawn(space, name, genes, rng) if known is FREE else _one_of(known, rng)
        if name == "stem" and options["network"] is FREE and changed["stem"].stride != genes["stem"].stride:
            changed["network"] = _drawn(space, "network", changed, rng)
        if key_of(genotype_of(space, changed)) != before:
            return changed
    raise SearchSpaceError(f"space '{space.name}' has no second network; give it more options", code="space-too-small")


def enumerate_genes(space: SearchSpace) -> Iterator[Genes]:
    """Every combination of options, the last gene changing first. Raises: SearchSpaceError: they cannot be listed."""
    options = options_of(space)
    free = [name for name, known in options.items() if known is FREE]
    if free:
        raise SearchSpaceError(
            f"the networks of space '{space.name}' cannot be listed: {' and '.join(free)} is drawn; name its options in"
            " macro.networks and macro.cells",
            code="space-not-listed",
        )
    lists = [known for known in options.values() if known is not FREE]
    return (dict(zip(options, combination, strict=True)) for combination in itertools.product(*lists))


def known_genes(space: SearchSpace) -> dict[str, Genes]:
    """The known designs of a wide space by name.

    Raises: SearchSpaceError: a gene of one of them is missing, or no option of the space.
    """
    found: dict[str, Genes] = {}
    for design in macro_of(space).known:
        genes: dict[str, Any] = {}
        for gene, options in options_of(space).items():
            if gene == "network" and options is FREE:
                genes[gene] = NamedNetwork(name=design.name, strides=design.strides, arrows=design.arrows)
            elif options is not FREE:
                genes[gene] = _in_words(space, design, gene, options)
        if "cell" in options_of(space) and "cell" not in genes:  # a searched one has no name
            genes["cell"] = ()
        found[design.name] = genes
    return found


def _in_words(space: SearchSpace, design: KnownDesign, gene: str, options: Sequence[T]) -> T:
    """The option that a known design names for a gene; the only one needs no name."""
    word = design.genes.get(gene, design.genes.get(gene.split()[0]))
    if word is None and len(options) == 1:
        return options[0]
    labels = [label_of(option) for option in options]
    if word is None or label_of(word) not in labels:
        said = "no" if word is None else f"the unknown {label_of(word)!r} as"
        raise SearchSpaceError(
            f"the known design '{design.name}' of space '{space.name}' gives {said} {gene}; give one of"
            f" {', '.join(labels)}",
            code="known-design-invalid",
        )
    return options[labels.index(label_of(word))]


def label_of(value: Any) -> str:
    """A gene's value in a word: a name, or the value itself."""
    if isinstance(value, StemSpec):
        return "-".join(f"{channels}/{stride}" for channels, stride in zip(value.channels, value.strides, strict=True))
    if isinstance(value, DecoderSpec):
        return f"{value.name} {value.filters}" if DECODERS[value.name].has_filters else value.name
    name = getattr(value, "name", value)
    return f"{name:g}" if isinstance(name, int | float) else name if isinstance(name, str) else json.dumps(_plain(name))


def key_of(genotype: Genotype) -> str:
    """What makes two networks the same: everything but their names, origins and training settings."""
    data = genotype.to_dict()
    return json.dumps({key: data[key] for key in data if key not in ("name", "source", "retrain")}, sort_keys=True)


# --- from genes to a genotype -----------------------------------------------------------------------------------------


def genotype_of(
    space: SearchSpace,
    genes: Genes,
    name: str | None = None,
    retrain: Genes | None = None,
    source: Genes | None = None,
    upsampling: Mapping[str, Sequence[str]] | None = None,
) -> Genotype:
    """The genotype of some genes, not yet scaled to a cost.

    Args:
        space: The wide space of the genes.
        genes: A value for each of `options_of(space)`.
        name: The genotype's name. Default: the space's, and `_member`.
        retrain: The training settings that it recommends. Default: none.
        source: More of its origin. Default: the space and the genes.
        upsampling: `upsamplers` and `decoder_upsamplers` for each place, as `Genotype.of_space` takes them. Default:
            the gene `upsampler` everywhere.

    Returns:
        The genotype; its source says the genes in words.

    Raises:
        SearchSpaceError: The space is not wide.
    """
    network, stem = genes["network"], genes["stem"]
    arrows = arrows_of_network(network, stem.stride)
    strides = [stem.stride << level for level in range(1 + max(arrow.target.level for arrow in arrows))]
    stages = tuple(_stage(space, genes, level, stride) for level, stride in enumerate(strides))
    plain = Genotype(
        name=name or f"{space.name}_member",
        cell=genes["cell"] if CELL in {stage.block for stage in stages} else (),
        stages=stages,
        network=PathSpec(strides=network.strides, arrows=network.arrows, filter_multiplier=nominal_multiplier(space)),
        stem=stem,
        decoder=GenotypeDecoderSpec(**genes["decoder"].model_dump()),
        batch_norm=space.network_batch_norm,
        source={
            "space": space.name,
            **(source or {}),
            "genes": {gene: label_of(value) for gene, value in genes.items()},
        },
        retrain=dict(retrain or {}),
    )
    if upsampling is None:
        upsampler: tuple[str, ...] = (genes["upsampler"],)
        if upsampler == PLAIN_UPSAMPLERS:
            return plain
        places = {"upsamplers": plain.up_arrows, "decoder_upsamplers": plain.decoder_levels}
        upsampling = {key: upsampler * len(of) for key, of in places.items()}
    on_path, in_decoder = (tuple(upsampling.get(key, ())) for key in ("upsamplers", "decoder_upsamplers"))
    changed = {
        "network": plain.network.model_copy(update={"upsamplers": on_path}),
        "decoder": plain.decoder.model_copy(update={"upsamplers": in_decoder}),
    }
    return plain.model_copy(update=changed)


def arrows_of_network(network: NamedNetwork, stem_stride: int) -> tuple[Arrow, ...]:
    """The arrows of a path or topology."""
    return parse_arrows(network.arrows, stem_stride) if network.arrows else path_arrows(network.strides, stem_stride)


def network_of(arrows: Sequence[Arrow], strides: Sequence[int], is_path: bool) -> NamedNetwork:
    """The path or topology of some arrows. strides: of the levels."""
    if is_path:
        path = tuple(strides[arrow.target.level] for arrow in sorted(arrows))
        return NamedNetwork(name=" ".join(map(str, path)), strides=path)
    layers = write_arrows(arrows, strides)
    return NamedNetwork(name=f"{len(arrows)} arrows in {len(layers)} layers", arrows=layers)


def _stage(space: SearchSpace, genes: Genes, level: int, stride: int) -> StageSpec:
    block, depth = (genes.get(gene, genes.get(f"{gene} {stride}")) for gene in ("block", "depth"))
    width = genes["width"].widths[level] if "width" in genes else genes[f"width {stride}"]
    filters = filters_at_width(nominal_multiplier(space), width, stride / space.network.strides[0])
    return StageSpec(stride=stride, block=block, depth=1 if block == CELL else depth, filters=filters)


def nominal_multiplier(space: SearchSpace) -> int:
    """F of the space's networks, at its smallest stride."""
    return space.decoding.filter_multiplier or space.network.filter_multiplier


def _drawn(space: SearchSpace, name: str, genes: Genes, rng: np.random.Generator) -> Any:
    """A value of a gene whose options are too many to list."""
    if name == "cell":
        return sample_cell(space, rng)
    macro, stem = macro_of(space), genes["stem"]
    layers, paths = macro.layers or (space.network.layers,), macro.paths or (space.network.paths,)
    number, kind = _one_of(layers, rng), _one_of(paths, rng)
    strides = [stem.stride << level for level in range(6) if stem.stride << level <= space.network.strides[-1]]
    trellis = Trellis(number, strides, space.network.moves)
    if kind == "single":
        return network_of(trellis.arrows_along(sample_path(trellis, rng)), strides, True)
    return network_of(sample_topology(trellis, rng), strides, False)


@lru_cache(maxsize=64)
def _template(name: str) -> Cell:
    """The cell of a genotype that ships with autoseg, or of a file."""
    return Genotype.load(name).cell


def _one_of(options: Sequence[T], rng: np.random.Generator) -> T:
    return options[int(rng.integers(len(options)))]


def _fixed_decoder(space: SearchSpace) -> DecoderSpec:
    return DecoderSpec(**space.decoder.model_dump(exclude={"upsamplers"}))


def _plain(value: Any) -> Any:
    """Plain data for JSON, of a cell."""
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value.model_dump() if hasattr(value, "model_dump") else value
