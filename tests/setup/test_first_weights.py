"""A retraining that starts from the weights of an own run: what is taken, what starts anew, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.data_sets import write_folder
from helpers.errors import check_line, raises_code
from helpers.tiny_runs import (
    DATA,
    GENOTYPE,
    RETRAIN,
    assert_same_run,
    call,
    checkpoint,
    files_of,
    resolved,
    write_config,
)
from PIL import Image

from autoseg.cli.main import run
from autoseg.config.base import merge, parse
from autoseg.config.data import SplitConfig
from autoseg.data.dataset import open_dataset
from autoseg.engine.config import RetrainConfig
from autoseg.engine.predict import load_network
from autoseg.engine.retrain import RetrainTask
from autoseg.errors import CheckpointError, RunError
from autoseg.files import read_yaml
from autoseg.setup.first_weights import classifier_axes, load_first_weights, own_weights, same_names

NAMES = ("sky", "road", "tree", "car", "sign")
SMALL = {"retrain": {**RETRAIN["retrain"], "epochs": 1, "max_steps_per_epoch": 2}, "device": "cpu"}


def folder(root: Path, names: Sequence[str], grey: bool = False, shade: int = 0) -> Path:
    """A data set with names; `shade`: how much darker its images are than noise."""
    write_folder(root, {"train": [(32, 32)] * 4, "val": [(32, 32)] * 2}, labels=len(names))
    (root / "classes.txt").write_text("\n".join(names) + "\n")
    for file in root.glob("*/images/*.png"):
        image = np.asarray(Image.open(file))
        Image.fromarray(image[..., 0] if grey else image // (shade or 1)).save(file)
    return root


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on dark images of five classes. Not to be changed."""
    home = tmp_path_factory.mktemp("old")
    config = write_config(home / "c.yaml", {"genotype": GENOTYPE, **SMALL})
    call("retrain", "--config", config, "--data", folder(home / "data", NAMES, shade=8), "--out", home / "run")
    return home / "run"


def task_of(old: Path, names: Sequence[str], *changes: dict[str, Any]) -> RetrainTask:
    """A retraining of classes of these names that has not begun, with the weights of `old`."""
    settings = merge({**RETRAIN, "weights": str(old), "data": {**DATA, "classes": list(names)}}, *changes)
    if "network" in settings:
        del settings["genotype"]
    config = parse(RetrainConfig, resolved(settings))
    return RetrainTask(config, *(open_dataset(config.data, of) for of in ("train", "val")), torch.device("cpu"))


def weights(task: RetrainTask) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in task.network.state_dict().items()}


def average_of(run: Path, name: str = "best") -> dict[str, torch.Tensor]:
    state = checkpoint(run, name)["state"]["average"]
    return {key.removeprefix("module."): value for key, value in state.items() if key.startswith("module.")}


def test_everything_is_taken_for_the_same_classes(old: Path) -> None:
    task = task_of(old, NAMES)
    before = weights(task)
    (said,) = load_first_weights(task)
    theirs = average_of(old)
    assert (
        said
        == f"weights of {old} (best.pt, epoch 1): {len(theirs)} of {len(theirs)} tensors; the classifier is taken too"
    )
    for state in (weights(task), task.average.module.state_dict()):  # type: ignore[union-attr]
        assert all(torch.equal(state[name], value) for name, value in theirs.items())
    assert not torch.equal(before["stem.convs.0.weight"], theirs["stem.convs.0.weight"])


@pytest.mark.parametrize(
    ("names", "pairs", "said"),
    [
        (("car", "Road", "fence"), [(3, 0), (1, 1)],
         "the classifier takes 2 of 3 classes by name and starts anew for fence"),
        (("tree", "sign", "car", "road", "sky"), [(2, 0), (4, 1), (3, 2), (1, 3), (0, 4)],
         "the classifier takes 5 of 5 classes by name"),
        (("cat", "dog"), [], "the classifier starts anew: 2 classes in place of 5"),
        (("a", "b", "c", "d", "e"), [], "the classifier starts anew: 5 classes in place of 5 others"),
        (tuple(f"class_{label}" for label in range(4)), [], "the classifier starts anew: 4 classes in place of 5"),
    ],
)  # fmt: skip
def test_classes_are_taken_by_name(names: tuple[str, ...], pairs: list[tuple[int, int]], said: str, old: Path) -> None:
    task, theirs = task_of(old, names), average_of(old)
    before = weights(task)
    assert sorted(same_names(NAMES, names)) == sorted(pairs)
    (line,) = load_first_weights(task)
    after, heads = weights(task), classifier_axes(task)
    assert set(heads) == {
        "decoder.classifier.weight",
        "decoder.classifier.bias",
        "auxiliary.2.weight",
        "auxiliary.2.bias",
    }
    assert line == f"weights of {old} (best.pt, epoch 1): {len(after) - 4} of {len(after)} tensors; {said}"
    assert all(torch.equal(after[name], theirs[name]) for name in after if name not in heads)
    taken = {new: old_place for old_place, new in pairs}
    for name in heads:
        for row in range(len(names)):
            expected = theirs[name][taken[row]] if row in taken else before[name][row]
            assert torch.equal(after[name][row], expected), (name, row)


def test_both_axes_of_an_upsampler_of_scores_go_by_name(old: Path, tmp_path: Path) -> None:
    """FCN's transposed convolutions have the classes as inputs and as outputs."""
    network = {"name": "fcn16s_vgg16", "width": 0.02, "upsampler": "transposed_conv"}
    plain = {"retrain": {"drop_path": 0.0, "auxiliary_weight": 0.0}, "network": network}
    first = task_of(old, NAMES, plain)
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    write_config(tmp_path / "run/config.yaml", {**first.config.to_dict(), "weights": None})
    counts = {"epoch": 1, "step_in_epoch": 0, "metrics_bytes": 0, "seconds": 0.0, "best_miou": None}
    payload = {"version": 1, "kind": "retrain", "architecture": first.architecture, **counts, "state": first.state()}
    torch.save(payload, tmp_path / "run/checkpoints/best.pt")
    task = task_of(tmp_path / "run", ("car", "new", "sky"), plain)
    before, theirs = weights(task), average_of(tmp_path / "run")
    heads = {name: axes for name, axes in classifier_axes(task).items() if axes == [0, 1]}
    assert heads, classifier_axes(task)
    load_first_weights(task)
    after = weights(task)
    for name in heads:
        expected = before[name].clone()
        for new_row, old_row in ((0, 3), (2, 0)):
            for new_column, old_column in ((0, 3), (2, 0)):
                expected[new_row, new_column] = theirs[name][old_row, old_column]
        assert torch.equal(after[name], expected)
        assert not torch.equal(after[name], before[name])


def test_what_does_not_fit_starts_anew_and_is_said(old: Path) -> None:
    task = task_of(old, NAMES, {"genotype": {"decoder": {"low_level_filters": 6}}})
    before, theirs = weights(task), average_of(old)
    (said,) = load_first_weights(task)
    anew = [name for name, value in before.items() if value.shape != theirs[name].shape]
    assert anew
    assert f"{len(before) - len(anew)} of {len(before)} tensors; the classifier is taken too; anew: decoder." in said
    after = weights(task)
    assert all(torch.equal(after[name], (before if name in anew else theirs)[name]) for name in after)


def test_a_network_of_one_output(old: Path) -> None:
    task = task_of(old, ("car", "sky"), {"retrain": {"single_output": True, "auxiliary_weight": 0.0}})
    before = weights(task)
    (said,) = load_first_weights(task)
    assert said.endswith("the classifier starts anew: 1 output in place of 5")
    assert torch.equal(weights(task)["decoder.classifier.weight"], before["decoder.classifier.weight"])


# --- by the command ---------------------------------------------------------------------------------------------------


def arguments(tmp_path: Path, old: Path, *more: object) -> list[object]:
    return ["retrain", "--config", write_config(tmp_path / "c.yaml", SMALL), "--weights", old, *more]


@pytest.mark.slow
def test_network_and_normalisation_are_those_of_the_run(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder(tmp_path / "data", ("sky", "cat", "road"))
    start = arguments(tmp_path, old, "--data", data)
    capsys.readouterr()
    call(*start, "--out", tmp_path / "a")
    said = capsys.readouterr().out
    assert "data: mean and deviation of the data that the weights were trained on" in said
    assert "the classifier takes 2 of 3 classes by name and starts anew for cat" in said
    theirs, ours = (read_yaml(of / "config.yaml", RuntimeError) for of in (old, tmp_path / "a"))  # type: ignore[arg-type]
    assert (ours["data"]["mean"], ours["data"]["std"]) == (theirs["data"]["mean"], theirs["data"]["std"])
    assert (ours["genotype"], ours["weights"]) == (theirs["genotype"], str(old))
    assert ours["data"]["mean"][0] < 0.1  # not ImageNet's

    for key, value in (("mean", "[0.5, 0.5, 0.5]"), ("normalise", "imagenet")):  # what the user says stays
        call(*start, "--set", f"data.{key}={value}", "--out", tmp_path / key)
        config = read_yaml(tmp_path / key / "config.yaml", RuntimeError)  # type: ignore[arg-type]
        assert config["data"]["mean"] == ([0.5] * 3 if key == "mean" else [0.485, 0.456, 0.406])


@pytest.mark.slow
def test_the_run_is_not_needed_to_go_on(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped before the first checkpoint of its own, it resumes to what an uninterrupted one is."""
    data, source = folder(tmp_path / "data", ("sky", "cat", "road")), Path(shutil.copytree(old, tmp_path / "source"))
    start = arguments(tmp_path, source, "--data", data, "--set", "retrain.checkpoint_seconds=1000")
    call(*start, "--out", tmp_path / "whole")

    class KilledError(BaseException):
        pass

    def killed(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(RetrainTask, "step", killed)
        with pytest.raises(KilledError):
            run([str(word) for word in (*start, "--out", tmp_path / "run")])
    shutil.rmtree(source)
    call("retrain", "--out", tmp_path / "run", "--resume")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
def test_the_last_checkpoint_of_a_network_of_the_literature(tmp_path: Path) -> None:
    """With the same data it begins with the scores of the run that it starts from."""
    changes = {"retrain": {"drop_path": 0.0, "auxiliary_weight": 0.0, "optimizer": {"name": "sgd", "lr": 1e-12}}}
    settings = merge({key: value for key, value in RETRAIN.items() if key != "genotype"}, SMALL, changes)
    config = write_config(tmp_path / "c.yaml", settings)
    call("retrain", "unet", "--set", "network.width=0.03", "--config", config, "--out", tmp_path / "a")
    last = tmp_path / "a/checkpoints/last.pt"
    call("retrain", "--config", config, "--weights", last, "--out", tmp_path / "b", "--set", "retrain.ema_decay=0")
    old, new = (load_network(tmp_path / name, "last")[0].state_dict() for name in ("a", "b"))
    for name, value in old.items():
        if "running" not in name and "tracked" not in name:
            torch.testing.assert_close(new[name], value, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_what_is_refused(old: Path, searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grey, same = folder(tmp_path / "grey", NAMES, grey=True), folder(tmp_path / "same", NAMES)
    other = write_config(tmp_path / "other.yaml", GENOTYPE, {"network": {"strides": [4, 4, 8]}, "name": "other"})
    for name in ("loose", "damaged", "missing"):
        shutil.copytree(old, tmp_path / name)
    best = "checkpoints/best.pt"
    shutil.copy(old / best, tmp_path / "loose.pt")
    (tmp_path / "damaged" / best).write_bytes((old / best).read_bytes()[:3000])
    (tmp_path / "missing" / best).unlink()
    (tmp_path / "empty").mkdir()
    before = files_of(tmp_path) | {"c.yaml": write_config(tmp_path / "c.yaml", SMALL).read_bytes()}
    cases: list[tuple[list[object], str, tuple[object, ...]]] = [
        ([old, "--data", grey], "channels-differ", (old / best, "3 channels", "has 1")),
        ([old, "unet", "--data", same, "--set", "network.width=0.03", "--set", "retrain.drop_path=0", "--set",
          "retrain.auxiliary_weight=0"], "network-differs",
         (old / best, "mini_network, not unet", "0 of ")),
        ([searched, other, "--data", same], "run-kind-differs", (searched, "search")),
        ([tmp_path / "empty", other, "--data", same], "run-missing", (tmp_path / "empty",)),
        ([tmp_path / "none", other, "--data", same], "file-missing", (tmp_path / "none",)),
        ([tmp_path / "loose.pt", other, "--data", same], "checkpoint-without-run", (tmp_path / "loose.pt",)),
        ([tmp_path / "damaged", "--data", same], "checkpoint-damaged", (tmp_path / "damaged" / best,)),
        ([tmp_path / "missing", "--data", same], "checkpoint-missing", (tmp_path / "missing" / best,)),
    ]  # fmt: skip
    for given, code, named_ones in cases:
        capsys.readouterr()
        words = [*arguments(tmp_path, given[0], *given[1:]), "--out", tmp_path / "out"]  # type: ignore[arg-type]
        assert run([str(word) for word in words]) == 2
        check_line(capsys.readouterr().err.splitlines()[-1], code, *named_ones)
        assert files_of(tmp_path) == before


def test_another_width_of_the_same_network_is_refused(old: Path) -> None:
    wider = {"network": {"filter_multiplier": 6}, "stem": {"channels": [8, 8]}, "decoder": {"filters": 4}}
    task = task_of(old, NAMES, {"genotype": wider})
    before = weights(task)
    with raises_code(CheckpointError, "network-differs", old / "checkpoints/best.pt", "filter_multiplier: 4, not 6"):
        load_first_weights(task)
    assert all(torch.equal(value, before[name]) for name, value in weights(task).items())


def test_other_files_are_no_own_weights(old: Path, searched: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: 1\n")
    for name in (None, 3, "vgg16.pth", str(tmp_path / "weights/vgg16.pth"), str(old / "config.yaml")):
        assert own_weights(name) is None
    found = own_weights(str(old))
    assert found is not None
    assert found.file == old / "checkpoints/best.pt"
    with raises_code(RunError, "run-kind-differs", searched):
        own_weights(str(searched / "checkpoints/last.pt"))


def test_weights_for_the_same_channels_in_another_order_are_refused(old: Path) -> None:
    own = own_weights(str(old))
    assert own is not None
    place = SplitConfig(images=".", masks="masks", channel_files=("red/*", "green/*", "nir/*"))
    trained = own.config.data.model_copy(update={"splits": {"train": place}})
    own = own._replace(config=own.config.model_copy(update={"data": trained}))
    own.check_data(trained)
    turned = place.model_copy(update={"channel_files": ("nir/*", "red/*", "green/*")})
    with raises_code(CheckpointError, "channels-differ", "red, green, nir", "in the order nir, red, green"):
        own.check_data(trained.model_copy(update={"splits": {"train": turned}}))
