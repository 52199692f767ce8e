"""The memory of a retraining, predicted without computing, as `engine.plan` does for a search."""

from __future__ import annotations

import torch
from torch import Tensor

from autoseg.analysis.memory_tracker import LiveStorages, SavedStorages, tensor_bytes
from autoseg.data.dataset import open_dataset
from autoseg.engine.config import RetrainConfig
from autoseg.engine.retrain import RetrainTask
from autoseg.planning.predicted_memory import (
    CPU,
    CUDA_WORKSPACE_BYTES,
    Batch,
    Memory,
    Peak,
    bytes_beside,
    followed,
    make_state,
    own_random_state,
    random_batch,
    recorded_bytes,
    stand_in_data,
    uses_graphs,
)


def predict_training_memory(config: RetrainConfig, device: torch.device) -> Memory:
    """The memory of one step of a retraining with the optimizer's state and the moving average there.

    The device need not be there. fp16 counts as bf16, which takes as much.
    """
    schedule = config.retrain
    with own_random_state(CPU), followed(_stand_in_task(config), device) as (task, live):
        own = [*task.network.parameters(), *task.network.buffers()]
        live.add(own)
        make_state(task.optimizer, device)
        batch, saved = random_batch(task), SavedStorages(own)
        start = live.restart()
        with saved:
            task.step([batch], 0, 1)
        peak = Peak.since(start, live)
        average = tensor_bytes(own) if schedule.ema_decay else 0
        weights, several = tensor_bytes(task.network.parameters()), schedule.accumulate > 1
        graphs = _graph_bytes(task, peak, batch, live) if uses_graphs(schedule, device) else 0
        workspace = CUDA_WORKSPACE_BYTES if device.type == "cuda" else 0
        sums = several * weights + (schedule.accumulate - 1) * tensor_bytes(batch)
        states = [value for state in task.optimizer.state.values() for value in state.values()]
        return Memory(
            peak_bytes=start + peak.at_once + average + workspace + sums + graphs,
            peak_step="weight",
            parameter_bytes=tensor_bytes(own) + average,
            gradient_bytes=(1 + several) * weights,
            optimizer_bytes=tensor_bytes(value for value in states if isinstance(value, Tensor)),
            saved_bytes=saved.total_bytes,
            recomputed_bytes=0,
            graph_bytes=graphs,
        )


def _graph_bytes(task: RetrainTask, peak: Peak, batch: Batch, live: LiveStorages) -> int:
    """See `recorded_bytes`. Validation has a copy of the network, whose BatchNorms are folded into its weights."""

    @torch.no_grad()
    def validate() -> None:
        task.network.eval()
        task.network(batch[0], coarse=True)
        task.network.train()

    beside = bytes_beside((task.optimizer.step,), live)
    beside = max(beside, bytes_beside((validate,), live) + tensor_bytes(task.network.parameters()))
    inputs = tensor_bytes((*batch, batch[1]))  # the masks that the loss sees, and the whole ones
    return recorded_bytes({"weight": peak}, inputs, beside, streams=1)


def _stand_in_task(config: RetrainConfig) -> RetrainTask:
    """The retraining of `config` on a data set that only has the right number of classes and enough images.

    Without what has no part in a step's memory or cannot be followed: the average is counted apart.
    """
    schedule = config.retrain
    data = stand_in_data(config.data, 2 * schedule.batch_size)
    changes = {
        "class_weights": "none" if schedule.class_weights == "none" else (1.0,) * data.num_classes,
        "precision": "bf16" if schedule.precision == "fp16" else schedule.precision,
        "workers": 0,
        "accumulate": 1,
        "ema_decay": 0.0,
        "compile": False,
        "balanced_sampling": 0.0,
    }
    config = config.model_copy(update={"data": data, "retrain": schedule.model_copy(update=changes)})
    return RetrainTask(config, open_dataset(data, "train"), open_dataset(data, "val"), CPU)
