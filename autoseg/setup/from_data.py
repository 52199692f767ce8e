"""Crop, batch size and epochs that fit the images.

Proposals replace the recommended schedule of a space, genotype or network that ships with autoseg, if it does not fit
the images and the user has not set the value. They are printed and saved in the run's config.yaml.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection
from typing import Any

from autoseg.config.base import LEAST_INPUT_SIDE, parse
from autoseg.config.training import SearchSchedule, TrainingConfig
from autoseg.data.dataset import SegmentationDataset
from autoseg.data.loading.splits import halve
from autoseg.engine.config import AnyConfig, Config, RetrainConfig, SearchConfig
from autoseg.engine.evaluate import spaced
from autoseg.genotype.schema import Genotype
from autoseg.space.schema import genotype_names, space_names

STEP = 16
"""Crops are multiples of this, so that every stride divides them."""
LOOKED_AT = 64
"""Number of images whose sizes are read."""
LEAST_STEPS = {"search": 120, "retrain": 400}
"""Steps of the weights that a run needs at least; with fewer, a network is hardly trained."""
QUICK_STEPS = {"search": 40, "retrain": 300}
"""Steps of the weights in a quick run."""
QUICK_SIDE, QUICK_BATCH, QUICK_VAL = 128, 4, 16
"""Longer side of the images in pixels, batch size, and validation images in a quick run."""

SEEN = 0.25
"""Share of the images' shorter side that a crop should cover."""
BATCH_NORM_MOMENTUM = 0.1
"""PyTorch's default."""
LEAST_MEMORIES = 5.0
"""Least batches of a run in units of 1 / momentum; e^-5 of the initial statistics remain."""


def image_size(dataset: SegmentationDataset) -> tuple[int, int]:
    """The median (H, W) of some of a data set's images, in pixels."""
    sizes = [dataset.stored_size(index) for index in spaced(len(dataset), LOOKED_AT)]
    height, width = (round(statistics.median(side)) for side in zip(*sizes, strict=True))
    return height, width


def guide(
    config: Config, train: SegmentationDataset, given: Collection[str], quick: bool = False
) -> tuple[Config, list[str]]:
    """Make settings fit the data; return them and one line on each change.

    `given`: names of settings of the schedule and the genotype that the user has set; they stay. `quick`: small images
    and few steps, for a first look in minutes.
    """
    if not (quick or is_shipped(config)):
        return config, []
    kind, schedule = config.kind, config.schedule
    size, reasons = config.data.resize or image_size(train), list[str]()
    changes: dict[str, Any] = {}
    if quick and config.data.resize is None and max(size) > QUICK_SIDE:
        factor = QUICK_SIDE / max(size)
        size = (max(LEAST_INPUT_SIDE, round(size[0] * factor)), max(LEAST_INPUT_SIDE, round(size[1] * factor)))
        changes["data"] = config.data.model_copy(update={"resize": size})
        reasons.append(f"data.resize {list(size)}: quick")
    least_half = None
    if isinstance(schedule, SearchSchedule) and (groups := train.groups()) is not None:
        least_half = min(map(len, halve(len(train), schedule.train_a_fraction, config.seed, groups)))
    settings, why = propose(kind, schedule, size, len(train), given, quick, least_half)
    guided = parse(type(schedule), {**schedule.to_dict(), **settings}, "with what was proposed for the data")
    reasons += why
    genotype = config.architecture if isinstance(config, RetrainConfig) else None
    if isinstance(genotype, Genotype) and "batch_norm" not in given:
        batches = max(1, len(train) // guided.batch_size)
        if guided.max_steps_per_epoch is not None:
            batches = min(batches, guided.max_steps_per_epoch * guided.accumulate)
        norm, batches = genotype.batch_norm, guided.epochs * batches
        if is_slow(norm.momentum, batches):
            norm = norm.model_copy(update={"momentum": BATCH_NORM_MOMENTUM})
            changes["architecture"] = genotype.model_copy(update={"batch_norm": norm})
            reasons.append(
                f"genotype.batch_norm.momentum {norm.momentum}: at {genotype.batch_norm.momentum:g} the"
                f" statistics would still be the first ones after {batches:,} batches"
            )
    return config.model_copy(update={kind: guided, **changes}), reasons


def is_shipped(config: AnyConfig) -> bool:
    """Whether the space, genotype or network ships with autoseg. Schedules of the user's own files stay unchanged."""
    if isinstance(config, SearchConfig):
        return config.space.name in space_names()
    network = config.architecture
    if not isinstance(network, Genotype):
        return True
    return network.name in genotype_names() or network.source.get("space") in space_names()


def is_slow(momentum: float, batches: int) -> bool:
    """Whether a momentum of BatchNorm below PyTorch's default is too slow for so few batches.

    Auto-DeepLab's 3e-4 is for 1.5 million batches; after 1,000 three quarters of the initial statistics remain.
    """
    return momentum < BATCH_NORM_MOMENTUM and momentum * batches < LEAST_MEMORIES


def propose(
    kind: str,
    schedule: TrainingConfig,
    size: tuple[int, int],
    images: int,
    given: Collection[str],
    quick: bool,
    least_half: int | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Changes to a schedule for training images of about `size` (H, W) in pixels, and the reason for each, a line.

    least_half: images in the smaller half of a search, if groups decide it.
    """
    settings: dict[str, Any] = {}
    reasons: list[str] = []

    def set_(key: str, value: Any, reason: str) -> None:
        if key not in given and value != getattr(schedule, key):
            settings[key] = value
            shown = list(value) if isinstance(value, tuple) else value
            reasons.append(f"{kind}.{key} {shown}: {reason}")

    fitting = tuple(min(side, _whole(length)) for side, length in zip(schedule.crop, size, strict=True))
    set_("crop", fitting, f"the images are about {size[0]}x{size[1]}")
    share = schedule.train_a_fraction if isinstance(schedule, SearchSchedule) else 1.0
    of_weights = least_half or max(1, int(images * min(share, 1 - share) if kind == "search" else images))
    batch = min(schedule.batch_size, QUICK_BATCH) if quick else schedule.batch_size
    set_("batch_size", max(2, min(batch, of_weights)), "quick" if quick else f"only {of_weights} images to learn from")
    batch = settings.get("batch_size", schedule.batch_size)
    steps = max(1, of_weights // batch // schedule.accumulate)
    steps = min(steps, schedule.max_steps_per_epoch or steps)
    if quick:
        in_epoch = max(1, min(steps, QUICK_STEPS[kind] // 4))
        set_("max_steps_per_epoch", in_epoch, "quick")
        set_("epochs", max(2, QUICK_STEPS[kind] // in_epoch), "quick")
    elif schedule.epochs * steps < LEAST_STEPS[kind]:
        set_("epochs", -(-LEAST_STEPS[kind] // steps), f"only {steps} step{'s' * (steps > 1)} in an epoch")
    epochs = settings.get("epochs", schedule.epochs)
    if isinstance(schedule, SearchSchedule) and epochs != schedule.epochs:
        start = round(epochs * schedule.arch_start_epoch / schedule.epochs)
        set_("arch_start_epoch", min(start, epochs - 1), "the same share of the epochs")
    if quick:
        set_("val_images", QUICK_VAL, "quick")
    elif "epochs" in settings:
        set_("validate_every", max(1, epochs // 20), "twenty times over the run")
    if min(schedule.crop) < SEEN * min(size) and "crop" not in given:
        reasons.append(
            f"{kind}.crop {list(schedule.crop)} sees little of images of about {size[0]}x{size[1]}: where what lies"
            f" around counts more than detail, give data.resize or a larger {kind}.crop"
        )
    return settings, reasons


def _whole(length: int) -> int:
    """The least multiple of 16 that covers `length` pixels, at least 32."""
    return max(LEAST_INPUT_SIDE, -(-length // STEP) * STEP)
