"""Decoded samples kept in memory and on disk: always those that `load` gives, whatever lies in the cache folder."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.data_sets import ArrayDataset, random_dataset, write_folder
from helpers.errors import raises_code
from helpers.tiny_runs import RETRAIN, assert_same_run, call, write_config

from autoseg.config.base import parse
from autoseg.config.data import DataConfig
from autoseg.data.base import SegmentationDataset
from autoseg.data.dataset import open_dataset, resolve
from autoseg.data.loading import cache as store
from autoseg.data.loading.cache import cache_folder, fingerprint, keep_samples, places
from autoseg.data.loading.loader import evaluation_batches
from autoseg.data.loading.packed import MappedSamples, SamplesError
from autoseg.errors import DataError

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SIZES = [(32, 40), (47, 33), (32, 40), (35, 64)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images of three sizes."""
    return write_folder(tmp_path / "images", {"train": SIZES, "val": [(32, 32)]})


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def opened(folder: Path, **settings: Any) -> SegmentationDataset:
    return open_dataset(resolve(parse(DataConfig, {"root": str(folder), **settings})), "train")


def assert_same_samples(some: SegmentationDataset, others: SegmentationDataset) -> None:
    assert len(some) == len(others)
    for index in range(len(some)):
        sample, other = some.load(index), others.load(index)
        assert sample.mask.dtype == other.mask.dtype
        assert np.array_equal(sample.image, other.image)
        assert np.array_equal(sample.mask, other.mask)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said, without the line that announces a new file."""
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert all("\n" not in line for line in said)
    return [line for line in said if not line.startswith("writing ")]


def unreadable(dataset: SegmentationDataset, monkeypatch: pytest.MonkeyPatch) -> SegmentationDataset:
    """The data set, of which no file can be read any more."""

    def refuse(index: int) -> Any:
        raise AssertionError("a file was read")

    monkeypatch.setattr(dataset, "read", refuse)
    return dataset


# --- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"ignore_label": 300, "label_map": {255: 300}}, {"resize": (33, 47)}])
@pytest.mark.parametrize("place", ["memory", "disk"])
def test_kept_samples_are_those_of_the_files(
    place: Any, settings: dict[str, Any], folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, expected = opened(folder, **settings), opened(folder, **settings)
    assert keep_samples(dataset, place, CPU, cache) == place
    assert_same_samples(unreadable(dataset, monkeypatch), expected)


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_kept_samples_cannot_be_changed(place: Any, folder: Path, cache: Path) -> None:
    dataset = opened(folder)
    keep_samples(dataset, place, CPU, cache)
    with pytest.raises(ValueError, match="read-only"):
        dataset.load(0).image[:] = 0
    with pytest.raises(ValueError, match="read-only"):
        dataset.load(0).mask[:] = 0


def test_each_file_is_decoded_once_and_progress_is_told() -> None:
    dataset, done = random_dataset(6, resize=(32, 32)), []
    assert keep_samples(dataset, progress=lambda *progress: done.append(progress)) == "memory"
    for index in range(6):
        dataset.load(index)
    assert dataset.reads == [1] * 6
    assert done == [(count, 6) for count in range(1, 7)]


def test_nothing_is_kept_where_nothing_is_asked_for() -> None:
    dataset = random_dataset(3)
    dataset.cache_bytes = 0
    assert keep_samples(dataset, "none") == "none"
    dataset.load(0)
    assert dataset.store is None
    assert dataset.reads == [2, 1, 1]


def test_evaluation_sees_the_same_images(folder: Path, cache: Path) -> None:
    plain, kept = opened(folder), opened(folder)
    keep_samples(kept, "disk", CPU, cache)
    batches = [list(evaluation_batches(some, range(4), (0.4,) * 3, (0.2,) * 3, 2)) for some in (plain, kept)]
    for (_, images, masks), (_, other_images, other_masks) in zip(*batches, strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(masks, other_masks)


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_a_bad_mask_is_found_and_leaves_no_file(place: Any, folder: Path, cache: Path) -> None:
    with raises_code(DataError, "label-out-of-range", "label 3 in train/masks/0.png", "3 classes"):
        keep_samples(opened(folder, num_classes=3), place, CPU, cache)
    assert not cache.exists() or not list(cache.iterdir())


@pytest.mark.slow
def test_runs_are_the_same_whatever_keeps_their_images(folder: Path, cache: Path, tmp_path: Path) -> None:
    config = write_config(
        tmp_path / "config.yaml", {**RETRAIN, "data": {"root": str(folder)}}, {"retrain": {"epochs": 1}}
    )
    for place in ("none", "disk"):
        set_ = ["--set", f"retrain.store={place}", "--set", f"retrain.cache_dir={cache}"]
        call("retrain", "--config", config, *set_, "--out", tmp_path / place)
    assert len(list(cache.iterdir())) == 2
    assert_same_run(tmp_path / "none", tmp_path / "disk")


# --- where ------------------------------------------------------------------------------------------------------------


def test_auto_takes_the_first_place_with_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "available_memory", lambda: 2000)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9000))
    assert list(places("auto", 250, GPU)) == ["device", "memory", "disk"]
    assert list(places("auto", 251, GPU)) == ["memory", "disk"]
    assert list(places("auto", 1001, GPU)) == ["disk"]
    assert list(places("auto", 250, CPU)) == list(places("auto", 250, torch.device("mps"))) == ["memory", "disk"]


def test_a_place_that_is_named_is_the_only_one() -> None:
    assert list(places("disk", 1, GPU)) == ["disk"]
    assert list(places("device", 10**18, GPU)) == ["device"]
    assert list(places("device", 1, CPU)) == list(places("device", 1, torch.device("mps"))) == ["memory"]


def test_too_little_memory_leads_to_the_disk(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "available_memory", lambda: 1000)
    assert keep_samples(opened(folder), "auto", CPU, cache) == "disk"


def test_memory_that_cannot_be_had_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*arguments: Any, **settings: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(torch, "empty", refuse)
    dataset = opened(folder)
    assert keep_samples(dataset, "memory") == "none"
    assert lines(caplog) == ["no room for 0.0 MiB of decoded images in the memory of cpu"]
    assert dataset.load(0).mask.shape == SIZES[0]


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_CACHE_HOME", "/fast")
    assert cache_folder() == Path("/fast/autoseg")
    assert cache_folder("~/mine") == Path("/home/someone/mine")
    for unusable in ("", "relative"):  # the XDG specification: paths must be absolute, others are to be ignored
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert cache_folder() == Path("/home/someone/.cache/autoseg")


def test_available_memory_is_no_more_than_the_machine_has() -> None:
    assert 0 <= store.available_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(("free", "total", "expected"), [(70, 100, 70), (None, 100, 50), (None, None, 0)])
def test_available_memory_where_the_system_says_less(
    free: int | None, total: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "free_memory", lambda: free)
    monkeypatch.setattr(store, "total_memory", lambda: total)
    assert store.available_memory() == expected


# --- samples of earlier runs -----------------------------------------------------------------------------------------


def test_samples_are_written_once(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keep_samples(opened(folder), "disk", CPU, cache)
    done: list[tuple[int, int]] = []
    again = unreadable(opened(folder), monkeypatch)
    assert keep_samples(again, "disk", CPU, cache, lambda *progress: done.append(progress)) == "disk"
    assert done[-1] == (4, 4)
    assert_same_samples(again, opened(folder))
    assert lines(caplog) == []


def change_an_image(folder: Path) -> None:
    shutil.copy(folder / "train" / "images" / "0.png", folder / "train" / "images" / "2.png")


def change_a_mask(folder: Path) -> None:
    os.utime(folder / "train" / "masks" / "3.png", ns=(1, 1))


@pytest.mark.parametrize("change", [change_an_image, change_a_mask])
def test_files_that_changed_are_read_again(
    change: Callable[[Path], None], folder: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep_samples(opened(folder), "disk", CPU, cache)
    change(folder)
    changed = opened(folder)
    assert keep_samples(changed, "disk", CPU, cache) == "disk"
    assert_same_samples(changed, opened(folder))
    (line,) = lines(caplog)
    assert line.endswith("is left over from another data set, or from other files of this one; making it anew")
    assert len(list(cache.iterdir())) == 1


def test_other_settings_have_a_folder_of_their_own(folder: Path) -> None:
    settings: list[dict[str, Any]] = [
        {},
        {"resize": (32, 32)},
        {"label_map": {1: 2}},
        {"ignore_label": 254, "label_map": {255: 254}},
        {"num_classes": 9},
        {"orientation": "stored"},
        {"orientation": "by_size"},
    ]
    identities = [fingerprint(opened(folder, **some)) for some in settings]
    for part in (0, 1):
        assert len({identity[part] for identity in identities if identity is not None}) == len(settings)
    assert fingerprint(opened(folder)) == identities[0]


def test_a_data_set_of_unknown_origin_is_not_kept_on_disk(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert keep_samples(random_dataset(3), "disk", CPU, cache) == "none"
    assert "nothing tells these images from others" in lines(caplog)[0]
    assert not cache.exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["images.npy", "masks.npy", "samples.json"])
@pytest.mark.parametrize("length", [None, 0, 5, 60, 127, -1])
def test_a_folder_that_is_cut_off_is_made_anew(
    name: str, length: int | None, folder: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep_samples(opened(folder), "disk", CPU, cache)
    (path,) = cache.iterdir()
    if length is None:
        (path / name).unlink()
    else:
        os.truncate(path / name, length if length >= 0 else (path / name).stat().st_size + length)
    dataset = opened(folder)
    assert keep_samples(dataset, "disk", CPU, cache) == "disk"
    assert_same_samples(dataset, opened(folder))
    assert lines(caplog) == [f"{path} is damaged; making it anew"]
    assert list(cache.iterdir()) == [path]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["images.npy", "masks.npy", "samples.json"])
def test_a_folder_with_noise_is_made_anew(
    name: str, folder: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep_samples(opened(folder), "disk", CPU, cache)
    (path,) = cache.iterdir()
    (path / name).write_bytes(np.random.default_rng(0).bytes((path / name).stat().st_size))
    dataset = opened(folder)
    assert keep_samples(dataset, "disk", CPU, cache) == "disk"
    assert_same_samples(dataset, opened(folder))
    assert lines(caplog) == [f"{path} is damaged; making it anew"]


def test_the_samples_of_another_data_set_are_not_taken(
    folder: Path, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep_samples(opened(folder), "disk", CPU, cache)
    other = write_folder(tmp_path / "other", {"train": SIZES, "val": [(32, 32)]}, seed=1)
    keep_samples(opened(other), "disk", CPU, tmp_path / "elsewhere")
    (path,), (foreign,) = cache.iterdir(), (tmp_path / "elsewhere").iterdir()
    shutil.rmtree(path)
    foreign.replace(path)
    dataset = opened(folder)
    assert keep_samples(dataset, "disk", CPU, cache) == "disk"
    assert_same_samples(dataset, opened(folder))
    (line,) = lines(caplog)
    assert line == f"{path} is left over from another data set, or from other files of this one; making it anew"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["images.npy", "masks.npy"])
@pytest.mark.parametrize("ignore_label", [255, 300])
def test_damaged_samples_are_not_used(
    name: str, ignore_label: int, folder: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One bit in each of two samples, which only a checksum shows. One line says so, and the next run is sound."""
    settings = {"ignore_label": ignore_label, "label_map": {255: ignore_label}}
    keep_samples(opened(folder, **settings), "disk", CPU, cache)
    (path,) = cache.iterdir()
    content = bytearray((path / name).read_bytes())
    for place in (-1, 128 + 32 * 40):  # the last sample, and the first or second
        content[place] ^= 4
    (path / name).write_bytes(content)
    for said in ([f"{path} is damaged at sample"], [f"{path} is damaged; making it anew"], []):
        caplog.clear()
        dataset = opened(folder, **settings)
        assert keep_samples(dataset, "disk", CPU, cache) == "disk"
        for _ in range(2):
            assert_same_samples(dataset, opened(folder, **settings))
        assert [line[: len(start)] for line, start in zip(lines(caplog), said, strict=True)] == said


@pytest.mark.slow
def test_a_damaged_header_is_found(folder: Path, cache: Path) -> None:
    """Whatever bit of it is wrong: the samples are refused, or are the right ones."""
    dataset, plain = opened(folder), opened(folder)
    keep_samples(dataset, "disk", CPU, cache)
    (path,) = cache.iterdir()
    identity = fingerprint(dataset)
    assert identity is not None
    assert dataset.store is not None
    sound, refused = (path / "masks.npy").read_bytes(), 0
    for bit in range(8 * 128):
        damaged = bytearray(sound)
        damaged[bit // 8] ^= 1 << bit % 8
        (path / "masks.npy").write_bytes(damaged)
        try:
            dataset.keep(MappedSamples(path, identity[1], dataset.store.layout, plain.decode))
            assert_same_samples(dataset, plain)
        except SamplesError:
            refused += 1
    assert refused > 8 * 40


# --- folders that cannot be used --------------------------------------------------------------------------------------


def failing(number: int) -> Callable[..., Any]:
    def fail(*arguments: Any, **settings: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("place", "number"),
    [
        ("autoseg.data.loading.packed.write_array_header_1_0", errno.ENOSPC),
        ("os.fsync", errno.EIO),
        ("autoseg.data.loading.packed.replace", errno.EROFS),
        ("pathlib.Path.mkdir", errno.EACCES),
    ],
)
def test_a_folder_that_takes_no_file_is_done_without(
    place: str,
    number: int,
    folder: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    dataset = opened(folder)
    with monkeypatch.context() as patch:
        patch.setattr(place, failing(number))
        assert keep_samples(dataset, "disk", CPU, cache) == "none"
    (line,) = lines(caplog)
    assert line.startswith(f"decoded images cannot be kept in {cache} (")
    assert os.strerror(number) in line
    assert line.endswith("(set cache_dir to another folder, or store: none)")
    assert_same_samples(dataset, opened(folder))
    assert not cache.exists() or not list(cache.iterdir())


def test_a_disk_with_too_little_room_is_done_without(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert keep_samples(opened(folder), "disk", CPU, cache) == "none"
    assert "are needed, 0.0 MiB are free); going on without" in lines(caplog)[0]


def test_a_file_for_a_folder_is_done_without(folder: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache.write_text("")
    dataset = opened(folder)
    assert keep_samples(dataset, "disk", CPU, cache) == "none"
    assert f"cannot be kept in {cache} (" in lines(caplog)[0]
    assert_same_samples(dataset, opened(folder))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_done_without(folder: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache.mkdir(mode=0o500)
    assert keep_samples(opened(folder), "disk", CPU, cache) == "none"
    assert "Permission denied" in lines(caplog)[0]


def test_a_read_only_folder_with_the_right_samples_is_used(folder: Path, cache: Path) -> None:
    keep_samples(opened(folder), "disk", CPU, cache)
    (path,) = cache.iterdir()
    for some in (path, cache):
        some.chmod(0o500)
    try:
        dataset = opened(folder)
        assert keep_samples(dataset, "disk", CPU, cache) == "disk"
        assert_same_samples(dataset, opened(folder))
    finally:
        for some in (cache, path):
            some.chmod(0o700)


# --- several processes ------------------------------------------------------------------------------------------------


def keep_at_once(folder: Path, cache: Path, barrier: Any, results: Any) -> None:
    dataset = opened(folder)
    slow = dataset.read

    def read(index: int) -> Any:
        time.sleep(0.05)  # so that both are writing for a while
        return slow(index)

    dataset.read = read  # type: ignore[method-assign]
    barrier.wait(20)
    place = keep_samples(dataset, "disk", CPU, cache)
    results.put((place, sum(int(dataset.load(index).image.sum()) for index in range(4))))


@pytest.mark.slow
def test_two_processes_may_write_at_once(folder: Path, cache: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=keep_at_once, args=(folder, cache, barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    plain = opened(folder)
    expected = ("disk", sum(int(plain.load(index).image.sum()) for index in range(4)))
    assert [results.get(timeout=30) for _ in processes] == [expected, expected]
    for process in processes:
        process.join()
    assert len(list(cache.iterdir())) == 1
    assert_same_samples(plain, opened(folder))


def test_what_a_killed_process_left_is_removed_once_it_is_old(folder: Path, cache: Path) -> None:
    identity = fingerprint(opened(folder))
    assert identity is not None
    cache.mkdir()
    old, fresh, busy = (cache / f".{identity[0]}.{number}.tmp" for number in (1, 2, 3))
    for path in (old, fresh, busy):
        path.mkdir()
        (path / "images.npy").write_text("half")
    for path in (old, old / "images.npy", busy):
        os.utime(path, (0, 0))
    assert keep_samples(opened(folder), "disk", CPU, cache) == "disk"
    assert not old.exists()
    assert fresh.exists()
    assert busy.exists()


# --- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("ignore_label", [255, 300])
def test_samples_kept_on_a_gpu(ignore_label: int, folder: Path) -> None:
    settings = {"ignore_label": ignore_label, "label_map": {255: ignore_label}}
    dataset = opened(folder, **settings)
    assert keep_samples(dataset, "auto", GPU) == "device"
    assert dataset.store is not None
    assert dataset.store.images.is_cuda
    assert_same_samples(dataset, opened(folder, **settings))
    for (_, images, masks), (_, expected, expected_masks) in zip(
        evaluation_batches(dataset, range(4), (0.4,) * 3, (0.2,) * 3, 2, GPU),
        evaluation_batches(opened(folder, **settings), range(4), (0.4,) * 3, (0.2,) * 3, 2),
        strict=True,
    ):
        assert images.is_cuda
        assert torch.allclose(images.cpu(), expected, atol=1e-5)
        assert torch.equal(masks.cpu(), expected_masks)


@pytest.mark.gpu
def test_more_than_the_gpu_has_is_said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [(np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8))]
    dataset = ArrayDataset(samples, 2)
    monkeypatch.setattr(dataset, "stored_size", lambda index: (10**6, 10**6))
    assert keep_samples(dataset, "device", GPU) == "none"
    assert lines(caplog)[0].startswith("no room for ")
