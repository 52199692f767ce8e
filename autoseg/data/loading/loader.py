"""Batches that depend on (seed, stream, epoch, step) alone, so that a run goes on where it stopped.

Letters: N images in a batch, C channels, H, W height and width of an image, h, w of a crop, in pixels.
"""

from __future__ import annotations

import signal
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias, cast

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
from autoseg.data.loading.packed import mask_tensor, to_labels
from autoseg.errors import DataError
from autoseg.ops.precision import float64_device

Key: TypeAlias = tuple[int, int]
"""Index of a sample, and the seed of its augmentation."""
Batch: TypeAlias = tuple[Tensor, Tensor]
Indices: TypeAlias = "Sequence[int] | NDArray[np.int64]"


def epoch_order(
    length: int,
    seed: int,
    epoch: int,
    stream: str | int,
    turn: int = 0,
    balanced: float = 0.0,
    chances: NDArray[np.float64] | None = None,
) -> NDArray[np.int64]:
    """A permutation of 0..length-1 that depends on the arguments alone.

    `stream` keeps loaders of one run apart (`"train_a"`, `"train_b"`); `turn` counts the permutations of one epoch.
    `balanced`: share of its places, drawn too, where another item is put, each drawn by its `chances` (length,).
    """
    random = np.random.default_rng([seed, _number(stream), epoch, turn])
    order = random.permutation(length).astype(np.int64)
    if balanced and chances is not None:
        places = random.permutation(length)[: round(balanced * length)]
        order[places] = random.choice(length, len(places), p=chances / chances.sum())
    return order


class BatchLoader:
    """Augmented batches of some samples of a data set.

    Step s of an epoch holds the items s*batch_size to (s+1)*batch_size-1 of an endless row of permutations, those of
    that epoch. `len()` is the number of whole batches in one permutation, at least 1.
    `device`: where whole batches are made at once; None makes sample after sample on the CPU with Pillow, as for mps,
    which lacks float64. What is shown is the same (see `BatchAugment`). `workers`: processes that read and augment on
    the CPU; 0 does it in this one. The batches are the same. With a `device` they serve a data set whose samples are
    not kept (`cache.py`).
    `balanced` and `chances`, one an index: see `epoch_order`.
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
        self.workers = workers
        self._balance = (balanced, chances)
        self._limits_classes = augment.max_class_share < 1
        self._coarse_masks: dict[int, CoarseMask] = {}
        self._items = _Items(dataset, crop, augment, mean, std)
        self._at_once: BatchAugment | None = None
        if device is not None and device.type != "mps":
            self._at_once = BatchAugment(crop, augment, mean, std, dataset.ignore_label, device)

    def __len__(self) -> int:
        return max(1, len(self.indices) // self.batch_size)

    def epoch(self, epoch: int, start_step: int = 0, steps: int | None = None) -> Iterator[Batch]:
        """The batches start_step..steps-1 of an epoch: images (N, C, h, w) float32, masks (N, h, w) int64.

        `steps`: how many the whole epoch has; left out, `len(self)`. More than that goes on with further permutations.

        Raises: DataError: a sample that cannot be used.
        """
        steps = len(self) if steps is None else steps
        if start_step >= steps:
            return
        if self._at_once is not None and (self.dataset.store is not None or self.workers == 0):
            for step in range(start_step, steps):
                yield self._made_at_once(self._at_once, self.keys(epoch, step))
            return
        if self.workers == 0:
            for step in range(start_step, steps):
                yield _stack(self._items[key] for key in self.keys(epoch, step))
            return
        keys = [self.keys(epoch, step) for step in range(start_step, steps)]
        for batch in self._in_workers(keys):
            if isinstance(batch, DataError):
                raise batch
            yield batch

    def keys(self, epoch: int, step: int) -> list[Key]:
        """What the batch is made of: (index in the data set, seed of the augmentation) of each item."""
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
        if not self._limits_classes:
            return augment_batch(samples, generators)
        coarse = [self._coarse_mask(index, mask) for (index, _), (_, mask) in zip(keys, samples, strict=True)]
        return augment_batch(samples, generators, coarse)

    def _coarse_mask(self, index: int, mask: Tensor) -> CoarseMask:
        """That of a sample; fetched from the device once, since fetching waits for it."""
        if index not in self._coarse_masks:
            step = CoarseMask.step_of(*mask.shape)
            # a copy, to keep no view of a mask that the data set forgets
            labels = mask[::step, ::step].cpu().numpy().copy()
            self._coarse_masks[index] = CoarseMask(labels.view(f"u{labels.itemsize}"), step)
        return self._coarse_masks[index]

    def _in_workers(self, keys: list[list[Key]]) -> Iterable[Batch | DataError]:
        return DataLoader(
            self._items,
            batch_sampler=keys,
            num_workers=min(self.workers, len(keys)),
            collate_fn=_collate,
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # or PyTorch draws from the global one
            pin_memory=self._at_once is not None and self._at_once.device.type == "cuda",
        )


def sample_tensors(dataset: SegmentationDataset, index: int) -> tuple[Tensor, Tensor]:
    """Image (H, W, C) and mask (H, W), uint8, or int16 for uint16, where they are kept. Not to be changed.

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

    Up to `batch_size` images that follow each other and have one size come together. Nothing is random. They reach
    `device` as bytes and are normalised there, but for mps before.

    Raises: DataError: a sample that cannot be used.
    """
    device = device or torch.device("cpu")
    first = float64_device(device)  # mps has no uint16 either, so images are normalised before they go there
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


class _Items(Dataset[Batch]):
    """(index, seed) -> augmented image and mask."""

    def __init__(
        self,
        dataset: SegmentationDataset,
        crop: tuple[int, int],
        augment: AugmentConfig,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self.dataset = dataset
        self._settings = (crop, augment, mean, std, dataset.ignore_label)

    def __getitem__(self, key: Key) -> Batch:
        index, seed = key
        generator = torch.Generator().manual_seed(seed)
        return augment(self.dataset.load(index), *self._settings, generator)

    def __getitems__(self, keys: list[Key]) -> list[Batch] | DataError:
        """One batch's items, or what is wrong: a DataError that a worker raises loses its one line on the way out."""
        try:
            return [self[key] for key in keys]
        except DataError as reason:
            return reason


def _stack(items: Iterable[Batch]) -> Batch:
    images, masks = zip(*items, strict=True)
    return torch.stack(images), torch.stack(masks)


def _collate(items: list[Batch] | DataError) -> Batch | DataError:
    return items if isinstance(items, DataError) else _stack(items)


def _start_worker(worker: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # these are for the main process, which ends its workers
        signal.signal(number, signal.SIG_IGN)
    if (info := get_worker_info()) is not None:
        cast(
            _Items, info.dataset
        ).dataset.cache_bytes = 0  # a worker lives for one epoch, which never asks for a sample twice


def _number(stream: str | int) -> int:
    return stream if isinstance(stream, int) else zlib.crc32(stream.encode())
