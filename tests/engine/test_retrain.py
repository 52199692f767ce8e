"""Training a discrete network: losses, optimisers, averages, and what a run leaves behind."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path

import pytest
import torch
import yaml
from helpers.errors import raises_code
from helpers.tiny_runs import GENOTYPE, RETRAIN, assert_same_run, call, checkpoint, rows, write_config
from helpers.tiny_runs import retrain_task as make
from torch import Tensor
from torch.nn import functional as F

import autoseg
from autoseg.cli.main import run
from autoseg.config.base import parse
from autoseg.config.training import RetrainSchedule
from autoseg.engine import retrain as retrain_module
from autoseg.engine.predict import load_network
from autoseg.engine.retrain import RetrainTask
from autoseg.engine.training import seed_of
from autoseg.errors import ConfigError, DataError
from autoseg.genotype.design import genotype_of, known_genes
from autoseg.genotype.schema import Genotype
from autoseg.losses.losses import SegmentationLoss, sample_pixels
from autoseg.space.schema import SearchSpace

PLAIN = {
    "drop_path": 0.0,
    "auxiliary_weight": 0.0,
    "ema_decay": 0.0,
    "schedule": {"name": "constant", "warmup_epochs": 0},
}


def first_batch(task: RetrainTask) -> tuple[Tensor, Tensor]:
    return next(iter(task.loader.epoch(0)))


def parameters(task: RetrainTask) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in task.network.parameters()]


def twin_loss(task: RetrainTask, step: int, weights: Tensor | None = None) -> Tensor:
    """The loss of a step, from a copy of the task's network and the step's own random numbers."""
    images, masks = first_batch(task)
    network = copy.deepcopy(task.network).train()
    network.set_drop_path(task.schedule.drop_path, step / (task.schedule.epochs * task.steps_per_epoch))
    torch.manual_seed(seed_of(task.config.seed, step))
    logits, auxiliary = network.forward_with_auxiliary(images)
    loss = F.cross_entropy(logits, masks, weights, ignore_index=255)
    if auxiliary is not None:
        loss = loss + task.schedule.auxiliary_weight * F.cross_entropy(auxiliary, masks, weights, ignore_index=255)
    return loss.detach()


# --- one step ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("auxiliary_weight", [0.0, 0.4])
def test_the_loss_is_that_of_both_heads(auxiliary_weight: float) -> None:
    task = make(auxiliary_weight=auxiliary_weight)
    assert (task.network.auxiliary is not None) == (auxiliary_weight > 0)
    expected = twin_loss(task, step=3)
    assert float(task.step([first_batch(task)], 0, 3)["train"]["loss"]) == pytest.approx(float(expected), rel=1e-5)


def test_dropout_and_drop_path_depend_on_the_number_of_the_step() -> None:
    one, other, third = make(drop_path=0.9), make(drop_path=0.9), make(drop_path=0.9)
    batch = first_batch(one)
    torch.manual_seed(123)  # whatever came before
    first = one.step([batch], 0, 5)
    assert torch.equal(first["train"]["loss"], other.step([batch], 0, 5)["train"]["loss"])
    assert not torch.equal(first["train"]["loss"], third.step([batch], 0, 6)["train"]["loss"])


@pytest.mark.slow
def test_dropout_alone_differs_from_step_to_step() -> None:
    """Drop path, whose rate grows with the step, is off."""
    losses = [
        float((task := make(drop_path=0.0)).step([first_batch(task)], 0, step)["train"]["loss"]) for step in (5, 6, 5)
    ]
    assert losses[0] == losses[2] != losses[1]


@pytest.mark.slow
def test_the_seed_decides_weights_batches_and_dropout() -> None:
    """Each by itself: the weights are those of the first seed where dropout is compared."""

    def of(seed: int) -> RetrainTask:
        task = make(drop_path=0.0)
        config = task.config.model_copy(update={"seed": seed})
        return RetrainTask(config, task.train_set, task.val_set, torch.device("cpu"))

    one, same, other = of(1), of(1), of(2)
    batch, state = first_batch(one), copy.deepcopy(one.network.state_dict())
    first = one.step([batch], 0, 5)["train"]["loss"]
    for task, equal in ((same, True), (other, False)):
        assert torch.equal(first_batch(task)[0], batch[0]) == equal
        changed = [key for key, value in task.network.state_dict().items() if not torch.equal(value, state[key])]
        assert (changed == []) == equal
        task.network.load_state_dict(state)
        assert torch.equal(task.step([batch], 0, 5)["train"]["loss"], first) == equal


def test_steps_of_different_seeds_have_different_numbers() -> None:
    assert len({seed_of(seed, number) for seed in range(50) for number in range(500)}) == 50 * 500


def test_drop_path_grows_with_the_steps_and_the_cells() -> None:
    task = make(drop_path=0.3)
    for step in (0, 4, 12):
        task.step([first_batch(task)], 0, step)
        probabilities = [cell.drop_probability for cell in task.network.cells]
        assert probabilities == pytest.approx([0.3 * step / 16 * 0.5, 0.3 * step / 16])


def test_drop_path_needs_branches_in_the_stages() -> None:
    task, space = make(drop_path=0.3), SearchSpace.load("table_216")
    for block, is_right in (("conv_3x3", False), ("separable", True)):
        genes = {**known_genes(space)["unet"], "block": block}
        config = task.config.model_copy(update={"architecture": genotype_of(space, genes, "mine")})
        if is_right:
            assert RetrainTask(config, task.train_set, task.val_set, task.device).network is not None
            continue
        with raises_code(ConfigError, "drop-path-without-branches", "mine", "retrain.drop_path"):
            RetrainTask(config, task.train_set, task.val_set, task.device)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_optimisers(name: str) -> None:
    task = make(**PLAIN, optimizer={"name": name, "lr": 0.01, "weight_decay": 0.1, "momentum": 0.9})
    images, masks = first_batch(task)
    before = parameters(task)
    torch.manual_seed(seed_of(0, 0))
    loss = F.cross_entropy(task.network.train()(images), masks, ignore_index=255)
    gradients = torch.autograd.grad(loss, list(task.network.parameters()))
    task.step([(images, masks)], 0, 0)
    for old, gradient, new in zip(before, gradients, parameters(task), strict=True):
        if name == "sgd":
            expected = old - 0.01 * (gradient + 0.1 * old)
        else:  # the first step of AdamW: sign of the gradient, and decay apart from it
            expected = old - 0.01 * 0.1 * old - 0.01 * gradient / (gradient.abs() + 1e-8)
            if bool((gradient.abs() < 1e-6).any()):
                continue  # where the gradient is noise around zero its sign says nothing
        assert torch.allclose(new, expected, atol=2e-5)


def test_gradients_are_clipped() -> None:
    task = make(
        **PLAIN, clip_grad_norm=0.02, optimizer={"name": "sgd", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}
    )
    before = parameters(task)
    task.step([first_batch(task)], 0, 0)
    moved = sum(float((new - old).square().sum()) for new, old in zip(parameters(task), before, strict=True))
    assert math.sqrt(moved) == pytest.approx(0.02, rel=1e-3)


def test_the_moving_average_is_the_formula() -> None:
    task = make(ema_decay=0.2)
    images = first_batch(task)
    expected: dict[str, Tensor] = {}
    for step in range(5):
        task.step([images], 0, step)
        now = {key: value.clone() for key, value in task.network.state_dict().items()}
        decay = min(0.2, (1 + step) / (10 + step))
        expected = {
            key: value if step == 0 or not value.is_floating_point() else decay * expected[key] + (1 - decay) * value
            for key, value in now.items()
        }
    average = task.trained.state_dict()
    assert average.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.allclose(average[key].double(), value.double(), atol=1e-5), key
    assert any(not torch.equal(average[key], value) for key, value in task.network.state_dict().items())


def test_class_weights() -> None:
    given = [0.5, 1, 2, 3, 4, 5, 6]
    task = make(class_weights=given)
    expected = twin_loss(task, 0, torch.tensor(given))
    assert float(task.step([first_batch(task)], 0, 0)["train"]["loss"]) == pytest.approx(float(expected), rel=1e-5)
    counts = torch.zeros(7, dtype=torch.float64)
    for index in range(16):
        counts += torch.bincount(torch.as_tensor(task.train_set.load(index).mask).flatten().long(), minlength=7)
    enet = make(class_weights="enet").loss.class_weights
    assert enet is not None
    assert torch.allclose(enet.double(), 1 / torch.log(1.02 + counts / counts.sum()), rtol=1e-4)
    with raises_code(ConfigError, "class-weights-number", "class_weights", 3, "7 classes"):
        make(class_weights=[1, 2, 3])


@pytest.mark.slow
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_the_loss_is_that_of_the_settings_for_both_heads(share: float) -> None:
    terms = ["ohem", {"name": "boundary", "weight": 0.5, "w0": 3}, {"name": "dice", "weight": 2}]
    changes = {"drop_path": 0.0, "auxiliary_weight": 0.4, "loss_sampling": share}
    task, twin = make(loss=terms, label_smoothing=0.1, **changes), make(**changes)
    images, masks = first_batch(task)
    torch.manual_seed(seed_of(0, 3))
    drawn = sample_pixels(masks, share, 255)
    logits, auxiliary = twin.network.train().forward_with_auxiliary(images)
    loss = SegmentationLoss(255, None, 0.1, parse(RetrainSchedule, {"loss": terms}).loss)
    expected = loss(logits, drawn, masks) + 0.4 * loss(auxiliary, drawn, masks)
    assert float(task.step([(images, masks)], 0, 3)["train"]["loss"]) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.slow
def test_training_with_every_change_and_term() -> None:
    augment = {"rotate": 20, "blur": 0.5, "cutout": 0.5, "max_class_share": 0.7, "colour": 0.3}
    terms = ["cross_entropy", "ohem", "focal", "boundary", "dice", "lovasz"]
    task = make(loss=terms, augment=augment, balanced_sampling=0.5, precision="bf16", class_weights="inverse")
    before = parameters(task)
    figures = [task.step(batch, 0, number)["train"]["loss"] for number, batch in enumerate(task.batches(0, 0))]
    assert all(bool(loss.isfinite()) for loss in figures)
    assert any(not torch.equal(new, old) for new, old in zip(parameters(task), before, strict=True))


@pytest.mark.slow
def test_the_loss_of_a_random_share_of_the_pixels() -> None:
    """Of both heads on the same pixels, drawn by the number of the step; a share of 1 is the loss of all."""
    images, masks = first_batch(make())
    changes = {"drop_path": 0.0, "auxiliary_weight": 0.4, "loss_sampling": 0.2}
    losses = []
    for step in (3, 4):
        task = make(**changes)
        for module in task.network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        network = copy.deepcopy(task.network).train()
        torch.manual_seed(seed_of(task.config.seed, step))
        thinned = masks.masked_fill(torch.rand(masks.shape) >= 0.2, 255)
        logits, auxiliary = network.forward_with_auxiliary(images)
        assert auxiliary is not None
        parts = [F.cross_entropy(each, thinned, ignore_index=255) for each in (logits, auxiliary)]
        expected = (parts[0] + 0.4 * parts[1]).detach()
        losses.append(float(task.step([(images, masks)], 0, step)["train"]["loss"]))
        assert losses[-1] == pytest.approx(float(expected), rel=1e-5)
    assert losses[0] != losses[1]
    task, whole = make(loss_sampling=1.0), make()
    assert torch.equal(*(each.step([(images, masks)], 0, 3)["train"]["loss"] for each in (task, whole)))


def test_bf16_is_near_float32() -> None:
    exact, rough = make(**PLAIN), make(**PLAIN, precision="bf16")
    batch = first_batch(exact)
    losses = [float(task.step([batch], 0, 0)["train"]["loss"]) for task in (exact, rough)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert {parameter.dtype for parameter in rough.network.parameters()} == {torch.float32}


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_step_on_the_gpu_is_near_that_of_the_cpu(precision: str) -> None:
    task = make(**PLAIN, precision=precision)
    on_gpu = RetrainTask(task.config, task.train_set, task.val_set, torch.device("cuda"))
    on_gpu.network.load_state_dict(task.network.state_dict())
    for each in (task, on_gpu):
        for module in each.network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    batch = first_batch(task)
    losses = [[float(each.step([batch], 0, step)["train"]["loss"]) for step in range(3)] for each in (task, on_gpu)]
    assert losses[1] == pytest.approx(losses[0], rel=0.1)
    assert 0 <= float(on_gpu.validate(None, 0)["val"]["miou"]) <= 1  # type: ignore[arg-type]


def test_too_few_images() -> None:
    with raises_code(DataError, "batch-too-large", "16 training images", "retrain.batch_size is 17"):
        make(batch_size=17)


def test_a_single_image_does_not_ask_for_a_smaller_batch() -> None:
    with raises_code(DataError, "batch-too-large", "1 training image,", "add images") as raised:
        make(data={"generated": {"train": 1}})
    assert "lower" not in str(raised.value)


# --- a run ------------------------------------------------------------------------------------------------------------


def test_a_run_leaves_every_file(retrained: Path) -> None:
    names = {str(path.relative_to(retrained)) for path in retrained.rglob("*") if path.is_file()}
    assert {name for name in names if not name.startswith("tensorboard/events.")} == {
        "config.yaml", "environment.yaml", "genotype.yaml", "metrics.jsonl", "checkpoints/last.pt",
        "checkpoints/best.pt", "checkpoints/last.1.pt", "checkpoints/last.2.pt", "checkpoints/epoch.pt", "lock",
    }  # fmt: skip
    assert Genotype.load(retrained) == Genotype.parse(GENOTYPE)


@pytest.mark.slow
def test_the_best_network_is_the_first_of_equal_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mious = (0.25, 0.5, 0.5)
    monkeypatch.setattr(RetrainTask, "validate", lambda _, run, epoch: {"val": {"miou": mious[epoch], "loss": 1.0}})
    config = write_config(tmp_path / "c.yaml", RETRAIN, {"retrain": {"epochs": 3, "max_steps_per_epoch": 1}})
    call("retrain", "--config", config, "--out", tmp_path / "run")
    assert (checkpoint(tmp_path / "run", "best")["epoch"], checkpoint(tmp_path / "run")["epoch"]) == (2, 3)


@pytest.mark.slow
def test_validation_measures_the_moving_average(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make(ema_decay=0.9)
    for step in range(4):
        task.step([first_batch(task)], 0, step)
    seen: list[Tensor] = []
    monkeypatch.setattr(retrain_module, "validation_figures", lambda network, *_: (seen.append(network(images)), {})[1])
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        task.validate(None, 0)  # type: ignore[arg-type]
        average, plain = (network.eval()(images) for network in (task.average.module, task.network))  # type: ignore[union-attr]
    assert torch.allclose(seen[0], average, atol=1e-4)
    assert not torch.allclose(seen[0], plain, atol=1e-2)


def test_metrics_of_a_run(retrained: Path) -> None:
    train, val = rows(retrained, "train"), rows(retrained, "val")
    warm = [0.05 * (step + 1) / 4 for step in range(4)]
    expected = warm + [0.05 * (1 - step / 12) ** 0.9 for step in range(12)]
    assert [row["lr"] for row in train] == pytest.approx(expected)
    assert [row["step"] for row in train] == list(range(1, 17))
    assert [(row["epoch"], row["step"]) for row in val] == [(0, 8), (1, 16)]
    assert checkpoint(retrained, "best")["best_miou"] == max(row["miou"] for row in val)


def test_the_loaded_network_is_the_moving_average(retrained: Path) -> None:
    network, config, saved = load_network(retrained, "last")
    average = checkpoint(retrained)["state"]["average"]
    assert not network.training
    assert all(torch.equal(value, average[f"module.{key}"]) for key, value in network.state_dict().items())
    assert (config.data.num_classes, saved["epoch"]) == (7, 2)


@pytest.mark.slow
def test_a_run_from_the_config_of_another_is_the_same(retrained: Path, tmp_path: Path) -> None:
    call("retrain", "--config", retrained / "config.yaml", "--out", tmp_path / "b")
    assert_same_run(retrained, tmp_path / "b")


@pytest.mark.slow
def test_workers_change_nothing(retrained: Path, tmp_path: Path) -> None:
    set_ = ["--set", "retrain.workers=1"]
    call("retrain", "--config", retrained / "config.yaml", *set_, "--out", tmp_path / "b")
    assert_same_run(retrained, tmp_path / "b")


@pytest.mark.slow
def test_the_genotype_brings_its_schedule(tmp_path: Path) -> None:
    settings = {**GENOTYPE, "retrain": {"epochs": 7, "optimizer": {"name": "adamw", "lr": 0.002}}}
    genotype = write_config(tmp_path / "g.yaml", settings)
    config = write_config(tmp_path / "c.yaml", {"data": RETRAIN["data"], "retrain": {"epochs": 1, "crop": [32, 32]}})
    call("retrain", genotype, "--config", config, "--set", "retrain.batch_size=4", "--out", tmp_path / "run")
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["retrain"]
    assert (written["epochs"], written["batch_size"]) == (1, 4)
    assert (written["optimizer"]["name"], written["optimizer"]["lr"]) == ("adamw", 0.002)
    assert written["schedule"]["name"] == "poly"


@pytest.mark.slow
def test_a_run_in_bf16_is_measured_and_used_in_bf16(tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.yaml", RETRAIN, {"retrain": {"precision": "bf16", "epochs": 4}})
    out = tmp_path / "run"
    call("retrain", "--config", config, "--out", out)
    assert all(math.isfinite(row["loss"]) for row in rows(out, "train"))
    assert {value.dtype for key, value in checkpoint(out)["state"]["network"].items() if "weight" in key} == {
        torch.float32
    }
    scores = {}
    for precision in ("float32", "bf16"):
        scores[precision] = autoseg.evaluate(
            out, precision=precision, out=tmp_path / f"{precision}.json", show_progress=False
        )
        assert scores[precision]["precision"] == precision
    assert scores["bf16"]["loss"] != scores["float32"]["loss"]
    assert scores["bf16"]["loss"] == pytest.approx(scores["float32"]["loss"], rel=0.02)
    assert scores["bf16"]["pixel_accuracy"] == pytest.approx(scores["float32"]["pixel_accuracy"], abs=0.02)


@pytest.mark.slow
def test_a_diverged_loss_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {**PLAIN, "optimizer": {"lr": 10.0, "weight_decay": 1.0}, "epochs": 10, "max_returns": 0}
    config = write_config(tmp_path / "c.yaml", RETRAIN, {"retrain": changes})
    assert run(["retrain", "--config", str(config), "--out", str(tmp_path / "run")]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert last.endswith(" [loss-not-finite]")
    assert "train loss" in last or "the weights are" in last
    assert re.search(r"\bepoch \d+, step \d+\b", last)
    assert "retrain.optimizer.lr" in last
