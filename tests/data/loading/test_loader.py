import random

import numpy as np
import pytest
import torch
from helpers.data_sets import ArrayDataset, random_dataset
from helpers.errors import raises_code

from autoseg.config.training import AugmentConfig
from autoseg.data.loading.loader import BatchLoader, epoch_order, evaluation_batches
from autoseg.errors import DataError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def loader(dataset: ArrayDataset, batch_size: int = 3, workers: int = 0, **settings: object) -> BatchLoader:
    known = {"seed": 1, "stream": "train_a", "indices": range(len(dataset)), "augment": AugmentConfig(colour=0.2)}
    return BatchLoader(
        dataset, batch_size=batch_size, crop=(32, 32), mean=MEAN, std=STD, workers=workers, **(known | settings)
    )


def equal(some: list, others: list) -> bool:
    pairs = list(zip(some, others, strict=True))
    return all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)


def test_order_is_a_permutation_that_its_arguments_decide() -> None:
    order = epoch_order(50, 3, 7, "train_a")
    assert sorted(order) == list(range(50))
    assert np.array_equal(order, epoch_order(50, 3, 7, "train_a"))
    others = [epoch_order(50, *key) for key in ((4, 7, "train_a"), (3, 8, "train_a"), (3, 7, "train_b"), (3, 7, 0))]
    assert all(not np.array_equal(order, other) for other in [*others, epoch_order(50, 3, 7, "train_a", 1)])


def test_without_balance_the_order_is_the_plain_permutation() -> None:
    rng = np.random.default_rng([3, 5, 7, 2])
    expected = rng.permutation(50)
    assert np.array_equal(epoch_order(50, 3, 7, 5, 2), expected)
    assert np.array_equal(epoch_order(50, 3, 7, 5, 2, 0.0, np.arange(1.0, 51.0)), expected)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.25, 0.6, 1.0])
def test_a_share_of_an_epoch_is_drawn_by_chances(share: float) -> None:
    chances = np.array([1.0] * 15 + [4.0] * 5)
    plain, balanced = (
        np.stack([epoch_order(20, 0, epoch, "train", 0, part, chances) for epoch in range(400)])
        for part in (0.0, share)
    )
    assert (plain != balanced).sum(1).max() <= round(20 * share)  # some draws meet what stood there
    assert (plain != balanced).mean() == pytest.approx(share * (1 - 1 / 20), abs=0.02)
    often = np.bincount(balanced.ravel(), minlength=20) / 400
    assert often == pytest.approx((1 - share) + share * 20 * chances / chances.sum(), abs=0.35)
    assert often[15:].mean() > 1.5 * often[:15].mean() if share > 0.5 else often[15:].mean() > 1.2
    assert np.array_equal(balanced[7], epoch_order(20, 0, 7, "train", 0, share, chances))


def test_a_balanced_epoch_goes_on_and_is_as_long() -> None:
    dataset = random_dataset(10)
    settings = {"balanced": 0.5, "chances": np.arange(1.0, 11.0)}
    assert len(loader(dataset, **settings)) == len(loader(dataset))
    whole = list(loader(dataset, **settings).epoch(2, steps=7))
    assert equal(list(loader(dataset, **settings).epoch(2, start_step=4, steps=7)), whole[4:])
    assert not equal(list(loader(dataset).epoch(2, steps=7)), whole)


def test_batches_have_their_shapes_and_the_last_incomplete_one_is_dropped() -> None:
    batches = list(loader(random_dataset(10)).epoch(0))
    assert len(batches) == len(loader(random_dataset(10))) == 3
    for images, masks in batches:
        assert (images.shape, images.dtype) == ((3, 3, 32, 32), torch.float32)
        assert (masks.shape, masks.dtype) == ((3, 32, 32), torch.int64)


def test_an_epoch_shows_each_image_once() -> None:
    shown = [index for step in range(5) for index, _ in loader(random_dataset(10), 2).keys(4, step)]
    assert sorted(shown) == list(range(10))


def test_only_the_given_indices_are_shown() -> None:
    some = loader(random_dataset(10), 2, indices=np.array([1, 4, 8, 9]))
    assert sorted(index for step in range(2) for index, _ in some.keys(0, step)) == [1, 4, 8, 9]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_epoch_goes_on_with_the_same_batches(workers: int) -> None:
    dataset = random_dataset(10)
    whole = list(loader(dataset).epoch(2, steps=7))
    other = loader(dataset, workers=workers)
    next(iter(other.epoch(0)))  # what came before, and was left in the middle, must not matter
    assert equal(list(other.epoch(2, start_step=4, steps=7)), whole[4:])
    assert list(other.epoch(2, start_step=7, steps=7)) == []


@pytest.mark.slow
def test_workers_do_not_change_the_batches() -> None:
    dataset = random_dataset(10)
    assert equal(list(loader(dataset, workers=2).epoch(1, steps=6)), list(loader(dataset).epoch(1, steps=6)))


def test_more_steps_go_on_with_further_permutations() -> None:
    small = loader(random_dataset(4), 3)
    keys = [key for step in range(8) for key in small.keys(0, step)]
    turns = [[index for index, _ in keys[start : start + 4]] for start in range(0, 24, 4)]
    assert all(sorted(turn) == [0, 1, 2, 3] for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 1
    assert len({seed for _, seed in keys}) == 24
    assert len(list(small.epoch(0, steps=8))) == 8


def test_fewer_images_than_a_batch_make_one_batch() -> None:
    batches = list(loader(random_dataset(2), 5).epoch(0))
    assert [images.shape[0] for images, _ in batches] == [5]


@pytest.mark.parametrize("device", [None, torch.device("cpu")])
def test_seed_stream_epoch_and_position_change_the_augmentation(device: torch.device | None) -> None:
    """The views of a single image, which has no order that could differ."""
    dataset = random_dataset(1)
    runs = [
        image
        for settings, epoch in (({}, 0), ({}, 1), ({}, 2), ({"seed": 2}, 0), ({"stream": "train_b"}, 0))
        for images, _ in loader(dataset, 1, device=device, **settings).epoch(epoch, steps=2)
        for image in images
    ]
    assert len({image.numpy().tobytes() for image in runs}) == 10


def test_no_seed_of_an_augmentation_comes_twice() -> None:
    loaders = [
        loader(random_dataset(4), 2, seed=seed, stream=stream) for seed in (0, 1) for stream in ("train_a", "train_b")
    ]
    seeds = [seed for of in loaders for epoch in range(4) for step in range(4) for _, seed in of.keys(epoch, step)]
    assert len(set(seeds)) == len(seeds) == 4 * 4 * 4 * 2


@pytest.mark.parametrize("workers", [0, 2])
def test_global_random_numbers_are_left_alone(workers: int) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    assert len(list(loader(random_dataset(6), workers=workers).epoch(0))) == 2
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    assert before[2] == random.getstate()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_sample_is_one_line(workers: int) -> None:
    samples = [(np.zeros((32, 32, 3), np.uint8), np.full((32, 32), label, np.uint8)) for label in (0, 1, 9, 1)]
    named = "label 9 in 2", "4 classes (0..3)", "ignore label 255", "data.label_map"
    with raises_code(DataError, "label-out-of-range", *named):
        list(loader(ArrayDataset(samples, 4), 2, workers=workers).epoch(0))


def test_no_indices_is_an_error() -> None:
    with raises_code(DataError, "no-images"):
        loader(random_dataset(3), indices=[])


def test_evaluation_batches_group_equal_sizes_that_follow_each_other() -> None:
    sizes = [(32, 40), (32, 40), (32, 40), (48, 40), (32, 40), (32, 40)]
    samples = [(np.full((*size, 3), i, np.uint8), np.full(size, i, np.uint8)) for i, size in enumerate(sizes)]
    dataset = ArrayDataset(samples, 6)
    batches = list(evaluation_batches(dataset, [0, 1, 2, 3, 5, 4], MEAN, STD, batch_size=2))
    assert [indices for indices, _, _ in batches] == [[0, 1], [2], [3], [5, 4]]
    for indices, images, masks in batches:
        assert images.shape == (len(indices), 3, *sizes[indices[0]])
        assert masks[:, 0, 0].tolist() == indices
    assert [int(dataset.load(index).image.max()) for index in range(6)] == list(range(6))  # as they were
    single = list(evaluation_batches(dataset, range(6), MEAN, STD))
    assert [indices for indices, _, _ in single] == [[index] for index in range(6)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_kept_images_are_not_changed(dtype: type) -> None:
    image = np.full((32, 40, 2), 9, dtype=dtype)
    dataset = ArrayDataset([(image, np.zeros((32, 40), np.uint8))], 2)
    settings = {"mean": [0.5, 0.5], "std": [1, 2], "augment": AugmentConfig(scale=(1, 1), colour=0.5)}
    for _ in range(2):
        list(evaluation_batches(dataset, [0], [0.5, 0.5], [1, 2]))
        list(BatchLoader(dataset, [0], 1, crop=(32, 32), seed=0, stream=0, **settings).epoch(0))
        assert (dataset.load(0).image == 9).all()
        assert (image == 9).all()
