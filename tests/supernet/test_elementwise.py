"""The elementwise parts of mixed operations compute the same compiled, and if compilation fails."""

from __future__ import annotations

import copy
import logging
import shutil
from collections.abc import Iterator

import pytest
import torch
import torch._inductor.config
from helpers.oracle_supernet import largest_difference
from helpers.spaces import small_space, space_with
from helpers.supernets import count_operations, results, supernet_of
from torch import Tensor

from autoseg.space.groups import PAPER_OPERATIONS
from autoseg.supernet import KernelChoice
from autoseg.supernet.fast import elementwise
from autoseg.supernet.fast.channel_groups import LAYOUTS, Layout
from autoseg.supernet.fast.elementwise import Compiled, Plain

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler, and none is found"
)
KERNELS = ("_SUM", "_SUM_ONTO", "_SUM_COPIES", "_NORMALISE", "_JOIN")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is compiled yet, and nothing has failed to."""
    torch._dynamo.reset()
    for name in KERNELS:
        monkeypatch.setattr(elementwise, name, elementwise._Kernel(getattr(elementwise, name)._plain))


@pytest.fixture
def no_compiler() -> Iterator[None]:
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",), "fx_graph_cache": False}):
        yield


def failed() -> list[str]:
    """The kernels that are computed without torch.compile from now on."""
    kernels = {name: getattr(elementwise, name) for name in KERNELS}
    return [name for name, kernel in kernels.items() if kernel._call is kernel._plain]


def features_of(layout: Layout, channels: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return layout.arrange(torch.randn(2, channels, 5, 7, dtype=torch.float64, generator=generator))


def check_each(layout: Layout, operations: int, groups: int, edges: int, blocks: int) -> None:
    """Every function against its plain form, in one layout; with `blocks`, a part of a tensor is added onto."""
    channels = 3
    stacked = layout.split(features_of(layout, operations * groups * edges * channels), operations, groups, edges, 3)
    assert (
        largest_difference(Compiled.sum_operations(stacked, layout, None), Plain.sum_operations(stacked, layout, None))
        < 1e-14
    )
    wholes = [layout.split(features_of(layout, groups * blocks * channels, 1), groups, blocks, 3) for _ in range(2)]
    for whole, how in zip(wholes, (Compiled, Plain), strict=True):
        onto = whole.narrow(layout.axis(1), blocks - edges, edges)
        assert how.sum_operations(stacked, layout, onto) is onto
    assert largest_difference(*wholes) < 1e-14
    copies, expected = Compiled.sum_copies(stacked, layout), Plain.sum_copies(stacked, layout)
    assert copies.shape == expected.shape
    assert largest_difference(copies, expected) < 1e-14
    assert torch.equal(layout.join(copies), layout.join(copies.contiguous()))  # dense, as its reader takes it to be

    features, mean, variance = features_of(layout, 6, 2), torch.randn(6).double(), torch.rand(6).double()
    normal = Compiled.normalise(features, mean, variance, 1e-5, layout)
    assert largest_difference(normal, Plain.normalise(features, mean, variance, 1e-5, layout)) < 1e-12
    others = [features_of(layout, 6, seed) for seed in (4, 5)]
    joined = Compiled.join_gradients(features, features_of(layout, 6, 3).relu(), others, layout)
    again = Plain.join_gradients(features, features_of(layout, 6, 3).relu(), others, layout)
    assert largest_difference(joined, again) < 1e-14
    for result in (normal, joined):
        assert result.is_contiguous(memory_format=layout.memory)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_function_equals_its_plain_form(layout: str) -> None:
    for groups, edges in ((1, 1), (2, 3), (1, 2), (3, 1)):
        check_each(LAYOUTS[layout], 2, groups, edges, blocks=4)
    assert failed() == []
    assert elementwise._SUM_COPIES._call is not None


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_supernet_computes_the_same_compiled(layout: str) -> None:
    """Logits and gradients, with partial channels too, which add onto a part of the channels alone."""
    images = torch.randn(2, 3, 40, 51, dtype=torch.float64)
    paper = small_space(layers=3, blocks=3, operations=PAPER_OPERATIONS)
    for space in (paper, space_with({"pc_darts": 2}, layers=2, blocks=2, operations=PAPER_OPERATIONS, filters=4)):
        plain = supernet_of(space)
        compiled = copy.deepcopy(plain)
        plain.use_kernels(KernelChoice(layout))
        compiled.use_kernels(KernelChoice(layout, compile=True))
        (expected, gradients), (logits, found) = results(plain, images), results(compiled, images)
        assert largest_difference(logits, expected) < 1e-10
        for name, gradient in gradients.items():
            assert largest_difference(found[name], gradient) < 1e-10, name
    assert failed() == []
    assert all(getattr(elementwise, name)._call is not None for name in KERNELS)


@pytest.mark.slow
def test_few_kernels_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of cells: each takes from half a second to seconds to compile."""
    made: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        made.append(graph)
        return graph

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda plain, **how: compile_(plain, backend=backend, fullgraph=True, **how))
    supernet = supernet_of(small_space(layers=5, blocks=5, operations=PAPER_OPERATIONS))
    supernet.use_kernels(KernelChoice(compile=True))
    for size in ((64, 65), (97, 33)):
        supernet(torch.randn(2, 3, *size, dtype=torch.float64)).sum().backward()
    assert 5 <= len(made) <= 10
    assert failed() == []


@pytest.mark.slow
@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_it_is_said_once_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    supernet = supernet_of(small_space(layers=3, operations=PAPER_OPERATIONS))
    images = torch.randn(2, 3, 32, 33, dtype=torch.float64)
    expected, gradients = results(supernet, images)
    supernet.use_kernels(KernelChoice(compile=True))
    with caplog.at_level(logging.WARNING, logger="autoseg"):
        for _ in range(2):
            logits, found = results(supernet, images)
            assert largest_difference(logits, expected) < 1e-10
            assert all(largest_difference(found[name], gradient) < 1e-10 for name, gradient in gradients.items())
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len(failed()) == len(KERNELS)
    assert all(line.startswith("torch.compile failed (") and "\n" not in line for line in lines)
    assert any("no-such-compiler" in line and line.endswith("sum_operations goes on without") for line in lines)


def test_where_every_operation_is_followed_nothing_is_compiled() -> None:
    supernet = supernet_of(small_space(layers=2, operations=PAPER_OPERATIONS)).float()
    images = torch.randn(2, 3, 32, 32)
    expected = count_operations(supernet, images)
    supernet.use_kernels(KernelChoice(compile=True))
    assert count_operations(supernet, images) == expected
    assert all(getattr(elementwise, name)._call is None for name in KERNELS)
