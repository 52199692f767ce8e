"""A table of trained networks: every member of a small space, with its scores. No torch.

Letters: M members, S trainings of each (their seeds), T stops of one schedule at which a training was evaluated (the
last is its end), I validation images, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from autoseg import limits
from autoseg.errors import TableError
from autoseg.files import check_members, is_intact, one_line, seal, user_path, write_atomically
from autoseg.genotype.design import Genes, enumerate_genes, genotype_of, key_of, label_of, options_of
from autoseg.genotype.scale import with_channels
from autoseg.genotype.schema import Genotype
from autoseg.library import hint
from autoseg.space.schema import SearchSpace

TABLE_VERSION = 1
FOLDER = Path(__file__).parent / "tables"


@dataclass(frozen=True, eq=False)
class Table:
    """The networks of a space with their trainings. `Table.load("table_216")` reads one that ships with autoseg.

    Members are numbered in the order of `autoseg.genotype.design.enumerate_genes`.
    """

    space: SearchSpace
    recipe: Mapping[str, Any]
    """Settings of the data and of the training, and the number of classes."""
    stops: tuple[int, ...]
    """Epochs of the schedule after which a training was evaluated."""
    channels: Sequence[tuple[int, ...]]
    """(M,): the channels of each scaled network, as `genotype.scale.channels_of` orders them; empty if not trained."""
    miou: np.ndarray
    """(S, T, M): mean IoU on the validation images; NaN for a training that the table lacks."""
    loss: np.ndarray
    """(S, T, M): mean cross-entropy of the validation pixels."""
    counts: np.ndarray
    """(S, M, I, 2, K): for each validation image and class, at the end, correct pixels and pixels predicted as it."""
    true: np.ndarray
    """(I, K): pixels of each class in each validation image."""
    parameters: np.ndarray
    multiply_adds: np.ndarray
    """(M,): per image, at the size of the table's images."""
    seconds: np.ndarray
    """(S, M): processor seconds of a training with its evaluations, on one thread."""
    inherited: Mapping[str, np.ndarray] = field(default_factory=dict)
    """(M,): scores of the members with the weights of a trained supernet, by a name that says how."""

    def __len__(self) -> int:
        return len(self.channels)

    @property
    def seeds(self) -> int:
        """Number of trainings of each member, at most."""
        return len(self.miou)

    # --- members ------------------------------------------------------------------------------------------------------

    @cached_property
    def genes(self) -> list[Genes]:
        """The genes of each member."""
        return list(enumerate_genes(self.space))

    @cached_property
    def options(self) -> dict[str, Sequence[Any]]:
        """The options of each gene with a choice, in the order in which members are numbered."""
        return {gene: known for gene, known in options_of(self.space).items() if known is not None and len(known) > 1}

    @cached_property
    def places(self) -> np.ndarray:
        """(M, genes with a choice): the number of the option that a member has of each gene."""
        sizes = [len(known) for known in self.options.values()]
        return np.stack(np.unravel_index(np.arange(len(self)), sizes), 1)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        nominal = (genotype_of(self.space, genes) for genes in self.genes)
        keys = {key_of(genotype): number for number, genotype in enumerate(nominal)}
        there = (number for number in range(len(self)) if self.channels[number])
        return keys | {key_of(self.genotype(number)): number for number in there}

    def words(self, member: int) -> dict[str, str]:
        """The genes of a member with a choice, each in a word."""
        return {gene: label_of(self.genes[member][gene]) for gene in self.options}

    def genotype(self, member: int) -> Genotype:
        """The network of a member as it was trained, at the table's cost. Raises: TableError: it was not trained."""
        if not self.channels[member]:
            message = f"table '{self.space.name}' has no training of member {member}; take another"
            raise TableError(message, code="not-in-table")
        plain = genotype_of(self.space, self.genes[member], f"{self.space.name}_{member}", self.recipe["retrain"])
        return with_channels(plain, self.channels[member])

    def member(self, network: Genotype | Mapping[str, str]) -> int:
        """The number of a network: of a genotype, scaled or not, or of its genes in words, all that have a choice.

        Raises: TableError: the table does not have it.
        """
        if isinstance(network, Genotype):
            if (number := self._numbers.get(key_of(network))) is not None:
                return number
            message = (
                f"genotype '{network.name}' is no member of table '{self.space.name}'; `table.genotype(n)` gives one"
            )
            raise TableError(message, code="not-in-table")
        place = [self._option(gene, network) for gene in self.options]
        if unknown := sorted(set(network) - set(self.options)):
            raise TableError(
                f"table '{self.space.name}' has no gene '{unknown[0]}' ({hint(unknown[0], list(self.options))})",
                code="not-in-table",
            )
        return int(np.flatnonzero((self.places == place).all(1))[0])

    def _option(self, gene: str, words: Mapping[str, str]) -> int:
        known = [label_of(option) for option in self.options[gene]]
        if gene not in words:
            raise TableError(f"the gene '{gene}' is missing; give one of {', '.join(known)}", code="not-in-table")
        if words[gene] not in known:
            raise TableError(
                f"table '{self.space.name}' has no {gene} '{words[gene]}' ({hint(words[gene], known)})",
                code="not-in-table",
            )
        return known.index(words[gene])

    def mutate(self, member: int, rng: np.random.Generator) -> int:
        """A member with one other gene: the gene uniform, then its option. As `genotype.design.mutate`."""
        sizes, place = [len(known) for known in self.options.values()], self.places[member].copy()
        gene = int(rng.integers(len(sizes)))
        place[gene] = (place[gene] + 1 + rng.integers(sizes[gene] - 1)) % sizes[gene]
        return int(np.ravel_multi_index(place, sizes))

    # --- scores -------------------------------------------------------------------------------------------------------

    @cached_property
    def trained(self) -> np.ndarray:
        """(S, M): whether the table has a training."""
        there: np.ndarray = np.isfinite(self.miou[:, -1])
        return there

    def score(self, member: int, seed: int = 0, stop: int = -1) -> float:
        """The mean IoU of one training at one of the stops. Raises: TableError: the table lacks it."""
        if not (0 <= member < len(self) and 0 <= seed < self.seeds and -len(self.stops) <= stop < len(self.stops)):
            raise TableError(
                f"table '{self.space.name}' has {len(self)} members, {self.seeds} seeds and {len(self.stops)} stops,"
                f" counted from 0; it lacks member {member}, seed {seed}, stop {stop}",
                code="not-in-table",
            )
        if not self.trained[seed, member]:
            raise TableError(
                f"table '{self.space.name}' has no training of member {member} with seed {seed}; take another seed",
                code="not-in-table",
            )
        return float(self.miou[seed, stop, member])

    # --- files --------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write it atomically as one compressed .npz file with a checksum."""
        about = {
            "version": TABLE_VERSION,
            "space": self.space.to_dict(),
            "recipe": dict(self.recipe),
            "stops": list(self.stops),
            "channels": [list(of) for of in self.channels],
        }
        arrays = {name: getattr(self, name) for name in ARRAYS}
        arrays |= {f"inherited.{name}": scores for name, scores in self.inherited.items()}

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)
            seal(temporary)

        write_atomically(user_path(path, TableError), write)

    @classmethod
    def load(cls, name_or_path: str | Path) -> Table:
        """A table that ships with autoseg by name, or a file.

        Raises: TableError: unknown, unreadable, or of another version.
        """
        path = FOLDER / f"{name_or_path}.npz"
        if not path.is_file():
            path = user_path(name_or_path, TableError)
        if not path.is_file():
            known = sorted(file.stem for file in FOLDER.glob("*.npz"))
            advice = hint(str(name_or_path), known, "; or give the path of a table")
            raise TableError(f"unknown table '{name_or_path}' ({advice})", code="unknown-table")
        try:
            if not is_intact(path):
                raise ValueError("its checksum differs")
            check_members(path, limits.SNAPSHOT_BYTES)
            with np.load(path, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                if about["version"] == TABLE_VERSION:
                    arrays = {name: file[name] for name in ARRAYS}
                    names = [name for name in file.files if name.startswith("inherited.")]
                    inherited = {name.removeprefix("inherited."): file[name] for name in names}
        except Exception as reason:  # a damaged file makes NumPy and zipfile raise nearly anything
            message = f"{path} is no readable table ({one_line(reason)[:100]}); take another copy of it"
            raise TableError(message, code="table-unreadable") from None
        if about["version"] != TABLE_VERSION:
            raise TableError(
                f"{path} is a table of version {about['version']}, but this autoseg reads version {TABLE_VERSION}; take"
                " the table that comes with it",
                code="table-of-other-version",
            )
        space = SearchSpace.parse(about["space"], str(path))
        channels = [tuple(of) for of in about["channels"]]
        return cls(space, about["recipe"], tuple(about["stops"]), channels, **arrays, inherited=inherited)


ARRAYS = ("miou", "loss", "counts", "true", "parameters", "multiply_adds", "seconds")
