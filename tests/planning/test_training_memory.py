"""The memory of a retraining that is predicted, against what real steps take."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.tiny_runs import RETRAIN, retrain_task
from helpers.wide_spaces import of_stages
from torch.profiler import ProfilerActivity, profile

from autoseg.data.dataset import open_dataset
from autoseg.engine.retrain import RetrainTask
from autoseg.planning.memory import CUBLAS_WORKSPACE_BYTES, CUDA_WORKSPACE_BYTES, predict_memory

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {"crop": [96, 96], "batch_size": 4},
    "no average, no auxiliary head": {"crop": [64, 97], "batch_size": 3, "ema_decay": 0.0, "auxiliary_weight": 0.0},
    "adamw": {"crop": [96, 96], "batch_size": 2, "optimizer": {"name": "adamw", "lr": 1e-3}},
    "bf16, weighted": {"crop": [96, 96], "batch_size": 4, "precision": "bf16", "class_weights": "enet"},
    "dice and lovasz": {"crop": [96, 96], "batch_size": 2, "loss": ["dice", "lovasz"]},
}
PLAIN = {"augment": {"scale": [1.0, 1.0]}, "drop_path": 0.0}


def iterate(task: RetrainTask, times: int) -> None:
    for number in range(times):
        task.step(next(iter(task.batches(0, 0))), 0, number)


def allocated_peak(**settings: Any) -> int:
    """The most bytes that PyTorch's CPU allocator had handed out at once, from before the task was made."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        iterate(retrain_task(**settings), 2)
    total = peak = 0
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_memory_on_a_cpu_is_within_a_tenth_of_what_is_measured(name: str) -> None:
    settings = {**PLAIN, **SETTINGS[name]}
    predicted = predict_memory(retrain_task(**settings).config, CPU)
    assert predicted.peak_bytes == pytest.approx(allocated_peak(**settings), rel=0.1)
    assert predicted.saved_bytes > predicted.fixed_bytes  # the batch decides


@pytest.mark.slow
def test_memory_of_stages_is_within_a_tenth_of_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RETRAIN, "genotype", of_stages("path").to_dict())
    settings = {**PLAIN, "crop": [64, 64], "batch_size": 2}
    predicted = predict_memory(retrain_task(**settings).config, CPU)
    assert predicted.peak_bytes == pytest.approx(allocated_peak(**settings), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_a_gpu_that_is_not_there_takes_what_a_cpu_does_but_for_blocks_and_workspaces(name: str) -> None:
    settings = {**PLAIN, **SETTINGS[name], "crop": [160, 160]}  # blocks of 512 bytes count where tensors are small
    on_cpu = predict_memory(retrain_task(**settings).config, CPU)
    on_gpu = predict_memory(retrain_task(**settings, cuda_graphs=False).config, GPU)
    assert on_gpu.peak_bytes - CUDA_WORKSPACE_BYTES == pytest.approx(on_cpu.peak_bytes, rel=0.02)
    assert on_gpu.graph_bytes == 0


@pytest.mark.slow
def test_graphs_add_their_inputs_validation_and_a_workspace() -> None:
    settings = {**PLAIN, "crop": [96, 96], "batch_size": 4}
    memory = predict_memory(retrain_task(**settings).config, GPU)
    inputs = 4 * 96 * 96 * (3 * 4 + 8 + 8)  # images, masks, and the masks before any pixels are left out
    validated = memory.graph_bytes - inputs - CUBLAS_WORKSPACE_BYTES
    assert memory.parameter_bytes / 2 < validated < memory.saved_bytes
    assert predict_memory(retrain_task(**settings).config, CPU).graph_bytes == 0


@pytest.mark.slow
def test_accumulation_adds_a_sum_of_gradients_and_the_other_batches() -> None:
    settings = {**PLAIN, "crop": [96, 96], "batch_size": 4}
    one, two = (predict_memory(retrain_task(**settings, accumulate=count).config, CPU) for count in (1, 2))
    assert two.peak_bytes - one.peak_bytes == one.gradient_bytes + 4 * 96 * 96 * (3 * 4 + 8)
    assert two.peak_bytes == pytest.approx(allocated_peak(**settings, accumulate=2), rel=0.1)


@pytest.mark.slow
def test_fp16_takes_what_bf16_does() -> None:
    half, brain = (predict_memory(retrain_task(precision=one).config, GPU) for one in ("fp16", "bf16"))
    assert half == brain


@pytest.mark.gpu
@pytest.mark.parametrize("name", SETTINGS)
def test_memory_on_a_gpu_is_within_a_tenth_of_max_memory_allocated(name: str) -> None:
    device = torch.device("cuda")
    config = retrain_task(**{**PLAIN, **SETTINGS[name]}).config
    config = config.model_copy(update={"retrain": config.retrain.model_copy(update={"crop": (512, 512)})})
    predicted = predict_memory(config, device).eager_bytes
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    task = RetrainTask(config, open_dataset(config.data, "train"), open_dataset(config.data, "val"), device)
    iterate(task, 2)
    torch.cuda.reset_peak_memory_stats()
    iterate(task, 1)
    measured = torch.cuda.max_memory_allocated() - before
    assert measured * 0.9 - CUDA_WORKSPACE_BYTES <= predicted <= measured * 1.1 + CUDA_WORKSPACE_BYTES


@pytest.mark.slow
def test_predicting_leaves_the_random_numbers_alone() -> None:
    config = retrain_task(crop=[4097, 4097], batch_size=16).config
    state = torch.get_rng_state()
    assert predict_memory(config, CPU).peak_bytes > 10**10
    assert torch.equal(torch.get_rng_state(), state)
