"""Settings for data that nobody has looked at yet: crop, batch and epochs from the images that there are.

Only what the user has not set is proposed, and only where the recommendation of a space, genotype or network that ships
with autoseg does not fit; what is proposed is printed and stored in the run's config.yaml like any other setting.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection
from typing import Any, NamedTuple, TypeVar

from autoseg.config.base import LEAST_INPUT_SIDE, parse
from autoseg.config.training import SearchSchedule, TrainingConfig
from autoseg.data.dataset import SegmentationDataset
from autoseg.engine.config import RetrainConfig, SearchConfig
from autoseg.engine.evaluate import spaced
from autoseg.genotype.schema import Genotype
from autoseg.space.schema import genotype_names, space_names

Config = TypeVar("Config", SearchConfig, RetrainConfig)

STEP = 16
"""Crops are multiples of it, so that every stride divides them."""
LOOKED_AT = 64
"""Images whose headers are read for their size."""
LEAST_STEPS = {"search": 120, "retrain": 400}
"""Of the weights over a whole run: fewer leave a network hardly trained."""
QUICK_STEPS = {"search": 40, "retrain": 300}
"""Of a first look."""
QUICK_SIDE, QUICK_BATCH, QUICK_VAL = 128, 4, 16
"""Of a first look: the longer side of the images, images a step, and images to validate on."""

SEEN = 0.25
"""Of the images' shorter side, which a crop should see."""
BATCH_NORM_MOMENTUM = 0.1
"""PyTorch's."""
LEAST_MEMORIES = 5.0
"""Batches of a run in units of 1 / momentum: e^-5 of the first statistics is left."""


class Proposal(NamedTuple):
    """Settings to use, and why, a line each."""

    settings: dict[str, Any]
    reasons: list[str]


def image_size(dataset: SegmentationDataset) -> tuple[int, int]:
    """The median (H, W) of a data set's images, of some of them."""
    sizes = [dataset.stored_size(index) for index in spaced(len(dataset), LOOKED_AT)]
    height, width = (round(statistics.median(side)) for side in zip(*sizes, strict=True))
    return height, width


def guide(
    config: Config, train: SegmentationDataset, given: Collection[str], quick: bool = False
) -> tuple[Config, list[str]]:
    """The settings with what fits the data, and a line on each that was changed.

    `given`: names of the schedule's settings, and the genotype's, that the user has set, which stay. `quick`: for a
    first look in minutes.
    """
    kind = "search" if isinstance(config, SearchConfig) else "retrain"
    if not (quick or is_shipped(config)):
        return config, []
    schedule: TrainingConfig = getattr(config, kind)
    size, reasons = config.data.resize or image_size(train), list[str]()
    changes: dict[str, Any] = {}
    if quick and config.data.resize is None and max(size) > QUICK_SIDE:
        size = _shrunk(size)
        changes["data"] = config.data.model_copy(update={"resize": size})
        reasons.append(f"data.resize {list(size)}: quick")
    proposal = propose(kind, schedule, size, len(train), given, quick)
    guided = parse(type(schedule), {**schedule.to_dict(), **proposal.settings}, "with what was proposed for the data")
    reasons += proposal.reasons
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


def is_shipped(config: SearchConfig | RetrainConfig) -> bool:
    """Is it of a space, genotype or network that ships with autoseg? What a file of the user's own says stays."""
    if isinstance(config, SearchConfig):
        return config.space.name in space_names()
    network = config.architecture
    if not isinstance(network, Genotype):
        return True
    return network.name in genotype_names() or network.source.get("space") in space_names()


def is_slow(momentum: float, batches: int) -> bool:
    """Is a published momentum of BatchNorm, less than PyTorch's, too slow for so few batches?

    Auto-DeepLab's 3e-4 is for a million and a half: after 1,000 three quarters are still what they began as.
    """
    return momentum < BATCH_NORM_MOMENTUM and momentum * batches < LEAST_MEMORIES


def propose(
    kind: str, schedule: TrainingConfig, size: tuple[int, int], images: int, given: Collection[str], quick: bool
) -> Proposal:
    """What to change in a schedule for so many training images of about `size` (H, W)."""
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
    of_weights = max(1, int(images * min(share, 1 - share) if kind == "search" else images))
    batch = min(schedule.batch_size, QUICK_BATCH) if quick else schedule.batch_size
    set_("batch_size", max(2, min(batch, of_weights)), "quick" if quick else f"only {of_weights} images to learn from")
    batch = settings.get("batch_size", schedule.batch_size)
    steps = max(1, of_weights // batch // schedule.accumulate)
    steps = min(steps, schedule.max_steps_per_epoch or steps)
    _set_epochs(kind, schedule, steps, quick, set_)
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
    return Proposal(settings, reasons)


def _set_epochs(kind: str, schedule: TrainingConfig, steps: int, quick: bool, set_: Any) -> None:
    """Epochs so that a run has enough steps, or as few as a first look may take."""
    if quick:
        wanted = QUICK_STEPS[kind]
        set_("max_steps_per_epoch", max(1, min(steps, wanted // 4)), "quick")
        set_("epochs", max(2, wanted // max(1, min(steps, wanted // 4))), "quick")
    elif schedule.epochs * steps < LEAST_STEPS[kind]:
        set_("epochs", -(-LEAST_STEPS[kind] // steps), f"only {steps} step{'s' * (steps > 1)} in an epoch")


def _shrunk(size: tuple[int, int]) -> tuple[int, int]:
    factor = QUICK_SIDE / max(size)
    height, width = (max(LEAST_INPUT_SIDE, round(side * factor)) for side in size)
    return height, width


def _whole(length: int) -> int:
    """The multiple of 16 from which an image of `length` pixels is all seen, at least 32."""
    return max(LEAST_INPUT_SIDE, -(-length // STEP) * STEP)
