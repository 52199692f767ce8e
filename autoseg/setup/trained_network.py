"""Loading a retrained network for inference, and the settings of inference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.config.base import parse
from autoseg.config.inference import InferenceConfig
from autoseg.engine.config import RetrainConfig
from autoseg.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from autoseg.network.base import SegmentationNetwork

Inference = InferenceConfig | Mapping[str, Any]

IN_WINDOWS = "see large images in pieces: --window 512 512"
"""Advice if memory runs out."""


def inference_settings(inference: Inference | None) -> InferenceConfig:
    """Check the settings. Raises: ConfigError: one is wrong, or the CRF is not installed."""
    from autoseg.engine.crf import load_densecrf

    asked = inference if isinstance(inference, InferenceConfig) else parse(InferenceConfig, inference or {})
    if asked.crf is not None:
        load_densecrf()
    return asked


def load_for_inference(
    run: str | Path, checkpoint: str, device: str, precision: str, output_stride: int | None, asked: InferenceConfig
) -> tuple[SegmentationNetwork, RetrainConfig, dict[str, Any], torch.device]:
    """What `load_network` returns, with the network ready for inference on a device, and the device.

    Raises: ConfigError: a CRF for images without three channels.
    """
    from autoseg.engine.device_check import prepare
    from autoseg.engine.environment import pick_device
    from autoseg.engine.predict import load_network
    from autoseg.network import for_inference

    target = pick_device(device)
    prepare(target)
    network, config, saved = load_network(run, checkpoint, output_stride)
    if asked.crf is not None and network.in_channels != 3:
        raise ConfigError(
            f"the CRF needs images of 3 channels, but the network's have {network.in_channels}", code="crf-needs-colour"
        )
    return for_inference(network, target, precision), config, saved, target
