"""Storing all decoded samples of a data set on the GPU, in memory, or in files that are mapped into memory.

Each image is decoded once; training and evaluation then read it from `SegmentationDataset.store`.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias

import PIL
import torch

from autoseg.data.base import SegmentationDataset
from autoseg.data.dataset import verify
from autoseg.data.loading import packed
from autoseg.data.loading.packed import Layout, PackedSamples, Put
from autoseg.data.loading.threads import Progress, in_threads
from autoseg.data.wording import counted, first_of
from autoseg.errors import DataError, RunError
from autoseg.files import cache_folder, digest, one_line
from autoseg.host_memory import free_memory, total_memory

Store: TypeAlias = Literal["auto", "device", "memory", "disk", "none"]

DEVICE_SHARE = 0.25
"""Largest share of a GPU's free memory for the samples of one split; the network needs the rest."""
MEMORY_SHARE = 0.5
"""Largest share of the available host memory."""
FORMAT = 2

_log = logging.getLogger(__name__)


def keep_samples(
    dataset: SegmentationDataset,
    store: Store = "auto",
    device: torch.device | None = None,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> str:
    """Decode every sample once and store all in `store`; return the place: `device`, `memory`, `disk` or `none`.

    `auto`: the first that has room of a GPU, the host's memory and files in `cache_dir`. If there is no room, the log
    says so in one line, and the image files are read on access, as for `none`. `progress(done, total)` is called after
    each sample.

    Raises: DataError: the first sample that cannot be used.
    """
    device = device or torch.device("cpu")
    sizes = [] if store == "none" else _sizes(dataset)
    layout = Layout(sizes, dataset.mask_dtype, dataset.channels, dataset.image_dtype)
    for place in places(store, layout.total_bytes, device):
        if place == "disk":
            samples = _on_disk(dataset, layout, cache_folder(cache_dir), progress)
        else:
            samples = _in_memory(dataset, layout, device if place == "device" else torch.device("cpu"), progress)
        if samples is not None:
            dataset.keep(samples)
            break
    else:
        place = "none"
        verify(dataset, progress)
    _say_unlabelled(dataset)
    return place


def available_memory() -> int:
    """Bytes of memory that are free without swapping; half of all memory if the system does not say."""
    free = free_memory()
    return (total_memory() or 0) // 2 if free is None else free


def fingerprint(dataset: SegmentationDataset) -> tuple[str, str] | None:
    """The folder name for a data set's samples, and the fingerprint of its content; None if the sources are unknown.

    The name depends on the sources and the settings. The fingerprint also depends on the state of the sources.
    """
    sources = dataset.sources()
    if sources is None:
        return None
    settings = {
        "format": FORMAT,
        "label_map": sorted(dataset.label_map.items()),
        "num_classes": dataset.num_classes,
        "ignore_label": dataset.ignore_label,
        "resize": dataset.resize,
        "pixels": [dataset.channels, dataset.image_dtype.name, dataset.orientation],
        "colours": list((dataset.colours or {}).items()),
        "mask_threshold": dataset.mask_threshold,
    }
    name = digest([settings, [place for place, _ in sources]])[:32]
    return name, digest([settings, sources, PIL.__version__])[:32]


# --- where ------------------------------------------------------------------------------------------------------------


def _sizes(dataset: SegmentationDataset) -> list[tuple[int, int]]:
    if dataset.resize is not None:
        return [dataset.resize] * len(dataset)
    return in_threads(dataset.stored_size, len(dataset))


def places(store: Store, total_bytes: int, device: torch.device) -> Iterator[str]:
    """The places to try, in this order."""
    if store == "device" and device.type != "cuda":  # mps shares the host's memory, and the CPU augments
        yield "memory"
    elif store in ("device", "memory", "disk"):
        yield store
    elif store == "auto":
        if device.type == "cuda" and total_bytes <= DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
            yield "device"
        if total_bytes <= MEMORY_SHARE * available_memory():
            yield "memory"
        yield "disk"


def _in_memory(
    dataset: SegmentationDataset, layout: Layout, device: torch.device, progress: Progress | None
) -> PackedSamples | None:
    try:
        samples = PackedSamples.empty(layout, device)
    except RuntimeError:
        _log.warning(f"no room for {_size(layout.total_bytes)} of decoded images in the memory of {device}")
        return None
    _fill(dataset, layout, samples.put, progress)
    return samples


def _on_disk(
    dataset: SegmentationDataset, layout: Layout, folder: Path, progress: Progress | None
) -> PackedSamples | None:
    try:
        if (identity := fingerprint(dataset)) is None:
            raise packed.SamplesError("nothing tells these images from others")
        path, state = folder / identity[0], identity[1]
        if path.exists():
            try:
                samples = packed.MappedSamples(path, state, layout, dataset.decode)
                if progress is not None:
                    progress(len(dataset), len(dataset))
                return samples
            except packed.SamplesError as reason:
                _log.warning(f"{path} {reason}; making it anew")
                packed.remove_folder(path)
        folder.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(folder).free) < layout.total_bytes:
            raise OSError(f"{_size(layout.total_bytes)} are needed, {_size(free)} are free")
        _log.warning(f"writing {_size(layout.total_bytes)} of decoded images to {path}, for later runs too")
        packed.write_folder(path, state, layout, lambda put: _fill(dataset, layout, put, progress))
        return packed.MappedSamples(path, state, layout, dataset.decode)
    except (OSError, RunError, packed.SamplesError) as reason:
        _log.warning(
            f"decoded images cannot be kept in {folder} ({one_line(reason)}); going on without: the image files are"
            " read again in each epoch (set cache_dir to another folder, or store: none)"
        )
        return None


def _fill(dataset: SegmentationDataset, layout: Layout, put: Put, progress: Progress | None) -> None:
    def work(index: int) -> None:
        sample = dataset.decode(index)
        if not layout.fits(index, *sample):
            raise DataError(f"{dataset.where(index)} changed while it was read; start again", code="file-changed")
        put(index, *sample)

    in_threads(work, len(dataset), progress)


def _say_unlabelled(dataset: SegmentationDataset) -> None:
    if names := sorted(dataset.unlabelled):
        _log.warning(
            f"{len(names)} of {counted(len(dataset), 'mask')} hold the ignore label {dataset.ignore_label} alone"
            f" ({first_of(names, 5)}): nothing is learned or measured there; remove them, or set on_bad_file: skip"
        )


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
