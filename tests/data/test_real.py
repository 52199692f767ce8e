"""CamVid and PASCAL VOC, where they lie beside the repository."""

from pathlib import Path

import numpy as np
import pytest

from autoseg.config.base import parse
from autoseg.config.data import DataConfig, data_settings
from autoseg.data.dataset import open_dataset, resolve, verify
from autoseg.data.loading.loader import evaluation_batches
from autoseg.data.statistics import count_classes

DATA_SETS = Path(__file__).parents[2] / "data_sets"


def config(name: str, root: Path, **settings: object) -> DataConfig:
    return parse(DataConfig, data_settings(DATA_SETS / f"{name}.yaml") | {"root": str(root)} | settings)


@pytest.mark.slow
def test_camvid(camvid: Path) -> None:
    settings = resolve(config("camvid", camvid, resize=(120, 160)))
    for split, length in (("train", 367), ("val", 101)):
        dataset = open_dataset(settings, split)
        assert len(dataset) == length
        verify(dataset)
        counts = count_classes(dataset).pixels
        assert len(counts) == 11
        assert (counts > 0).all()
        assert dataset.classes[int(counts.argmax())] in ("road", "building")


def test_camvid_classes_are_found_by_reading(camvid: Path) -> None:
    assert resolve(DataConfig(root=str(camvid), ignore_label=11)).num_classes == 11


def test_voc_sizes_vary(voc: Path) -> None:
    dataset = open_dataset(resolve(config("voc", voc)), "train")
    samples = [dataset.load(index) for index in range(len(dataset))]
    assert len(samples) == 7
    assert len({sample.mask.shape for sample in samples}) > 1
    assert {255} < set(np.unique(np.concatenate([sample.mask.ravel() for sample in samples]))) <= {*range(21), 255}
    batches = list(evaluation_batches(dataset, range(7), (0, 0, 0), (1, 1, 1), batch_size=4))
    assert [index for indices, _, _ in batches for index in indices] == list(range(7))
    assert all(masks.shape[-2:] == samples[indices[0]].mask.shape for indices, _, masks in batches)
