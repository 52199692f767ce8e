"""A contender in a process of its own, as a search is: what others leave in allocator and caches does not slow it."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch

from autoseg.engine.environment import keep_freed_memory
from autoseg.process import prepare_process
from autoseg.space.schema import SearchSpace
from bench.contenders import Half, Workload, build_contenders
from bench.measure import timed

Times = dict[Half, tuple[float, float]]
"""Kind of step -> seconds by the clock, and of the processor."""


class Order(NamedTuple):
    """Which contender to build, and how."""

    name: str
    space: dict[str, Any]
    workload: Workload
    device: torch.device
    precision: str
    textbook: bool
    dints: float | None
    checkpoint: bool
    threads: int


class Worker:
    """Times steps in a process of its own."""

    def __init__(self, order: Order) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, order), daemon=True)
        self._process.start()
        theirs.close()

    def times(self, steps: Sequence[Half]) -> Times:
        """Make one step of each kind, after one that does not count. Raises: EOFError: the process has died."""
        self._connection.send(list(steps))
        found: Times = self._connection.recv()
        return found

    def stop(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(10)


def _serve(connection: Connection, order: Order) -> None:
    torch.set_num_threads(order.threads)
    if order.device.type == "cpu":
        prepare_process()
        keep_freed_memory()  # as the engine does, for every contender alike
    space = SearchSpace.parse(order.space)
    contender = build_contenders(
        space, order.workload, order.device, order.precision, order.textbook, order.dints, order.checkpoint
    )[order.name]
    try:
        while True:
            steps = connection.recv()
            gc.collect()
            contender.step("everything")
            connection.send({step: timed(partial(contender.step, step), contender.device) for step in steps})
    except EOFError:
        return
