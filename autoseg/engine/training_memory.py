"""The memory of a retraining, predicted without computing, as `engine.plan` does for a search."""

from __future__ import annotations

import torch
from torch import Tensor

from autoseg.config import RetrainConfig
from autoseg.data.dataset import open_dataset
from autoseg.engine.plan import CUDA_WORKSPACE_BYTES, Memory, followed, own_random_state, random_batch, stand_in_data
from autoseg.engine.retrain import RetrainTask
from autoseg.objectives.memory import SavedStorages, tensor_bytes


def predict_training_memory(config: RetrainConfig, device: torch.device) -> Memory:
    """The memory of one step of a retraining with the optimiser's state and the moving average there."""
    with own_random_state(device), followed(_stand_in_task(config, device), device) as (task, live):
        own = [*task.network.parameters(), *task.network.buffers()]
        live.add(own)
        batch, saved = random_batch(task), SavedStorages(own)
        task.step([batch] * config.retrain.accumulate, 0, 0)  # makes the optimiser's state
        live.peak_bytes = live.live_bytes
        with saved:
            task.step([batch] * config.retrain.accumulate, 0, 1)
        average = tensor_bytes(own) if config.retrain.ema_decay else 0
        workspace = CUDA_WORKSPACE_BYTES if device.type == "cuda" else 0
        states = [value for state in task.optimizer.state.values() for value in state.values()]
        return Memory(
            peak_bytes=live.peak_bytes + average + workspace,
            peak_step="weight",
            parameter_bytes=tensor_bytes(own) + average,
            gradient_bytes=tensor_bytes(task.network.parameters()),
            optimizer_bytes=tensor_bytes(value for value in states if isinstance(value, Tensor)),
            saved_bytes=saved.total_bytes,
            recomputed_bytes=0,
        )


def _stand_in_task(config: RetrainConfig, device: torch.device) -> RetrainTask:
    """The retraining of `config` on a data set that only has the right number of classes and enough images.

    Without what has no part in a step's memory or cannot be followed: the average is counted apart.
    """
    schedule = config.retrain
    data = stand_in_data(config.data, 2 * schedule.batch_size)
    weights = "none" if schedule.class_weights == "none" else (1.0,) * (data.num_classes or 2)
    changes = {"class_weights": weights, "workers": 0, "ema_decay": 0.0, "compile": False, "balanced_sampling": 0.0}
    config = config.model_copy(update={"data": data, "retrain": schedule.model_copy(update=changes)})
    return RetrainTask(config, open_dataset(data, "train"), open_dataset(data, "val"), device)
