"""The cells of a layer on streams of their own: the order of waiting, and what is kept, with stand-ins for streams."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from helpers.pretend_streams import Stream, streams
from helpers.spaces import small_space
from helpers.supernets import loss_of, supernet_of

from autoseg.supernet.fast.cell import Feature, SearchCell
from autoseg.supernet.fast.supernet import run_side_by_side

__all__ = ["streams"]  # the fixture


def running(result: str) -> str:
    stream: Any = torch.cuda.current_stream()
    stream.log.append(f"{result} on {stream.name}")
    return result


def test_each_task_waits_for_the_current_stream_which_waits_for_all(streams: list[Any]) -> None:
    main, *others = streams
    assert run_side_by_side([lambda: running("a"), lambda: running("b")], others) == ["a", "b"]
    assert main.log == [
        "first waits for main",
        "a on first",
        "second waits for main",
        "b on second",
        "main waits for first",
        "main waits for second",
    ]


def test_without_streams_one_task_after_the_other(streams: list[Any]) -> None:
    assert run_side_by_side([lambda: running("a"), lambda: running("b")], []) == ["a", "b"]
    assert streams[0].log == ["a on main", "b on main"]


def test_too_few_streams_leave_no_task_out(streams: list[Any]) -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        run_side_by_side([lambda: running("a"), lambda: running("b")], streams[1:2])


@pytest.mark.slow
def test_what_crosses_streams_is_kept_until_all_are_joined_behind_the_way_back(
    streams: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    space = small_space(layers=3, blocks=2, strides=(4, 8, 16))
    main, *others = streams
    features: list[weakref.ref[torch.Tensor]] = []
    places: list[str] = []

    def watch(cell: SearchCell, inputs: Any, output: Feature) -> None:
        features.extend(weakref.ref(tensor) for tensor in output)
        places.append(torch.cuda.current_stream().name)  # type: ignore[attr-defined]

    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    plain, parallel = supernet_of(space), supernet_of(space)
    for cell in parallel.cells.values():
        cell.register_forward_hook(watch)  # type: ignore[arg-type]
    expected, alive = loss_of(plain, images), []
    expected.backward()
    wait = Stream.wait_stream

    def counted(stream: Stream, other: Stream) -> None:
        wait(stream, other)
        alive.append(sum(feature() is not None for feature in features))

    with parallel.on_streams(others):
        loss = loss_of(parallel, images)
        loss.backward()
        monkeypatch.setattr(Stream, "wait_stream", counted)
    assert main.log[:3] == [f"{stream.name} waits for main" for stream in others]
    assert main.log[-3:] == [f"main waits for {stream.name}" for stream in others]
    assert alive == [len(features)] * 3
    assert len(features) == 2 * len(parallel.cells)
    assert not any(feature() is not None for feature in features)
    assert places == ["first", "second", "first", "second", "third", "first", "second", "third"]
    assert torch.equal(loss, expected)
    for one, other in zip(plain.parameters(), parallel.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
    main.log.clear()
    loss_of(parallel, images)
    assert main.log == []


def test_streams_are_left_when_something_goes_wrong(streams: list[Any]) -> None:
    supernet = supernet_of(small_space(layers=2, strides=(4, 8)))
    with pytest.raises(RuntimeError, match="channels"), supernet.on_streams(streams[1:]):
        supernet(torch.randn(2, 5, 64, 64, dtype=torch.float64))
    streams[0].log.clear()
    supernet(torch.randn(2, 3, 64, 64, dtype=torch.float64))
    assert streams[0].log == []
