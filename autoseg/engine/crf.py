"""A dense CRF after prediction, which aligns labels with the image's colours (Krähenbühl and Koltun 2011)."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoseg.config.data import Rgb
from autoseg.config.inference import CrfConfig
from autoseg.data.augment.sample import normalisation
from autoseg.errors import ConfigError


def load_densecrf() -> Any:
    """The module that computes the mean field. Raises: ConfigError: the extra `crf` is not installed."""
    try:
        return importlib.import_module("pydensecrf.densecrf")
    except ImportError as reason:
        raise ConfigError(
            f"the CRF needs pydensecrf ({reason}): pip install 'autoseg[crf]'", code="package-missing"
        ) from None


def refine(logits: Tensor, colours: np.ndarray, config: CrfConfig) -> Tensor:
    """(N, K, H, W) logits or log-probabilities -> (N, K, H, W) log-probabilities of the mean field, float32.

    colours: (N, H, W, 3) uint8. Runs on the CPU; time and memory are proportional to N * K * H * W.
    """
    energies = -logits.float().log_softmax(1).cpu().numpy()
    refined = [_mean_field(energy, image, config) for energy, image in zip(energies, colours, strict=True)]
    return torch.as_tensor(np.stack(refined), device=logits.device).clamp_min(1e-12).log()


def _mean_field(energies: np.ndarray, image: np.ndarray, config: CrfConfig) -> np.ndarray:
    """Energies (K, H, W) and an image (H, W, 3) -> probabilities (K, H, W).

    As in the second version of the authors' code, kernels are normalised symmetrically and include the pixel itself.
    """
    classes, height, width = energies.shape
    field = load_densecrf().DenseCRF2D(width, height, classes)
    field.setUnaryEnergy(np.ascontiguousarray(energies.reshape(classes, -1)))
    field.addPairwiseGaussian(sxy=config.gaussian_xy_std, compat=config.gaussian_weight)
    field.addPairwiseBilateral(
        sxy=config.bilateral_xy_std,
        srgb=config.bilateral_rgb_std,
        rgbim=np.require(image, np.uint8, ["C", "W"]),  # the package refuses a read-only array
        compat=config.bilateral_weight,
    )
    return np.asarray(field.inference(config.iterations)).reshape(energies.shape)


def colours_of(images: Tensor, mean: Rgb, std: Rgb) -> np.ndarray:
    """The colours (N, H, W, 3) uint8 of normalised `images` (N, 3, H, W)."""
    scale, shift = normalisation(mean, std, images.device)
    colours = ((images - shift) / scale).round_().clamp_(0, 255)
    return colours.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
