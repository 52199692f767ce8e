"""Checking a data set before a run: its content, its problems, and settings that fit it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoseg.config.data import IMAGENET_MEAN, IMAGENET_STD, DataConfig
from autoseg.data.base import Sample, resize_image, resize_mask
from autoseg.data.check.problems import KINDS, Problem, find_problems
from autoseg.data.check.scan import scan_dataset
from autoseg.data.check.summary import Scan, SplitSummary, pick_samples, summarise
from autoseg.data.dataset import FolderDataset
from autoseg.data.discovery.known_datasets import title_of
from autoseg.data.io.colour_tables import named_classes
from autoseg.data.loading.threads import Progress
from autoseg.data.resolve import resolve_layout, unscaled
from autoseg.data.wording import counted
from autoseg.errors import DataError

UNKNOWN_LAYOUTS = ("folder", "list")
"""Layouts that tell only where the files lie."""
LONGEST_SIDE = 1024
"""Largest side in pixels of a sample to look at."""


@dataclass(frozen=True)
class DataReport:
    """The result of `check_dataset`."""

    scan: Scan
    summary: Mapping[str, SplitSummary]
    problems: Sequence[Problem]
    """The most serious kinds first."""
    proposal: Mapping[str, Any]
    """Settings of `DataConfig` that leave nothing to be decided but what the problems name."""

    @property
    def title(self) -> str:
        """`CamVid in /data/camvid: 367 train, 101 val, 11 classes, ignore label 11`."""
        config = self.scan.config
        parts = [f"{summary.images:,} {split}" for split, summary in self.summary.items()]
        parts += [counted(config.num_classes, "class"), f"ignore label {config.ignore_label}"]
        if any(split.part for split in (config.splits or {}).values()):
            parts.append(f"split by seed {config.split_seed}" + " in groups" * (config.group_by is not None))
        if config.mask_threshold is not None:
            parts.append(f"{config.mask_threshold} or more is class 1")
        return f"{title_of(config.layout)} in {config.root}: {', '.join(parts)}"

    @property
    def stopping(self) -> int:
        """Number of problems that end a run."""
        return sum(problem.stops for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """All but the pictures as plain data."""
        config = self.scan.config
        return {
            "root": config.root,
            "layout": config.layout,
            "classes": list(config.classes),
            "ignore_label": config.ignore_label,
            "channels": config.channels,
            "pixel_type": config.pixel_type,
            "orientation": config.orientation,
            "decisions": list(self.scan.said),
            "splits": {split: summary.to_dict(config.classes) for split, summary in self.summary.items()},
            "problems": [problem._asdict() for problem in self.problems],
            "problems_that_stop_a_run": self.stopping,
            "proposal": dict(self.proposal),
        }

    def samples(self) -> list[tuple[str, Sample]]:
        """Up to twelve samples with their names, reduced to `LONGEST_SIDE`. Raises: DataError: a file has changed."""
        found = []
        for one in pick_samples(self.scan):
            dataset = FolderDataset(self.scan.config, [one.pair], cache_bytes=0)
            found.append((f"{one.split}/{one.pair[0]}", _reduced(dataset.decode(0))))
        return found


def check_dataset(config: DataConfig, split: str | None = None, progress: Progress | None = None) -> DataReport:
    """Read a data set, or one of its splits, and report its content and its problems.

    Every mask is decoded, and every image is checked. `progress(done, total)` is called when a pair was looked at,
    and again when it was checked.
    Raises: DataError: a folder of no known layout, or the generated set, which has no files.
    """
    if config.layout == "generated":
        raise DataError(
            "the generated set has no files to check; give a folder of images and masks, or a data YAML",
            code="no-files-to-check",
        )
    scan, problems = scan_dataset(config, split, progress)
    summary = summarise(scan)
    order = {kind: place for place, kind in enumerate(KINDS)}
    problems = sorted([*problems, *find_problems(scan, summary)], key=lambda problem: order[problem.kind])
    return DataReport(scan, summary, problems, propose(config, scan, has_training="train" in summary))


def _reduced(sample: Sample) -> Sample:
    """Reduce a sample to at most `LONGEST_SIDE` pixels each way, since twelve large ones may exceed the memory."""
    height, width = sample.mask.shape
    scale = LONGEST_SIDE / max(height, width)
    if scale >= 1:
        return sample
    size = max(1, round(scale * height)), max(1, round(scale * width))
    return Sample(resize_image(sample.image, size), resize_mask(sample.mask, size))


def _finds(found: DataConfig) -> bool:
    """Whether its layout alone finds the splits, which a known set with labels of one's own does not."""
    try:
        alone = DataConfig(root=found.root, layout=found.layout)
        return resolve_layout(alone).config.splits == found.splits
    except DataError:
        return False


def propose(config: DataConfig, scan: Scan, has_training: bool) -> dict[str, Any]:
    """The settings of `config`, completed by what was found.

    Labels and colours of a known layout are left out. So are classes that were found without the training split, since
    other splits may lack some.
    """
    found, unknown = scan.config, scan.config.layout in UNKNOWN_LAYOUTS
    proposal: dict[str, Any] = config.model_dump(mode="json", exclude_defaults=True)
    proposal |= {"root": found.root, "layout": found.layout}
    if found.colours and found.classes == named_classes(found.colours):
        proposal.pop("classes", None)  # the colours name them
    elif not scan.undecided and len(found.classes) > 1 and (has_training or config.classes or not unknown):
        proposal["classes"] = list(found.classes)
    if "classes" in proposal:
        proposal.pop("num_classes", None)
    proposal["ignore_label"] = found.ignore_label
    if unknown and config.splits is None and not _finds(found):
        places = found.splits or {}
        proposal["splits"] = {split: place.model_dump(exclude_none=True) for split, place in places.items()}
    if unknown and found.label_map and not scan.undecided:
        proposal["label_map"] = dict(found.label_map)
    if found.mask_threshold is not None:
        proposal["mask_threshold"] = found.mask_threshold
    if unknown and found.colours:
        proposal["colours"] = {name: list(colour) for name, colour in found.colours.items()}
    if (found.channels, found.pixel_type) != (3, "uint8"):
        proposal |= {"channels": found.channels, "pixel_type": found.pixel_type}
    if found.orientation != "upright":
        proposal["orientation"] = found.orientation
    if (found.mean, found.std) not in ((IMAGENET_MEAN, IMAGENET_STD), unscaled(found.channels)):
        proposal |= {"mean": list(found.mean), "std": list(found.std)}
    return proposal
