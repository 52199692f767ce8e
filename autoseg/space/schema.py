"""A search space as data: from YAML to a validated, frozen `SearchSpace`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from autoseg import limits
from autoseg.config.base import Settings, Whole, parse
from autoseg.errors import AutosegError, GenotypeError, SearchSpaceError
from autoseg.files import read_yaml, shell_quoted, user_path
from autoseg.library import hint, library, names_in
from autoseg.registry import BLOCKS, CELL, DECODERS, OPERATIONS, REGISTRIES, UPSAMPLERS
from autoseg.space import groups
from autoseg.space.cell import CellTopology
from autoseg.space.macro import NETWORK, MacroSpec, MacroTable, filters_at_width
from autoseg.space.resolution import PLAIN_UPSAMPLERS, GammaSite, ResolutionSpec, parse_upsampler
from autoseg.space.trellis import Arrow, Move, Trellis, filters_at

SPACE_VERSION = 1

LATER_OPTIONS = {
    "cell": ("up_cell",),
    "network": ("down_layers", "paths", "upsamplers", "skips", "arrows"),
    "head": ("name",),
    "decoder": ("upsamplers",),
    "decoding": ("threshold", "budget"),
}
"""Options of spaces and genotypes that files contain only if they are on."""


def refuse_missing_plugins(data: Mapping[str, Any], where: str, error: type[AutosegError]) -> None:
    """Refuse data with a record of a plugin that is not loaded, and name the plugin."""
    plugins = data.get("plugins")
    for name, plugin in plugins.items() if isinstance(plugins, Mapping) else ():
        if not any(name in registry for registry in REGISTRIES.values()):
            raise error(
                f"'{name}'{f' in {where}' if where else ''} comes from the plugin {plugin}, which is not given; add"
                f" --plugin {shell_quoted(str(plugin))}",
                code="plugin-not-given",
            )


def write_plugins(
    data: dict[str, Any], operations: Iterable[str], upsamplers: Iterable[str], decoders: Iterable[str],
    blocks: Iterable[str] = (),
) -> None:  # fmt: skip
    """Add `plugins`, the plugin of each of these names; no key if all ship with autoseg."""
    bases = [parse_upsampler(name).base for name in upsamplers]
    owners = OPERATIONS.owners(operations) | UPSAMPLERS.owners(bases) | DECODERS.owners(decoders)
    owners |= BLOCKS.owners(blocks)
    if owners:
        data["plugins"] = owners


class ArchitectureFile(Settings):
    """A YAML file with a version and the plugins of its records: a search space or a genotype."""

    what: ClassVar[str]
    newest: ClassVar[int]
    """The version that this autoseg writes."""
    error: ClassVar[type[AutosegError]]
    version: Whole

    @model_validator(mode="before")
    @classmethod
    def _plugins_are_loaded(cls, data: Any) -> Any:
        """Checks and drops the key `plugins` of a file; `to_dict` writes it again."""
        if not isinstance(data, Mapping):
            return data
        refuse_missing_plugins(data, "", cls.error)
        return {key: value for key, value in data.items() if key != "plugins" or not isinstance(value, Mapping)}

    @field_validator("version")
    @classmethod
    def _version_is_known(cls, version: int) -> int:
        if not 1 <= version <= cls.newest:
            raise ValueError(f"there is no version {version}; the newest is {cls.newest}")
        return version

    @classmethod
    def parse(cls, data: Mapping[str, Any], where: str = "") -> Self:
        """Read plain data; `where` is the path of its file, for messages.

        Raises: SearchSpaceError, GenotypeError: invalid data, a newer version or a missing plugin; one line says which.
        """
        version = data.get("version")
        if isinstance(version, int) and version > cls.newest:  # before its new keys are reported as unknown
            raise cls.error(
                f"{where or f'this {cls.what}'} has version {version}, but this autoseg reads up to {cls.newest};"
                " update autoseg",
                code="version-too-new",
            )
        refuse_missing_plugins(data, where, cls.error)
        return parse(cls, data, where, cls.error)


class SearchSpace(ArchitectureFile):
    """Everything that defines a search space. `SearchSpace.load("auto_deeplab")` reads one."""

    what = "search space"
    newest = SPACE_VERSION
    error = SearchSpaceError
    version: Whole = SPACE_VERSION
    name: Annotated[str, Field(min_length=1)]
    description: str = ""
    cell: groups.CellSpec = groups.CellSpec()
    network: groups.NetworkSpec = groups.NetworkSpec()
    stem: groups.StemSpec = groups.StemSpec()
    head: groups.HeadSpec = groups.HeadSpec()
    resolution: ResolutionSpec = ResolutionSpec()
    decoder: groups.SpaceDecoderSpec = groups.SpaceDecoderSpec()
    network_batch_norm: groups.BatchNormSpec = groups.BatchNormSpec()
    """BatchNorm of the decoded network; the supernet's has no affine parameters and the usual constants."""
    decoding: groups.DecodingSpec = groups.DecodingSpec()
    relaxation: groups.RelaxationSpec = groups.RelaxationSpec()
    macro: MacroSpec | None = None
    """What networks choose beside cell, path and upsamplers, in a wide space."""

    @property
    def candidates(self) -> int:
        """Number of operations that compete in the supernet: arrows into cells, times edges, times operations.

        In a wide space, whose arrows are mixed before a node: nodes, times blocks of each kind in a row and operations.
        """
        of_cell = len(self.topology.edges) * len(self.cell.operations)
        if self.macro is None:
            return len(self.trellis.arrows) * of_cell
        chains = len(set(self.macro.blocks) - {CELL}) * max(self.macro.depths)
        return len(self.trellis.nodes) * (chains + of_cell * (CELL in self.macro.blocks))

    @model_validator(mode="after")
    def _whole_is_limited(self) -> SearchSpace:
        if (whole := self.candidates) > limits.CANDIDATES:
            if self.macro is not None:
                raise ValueError(
                    f"the blocks, depths and operations of {len(self.trellis.nodes):,} nodes make {whole:,} candidates,"
                    f" but at most {limits.CANDIDATES:,} are built; take fewer layers, blocks or a smaller depth"
                )
            raise ValueError(
                f"{len(self.trellis.arrows):,} arrows with {len(self.topology.edges)} edges of"
                f" {len(self.cell.operations)} operations make {whole:,} candidates, but at most {limits.CANDIDATES:,}"
                " are built; take fewer layers, blocks or operations"
            )
        return self

    @model_validator(mode="after")
    def _groups_fit_together(self) -> SearchSpace:
        network, relaxation, decoder = self.network, self.relaxation, self.decoder
        if self.stem.stride != network.strides[0]:
            raise ValueError(
                f"stem.strides {list(self.stem.strides)} reach stride {self.stem.stride}, but network.strides"
                f" starts at {network.strides[0]}; make the two equal"
            )
        for key in ("threshold", "budget"):
            if network.paths == "single" and getattr(self.decoding, key) != getattr(groups.DecodingSpec(), key):
                raise ValueError(f"decoding.{key} is of several paths; set network.paths to multi, or leave it out")
        if network.filter_multiplier % (relaxation.pc_darts or 1):
            raise ValueError(
                f"relaxation.pc_darts {relaxation.pc_darts} must divide network.filter_multiplier"
                f" {network.filter_multiplier}, as 1/pc_darts of the channels pass through the operations"
            )
        if network.down_layers is None and self.resolution.skips != ("none",):
            raise ValueError("resolution.skips need an encoder; set network.down_layers, or skips to [none]")
        if network.down_layers is None and self.cell.up_cell:
            raise ValueError("cell.up_cell needs an up path; set network.down_layers, or leave up_cell out")
        if network.down_layers is not None and DECODERS[decoder.name].joins != "none":
            raise ValueError(
                f"decoder.name '{decoder.name}' is for a path that ends at a greater stride; with network.down_layers"
                " take 'classifier' or 'aspp'"
            )
        return self

    @model_validator(mode="after")
    def _macro_fits(self) -> SearchSpace:
        if self.macro is None:
            return self
        if self.decoding.budget is not None:
            raise ValueError("decoding.budget is not for a wide space; set macro.cost, or leave it out")
        self.macro.check(self.stem, self.network, self.decoding.filter_multiplier or self.network.filter_multiplier)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain data for YAML, without options that are off."""
        data = super().to_dict()
        for group, plain in (("relaxation", groups.RelaxationSpec()), ("resolution", ResolutionSpec())):
            if getattr(self, group) == plain:
                del data[group]
        upsamplers = (*self.resolution.upsamplers, *self.decoder.upsamplers)
        decoders, blocks = [self.decoder.name], tuple[str, ...]()
        if self.macro is None:
            del data["macro"]
        else:
            blocks, upsamplers = self.macro.blocks, (*upsamplers, *self.macro.upsamplers)
            decoders += [decoder.name for decoder in self.macro.decoders]
            data["macro"] = {key: value for key, value in data["macro"].items() if value not in ([], None)}
        write_plugins(data, self.cell.operations, upsamplers, decoders, blocks)
        return without_defaults(data, self)

    @cached_property
    def trellis(self) -> Trellis:
        """The legal nodes and arrows."""
        network = self.network
        return Trellis(network.layers, network.strides, network.moves, network.down_layers)

    def filters(self, level: int) -> int:
        """Filters of a block of the supernet at a level; in a wide space those of the greatest width."""
        plain = filters_at(level, self.network.filter_multiplier)
        return plain if self.macro is None else max(self.width_filters(level))

    # --- the wide choices ---------------------------------------------------------------------------------------------

    @cached_property
    def searches_cell(self) -> bool:
        """Whether the operations of cells compete: always, but in a wide space without the cell, or with templates."""
        return self.macro is None or (CELL in self.macro.blocks and not self.macro.cells)

    @cached_property
    def macro_tables(self) -> dict[str, MacroTable]:
        """A wide space's tables by name: block, depth and width, each where there is more than one option."""
        macro = self.macro
        if macro is None:
            return {}
        levels = tuple(f"stride {stride}" for stride in self.network.strides)
        shared = (NETWORK,) if macro.shared_by == "network" else levels
        tables = {
            "block": MacroTable(shared, macro.blocks),
            "depth": MacroTable(shared, () if set(macro.blocks) == {CELL} else macro.depths),
            "width": MacroTable((NETWORK,), macro.profiles) if macro.profiles else MacroTable(levels, macro.widths),
        }
        return {name: table for name, table in tables.items() if len(table.options) > 1}

    def width_filters(self, level: int) -> list[int]:
        """Filters of the supernet at a level for each width or profile of a wide space."""
        assert self.macro is not None
        widths = [profile.widths[level] for profile in self.macro.profiles] or self.macro.widths
        return [filters_at_width(self.network.filter_multiplier, width, 1 << level) for width in widths]

    @cached_property
    def topology(self) -> CellTopology:
        """The edges of the cell."""
        return CellTopology(self.cell.blocks)

    @cached_property
    def cells(self) -> int:
        """Cells that are searched: one for all layers, or one for the down path and one for the up path."""
        return 2 if self.cell.up_cell else 1

    def cell_of(self, layer: int) -> int:
        """The number of the cell of layer 1..L. Its rows of alpha begin at that number times the edges of a cell."""
        return int(self.cell.up_cell and layer > (self.network.down_layers or 0))

    # --- upsampling ---------------------------------------------------------------------------------------------------

    @cached_property
    def upsamplers(self) -> tuple[str, ...]:
        """The columns of gamma: the upsamplers on up moves, then those only in the decoder."""
        return tuple(dict.fromkeys(name for site in self.gamma_sites for name in site.candidates))

    @cached_property
    def gamma_sites(self) -> tuple[GammaSite, ...]:
        """The rows of gamma; empty if bilinear upsampling has no competitor."""
        sites = dict.fromkeys(self._site_of(arrow) for arrow in self.trellis.arrows if self._competes(arrow))
        return (*sites, *(self._decoder_site(level) for level in self.decoder_stages))

    def gamma_row(self, arrow: Arrow) -> int | None:
        """The row of gamma for an arrow; None if nothing competes."""
        return self.gamma_sites.index(self._site_of(arrow)) if self._competes(arrow) else None

    def decoder_row(self, level: int) -> int:
        """The row of gamma for the decoder's doubling from `level` to the one above it."""
        return self.gamma_sites.index(self._decoder_site(level))

    @cached_property
    def decoder_stages(self) -> tuple[int, ...]:
        """The levels from which the decoder doubles, from coarse to fine; empty if no upsamplers compete there."""
        if self.decoder.upsamplers == PLAIN_UPSAMPLERS:
            return ()
        return tuple(reversed(range(1, 1 + max(node.level for node in self.trellis.nodes_at(self.network.layers)))))

    def _competes(self, arrow: Arrow) -> bool:
        return arrow.move is Move.UP and self.resolution.upsamplers != PLAIN_UPSAMPLERS

    def _site_of(self, arrow: Arrow) -> GammaSite:
        place = "up" if self.resolution.shared_by == "level" else f"layer{arrow.target.layer}"
        strides = self.network.strides
        name = f"{place}_{strides[arrow.source.level]}_{strides[arrow.target.level]}"
        return GammaSite(name, self.resolution.upsamplers)

    def _decoder_site(self, level: int) -> GammaSite:
        strides = self.network.strides
        return GammaSite(f"decoder_{strides[level]}_{strides[level - 1]}", self.decoder.upsamplers)

    @classmethod
    def load(cls, name_or_path: str | Path) -> SearchSpace:
        """A space by name or path. Raises: SearchSpaceError: unknown, unreadable or wrong."""
        return load_space(name_or_path)[0]


def load_space(name_or_path: str | Path) -> tuple[SearchSpace, dict[str, Any]]:
    """A space, and the schedules in its file: `{"search": {...}, "retrain": {...}}`, each optional."""
    path = find_file(name_or_path, "search space", SearchSpaceError)
    data = read_yaml(path, SearchSpaceError)
    schedules: dict[str, Any] = {key: data.pop(key) for key in ("search", "retrain") if key in data}
    for key, schedule in schedules.items():
        if not isinstance(schedule, dict):
            raise SearchSpaceError(f"{key} must be a mapping of settings in {path}", code="setting-invalid")
    return SearchSpace.parse(data, str(path)), schedules


def without_defaults(data: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Nested plain data without the later options at their defaults, as in older files."""
    for group, key in [(group, key) for group, keys in LATER_OPTIONS.items() for key in keys]:
        part: Settings = getattr(settings, group, settings)
        if key in data.get(group, {}) and getattr(part, key) == type(part).model_fields[key].default:
            del data[group][key]
    return data


# --- files by name -------------------------------------------------------------------------------------------------


def space_names() -> list[str]:
    """The spaces that ship with autoseg."""
    return names_in(library("search_spaces"))


def genotype_names() -> list[str]:
    """The networks that ship with autoseg as genotypes."""
    return names_in(library("search_spaces") / "genotypes")


def find_file(name_or_path: str | Path, what: str, error: type[AutosegError]) -> Path:
    """The YAML file of a shipped space or genotype, or the path. Raises: `error`: neither a known name nor a file."""
    text, folder = str(name_or_path), library("search_spaces")
    if error is GenotypeError:
        folder /= "genotypes"
    if text in names_in(folder):
        return folder / f"{text}.yaml"
    path = user_path(text, error)
    if path.is_file():
        return path
    advice = hint(text, names_in(folder), "; or give the path of a YAML file")
    message = f"unknown {what} {text!r} ({advice})"
    raise error(message, code="unknown-genotype" if error is GenotypeError else "unknown-space")
