"""Batches that depend only on (seed, stream, epoch, step), so that a run can resume anywhere.

Letters: N images in a batch, C channels, H, W height and width of an image, h, w of a crop, in pixels.
"""

from __future__ import annotations

import logging
import signal
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from autoseg.config.training import AugmentConfig
from autoseg.data.augment.batch import BatchAugment
from autoseg.data.augment.parameters import CoarseMask
from autoseg.data.augment.sample import augment, full_scale, normalisation, normalised
from autoseg.data.base import SegmentationDataset
from autoseg.data.flip_pairs import mirrored_labels
from autoseg.data.loading.packed import mask_tensor, to_labels
from autoseg.data.loading.workers import WorkersError, from_workers, shared
from autoseg.data.wording import counted, first_of
from autoseg.errors import DataError
from autoseg.ops.devices import float64_device
from autoseg.signals import stopping

Key: TypeAlias = tuple[int, int]
"""Index of a sample and seed of its augmentation."""
Batch: TypeAlias = tuple[Tensor, Tensor]
Indices: TypeAlias = "Sequence[int] | NDArray[np.int64]"

_log = logging.getLogger(__name__)


def epoch_order(
    length: int,
    seed: int,
    epoch: int,
    stream: str | int,
    turn: int = 0,
    balanced: float = 0.0,
    chances: NDArray[np.float64] | None = None,
) -> NDArray[np.int64]:
    """A permutation of 0..length-1 that depends only on the arguments.

    `stream` separates the loaders of one run (`"train_a"`, `"train_b"`). `turn` counts the permutations of one epoch.
    `balanced`: share of the positions, chosen at random, that hold an item drawn by `chances` (length,) instead.
    """
    random = np.random.default_rng([seed, _number(stream), epoch, turn])
    order = random.permutation(length).astype(np.int64)
    if balanced and chances is not None:
        places = random.permutation(length)[: round(balanced * length)]
        order[places] = random.choice(length, len(places), p=chances / chances.sum())
    return order


class BatchLoader:
    """Augmented batches of some samples of a data set.

    Step s of an epoch holds the items s*batch_size to (s+1)*batch_size-1 of the epoch's endless sequence of
    permutations. `len()` is the number of whole batches in one permutation, at least 1.
    `device`: makes whole batches there at once. None, or mps, which lacks float64: makes samples one by one on the CPU
    with Pillow. Both show the same (see `BatchAugment`).
    `workers`: number of processes that read and augment on the CPU; they do not change the batches. 0: this process.
    Where they fail, or give no batch for `worker_seconds`, this process goes on without them, and the log says why.
    With a `device`, only data sets without a store (`cache.py`) use workers.
    `balanced`, `chances` (one per index): see `epoch_order`.
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        indices: Indices,
        batch_size: int,
        *,
        crop: tuple[int, int],
        augment: AugmentConfig,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
        stream: str | int,
        workers: int = 0,
        worker_seconds: float = 300.0,
        device: torch.device | None = None,
        balanced: float = 0.0,
        chances: NDArray[np.float64] | None = None,
    ) -> None:
        if len(indices) == 0:
            raise DataError("there are no images to make batches of; add images to the split", code="no-images")
        self.dataset = dataset
        self.indices = [int(index) for index in indices]
        self.batch_size = batch_size
        self.seed = seed
        self.stream = stream
        self.workers, self.worker_seconds = workers, worker_seconds
        self._balance = (balanced, chances)
        self._limits_classes = augment.max_class_share < 1
        self._coarse_masks: dict[int, CoarseMask] = {}
        settings = crop, augment, mean, std, dataset.ignore_label
        mirrored = mirrored_labels(augment.flip_pairs, dataset.classes, dataset.ignore_label)
        self._batches = _Batches(dataset, settings, mirrored)
        self._at_once: BatchAugment | None = None
        if device is not None and device.type != "mps":
            self._at_once = BatchAugment(*settings, device, mirrored)

    def __len__(self) -> int:
        return max(1, len(self.indices) // self.batch_size)

    def epoch(self, epoch: int, start_step: int = 0, steps: int | None = None) -> Iterator[Batch]:
        """The batches start_step..steps-1 of an epoch: images (N, C, h, w) float32, masks (N, h, w) int64.

        `steps`: number of steps of the whole epoch. Default: `len(self)`. More steps use further permutations.
        Raises: DataError: a sample that cannot be used.
        """
        keys = (self.keys(epoch, step) for step in range(start_step, len(self) if steps is None else steps))
        if self._at_once is not None and (self.dataset.store is not None or self.workers == 0):
            yield from map(partial(self._made_at_once, self._at_once), keys)
            return
        for batch in self._in_workers(list(keys)) if self.workers else map(self._batches.__getitem__, keys):
            if isinstance(batch, DataError):
                raise batch
            yield batch

    def keys(self, epoch: int, step: int) -> list[Key]:
        """The (index in the data set, seed of the augmentation) of each item of a batch."""
        positions = range(step * self.batch_size, (step + 1) * self.batch_size)
        length = len(self.indices)
        turns = {position // length for position in positions}
        orders = {turn: epoch_order(length, self.seed, epoch, self.stream, turn, *self._balance) for turn in turns}
        return [
            (self.indices[orders[position // length][position % length]], self._sample_seed(epoch, position))
            for position in positions
        ]

    def _sample_seed(self, epoch: int, position: int) -> int:
        state = np.random.SeedSequence([self.seed, _number(self.stream), epoch, position, 1]).generate_state(2)
        return int(state[0]) << 31 | int(state[1]) >> 1

    def _made_at_once(self, augment_batch: BatchAugment, keys: list[Key]) -> Batch:
        samples = [sample_tensors(self.dataset, index) for index, _ in keys]
        generators = [torch.Generator().manual_seed(seed) for _, seed in keys]
        coarse = None
        if self._limits_classes:
            coarse = [self._coarse_mask(index, mask) for (index, _), (_, mask) in zip(keys, samples, strict=True)]
        return augment_batch(samples, generators, coarse)

    def _coarse_mask(self, index: int, mask: Tensor) -> CoarseMask:
        """A sample's coarse mask, copied from the device only once, since the copy waits for the device."""
        if index not in self._coarse_masks:
            step = CoarseMask.step_of(*mask.shape)
            # a copy, since a view would keep the whole mask in memory
            labels = mask[::step, ::step].cpu().numpy().copy()
            self._coarse_masks[index] = CoarseMask(labels.view(f"u{labels.itemsize}"), step)
        return self._coarse_masks[index]

    def _in_workers(self, keys: list[list[Key]]) -> Iterator[Batch | DataError]:
        loader = DataLoader(
            _SharedBatches(self._batches),
            batch_size=None,
            sampler=keys,
            num_workers=min(self.workers, len(keys)),
            collate_fn=_unchanged,
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # otherwise PyTorch draws from the global one
            pin_memory=self._at_once is not None and self._at_once.device.type == "cuda",
        )
        done = 0
        try:
            for batch in from_workers(loader, self.worker_seconds):
                done += 1
                yield batch
        except WorkersError as reason:
            if reason.crashed:
                awaited = [index for some in keys[done : done + 2 * self.workers] for index, _ in some]
                names = first_of([self.dataset.names[index] for index in awaited], 5)
                raise DataError(
                    f"a worker process {reason} while it read one of {counted(len(awaited), 'image')} ({names}); find"
                    " the file, and remove it or save it anew",
                    code="worker-crashed",
                ) from None
            _log.warning(
                f"a worker process {reason}: going on without worker processes, which changes no result but may be"
                " slower; to avoid this line, set `workers: 0`"
            )
            self.workers = 0
            yield from map(self._batches.__getitem__, keys[done:])


def sample_tensors(dataset: SegmentationDataset, index: int) -> tuple[Tensor, Tensor]:
    """Image (H, W, C) and mask (H, W), as `mask_tensor` gives it, on the device of the store. Do not change them.

    Raises: DataError: a sample that cannot be used.
    """
    if dataset.store is not None:
        return dataset.store.tensors(index)
    image, mask = dataset.load(index)
    return torch.from_numpy(image), mask_tensor(mask)


def evaluation_batches(
    dataset: SegmentationDataset,
    indices: Indices,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int = 1,
    device: torch.device | None = None,
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Whole images in the order of `indices`: (indices, images (N, C, H, W) float32, masks (N, H, W) int64).

    A batch holds up to `batch_size` consecutive images of one size, without augmentation. `device` normalises them,
    except mps, for which the CPU does.

    Raises: DataError: a sample that cannot be used.
    """
    device = device or torch.device("cpu")
    first = float64_device(device)  # mps has no uint16, so the CPU normalises images for it
    constants: tuple[Tensor, Tensor] | None = None
    group: list[int] = []
    tensors: list[Batch] = []
    for index in (int(index) for index in indices):
        stored_image, stored_mask = (part.to(first) for part in sample_tensors(dataset, index))
        constants = constants or normalisation(mean, std, first, full_scale(stored_image.dtype))
        image, mask = normalised(stored_image, *constants).to(device), to_labels(stored_mask).to(device)
        if group and (len(group) == batch_size or mask.shape != tensors[0][1].shape):
            yield group, *_stack(tensors)
            group, tensors = [], []
        group.append(index)
        tensors.append((image, mask))
    if group:
        yield group, *_stack(tensors)


@dataclass
class _Batches(Dataset["Batch | DataError"]):
    """Makes one batch from its keys."""

    dataset: SegmentationDataset
    settings: tuple[tuple[int, int], AugmentConfig, Sequence[float], Sequence[float], int]
    """What `augment` takes after the sample."""
    mirrored: Tensor | None
    """The label of each label in a flipped view."""

    def __getitem__(self, keys: list[Key]) -> Batch | DataError:
        """One batch, or its error: PyTorch would wrap a DataError that a worker raises in a traceback."""
        try:
            samples = ((self.dataset.load(index), torch.Generator().manual_seed(seed)) for index, seed in keys)
            return _stack(augment(sample, *self.settings, generator, self.mirrored) for sample, generator in samples)
        except DataError as reason:
            return reason


@dataclass
class _SharedBatches(Dataset["Batch | DataError | WorkersError"]):
    """Makes one batch in a worker process, for the main one."""

    batches: _Batches

    def __getitem__(self, keys: list[Key]) -> Batch | DataError | WorkersError:
        batch = self.batches[keys]
        return batch if isinstance(batch, DataError) else shared(batch)


def _stack(items: Iterable[Batch]) -> Batch:
    images, masks = zip(*items, strict=True)
    return torch.stack(images), torch.stack(masks)


def _unchanged(batch: Any) -> Any:
    return batch


def _start_worker(worker: int) -> None:
    for number in stopping():  # the main process handles these and ends its workers
        signal.signal(number, signal.SIG_IGN)
    if (info := get_worker_info()) is not None:
        # a worker lives for one epoch, which never asks for a sample twice
        cast(_SharedBatches, info.dataset).batches.dataset.cache_bytes = 0


def _number(stream: str | int) -> int:
    return stream if isinstance(stream, int) else zlib.crc32(stream.encode())
