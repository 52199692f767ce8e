"""Left and right classes in inference with mirrored images, and from the names to the checkpoint of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from helpers.tiny_runs import RETRAIN, SETTINGS, assert_same_run, call, write_config
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import autoseg
from autoseg.cli.main import run
from autoseg.config.base import merge
from autoseg.config.data import DataConfig
from autoseg.config.inference import InferenceConfig
from autoseg.data.dataset import open_dataset, resolve
from autoseg.engine.evaluate import evaluate_network
from autoseg.engine.inference import score_bands
from autoseg.engine.predict import label_map, load_network
from autoseg.engine.retrain import RetrainTask
from autoseg.engine.search import SearchTask
from autoseg.files import read_yaml, to_yaml
from autoseg.network import for_inference
from autoseg.network.base import SegmentationNetwork
from autoseg.setup.settings import retrain_config, retrain_sources
from autoseg.setup.start import settle
from autoseg.zoo.match_cost import cost_target

CPU = torch.device("cpu")
CLASSES = ("background", "left disc", "square", "right disc", "striped", "LeftPebble", "RightPebble")
"""For the generated set."""
PAIRS = [["left disc", "right disc"], ["LeftPebble", "RightPebble"]]
SWAPPED = [0, 3, 2, 1, 4, 6, 5]
LINE = (
    "mirrored images swap 2 pairs of classes: left disc and right disc, LeftPebble and RightPebble (by their names;"
    " augment.flip_pairs sets it)"
)


class Sides(SegmentationNetwork):
    """Answers by colour, by place and, in its bias, by class: no answer is that of the mirror image."""

    num_classes = 7

    def __init__(self, swapped: list[int] | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.kernel = torch.randn(7, 3, 5, 5, generator=generator)
        self.slope = torch.randn(7, 1, 1, generator=generator)
        self.mirrored_classes = swapped

    def scores(self, images: Tensor) -> Tensor:
        return F.conv2d(images, self.kernel, padding=2) + self.slope * torch.linspace(-2, 2, images.shape[3])


class Halves(SegmentationNetwork):
    """Bright pixels are class 1 in the left half and class 2 in the right half; others are 0."""

    num_classes = 3

    def __init__(self, swapped: list[int] | None) -> None:
        super().__init__()
        self.mirrored_classes = swapped

    def scores(self, images: Tensor) -> Tensor:
        bright, left = images.mean(1) > 0, torch.arange(images.shape[3]) < images.shape[3] / 2
        return 9.0 * torch.stack([~bright, bright & left, bright & ~left], 1).float()


def by_hand(network: Sides, images: Tensor) -> list[Tensor]:
    """Logits of an image, and of its mirror image brought back pixel by pixel and class by class."""
    logits, mirrored = network.scores(images), network.scores(torch.from_numpy(images.numpy()[..., ::-1].copy()))
    back, width = torch.empty_like(mirrored), images.shape[3]
    for label in range(7):
        for column in range(width):
            back[:, label, :, column] = mirrored[:, SWAPPED[label], :, width - 1 - column]
    return [logits, back]


@pytest.mark.parametrize("how", [{}, {"window": (32, 32), "overlap": 0.0}, {"scales": (1.0, 1.0)}])
@pytest.mark.parametrize("band_bytes", [1, 2**24])
def test_scores_of_mirror_images_are_swapped_back(how: dict[str, Any], band_bytes: int) -> None:
    network = Sides(SWAPPED).eval()
    images = torch.randn(2, 3, 32, 40 if not how.get("window") else 32, generator=torch.Generator().manual_seed(1))
    answers = by_hand(network, images)
    mean = torch.stack([logits.softmax(1) for logits in answers]).mean(0)
    found = torch.cat(list(score_bands(network, images, InferenceConfig(flip=True, **how), band_bytes)), 2)
    assert torch.allclose(found.exp(), mean, atol=1e-5)
    greatest = InferenceConfig(flip=True, fuse="max", **how)
    found = torch.cat(list(score_bands(network, images, greatest, band_bytes)), 2)
    assert torch.allclose(found, torch.stack(answers).amax(0), atol=1e-5)


def test_without_flip_or_pairs_scores_are_what_they_were() -> None:
    images = torch.randn(1, 3, 40, 56, generator=torch.Generator().manual_seed(1))
    for how in (InferenceConfig(), InferenceConfig(scales=(1.0, 1.5))):
        one, other = (torch.cat(list(score_bands(Sides(swapped), images, how)), 2) for swapped in (None, SWAPPED))
        assert torch.equal(one, other)
    flip = InferenceConfig(flip=True)
    one, other = (torch.cat(list(score_bands(Sides(swapped), images, flip)), 2) for swapped in (None, [*range(7)]))
    assert torch.equal(one, other)


def test_a_network_that_knows_its_sides_loses_nothing_to_mirroring(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (tmp_path / "val" / part).mkdir(parents=True)
    for number in range(3):
        bright = rng.random((40, 48)) < 0.5
        mask = np.where(bright, np.where(np.arange(48) < 24, 1, 2), 0).astype(np.uint8)
        Image.fromarray(bright.astype(np.uint8) * 255).convert("RGB").save(tmp_path / f"val/images/{number}.png")
        Image.fromarray(mask).save(tmp_path / f"val/masks/{number}.png")
    data = resolve(DataConfig(root=str(tmp_path), classes=("wall", "left", "right"), mean=(0.5,) * 3, std=(0.5,) * 3))
    dataset = open_dataset(data, "val")
    how = InferenceConfig(flip=True)
    scores, _ = evaluate_network(Halves([0, 2, 1]), dataset, data, CPU, inference=how)
    assert scores.miou == 1
    image = dataset.load(0).image
    assert np.array_equal(label_map(Halves([0, 2, 1]), image, data, CPU, how), dataset.load(0).mask)
    confused, _ = evaluate_network(Halves(None), dataset, data, CPU, inference=how)
    assert confused.miou < 0.75


# --- runs -------------------------------------------------------------------------------------------------------------

TASKS: dict[str, Any] = {"search": SearchTask, "retrain": RetrainTask}
SHORT = {"epochs": 1, "max_steps_per_epoch": 2, "validate_every": 1}
NAMED: dict[str, Any] = {"data": {"classes": list(CLASSES)}, "seed": 3}


def settings_of(command: str, **augment: Any) -> dict[str, Any]:
    arch = {"arch_start_epoch": 0} if command == "search" else {}
    return merge(SETTINGS[command], NAMED, {command: {**SHORT, **arch, "augment": augment}})


class KilledError(BaseException):
    """The process is gone: nothing is saved, nothing is cleaned up."""


def _kill() -> NoReturn:
    raise KilledError


def pairs_in(path: Path, command: str) -> Any:
    return read_yaml(path / "config.yaml", autoseg.AutosegError)[command]["augment"]["flip_pairs"]


@pytest.mark.parametrize("command", ["search", "retrain"])
@pytest.mark.parametrize(
    ("augment", "stored", "line"),
    [({}, PAIRS, LINE), ({"flip": 0.0}, PAIRS, LINE), ({"flip_pairs": []}, [], None),
     ({"flip_pairs": [[0, "square"]]}, [["background", "square"]],
      "mirrored images swap 1 pair of classes: background and square (augment.flip_pairs)")],
)  # fmt: skip
def test_a_run_says_and_stores_its_pairs(
    command: str, augment: dict[str, Any], stored: Any, line: str | None, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config = write_config(tmp_path / "config.yaml", settings_of(command, **augment))
    call(command, "--config", config, "--out", tmp_path / "run")
    printed = [text.strip() for text in capsys.readouterr().out.splitlines()]
    assert [text for text in printed if "mirrored" in text] == ([] if line is None else [line])
    assert pairs_in(tmp_path / "run", command) == stored
    call(command, "--config", config, "--out", tmp_path / "run", "--resume")  # the same settings as those stored
    capsys.readouterr()
    call(command, "--config", tmp_path / "run/config.yaml", "--out", tmp_path / "again")
    assert pairs_in(tmp_path / "again", command) == stored
    assert (line in [text.strip() for text in capsys.readouterr().out.splitlines()]) == (line is not None)


@pytest.mark.parametrize("command", ["search", "retrain"])
def test_names_without_sides_leave_config_and_output_as_they_were(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = merge(settings_of(command), {"data": {"classes": None}})
    call(command, "--config", write_config(tmp_path / "config.yaml", settings), "--out", tmp_path / "run")
    assert "mirrored" not in capsys.readouterr().out
    assert pairs_in(tmp_path / "run", command) is None


@pytest.mark.parametrize(
    ("given", "text"),
    [("[[left disc, square, striped]]", "flip_pairs.0: should have at most 2 items"),
     ("[[left disc]]", "flip_pairs.0.1 is missing"),
     ("[[left disc, right disk]]", "flip_pairs: the data has no class 'right disk' (did you mean 'right disc'?)"),
     ("[[1, 9]]", "flip_pairs: the data has no class 9"),
     ("[[1, left disc]]", "flip_pairs: the class 'left disc' comes twice"),
     ("[[1, 2], [3, 1]]", "flip_pairs: the class 'left disc' comes twice"),
     ("[[1, true]]", "flip_pairs.0.1: should be"), ("[[-1, 2]]", "flip_pairs.0.0: should be"),
     ("left", "flip_pairs: should be a list")],
)  # fmt: skip
@pytest.mark.parametrize("command", ["search", "retrain"])
def test_mistakes_are_one_line_and_make_no_run(
    command: str, given: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "config.yaml", settings_of(command))
    out = tmp_path / "run"
    assert (
        run([command, "--config", str(config), "--set", f"{command}.augment.flip_pairs={given}", "--out", str(out)])
        == 2
    )
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert f"error: {command}.augment.{text}" in line
    assert not out.exists()


@pytest.fixture(scope="module")
def sided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A retrained network of named sides."""
    folder = tmp_path_factory.mktemp("sided")
    call("retrain", "--config", write_config(folder / "config.yaml", settings_of("retrain")), "--out", folder / "run")
    return folder / "run"


def without_pairs(path: Path, command: str) -> None:
    """config.yaml and checkpoints as earlier versions wrote them."""
    settings = read_yaml(path / "config.yaml", autoseg.AutosegError)
    del settings[command]["augment"]["flip_pairs"]
    (path / "config.yaml").write_text(to_yaml(settings), encoding="utf-8")
    for file in (path / "checkpoints").iterdir():
        torch.save({**torch.load(file, weights_only=True), "config": None}, file)


def test_evaluate_and_predict_swap_what_the_run_swapped(sided: Path, tmp_path: Path) -> None:
    network, config, _ = load_network(sided)
    assert network.mirrored_classes == SWAPPED
    assert for_inference(network, CPU).mirrored_classes == SWAPPED
    found = autoseg.evaluate(sided, inference={"flip": True}, out=tmp_path / "flip.json", show_progress=False)
    dataset, right, total = open_dataset(config.data, "val"), 0, 0
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.data.mean, config.data.std))
    for index in range(len(dataset)):
        image, mask = dataset.load(index)
        pixels = (torch.from_numpy(image).permute(2, 0, 1) / 255 - mean) / std
        with torch.no_grad():
            plain, turned = network(pixels[None])[0], network(pixels.flip(2)[None])[0].flip(2)
        labels = (plain.softmax(0) + torch.stack([turned[other] for other in SWAPPED]).softmax(0)).argmax(0).numpy()
        known = mask != 255
        right, total = right + int((labels == mask)[known].sum()), total + int(known.sum())
        predicted = label_map(network, image, config.data, CPU, InferenceConfig(flip=True))
        assert (predicted == labels).mean() > 0.999
    assert found["pixel_accuracy"] == pytest.approx(right / total, abs=1e-3)


def test_other_data_in_another_order_is_swapped_by_the_network_s_classes(sided: Path, tmp_path: Path) -> None:
    expected = autoseg.evaluate(sided, inference={"flip": True}, out=tmp_path / "a.json", show_progress=False)
    own = open_dataset(load_network(sided)[1].data, "val")
    for part in ("images", "masks"):
        (tmp_path / "set/val" / part).mkdir(parents=True)
    for index in range(len(own)):
        image, mask = own.load(index)
        Image.fromarray(image).save(tmp_path / f"set/val/images/{index}.png")
        Image.fromarray(np.where(mask == 255, 255, 6 - mask).astype(np.uint8)).save(
            tmp_path / f"set/val/masks/{index}.png"
        )
    data = {"root": str(tmp_path / "set"), "classes": list(CLASSES[::-1])}
    found = autoseg.evaluate(sided, data, inference={"flip": True}, out=tmp_path / "b.json", show_progress=False)
    assert found["miou"] == pytest.approx(expected["miou"], abs=1e-6)
    assert found["confusion"] == expected["confusion"]


@pytest.mark.parametrize("command", ["search", "retrain"])
@pytest.mark.parametrize("again", [False, True], ids=["alone", "with its settings"])
def test_a_run_of_before_goes_on_without_swapping(
    command: str, again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule = {"epochs": 2, "max_steps_per_epoch": 2, "augment": {"flip": 1.0}}
    given = ["--config", write_config(tmp_path / "config.yaml", merge(SETTINGS[command], NAMED, {command: schedule}))]
    none = ["--set", f"{command}.augment.flip_pairs=[]"]
    call(command, *given, *none, "--out", tmp_path / "whole")
    with monkeypatch.context() as patch:
        step, steps = TASKS[command].step, iter([False, False, True])
        patch.setattr(TASKS[command], "step", lambda *seen: _kill() if next(steps) else step(*seen))
        with pytest.raises(KilledError):
            call(command, *given, *none, "--out", tmp_path / "old")
    without_pairs(tmp_path / "old", command)
    capsys.readouterr()
    call(command, *(given if again else ()), "--out", tmp_path / "old", "--resume")
    assert "mirrored" not in capsys.readouterr().out
    assert_same_run(tmp_path / "old", tmp_path / "whole")
    assert "flip_pairs" not in (tmp_path / "old/config.yaml").read_text()
    if command == "retrain":
        assert load_network(tmp_path / "old")[0].mirrored_classes is None


def test_a_run_of_before_refuses_pairs_that_are_set_now(
    sided: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(sided, tmp_path / "old")
    without_pairs(copy, "retrain")
    assert run(["retrain", "--set", "retrain.augment.flip_pairs=[[1, 3]]", "--out", str(copy), "--resume"]) == 2
    assert "retrain.augment.flip_pairs: None, not [['left disc', 'right disc']]" in capsys.readouterr().err


def test_swapping_changes_what_is_learned(sided: Path, tmp_path: Path) -> None:
    """The same run but for its pairs has other losses, in training alone."""
    config = write_config(tmp_path / "c.yaml", settings_of("retrain", flip_pairs=[]))
    call("retrain", "--config", config, "--out", tmp_path / "run")
    one, other = (
        [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        for path in (sided, tmp_path / "run")
    )
    assert [row["kind"] for row in one] == [row["kind"] for row in other]
    assert any(a["loss"] != b["loss"] for a, b in zip(one, other, strict=True) if a["kind"] == "train")


@pytest.mark.parametrize("names", [("a", "left b", "c", "right b", "d", "e", "f"), tuple("abcdefg")])
def test_the_pairs_of_a_run_whose_cost_is_matched_are_not_those_of_other_classes(
    sided: Path, names: tuple[str, ...]
) -> None:
    match = cost_target(sided)
    assert match.retrain["augment"]["flip_pairs"] == PAIRS
    given = {**RETRAIN["data"], "classes": list(names)}
    sources = retrain_sources("unet", given, match=match)
    settings, said, _ = settle(retrain_config(sources), sources, False, None)
    pairs = (("left b", "right b"),) if "left b" in names else None
    assert settings.retrain.augment.flip_pairs == pairs
    assert any("swap 1 pair of classes: left b and right b (by their names" in line for line in said) == bool(pairs)
    own = retrain_sources("unet", given, match=match, overrides={"retrain": {"augment": {"flip_pairs": PAIRS}}})
    with pytest.raises(autoseg.AutosegError, match="the data has no class 'left disc'"):
        settle(retrain_config(own), own, False, None)


def test_evaluate_and_predict_say_what_they_swap(
    sided: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "a.png")
    for flip in ([], ["--flip"]):
        capsys.readouterr()
        call("evaluate", sided, "--out", tmp_path / f"{len(flip)}.json", *flip)
        assert (LINE in capsys.readouterr().err.splitlines()) == bool(flip)
        call("predict", sided, tmp_path / "a.png", "--out", tmp_path / f"out{len(flip)}", *flip)
        assert (LINE in capsys.readouterr().err.splitlines()) == bool(flip)
