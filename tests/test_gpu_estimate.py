"""What is counted of a step without a card: kernels, bytes, operations, and the times that follow."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.measured_memory import search_config
from helpers.tiny_runs import SPACE, write_config
from torch.nn import functional as F

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))

import gpu_estimate
from bench import launches
from bench.launches import Kernels, Launch, count_steps
from bench.measure import Watch
from gpu_estimate import VARIANTS, Card, both, expected_share, figures

from autoseg.analysis.memory_tracker import LiveStorages
from autoseg.engine.config import SearchConfig
from autoseg.engine.optim import StepGuard
from autoseg.engine.search import HALVES
from autoseg.ops.devices import acting_as
from autoseg.planning.memory import CPU, STEPS, followed, make_state, random_batch, stand_in_task, take_step
from autoseg.supernet.fast.kernels import KernelChoice

FLOAT = torch.float32
OPERATIONS = ["none", "skip_connect", "max_pool_3x3", "sep_conv_3x3", "sep_conv_5x5", "atrous_conv_3x3"]
RICH = {**SPACE, "cell": {"blocks": 2, "operations": OPERATIONS}}


def counted(work: Any, *arguments: Any) -> list[Launch]:
    kernels = Kernels(LiveStorages(CPU))
    with kernels:
        work(*arguments)
    return kernels.launches


@pytest.mark.parametrize(
    ("groups", "size", "dilation", "kind"),
    [
        (8, 5, 1, launches.DEPTHWISE),
        (2, 1, 1, launches.POINTWISE),
        (1, 1, 1, launches.PREPROCESSING),
        (2, 3, 2, launches.ATROUS),
        (1, 3, 1, launches.REST),
    ],
)
def test_a_convolution_and_its_gradients_are_counted_by_hand(groups: int, size: int, dilation: int, kind: str) -> None:
    features = torch.randn(2, 8, 6, 7, requires_grad=True)
    weight = torch.randn(8, 8 // groups, size, size, requires_grad=True)
    padding = dilation * (size // 2)

    def forward() -> torch.Tensor:
        return F.conv2d(features, weight, None, 1, padding, dilation, groups)

    moved = 2 * features.nbytes + weight.nbytes
    flops = 2 * features.numel() * (8 // groups) * size**2
    assert counted(forward) == [Launch(kind, moved, flops, FLOAT)]
    result = forward()
    grad = torch.randn_like(result)
    backward = [one for one in counted(result.backward, grad) if one.kind == kind]
    # the gradient of the features reads grad and weight; that of the weight reads grad and features
    assert backward == [Launch(kind, moved, flops, FLOAT)] * 2


def test_batch_norm_reads_its_features_twice_and_views_are_no_kernels() -> None:
    features, statistics = torch.randn(2, 8, 6, 7), torch.zeros(8)
    found = counted(torch.native_batch_norm, features, None, None, statistics, statistics + 1, True, 0.1, 1e-5)
    of_norm = [one for one in found if one.kind == launches.NORM]
    assert len(of_norm) == 3
    assert sum(one.moved_bytes for one in of_norm) == pytest.approx(3 * features.nbytes, rel=0.1)
    assert counted(lambda: features.view(-1).narrow(0, 3, 5).unsqueeze(0).expand(4, 5)) == []
    assert counted(lambda: torch.empty(5).new_empty(7)) == []


def test_a_result_that_is_given_counts_once() -> None:
    left, right, result = torch.randn(3, 4, 5), torch.randn(3, 5, 6), torch.empty(3, 4, 6)
    moved = left.nbytes + right.nbytes + result.nbytes
    expected = [Launch(launches.PRODUCTS, moved, 2 * 3 * 4 * 5 * 6, FLOAT)]
    assert counted(lambda: torch.bmm(left, right, out=result)) == counted(lambda: torch.bmm(left, right)) == expected


@pytest.mark.parametrize(("tensors", "elements", "expected"), [(64, 3, 1), (65, 3, 2), (1, 321 * 65536, 2)])
def test_operations_on_many_tensors_are_few_kernels(tensors: int, elements: int, expected: int) -> None:
    lists = [[torch.zeros(elements) for _ in range(tensors)] for _ in range(2)]
    found = counted(torch._foreach_add_, *lists)
    assert [one.kind for one in found] == [launches.OPTIMIZER] * expected


def config_of(space: dict[str, Any], **search: Any) -> SearchConfig:
    return search_config(space, crop=[65, 65], batch_size=2, **search)


@pytest.mark.slow
def test_the_operations_of_a_step_are_those_that_are_computed() -> None:
    config = config_of(RICH)
    found = count_steps(config)
    task = stand_in_task(config, CPU)
    for step in STEPS:
        with Watch(CPU, ()) as watch, acting_as("cuda"):
            take_step(task, step, [random_batch(task)])
        assert sum(one.flops for one in found[step]) == pytest.approx(watch.flops, rel=1e-6)
        levels = {one.level for one in found[step]}
        assert levels == {None, 0, 1}
    weight, architecture = (sum(one.moved_bytes for one in found[step]) for step in STEPS)
    assert weight > architecture > 0  # no gradient of a weight in an architecture step


@pytest.mark.slow
def test_the_kinds_of_a_step() -> None:
    found = count_steps(config_of(RICH))["weight"]
    kinds = {one.kind for one in found}
    assert kinds == set(launches.KINDS)
    assert sum(one.kind == launches.OTHER for one in found) < 0.1 * len(found)


@pytest.mark.slow
def test_what_settings_of_the_kernels_change() -> None:
    config = config_of(RICH)
    plain, product, compiled, triton = (
        count_steps(config, KernelChoice(**choice))["weight"]
        for choice in ({}, {"pointwise": "product"}, {"compile": True}, {"depthwise": "triton"})
    )

    def number(found: list[Launch], kind: str) -> int:
        return sum(one.kind == kind for one in found)

    assert number(plain, launches.POINTWISE) > number(product, launches.POINTWISE) == 0
    added = number(product, launches.PRODUCTS) - number(plain, launches.PRODUCTS)
    assert added >= number(plain, launches.POINTWISE)
    assert sum(one.flops for one in product) == sum(one.flops for one in plain)
    assert len(compiled) < len(plain)
    assert sum(one.moved_bytes for one in compiled) < sum(one.moved_bytes for one in plain)
    assert triton == plain


@pytest.mark.slow
def test_without_data_and_with_data_the_same_kernels_are_counted() -> None:
    config = config_of(SPACE)
    task = stand_in_task(config, CPU)
    task.scalers |= {half: StepGuard(CPU, scales=False, enabled=False) for half in HALVES}
    device = torch.device("cuda")
    with followed(task, device) as (copy, live):
        for optimizer in (copy.optimizer, copy.arch_optimizer):
            make_state(optimizer, device)
        batch = random_batch(copy)
        with Kernels(live) as without:
            take_step(copy, "weight", [batch])
    make_state(task.optimizer, device)
    batch = random_batch(task)
    with Kernels(LiveStorages(CPU)) as with_data, acting_as("cuda"):
        take_step(task, "weight", [batch])
    assert with_data.launches == [launch._replace(level=None) for launch in without.launches]


def test_times_by_hand() -> None:
    card = Card(bf16=8e14, tf32=4e14, float32=6e13, bytes=3e12, eager=4e-6, graph=1e-6, shortest=2e-6)
    small = Launch(launches.ELEMENTWISE, 300, 0, FLOAT, 0)
    large = Launch(launches.ATROUS, 3 * 10**9, 4 * 10**12, FLOAT, 1)  # 1 ms of bytes, 10 ms of arithmetic
    alone = Launch(launches.COPIES, 3 * 10**9, 0, torch.bfloat16)
    found = figures([small, large, alone], KernelChoice(), card)
    seconds = found["seconds"]
    assert seconds["arithmetic"] == pytest.approx(0.01)
    assert seconds["bytes"] == pytest.approx(0.002)
    assert (seconds["eager launches"], seconds["graph launches"]) == pytest.approx((12e-6, 3e-6))
    assert seconds["by itself"] == pytest.approx(2e-6 + 0.01 + 0.001)
    assert seconds["side by side"] == pytest.approx(0.01 + 0.001)  # the small one beside the large one
    shares = [expected_share(kind, KernelChoice()) for kind in (launches.ATROUS, launches.COPIES)]
    assert seconds["expected"] == pytest.approx(2e-6 + 0.01 / shares[0] + 0.001 / shares[1])
    assert found["kinds"][launches.ATROUS]["kernels"] == 1
    assert card.rate(large._replace(dtype=torch.bfloat16)) == 8e14
    assert (
        card.rate(large._replace(kind=launches.DEPTHWISE)) == card.rate(large._replace(kind=launches.PRODUCTS)) == 6e13
    )


def test_what_is_expected_depends_on_the_kernel() -> None:
    triton, plain = KernelChoice(depthwise="triton"), KernelChoice()
    assert expected_share(launches.DEPTHWISE, triton) > expected_share(launches.DEPTHWISE, plain)
    assert expected_share(launches.NORM, triton) == expected_share(launches.NORM, plain)
    assert expected_share(launches.POOLING, plain) == gpu_estimate.OTHERS


@pytest.mark.slow
def test_the_script_prints_tables_and_writes_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = write_config(tmp_path / "space.yaml", {**SPACE, "search": {"crop": [64, 64], "batch_size": 2}})
    file = tmp_path / "estimate.json"
    arguments = ["--spaces", str(space), "--precisions", "bf16", "--crop", "33", "--json", str(file)]
    assert gpu_estimate.main(arguments) == 0
    out = capsys.readouterr().out
    assert "| mini, bf16: bytes |" in out
    assert "mini, 33x33, batch 2, bf16: settings of search.kernels" in out
    assert out.count("\n| ") > 20
    (result,) = json.loads(file.read_text())["results"]
    assert list(result["variants"]) == list(VARIANTS)
    assert (result["crop"], result["paper"]) == ([33, 33], {"weight": 40 * 744, "architecture": 20 * 744})
    default = result["variants"]["default"]
    assert both(default, "kernels") == sum(both(default, "kinds", kind, "kernels") for kind in launches.KINDS)


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["--spaces", "tinny"], "unknown-space", "'tinny' (did you mean 'tiny'?)"),
        (["--spaces", "tiny", "--crop", "5"], "setting-invalid", "search.crop"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], code: str, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_estimate.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert error.endswith(f" [{code}]\n")
    assert named in error
