"""What a gradient search of a wide space holds fixed. No torch.

The number of layers, one path or several, the stem, the decoder, the upsampler (unless upsamplers compete)
and templates of cells each change the shape or the number of all that lies behind them. A mixture would need a supernet
for each.
"""

from __future__ import annotations

from typing import Any

from autoseg.errors import SearchSpaceError
from autoseg.genotype.design import Genes, arrows_of_network, label_of, macro_of, options_of
from autoseg.registry import CELL
from autoseg.space.macro import NamedNetwork
from autoseg.space.resolution import PLAIN_UPSAMPLERS
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import Arrow


def held_genes(space: SearchSpace) -> Genes:
    """The genes that a gradient search does not choose: `stem`, `decoder`, `upsampler`, and `cell` if it is a template.

    Each is what the space's own group says, if that is an option, else the first option.
    """
    options, own = options_of(space), space.decoder.model_dump(exclude={"upsamplers"})
    decoders = list(options["decoder"] or ())
    genes: dict[str, Any] = {
        "stem": space.stem,
        "decoder": next((decoder for decoder in decoders if decoder.model_dump() == own), decoders[0]),
    }
    if not space.gamma_sites:
        upsamplers = macro_of(space).upsamplers
        genes["upsampler"] = next((name for name in upsamplers if (name,) == PLAIN_UPSAMPLERS), upsamplers[0])
    if CELL in macro_of(space).blocks and not space.searches_cell:
        genes["cell"] = (options["cell"] or ())[0]
    return genes


def relaxed_networks(space: SearchSpace) -> list[tuple[NamedNetwork, tuple[Arrow, ...]]]:
    """The networks of `macro.networks` whose arrows the supernet has, and these."""
    there, found = set(space.trellis.arrows), []
    for network in macro_of(space).networks:
        arrows = arrows_of_network(network, space.stem.stride)
        if there.issuperset(arrows) and max(arrow.target.layer for arrow in arrows) == space.network.layers:
            found.append((network, arrows))
    return found


def check_relaxable(space: SearchSpace) -> None:
    """Raises: SearchSpaceError: a wide space in which a gradient search cannot hold fixed what it must."""
    macro, network = macro_of(space), space.network
    for key in ("pc_darts", "gdas"):
        if getattr(space.relaxation, key) is not None:
            message = f"relaxation.{key} is for cells, and space '{space.name}' is wide (macro); leave it out"
            raise SearchSpaceError(message, code="setting-not-for-space")
    if network.down_layers is not None:
        message = f"network.down_layers is not for the wide space '{space.name}', whose networks have no encoder"
        raise SearchSpaceError(f"{message}; leave it out", code="setting-not-for-space")
    held = (
        ("network.layers", network.layers, "macro.layers", macro.layers),
        ("network.paths", network.paths, "macro.paths", macro.paths),
        ("stem", space.stem, "macro.stems", macro.stems),
    )
    for key, own, where, options in held:
        if options and own not in options:
            raise SearchSpaceError(
                f"a gradient search of space '{space.name}' holds {key} fixed, {label_of(own)}, which is not in"
                f" {where}; add it there, or set {key} to an option",
                code="setting-not-for-space",
            )
    if macro.networks and not relaxed_networks(space):
        raise SearchSpaceError(
            f"a gradient search of space '{space.name}' has {network.layers} layers of strides"
            f" {list(network.strides)}, and no network of macro.networks is one of these; set network.layers and"
            " network.strides to those of one",
            code="setting-not-for-space",
        )


def held_notes(space: SearchSpace) -> list[str]:
    """A line on what a gradient search of the space holds fixed; empty if the space is not wide."""
    if space.macro is None:
        return []
    macro, genes = space.macro, held_genes(space)
    own = {"layers": space.network.layers, "paths": space.network.paths, "stems": genes["stem"]}
    own |= {"decoders": genes["decoder"], "upsamplers": genes.get("upsampler")}
    counts = {key: len(getattr(macro, key)) for key in own}
    parts = [
        f"{key} {label_of(own[key])} (one of {counts[key]})" for key in own if counts[key] > 1 and own[key] is not None
    ]
    if len(macro.cells) > 1 and "cell" in genes:
        parts.append(f"cells {macro.cells[0]} (one of {len(macro.cells)})")
    if left := len(macro.networks) - len(relaxed_networks(space)):
        parts.append(f"networks without {left} of {len(macro.networks)}, which have other layers or strides")
    searched = ", ".join(("paths", *(f"{name}s" for name in space.macro_tables)))
    return [f"a gradient search of a wide space chooses {searched}; it holds fixed: {'; '.join(parts) or 'the rest'}"]
