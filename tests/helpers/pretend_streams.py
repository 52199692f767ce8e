"""CUDA streams that only write down what waits for what."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch


@dataclass(eq=False)
class Stream:
    """Writes into one log, for all streams, what waits for what and what runs where."""

    name: str
    log: list[str]

    def wait_stream(self, other: Stream) -> None:
        self.log.append(f"{self.name} waits for {other.name}")


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[Stream]:
    """The current stream and three others."""
    log: list[str] = []
    main, *others = (Stream(name, log) for name in ("main", "first", "second", "third"))
    current = [main]

    @contextlib.contextmanager
    def switch(stream: Stream) -> Iterator[None]:
        current.append(stream)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "stream", switch)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: current[-1])
    return [main, *others]
