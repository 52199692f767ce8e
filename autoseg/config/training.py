"""Schedules of a search and of a retraining. Ratios are fractions of 1; learning rates are per step."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict, model_validator

from autoseg import limits
from autoseg.config.base import Flag, Fraction, Number, PathText, Settings, Size, Whole
from autoseg.config.losses import PLAIN_LOSS, LossTerms
from autoseg.registry import LOSSES

ClassName = Annotated[Whole, Field(ge=0, le=limits.CLASSES)] | Annotated[str, Strict()]
"""A class by its number or by its name."""
FlipPairs = Annotated[tuple[tuple[ClassName, ClassName], ...], Field(max_length=limits.CLASSES)]


class OptimizerConfig(Settings):
    """SGD (with momentum), Adam or AdamW."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: Annotated[Number, Field(gt=0, le=10)] = 0.025
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.9
    nesterov: Flag = False
    betas: tuple[Annotated[Number, Field(ge=0, lt=1)], Annotated[Number, Field(ge=0, lt=1)]] = (0.9, 0.999)
    weight_decay: Annotated[Number, Field(ge=0, le=1)] = 3e-4


class LrScheduleConfig(Settings):
    """The learning rate over the run: linear warm-up, then a curve `name` from lr down to min_lr."""

    name: Literal["constant", "cosine", "poly"] = "cosine"
    power: Annotated[Number, Field(gt=0, le=1000)] = 0.9
    min_lr: Annotated[Number, Field(ge=0, le=10)] = 0.0
    warmup_epochs: Annotated[Number, Field(ge=0, le=limits.EPOCHS)] = 0.0


class AugmentConfig(Settings):
    """Random changes of a training image together with its mask."""

    scale: tuple[Annotated[Number, Field(gt=0, le=16)], Annotated[Number, Field(gt=0, le=16)]] = (0.5, 2.0)
    flip: Fraction = 0.5
    flip_pairs: FlipPairs | None = None
    """Pairs of classes, by name or number, that swap their labels in mirrored images, in training and in inference with
    `flip`. Default: names that differ in the words left and right alone. []: none."""
    colour: Fraction = 0.0
    """Strength of brightness, contrast and saturation jitter; 0: none. Saturation needs three channels."""
    rotate: Annotated[Number, Field(ge=0, le=180)] = 0.0
    """Greatest rotation about the middle of the crop in either direction, in degrees."""
    blur: Fraction = 0.0
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[Annotated[Number, Field(gt=0, le=16)], Annotated[Number, Field(gt=0, le=16)]] = (0.1, 2.0)
    """Least and greatest standard deviation of the blur, in pixels of the crop."""
    cutout: Fraction = 0.0
    """Probability of a cut-out rectangle (DeVries and Taylor 2017); it gets the mean colour and the ignore label."""
    cutout_size: tuple[Annotated[Number, Field(gt=0, lt=1)], Annotated[Number, Field(gt=0, lt=1)]] = (0.1, 0.5)
    """Least and greatest side of the rectangle as a share of the crop's; height and width are drawn separately."""
    max_class_share: Annotated[Number, Field(gt=0, le=1)] = 1.0
    """Greatest share of the labelled pixels that one class may have; up to ten positions of the crop are tried."""

    @model_validator(mode="after")
    def _ordered(self) -> AugmentConfig:
        for name in ("scale", "blur_sigma", "cutout_size"):
            least, greatest = getattr(self, name)
            if least > greatest:
                raise ValueError(f"{name} must be [least, greatest], not {[least, greatest]}")
        return self


class TrainingConfig(Settings):
    """Settings of both a search and a retraining."""

    epochs: Annotated[Whole, Field(ge=1, le=limits.EPOCHS)] = 40
    batch_size: Annotated[Whole, Field(ge=2, le=limits.BATCH)] = 2
    """Images in each batch; at least two, because BatchNorm of the pooled image features needs them."""
    crop: Size = (321, 321)
    augment: AugmentConfig = AugmentConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: LrScheduleConfig = LrScheduleConfig(min_lr=1e-3)
    balanced_sampling: Fraction = 0.0
    """Share of an epoch's images that are drawn by the rarity of their classes; rare classes come more often."""
    loss: LossTerms = PLAIN_LOSS
    """A weighted sum of terms: names, or mappings with `name`, `weight` and the term's options."""
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Share of the target that is spread evenly over all classes, in cross-entropies other than `focal`."""
    class_weights: (
        Literal["none", "inverse", "enet", "median_frequency"]
        | Annotated[tuple[Annotated[Number, Field(ge=0, le=limits.FACTOR)], ...], Field(max_length=limits.CLASSES)]
    ) = "none"
    """Class weights of the cross-entropies: none, from the training masks (inverse frequency; ENet, Paszke et al. 2016;
    median frequency, Eigen and Fergus 2015), or one number for each class."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """Precision of the forward pass. bf16 and fp16: automatic mixed precision. fp16 is for GPUs without bf16."""
    accumulate: Annotated[Whole, Field(ge=1, le=limits.STEPS)] = 1
    """Number of batches whose gradients are summed for one step of the optimizer."""
    cuda_graphs: Literal["auto"] | Flag = "auto"
    """On a GPU, launch all kernels of a step at once (CUDA graphs), and the levels of a supernet in parallel. auto:
    each recorded step is compared once with the eager one and dropped if they differ; true: without comparison."""
    clip_grad_norm: Annotated[Number, Field(gt=0, le=limits.FACTOR)] | None = None
    max_skipped: Annotated[Whole, Field(ge=0, le=limits.STEPS)] = 10
    """A step is skipped if its loss or a gradient is not finite. After more than this many in a row, the run goes back
    to the end of the last good epoch, and goes on with half the learning rate."""
    max_returns: Annotated[Whole, Field(ge=0, le=100)] = 3
    """The run goes back at most this many times; then it stops."""
    validate_every: Annotated[Whole, Field(ge=1, le=limits.STEPS)] = 1
    """Epochs between validations. The last epoch is always validated."""
    val_images: Annotated[Whole, Field(ge=1, le=limits.IMAGES)] | None = None
    """Number of validation images, evenly spaced over the split. Default: all."""
    max_steps_per_epoch: Annotated[Whole, Field(ge=1, le=limits.STEPS)] | None = None
    log_every: Annotated[Whole, Field(ge=1, le=limits.STEPS)] = 10
    single_output: Flag = False
    """For two classes: the network has one output, the second class's log odds, instead of one for each class."""
    checkpoint_seconds: Annotated[Number, Field(ge=0, le=limits.SECONDS)] = 60.0
    """Seconds between checkpoints, also within an epoch; 0: after every step."""
    keep_checkpoints: Annotated[Whole, Field(ge=1, le=100)] = 3
    """Number of the latest checkpoints that are kept: last.pt, last.1.pt, ... If one is damaged, the one before it
    serves."""
    workers: Annotated[Whole, Field(ge=0, le=256)] = 0
    """Processes that read and augment images that are not kept on a GPU. 0: the main process does it, which is best if
    the images are kept (`store`)."""
    worker_seconds: Annotated[Number, Field(ge=1, le=limits.SECONDS)] = 300.0
    """Seconds without a batch, though the run waits for one, after which it goes on without its workers. Results do not
    depend on it. A wait on a slow disk is no fault, so this should be far longer than a batch takes."""
    store: Literal["auto", "device", "memory", "disk", "none"] = "auto"
    """Place of the decoded images: the GPU, memory, or files in `cache_dir`. none: the image files are read in each
    epoch. auto: the first of these with room."""
    cache_dir: PathText | None = None
    """The folder for `store: disk`. Default: $XDG_CACHE_HOME/autoseg or ~/.cache/autoseg."""

    @model_validator(mode="after")
    def _loss_uses_its_settings(self) -> TrainingConfig:
        if isinstance(self.class_weights, tuple) and not any(self.class_weights):
            raise ValueError("class_weights needs at least one number greater than 0")
        if self.label_smoothing and not any(LOSSES[term.name].smoothed for term in self.loss):
            smoothed = ", ".join(name for name, loss in LOSSES.items() if loss.smoothed)
            raise ValueError(f"label_smoothing is for the terms {smoothed}, of which the loss has none")
        return self


class KernelConfig(Settings):
    """The kernels of the supernet. All are exact; auto picks the ones that measured fastest on the device."""

    layout: Literal["auto", "channels_last", "channels_first"] = "auto"
    """Memory layout of features: (N, H, W, C) or (N, C, H, W)."""
    pointwise: Literal["auto", "convolution", "product"] = "auto"
    """1x1 convolutions: as grouped convolutions or as batched matrix products."""
    depthwise: Literal["auto", "convolution", "triton"] = "auto"
    """Depthwise convolutions: PyTorch's, or a Triton kernel (needs the package triton and a GPU)."""
    compile: Literal["auto"] | Flag = "auto"
    """Fuse the cells' elementwise parts with torch.compile."""
    algorithms: Literal["auto", "heuristic", "measured"] = "auto"
    """cuDNN's algorithm for each convolution: by its heuristic, or the fastest one in the first steps."""


class SearchSchedule(TrainingConfig):
    """The schedule of a search. The defaults are Auto-DeepLab's (section 4.1)."""

    arch_start_epoch: Annotated[Whole, Field(ge=0, le=limits.EPOCHS)] = 20
    """First epoch that trains the architecture too; earlier epochs train only the weights."""
    arch_optimizer: OptimizerConfig = OptimizerConfig(name="adam", lr=3e-3, weight_decay=1e-3)
    arch_init_std: Annotated[Number, Field(ge=0, le=1000)] = 1e-3
    """Standard deviation of the initial logits."""
    upsampler_cost: Annotated[Number, Field(ge=0, le=1000)] = 0.0
    """Weight of the upsamplers' cost in the architecture's loss: their expected multiply-adds as a share of the most
    expensive candidate's, averaged over the places where upsamplers compete. For spaces with gamma only."""
    train_a_fraction: Annotated[Number, Field(gt=0, lt=1)] = 0.5
    """Share of the training images in trainA (weights); the rest is trainB (architecture)."""
    checkpoint_cells: Flag = False
    """Keep only the output of each cell and recompute the cell in the backward pass: less memory, more time."""
    kernels: KernelConfig = KernelConfig()
    """The kernels of the supernet. They change no result."""

    @model_validator(mode="after")
    def _architecture_starts(self) -> SearchSchedule:
        if self.arch_start_epoch >= self.epochs:
            raise ValueError(
                f"arch_start_epoch is {self.arch_start_epoch}, but there are only {self.epochs} epochs, so the"
                " architecture would never be searched; lower arch_start_epoch"
            )
        return self


class RetrainSchedule(TrainingConfig):
    """The schedule that trains a network from scratch."""

    optimizer: OptimizerConfig = OptimizerConfig(name="sgd", lr=0.05, weight_decay=4e-5)
    schedule: LrScheduleConfig = LrScheduleConfig(name="poly", warmup_epochs=0)
    drop_path: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Greatest probability of dropping a branch, in the last cell at the last step."""
    auxiliary_weight: Annotated[Number, Field(ge=0, le=limits.FACTOR)] = 0.0
    """Loss weight of an auxiliary head after two thirds of the layers; 0: no such head."""
    ema_decay: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Decay of an exponential moving average of the weights, which is evaluated; 0: no average."""
    loss_sampling: Annotated[Number, Field(gt=0, le=1)] = 1.0
    """Share of the output's pixels in the loss; each step draws them independently (Long et al. 2015, section 3.4)."""
    compile: Flag = False
    """Compile the forward and backward pass with torch.compile, which needs a C++ compiler and minutes."""
