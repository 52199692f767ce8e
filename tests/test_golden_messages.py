"""Ten messages in full, as a user sees them: what is wrong, where, what to do, and the code. Change them on purpose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.data_sets import write_folder
from helpers.tiny_runs import SEARCH, write_config
from PIL import Image

from autoseg.cli.main import run

SMALL = {"train": [(40, 48)] * 6, "val": [(40, 48)] * 2}


def line_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert run([str(argument) for argument in arguments]) == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "search.optimizer.lrr=0.1",
            "error: unknown key 'lrr' in search.optimizer (did you mean 'lr'?) [unknown-setting]",
        ),
        (
            "search.epochs=many",
            "error: search.epochs: should be a valid integer, not 'many' [setting-invalid]",
        ),
        (
            "search.precision=fp16",
            "error: search.precision fp16 needs a CUDA GPU, but the device is cpu; use bf16 or float32"
            " [precision-needs-gpu]",
        ),
        (
            "search.accumulate=3",
            "error: search.accumulate is 3, which does not divide the 4 batches of an epoch; set it to 2 or 4, or set"
            " search.max_steps_per_epoch=1 to leave the last 1 out [accumulate-indivisible]",
        ),
        (
            "search.batch_size=9",
            "error: trainA has 8 of the 16 training images, but search.batch_size is 9; lower search.batch_size or add"
            " images [batch-too-large]",
        ),
        (
            "device=gpu",
            "error: device: should be auto, cpu, cuda, cuda:N (such as cuda:1) or mps, not 'gpu' [setting-invalid]",
        ),
    ],
)
def test_a_setting(setting: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path / "config.yaml", SEARCH)
    found = line_of(capsys, "search", "--config", config, "--set", setting, "--out", tmp_path / "run")
    assert found.replace(f" ({config})", "") == message


def test_a_label_that_is_no_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_folder(tmp_path / "data", SMALL, labels=3)
    mask = np.full((40, 48), 47, np.uint8)
    Image.fromarray(mask).save(root / "train" / "masks" / "1.png")
    arguments = ("--set", "data.num_classes=3", "--set", "search.crop=[32,32]", "--out", tmp_path / "run")
    found = line_of(capsys, "search", "--space", "tiny", "--data", root, *arguments)
    assert found == (
        "error: label 47 in train/masks/1.png, but the data set has 3 classes (0..2) and ignore label 255; map"
        " it with data.label_map [label-out-of-range]"
    )


@pytest.mark.slow
def test_a_mask_of_another_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_folder(tmp_path / "data", SMALL, labels=3)
    Image.fromarray(np.zeros((40, 50), np.uint8)).save(root / "train" / "masks" / "1.png")
    found = line_of(capsys, "search", "--space", "tiny", "--data", root, "--out", tmp_path / "run")
    assert found == (
        f"error: {root}/train/images/1.png is 48x40 pixels, but its mask {root}/train/masks/1.png is 50x40; make them"
        " equal [mask-size-differs]"
    )


def test_a_run_that_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({}))
    config = write_config(tmp_path / "c.yaml", SEARCH)
    found = line_of(capsys, "search", "--config", config, "--out", tmp_path)
    assert found == (
        f"error: {tmp_path} already holds a run; give another --out, or --resume to go on with it [run-exists]"
    )


def test_no_run_to_decode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert line_of(capsys, "decode", tmp_path / "nowhere") == (
        f"error: {tmp_path}/nowhere does not exist; give the directory that `--out` of search or retrain named"
        " [run-missing]"
    )
