"""Schedules of a search and of a retraining: optimizer, augmentation, loss, kernels.

Ratios are fractions of 1. Learning rates are per step.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from autoseg.config.base import Flag, Fraction, Number, Settings, Size, Whole
from autoseg.config.losses import PLAIN_LOSS, LossTerms
from autoseg.registry import LOSSES


class OptimizerConfig(Settings):
    """SGD (with momentum), Adam or AdamW."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: Annotated[Number, Field(gt=0, le=10)] = 0.025
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.9
    nesterov: Flag = False
    betas: tuple[Annotated[Number, Field(ge=0, lt=1)], Annotated[Number, Field(ge=0, lt=1)]] = (0.9, 0.999)
    weight_decay: Annotated[Number, Field(ge=0, le=1)] = 3e-4


class LrScheduleConfig(Settings):
    """The learning rate over the run: warm-up by a straight line, then `name` from lr down to min_lr."""

    name: Literal["constant", "cosine", "poly"] = "cosine"
    power: Annotated[Number, Field(gt=0)] = 0.9
    min_lr: Annotated[Number, Field(ge=0)] = 0.0
    warmup_epochs: Annotated[Number, Field(ge=0)] = 0.0


class AugmentConfig(Settings):
    """Random changes to a training image and its mask, made jointly."""

    scale: tuple[Annotated[Number, Field(gt=0, le=16)], Annotated[Number, Field(gt=0, le=16)]] = (0.5, 2.0)
    flip: Fraction = 0.5
    colour: Fraction = 0.0
    """Strength of brightness, contrast and saturation jitter; 0 is none. Saturation is for three channels only."""
    rotate: Annotated[Number, Field(ge=0, le=180)] = 0.0
    """Greatest angle of a rotation about the middle of the crop, in degrees, either way."""
    blur: Fraction = 0.0
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[Annotated[Number, Field(gt=0, le=16)], Annotated[Number, Field(gt=0, le=16)]] = (0.1, 2.0)
    """Its standard deviation, in pixels of the crop."""
    cutout: Fraction = 0.0
    """Probability that a rectangle is cut out (DeVries and Taylor 2017): the mean colour, and ignored."""
    cutout_size: tuple[Annotated[Number, Field(gt=0, lt=1)], Annotated[Number, Field(gt=0, lt=1)]] = (0.1, 0.5)
    """Its height and width, each drawn by itself, as shares of the crop's."""
    max_class_share: Annotated[Number, Field(gt=0, le=1)] = 1.0
    """Up to ten places of the crop are tried for one in which no class has more of the labelled pixels."""

    @model_validator(mode="after")
    def _ordered(self) -> AugmentConfig:
        for name in ("scale", "blur_sigma", "cutout_size"):
            least, greatest = getattr(self, name)
            if least > greatest:
                raise ValueError(f"{name} must be [least, greatest], not {[least, greatest]}")
        return self


class TrainingConfig(Settings):
    """What a search and a retraining have in common."""

    epochs: Annotated[Whole, Field(ge=1)] = 40
    batch_size: Annotated[Whole, Field(ge=2)] = 2
    """Images a step; at least two, since BatchNorm of the pooled image features needs them."""
    crop: Size = (321, 321)
    augment: AugmentConfig = AugmentConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: LrScheduleConfig = LrScheduleConfig(min_lr=1e-3)
    balanced_sampling: Fraction = 0.0
    """Share of the images shown in an epoch that are drawn anew, those with rare classes more often."""
    loss: LossTerms = PLAIN_LOSS
    """A weighted sum of terms, each a name or a mapping with `name`, `weight` and its options."""
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Share of the target that is spread evenly over all classes, of the terms that are cross-entropies but `focal`."""
    class_weights: (
        Literal["none", "inverse", "enet", "median_frequency"] | tuple[Annotated[Number, Field(ge=0)], ...]
    ) = "none"
    """Of the cross-entropies: none, from the training masks (inverse frequency; ENet, Paszke et al. 2016; median
    frequency, Eigen and Fergus 2015), or one number a class."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """Of the forward pass. bf16 and fp16: automatic mixed precision; fp16, for GPUs without bf16, scales the loss."""
    accumulate: Annotated[Whole, Field(ge=1)] = 1
    """Batches whose gradients add up to one step of the optimizer, as of one batch so many times as large."""
    cuda_graphs: Literal["auto"] | Flag = "auto"
    """On a GPU, launch the kernels of a step all at once (CUDA graphs), the levels of a supernet side by side. auto:
    each recorded step is compared once with the plain one, and dropped where they differ; true: it is not compared."""
    clip_grad_norm: Annotated[Number, Field(gt=0)] | None = None
    validate_every: Annotated[Whole, Field(ge=1)] = 1
    """Epochs between validations; the last epoch is always validated."""
    val_images: Annotated[Whole, Field(ge=1)] | None = None
    """Validate on this many images, evenly spaced over the split; left out, on all of them."""
    max_steps_per_epoch: Annotated[Whole, Field(ge=1)] | None = None
    log_every: Annotated[Whole, Field(ge=1)] = 10
    single_output: Flag = False
    """Of a network for two classes: one output, the second class's log odds, instead of one a class."""
    checkpoint_seconds: Annotated[Number, Field(ge=0)] = 60.0
    """Save at least this often, mid-epoch too; 0 saves after every step."""
    workers: Annotated[Whole, Field(ge=0, le=256)] = 0
    """Processes that read and augment images where these are not kept on a GPU; 0 does it in the main process, which
    is right where the set is kept (`store`)."""
    store: Literal["auto", "device", "memory", "disk", "none"] = "auto"
    """Where the decoded images are kept: on the GPU, in memory, or in files in `cache_dir`; `none` reads the image
    files in each epoch. auto takes the first of these with room."""
    cache_dir: str | None = None
    """The folder for `store: disk`; left out, $XDG_CACHE_HOME/autoseg or ~/.cache/autoseg."""

    @model_validator(mode="after")
    def _weights_are_not_all_zero(self) -> TrainingConfig:
        if isinstance(self.class_weights, tuple) and not any(self.class_weights):
            raise ValueError("class_weights needs at least one number greater than 0")
        return self

    @model_validator(mode="after")
    def _something_is_smoothed(self) -> TrainingConfig:
        if self.label_smoothing and not any(LOSSES[term.name].smoothed for term in self.loss):
            smoothed = ", ".join(name for name, loss in LOSSES.items() if loss.smoothed)
            raise ValueError(f"label_smoothing is for the terms {smoothed}, of which the loss has none")
        return self


class KernelConfig(Settings):
    """With which kernels the supernet is computed. All are exact; auto is what measured fastest on the device."""

    layout: Literal["auto", "channels_last", "channels_first"] = "auto"
    """How features lie in memory: (N, H, W, C) or (N, C, H, W)."""
    pointwise: Literal["auto", "convolution", "product"] = "auto"
    """The many 1x1 convolutions of few channels: as grouped convolutions or as batched matrix products."""
    depthwise: Literal["auto", "convolution", "triton"] = "auto"
    """Depthwise convolutions: PyTorch's, or a Triton kernel (needs the package triton and a GPU)."""
    compile: Literal["auto"] | Flag = "auto"
    """Fuse the cells' elementwise parts with torch.compile."""
    algorithms: Literal["auto", "heuristic", "measured"] = "auto"
    """cuDNN's algorithm for each convolution: by its heuristic, or the fastest of those tried in the first steps."""


class SearchSchedule(TrainingConfig):
    """How the architecture is searched. The defaults are Auto-DeepLab's (section 4.1)."""

    arch_start_epoch: Annotated[Whole, Field(ge=0)] = 20
    """Weights alone before this epoch, weights and architecture in turn from it on."""
    arch_optimizer: OptimizerConfig = OptimizerConfig(name="adam", lr=3e-3, weight_decay=1e-3)
    arch_init_std: Annotated[Number, Field(ge=0)] = 1e-3
    """Standard deviation of the initial logits."""
    upsampler_cost: Annotated[Number, Field(ge=0, le=1000)] = 0.0
    """Weight in the architecture's loss of what the upsamplers cost that gamma chooses: their expected multiply-adds as
    a share of the dearest candidate's, mean over the places where they compete. For spaces with gamma only."""
    train_a_fraction: Annotated[Number, Field(gt=0, lt=1)] = 0.5
    """Share of the training set that is trainA (weights); the rest is trainB (architecture)."""
    checkpoint_cells: Flag = False
    """Keep only the output of each cell and compute the cell again in the backward pass: less memory, more time."""
    kernels: KernelConfig = KernelConfig()
    """With which kernels the supernet is computed; they change no result."""

    @model_validator(mode="after")
    def _architecture_starts(self) -> SearchSchedule:
        if self.arch_start_epoch >= self.epochs:
            raise ValueError(
                f"arch_start_epoch is {self.arch_start_epoch}, but there are only {self.epochs} epochs, so the"
                " architecture would never be searched; lower arch_start_epoch"
            )
        return self


class RetrainSchedule(TrainingConfig):
    """How a decoded network is trained from scratch."""

    optimizer: OptimizerConfig = OptimizerConfig(name="sgd", lr=0.05, weight_decay=4e-5)
    schedule: LrScheduleConfig = LrScheduleConfig(name="poly", warmup_epochs=0)
    drop_path: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Greatest probability of dropping a branch, reached by the last cell at the last step."""
    auxiliary_weight: Annotated[Number, Field(ge=0)] = 0.0
    """Weight of the loss of an auxiliary head after two thirds of the layers; 0 builds none."""
    ema_decay: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Keep an exponential moving average of the weights and use it to evaluate; 0 keeps none."""
    loss_sampling: Annotated[Number, Field(gt=0, le=1)] = 1.0
    """Share of the output's pixels on which the loss is computed, each drawn by itself and anew in each step (Long et
    al. 2015, section 3.4, where it stands for training on patches)."""
    compile: Flag = False
    """Compile the training step's forward and backward pass with torch.compile; needs a C++ compiler and minutes."""
