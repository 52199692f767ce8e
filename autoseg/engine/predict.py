"""Loading a trained network from its run for inference, and label maps of images of any size."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoseg.config.base import parse
from autoseg.config.data import ResolvedDataConfig
from autoseg.config.inference import InferenceConfig
from autoseg.data.augment.sample import full_scale, to_tensor
from autoseg.data.base import Sample, resize_image
from autoseg.data.flip_pairs import mirrored_classes
from autoseg.engine.checkpoint import fitting, has_checkpoint, load_checkpoint, load_last
from autoseg.engine.config import RetrainConfig
from autoseg.engine.crf import load_densecrf, refine
from autoseg.engine.environment import pick_device, prepare
from autoseg.engine.inference import PLAIN, resized_bands, score_bands
from autoseg.engine.run_directory import Run
from autoseg.errors import CheckpointError, ConfigError, RunError
from autoseg.files import cut
from autoseg.network import for_inference
from autoseg.network.base import SegmentationNetwork
from autoseg.zoo.build import build_network
from autoseg.zoo.schema import at_output_stride

_log = logging.getLogger(__name__)

Inference = InferenceConfig | Mapping[str, Any]

IN_WINDOWS = "see large images in pieces: --window 512 512"
"""Advice if memory runs out."""


def inference_settings(inference: Inference | None) -> InferenceConfig:
    """Check the settings. Raises: ConfigError: one is wrong, or the CRF is not installed."""
    asked = inference if isinstance(inference, InferenceConfig) else parse(InferenceConfig, inference or {})
    if asked.crf is not None:
        load_densecrf()
    return asked


def load_for_inference(
    run: str | Path, checkpoint: str, device: str, precision: str, output_stride: int | None, asked: InferenceConfig
) -> tuple[SegmentationNetwork, RetrainConfig, dict[str, Any], torch.device]:
    """What `load_network` returns, with the network ready for inference on a device, and the device."""
    target = pick_device(device)
    prepare(target)
    network, config, saved = load_network(run, checkpoint, output_stride)
    if asked.crf is not None and network.in_channels != 3:
        raise ConfigError(
            f"the CRF needs images of 3 channels, but the network's have {network.in_channels}", code="crf-needs-colour"
        )
    return for_inference(network, target, precision), config, saved, target


def load_network(
    path: str | Path, checkpoint: str = "best", output_stride: int | None = None
) -> tuple[SegmentationNetwork, RetrainConfig, dict[str, Any]]:
    """Load the trained network of a retraining run.

    Args:
        path: The run directory.
        checkpoint: `best` (by mIoU on the validation split) or `last`.
        output_stride: Another output stride for the same weights, for networks of the literature only. Default: the
            run's own.

    Returns:
        The network on the CPU in evaluation mode, which maps images (N, C, H, W) to logits (N, K, H, W); the run's
        settings; and the checkpoint's `epoch`, `best_miou` and training time in `seconds`.

    Raises:
        RunError: `path` holds no retraining run.
        CheckpointError: the checkpoint cannot be read.
        ConfigError: an unknown checkpoint, or the network cannot have this output stride.
    """
    if checkpoint not in ("best", "last"):
        raise ConfigError(f"checkpoint must be best or last, not {checkpoint}", code="unknown-checkpoint")
    run = Run.open(path)
    if run.kind != "retrain":
        raise RunError(
            f"{path} is a search, whose network is not trained; `autoseg decode` and `retrain` it first",
            code="run-kind-differs",
        )
    config = run.config(RetrainConfig)
    file = run.checkpoints / f"{checkpoint}.pt"
    if where := run.diverged:
        advice = f"{path} diverged at {where}; train again with a lower retrain.optimizer.lr"
        if not (file.is_file() if checkpoint == "best" else has_checkpoint(run.checkpoints)):
            raise CheckpointError(f"{advice}, as nothing was saved before", code="checkpoint-missing")
        _log.warning(f"{advice}; this is the network saved before")
    plain = config.architecture.to_dict()
    if checkpoint == "last":
        file, saved = load_last(run.checkpoints, "retrain", plain, config.retrain.keep_checkpoints)
    else:
        saved = load_checkpoint(file, "retrain", plain)
    if changes := config.changes(saved["config"], str(file)):
        _log.warning(
            f"{run.config_path} is not as it was when {file.name} was made ({cut(', '.join(changes), 300)}): put it"
            " back, or what comes out may be wrong"
        )
    architecture, data = at_output_stride(config.architecture, output_stride), config.data
    single_output = config.retrain.single_output
    network = build_network(architecture, data.num_classes, in_channels=data.channels, single_output=single_output)
    with fitting(file):
        weights = trained_weights(saved["state"])
        network.load_state_dict({key: value for key, value in weights.items() if not key.startswith("auxiliary.")})
    network.mirrored_classes = mirrored_classes(config.retrain.augment.flip_pairs, data.classes)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval(), config, {key: saved[key] for key in ("epoch", "best_miou", "seconds")}


def trained_weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Name -> tensor of a network, from the state of a retraining: the moving average if there is one."""
    if state["average"] is None:
        return dict(state["network"])
    prefix = "module."
    return {key.removeprefix(prefix): value for key, value in state["average"].items() if key.startswith(prefix)}


@torch.no_grad()
def label_map(
    network: SegmentationNetwork,
    image: np.ndarray,
    data: ResolvedDataConfig,
    device: torch.device,
    inference: InferenceConfig = PLAIN,
    probabilities: np.ndarray | None = None,
) -> np.ndarray:
    """Labels (H, W) of an image (H, W, C) as it was read: uint8, or uint16 above 256 classes.

    The image is resized to `data.resize` if that is set, and the logits are resized back. The CRF and the labels use
    the image's own size. probabilities: (K, H, W), which is filled.
    """
    size = image.shape[:2]
    working = image if data.resize is None else resize_image(image, data.resize)
    tensor, _ = to_tensor(Sample(working, np.zeros(working.shape[:2], np.uint8)), data.mean, data.std)
    bands = score_bands(network, tensor[None].to(device), inference)
    bands = resized_bands(bands, working.shape[0], size, align_corners=False)
    if inference.crf is not None:
        colours = np.rint(image[None] * (255 / full_scale(image.dtype))).clip(0, 255).astype(np.uint8)
        bands = iter([refine(torch.cat(list(bands), 2), colours, inference.crf)])
    labels, top = np.empty(size, np.uint8 if network.num_classes <= 256 else np.uint16), 0
    for band in bands:
        rows = slice(top, top + band.shape[2])
        labels[rows] = band.argmax(1)[0].cpu().numpy()
        if probabilities is not None:
            probabilities[:, rows] = band[0].float().softmax(0).cpu().numpy()
        top += band.shape[2]
    return labels
