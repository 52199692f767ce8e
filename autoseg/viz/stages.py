"""Where the stages of a fixed network stand: columns from the image to the logits, rows by output stride."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise

from autoseg.analysis.module_graph import IMAGE, LOGITS, Diagram, Join, Read, Stage
from autoseg.viz.sheet import Spot

STACK = 0.5
"""Levels between stages of one column."""

Column = tuple[Stage, ...]
Edge = tuple[str, str]
"""Names of a stage or the image, and of the stage that reads it."""


@dataclass(frozen=True)
class StageLayout:
    """Places of the stages of a diagram; the image and the logits count as stages."""

    diagram: Diagram

    @cached_property
    def columns(self) -> list[Column]:
        """Columns from left to right: a stage stands just before what first needs it.

        Neighbours of one stride that read the same stages share a column.
        """

        def key(stage: Stage) -> tuple[float, set[str] | str]:
            return stage.stride, {read.source for read in stage.reads} or stage.name

        return [tuple(column) for _, column in groupby(self._ordered(), key)]

    @cached_property
    def rows(self) -> list[float]:
        """The output strides of all stages, from fine to coarse."""
        return sorted({stage.stride for column in self.columns for stage in column})

    @cached_property
    def spots(self) -> dict[str, Spot]:
        """Place of each stage by name; a row is as high as its highest stack."""
        above = {
            row: max((len(column) - 1) * STACK / 2 for column in self.columns if column[0].stride == row)
            for row in self.rows
        }
        level = {self.rows[0]: above[self.rows[0]]}
        for before, row in pairwise(self.rows):
            level[row] = level[before] + 1 + above[before] + above[row]
        return {
            stage.name: Spot(number, level[stage.stride] + STACK * (place - (len(column) - 1) / 2))
            for number, column in enumerate(self.columns)
            for place, stage in enumerate(column)
        }

    @cached_property
    def sides(self) -> dict[Edge, Join | None]:
        """Edges beside the main path, the longest one from the image to the logits, and how they join it.

        A stage beside the main path passes on how it is joined itself.
        """
        place, main = self._place, set(self._main_path())
        sides = {edge: how for edge, how in self.edges if (place[edge[0]], place[edge[1]]) not in main}
        for source, target in reversed(sides):
            onward = (how for (through, _), how in sides.items() if through == target)
            sides[source, target] = sides[source, target] or next(onward, None)
        return sides

    @cached_property
    def beside(self) -> set[str]:
        """Names of the stages beside the main path."""
        on = {number for step in self._main_path() for number in step}
        return {name for name, number in self._place.items() if number not in on}

    @cached_property
    def edges(self) -> list[tuple[Edge, Join | None]]:
        """All edges and how they join, from left to right by the stage that reads."""
        stages = [stage for column in self.columns for stage in column]
        return [((read.source, stage.name), read.how) for stage in stages for read in stage.reads]

    @cached_property
    def bus(self) -> list[str]:
        """Stages that meet on a line below the logits, coarse to fine; empty if one is read or others are between."""
        (logits,) = self.columns[-1]
        spots = [self.spots[read.source] for read in logits.reads]
        levels = {spot.level for spot in spots}
        free = all(
            other.level != spot.level or not spot.layer < other.layer for spot in spots for other in self.spots.values()
        )
        if len(spots) < 2 or len(levels) < len(spots) or min(levels) <= self.spots[LOGITS].level or not free:
            return []
        return sorted((read.source for read in logits.reads), key=lambda name: -self.spots[name].level)

    @cached_property
    def _place(self) -> dict[str, int]:
        return {stage.name: number for number, column in enumerate(self.columns) for stage in column}

    def _ordered(self) -> Iterator[Stage]:
        diagram = self.diagram
        logits = Stage(LOGITS, diagram.classes, 1.0, diagram.other_parameters, diagram.output)
        stages = {stage.name: stage for stage in (Stage(IMAGE, diagram.in_channels, 1.0, 0, ()), *diagram.stages)}
        depth: dict[str, int] = {}
        for stage in stages.values():  # in the order in which they run: sources come first
            depth[stage.name] = 1 + max((depth[read.source] for read in stage.reads), default=0)
        order: dict[str, None] = {IMAGE: None}

        def visit(reads: Sequence[Read]) -> None:
            for read in sorted(reads, key=lambda read: -depth[read.source]):
                visit(stages[read.source].reads)
                order.setdefault(read.source)

        read = {each.source for stage in (*stages.values(), logits) for each in stage.reads}
        visit([Read(stage.name) for stage in diagram.stages if stage.name not in read])
        visit(diagram.output)
        yield from (stages[name] for name in order)
        yield logits

    def _main_path(self) -> Iterator[tuple[int, int]]:
        """Steps from column to column, backwards; a tie goes to what is read first."""
        length, before = [0], [0]
        for stage, *_ in self.columns[1:]:
            sources = [self._place[read.source] for read in stage.reads]
            before.append(max(sources, key=lambda source: length[source], default=0))
            length.append(1 + length[before[-1]])
        number = len(self.columns) - 1
        while number:
            yield before[number], number
            number = before[number]
