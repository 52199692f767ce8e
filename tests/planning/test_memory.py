"""Memory that is predicted against memory that real iterations take, and what is proposed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from helpers.measured_memory import allocated_peak, held_bytes, iterate, real_task, search_config
from helpers.predicted_memory import predict_once, predicted_once
from helpers.tiny_runs import SPACE

from autoseg.config.base import merge
from autoseg.planning.fit import Limits, Planner, largest_that_fits
from autoseg.planning.memory import (
    CUBLAS_WORKSPACE_BYTES,
    CUDA_WORKSPACE_BYTES,
    Memory,
    Peak,
    Setting,
    predict_memory,
    recorded_bytes,
)

__all__ = ["predicted_once"]  # the fixture
pytestmark = pytest.mark.usefixtures("predicted_once")

CPU, GPU = torch.device("cpu"), torch.device("cuda")
WIDE: dict[str, Any] = {
    **SPACE,
    "cell": {"blocks": 2, "operations": ["none", "skip_connect", "max_pool_3x3", "sep_conv_3x3", "atrous_conv_3x3"]},
    "network": {"layers": 3, "strides": [4, 8, 16], "filter_multiplier": 8},
}
FINE: dict[str, Any] = {
    **SPACE,
    "cell": {"blocks": 2, "operations": ["none", "avg_pool_3x3", "sep_conv_3x3", "atrous_conv_3x3"]},
    "network": {"layers": 3, "strides": [2, 4], "filter_multiplier": 4},
    "stem": {"channels": [8, 8], "strides": [2, 1]},
}
SHALLOW = {**FINE, "network": {"layers": 2, "strides": [2, 4], "filter_multiplier": 4}}
SETTINGS: dict[str, tuple[Mapping[str, Any], dict[str, Any]]] = {
    "sgd": (WIDE, {"crop": [96, 96], "batch_size": 2}),
    "checkpointed": (WIDE, {"crop": [96, 96], "batch_size": 2, "checkpoint_cells": True}),
    "adamw, odd and oblong": (WIDE, {"crop": [65, 97], "batch_size": 3, "optimizer": {"name": "adamw", "lr": 1e-3}}),
    "bf16": (WIDE, {"crop": [96, 96], "batch_size": 4, "precision": "bf16"}),
    "fine strides, clipped, weighted": (
        FINE,
        {"crop": [64, 64], "batch_size": 4, "clip_grad_norm": 1.0, "class_weights": "enet"},
    ),
    "fine strides, checkpointed, no momentum": (
        FINE,
        {"crop": [129, 65], "batch_size": 2, "checkpoint_cells": True, "optimizer": {"name": "sgd", "momentum": 0.0}},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SETTINGS))
def test_memory_on_a_cpu_is_within_a_tenth_of_what_is_measured(name: str) -> None:
    space, search = SETTINGS[name]
    config = search_config(space, **search)
    predicted = predict_once(config, CPU)
    assert predicted.peak_bytes == pytest.approx(allocated_peak(config), rel=0.1)
    assert predicted.held_bytes == pytest.approx(held_bytes(config), rel=0.1)
    assert predicted.saved_bytes > predicted.fixed_bytes or search.get("checkpoint_cells")  # no setting is trivial


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SETTINGS))
def test_a_gpu_that_is_not_there_takes_what_a_cpu_does_but_for_blocks_and_workspaces(name: str) -> None:
    space, search = SETTINGS[name]
    on_cpu = predict_once(search_config(space, **search), CPU)
    on_gpu = predict_once(search_config(space, **search, cuda_graphs=False), GPU)
    assert on_gpu.peak_bytes - CUDA_WORKSPACE_BYTES == pytest.approx(on_cpu.peak_bytes, rel=0.02)
    assert on_gpu.saved_bytes == on_cpu.saved_bytes  # which lies in few large blocks


@pytest.mark.slow
def test_fp16_takes_what_bf16_does() -> None:
    search = {"crop": [96, 96], "batch_size": 4}
    half, brain = (predict_once(search_config(SHALLOW, **search, precision=one), GPU) for one in ("fp16", "bf16"))
    assert half == brain
    assert half.saved_bytes < 0.6 * predict_once(search_config(SHALLOW, **search), GPU).saved_bytes


@pytest.mark.slow
@pytest.mark.parametrize("device", [CPU, GPU])
def test_accumulated_gradients_and_the_batches_of_a_step_come_on_top(device: torch.device) -> None:
    search = {"crop": [64, 64], "batch_size": 2, "cuda_graphs": False}
    one, four = (predict_once(search_config(SPACE, **search, accumulate=count), device) for count in (1, 4))
    weights = sum(parameter.nbytes for parameter in real_task(search_config(SPACE, **search)).supernet.weights())
    batch = 2 * 64 * 64 * (3 * 4 + 8)
    assert four.peak_bytes - one.peak_bytes == weights + 3 * batch
    assert four.gradient_bytes - one.gradient_bytes == weights


@pytest.mark.slow
def test_accumulation_on_a_cpu_is_within_a_tenth_of_what_is_measured() -> None:
    config = search_config(SHALLOW, crop=[96, 96], batch_size=2, accumulate=2)
    assert predict_once(config, CPU).peak_bytes == pytest.approx(allocated_peak(config), rel=0.1)


# --- CUDA graphs ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_graphs_take_memory_only_where_steps_are_recorded() -> None:
    def graph_bytes(device: torch.device, **search: Any) -> int:
        return predict_once(search_config(SPACE, crop=[64, 64], batch_size=2, **search), device).graph_bytes

    assert graph_bytes(GPU) == graph_bytes(GPU, cuda_graphs=True) > 3 * CUBLAS_WORKSPACE_BYTES
    assert graph_bytes(GPU, cuda_graphs=False) == graph_bytes(CPU) == 0
    sampled = search_config({**SPACE, "relaxation": {"gdas": [5.0, 0.1]}}, crop=[64, 64], batch_size=2)
    assert predict_once(sampled, GPU).graph_bytes == 0


def test_what_recorded_steps_take_besides_the_peak() -> None:
    weight, architecture = Peak(100, 130), Peak(110, 120)
    alone = recorded_bytes({"weight": weight}, inputs=7, beside=40, streams=0)
    assert alone == 7 + 40 + (130 - 100)
    both = {"weight": weight, "architecture": architecture}
    assert recorded_bytes(both, 7, 40, 0) == 2 * 7 + 40 + (130 - 110)
    assert recorded_bytes(both, 7, 40, 0, architecture_later=True) == 2 * 7 + 120 + (130 - 110)
    assert recorded_bytes(both, 7, 400, 0, architecture_later=True) == 2 * 7 + 400 + (130 - 110)
    assert recorded_bytes({"weight": weight}, 7, 40, 3) - alone == 3 * CUBLAS_WORKSPACE_BYTES


@pytest.mark.slow
def test_an_architecture_that_starts_later_is_eager_beside_the_graph_of_the_weights() -> None:
    search = {"crop": [96, 96], "batch_size": 4}
    at_once, later = (
        predict_once(search_config(WIDE, **search, epochs=2, arch_start_epoch=start), GPU) for start in (0, 1)
    )
    assert at_once.eager_bytes == later.eager_bytes
    assert later.graph_bytes - at_once.graph_bytes > 0.5 * later.saved_bytes


@pytest.mark.slow
def test_streams_share_no_memory_with_each_other() -> None:
    """One level of cells, hence one stream for them, against three that are never at their most at once."""
    narrow = {**WIDE, "network": {**WIDE["network"], "strides": [4]}}
    search = {"crop": [96, 96], "batch_size": 4, "epochs": 2, "arch_start_epoch": 0}
    apart = {}
    for name, space in (("one level", narrow), ("three levels", WIDE)):
        memory = predict_once(search_config(space, **search), GPU)
        levels = len(space["network"]["strides"])
        apart[name] = (memory.graph_bytes - (levels + 1) * CUBLAS_WORKSPACE_BYTES) / memory.eager_bytes
    assert apart["three levels"] > apart["one level"]


# --- measured ---------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("name", list(SETTINGS))
def test_memory_on_a_gpu_is_within_a_tenth_of_max_memory_allocated(name: str) -> None:
    space, search = SETTINGS[name]
    # larger than on the CPU, so that the workspaces, for which a fixed sum is allowed, do not decide
    search = {**search, "crop": [2 * length for length in search["crop"]], "batch_size": 4 * search["batch_size"]}
    config = search_config(space, **search)
    predicted = predict_once(config, GPU).eager_bytes
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    task = real_task(config, "cuda")
    iterate(task, 2)
    torch.cuda.reset_peak_memory_stats()
    iterate(task, 1)
    measured = torch.cuda.max_memory_allocated() - before
    assert measured * 0.9 - CUDA_WORKSPACE_BYTES <= predicted <= measured * 1.1 + CUDA_WORKSPACE_BYTES


@pytest.mark.slow
def test_predicting_computes_nothing_and_leaves_the_random_numbers_alone() -> None:
    config = search_config(SPACE, crop=[4097, 4097], batch_size=64)  # hundreds of gigabytes
    state = torch.get_rng_state()
    assert predict_memory(config, CPU).peak_bytes > 10**11
    assert torch.equal(torch.get_rng_state(), state)


# --- proposals --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_proposals_fit_when_measured_and_the_next_larger_does_not() -> None:
    config = search_config(SHALLOW, crop=[96, 96], batch_size=8)
    asked = Setting.of(config.search)
    both = [predict_once(one.apply(config), CPU) for one in (asked, asked._replace(checkpoint_cells=True))]
    between = sum(memory.needed_bytes(CPU) for memory in both) // 2
    planner = Planner(config, CPU, memory_bytes=between, limits=Limits((257, 257), 64))
    options = planner.options()
    names = [option.name for option in options]
    assert names == ["as asked", "with checkpointing", *["largest batch"] * 2, *["largest crop"] * 2]
    assert [option.fits for option in options] == [False, True, True, True, True, True]
    batch, checkpointed_batch, crop, checkpointed_crop = (option.setting for option in options[2:])
    assert 2 <= batch.batch_size < 8 <= checkpointed_batch.batch_size
    assert crop.crop[0] < 96 < checkpointed_crop.crop[0]
    assert all((one.crop[0] - 1) % 32 == 0 for one in (crop, checkpointed_crop))
    for one in (batch, checkpointed_crop):
        assert allocated_peak(search_config(SHALLOW, **_search(one))) <= planner.memory_bytes
    assert not planner.fits(batch._replace(batch_size=batch.batch_size + 1))


def _search(setting: Setting) -> dict[str, Any]:
    return {**setting._asdict(), "crop": list(setting.crop)}


@pytest.mark.slow
def test_where_neither_batch_nor_crop_alone_helps_both_are_made_smaller() -> None:
    config = search_config(SPACE, crop=[512, 512], batch_size=64)
    planner = Planner(config, CPU, 1)
    least = planner.least()
    assert (least.crop, least.batch_size, least.checkpoint_cells) == ((32, 32), 2, True)
    needed = predict_once(least.apply(config), CPU).needed_bytes(CPU)
    planner.memory_bytes = needed
    options = planner.options()
    assert [option.fits for option in options] == [False] * 6 + [True]
    assert options[-1].setting == least
    planner.memory_bytes = needed - 1
    assert not planner.fits(least)


def memory_of(setting: Setting) -> Memory:
    """A fixed part, one that grows with the pixels, and one that makes small crops dearer than their pixels."""
    grown = 40 * setting.pixels + 3000 * sum(setting.crop) * setting.batch_size
    return Memory(10**6 + grown, "weight", 10**6, 0, 0, grown, 0)


@pytest.mark.parametrize("what", ["batch", "crop"])
@pytest.mark.parametrize("room", [10**6, 2 * 10**6, 10**7, 10**8, 10**9, 10**10])
@pytest.mark.parametrize("start", [(2, 33), (64, 321), (500, 1025)])
def test_the_largest_that_fits_is_that_of_trying_all_in_few_predictions(
    what: str, room: int, start: tuple[int, int]
) -> None:
    at = Setting((start[1], start[1]), start[0], False, "float32")
    if what == "batch":
        candidates = [at._replace(batch_size=count) for count in range(2, 700)]
    else:
        candidates = [at._replace(crop=(32 * step + 1, 32 * step + 1)) for step in range(1, 64)]
    asked: list[Setting] = []

    def predict(setting: Setting) -> Memory:
        asked.append(setting)
        return memory_of(setting)

    found = largest_that_fits(candidates, at, predict, lambda memory: room - round(1.1 * memory.peak_bytes))
    fitting = [one for one in candidates if 1.1 * memory_of(one).peak_bytes <= room]
    best = fitting[-1] if fitting else None
    assert len(asked) <= 6
    if what == "batch":
        assert found == best
    else:  # what is told from another crop may be one step short, never one too far
        assert found in ([best] if best is None else fitting[-2:])


def test_only_a_gpu_needs_more_than_the_peak_and_a_tenth() -> None:
    memory = memory_of(Setting((65, 65), 2, False, "float32"))
    assert memory.needed_bytes(CPU) == round(1.1 * memory.peak_bytes)
    assert memory.needed_bytes(GPU) == memory.needed_bytes(CPU) + 600 * 10**6


def test_settings_reach_the_configuration_and_back() -> None:
    config = search_config(SPACE)
    setting = Setting((65, 97), 5, True, "bf16")
    assert Setting.of(setting.apply(config).search) == setting
    assert setting.pixels == 65 * 97 * 5
    assert merge(config.to_dict(), {"search": _search(setting)}) == setting.apply(config).to_dict()
