"""Steps whose gradients come from several batches, equal those of the large batch; fp16 with its scaled loss."""

from __future__ import annotations

import contextlib
import copy
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.errors import raises_code
from helpers.pretend_recorder import StandIn, Watch, freeze_other_half
from helpers.spaces import small_space
from helpers.tiny_runs import (
    DATA,
    RETRAIN,
    SEARCH,
    assert_same_run,
    assert_same_state,
    call,
    checkpoint,
    resolved,
    retrain_task,
    rows,
    search_task,
    write_config,
)
from losses.test_loss_terms import TERMS, WEIGHTS, every_term, loss_of
from torch import Tensor
from torch.optim import optimizer

from autoseg.cli.main import run
from autoseg.config.base import parse
from autoseg.data.dataset import open_dataset
from autoseg.engine.accumulation import accumulated
from autoseg.engine.config import RetrainConfig
from autoseg.engine.cuda_graphs import Inputs, Recordings
from autoseg.engine.optim import StepGuard, autocast, build_optimizer
from autoseg.engine.retrain import MovingAverage, RetrainTask
from autoseg.engine.search import HALVES, Gradients
from autoseg.errors import ConfigError
from autoseg.supernet import build_supernet

CPU = torch.device("cpu")
EXACT = [term for term in TERMS if term["name"] in ("cross_entropy", "focal", "boundary")]
PARTS = (1, 3, 2)
"""Images in each of the batches that make up a large one."""


def parts_of(*tensors: Tensor) -> list[Inputs]:
    return list(zip(*(torch.split(tensor, PARTS) for tensor in tensors), strict=True))


def labelled(ignored: Sequence[float] = (0.0, 0.9, 0.3)) -> tuple[Tensor, Tensor]:
    """Logits (6, 4, 9, 12) and masks; of each part, such a share of the pixels is ignored."""
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(sum(PARTS), 4, 9, 12, generator=generator, dtype=torch.float64)
    masks = torch.randint(4, (sum(PARTS), 9, 12), generator=generator)
    hidden = torch.rand(masks.shape, generator=generator)
    for part, share in zip(torch.split(hidden, PARTS), ignored, strict=True):
        part.sub_(share)
    masks[hidden < 0] = 255
    return logits.requires_grad_(), masks


# --- shares of a loss -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("term", EXACT, ids=lambda term: "-".join(map(str, term.values())))
def test_the_losses_of_the_parts_add_up_to_the_loss(term: Any, weights: Any, smoothing: float) -> None:
    """Though the parts have different numbers of pixels that count."""
    loss = loss_of(term, {"name": "cross_entropy", "weight": 0.5}, weights=weights, smoothing=smoothing)
    logits, masks = labelled()
    whole = loss(logits, masks)
    (expected,) = torch.autograd.grad(whole, logits)
    shares = loss.shares([(part,) for part in torch.split(masks, PARTS)])
    losses = [
        loss(some, mask, None, share) for (some, mask), share in zip(parts_of(logits, masks), shares, strict=True)
    ]
    (found,) = torch.autograd.grad(sum(losses), logits)
    torch.testing.assert_close(sum(losses), whole, rtol=1e-6, atol=0)  # the shares are float32
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-9)
    assert loss.inexact == ()


@every_term
def test_other_losses_count_each_part_alike(term: Any) -> None:
    loss = loss_of(term)
    _, masks = labelled()
    shares = torch.stack(loss.shares([(part,) for part in torch.split(masks, PARTS)]))
    if term in EXACT:
        assert float(shares[1]) < float(shares[0])  # three images, but nine of ten pixels are ignored
    else:
        assert shares.flatten().tolist() == pytest.approx([1 / 3] * 3)
        assert loss.inexact == (term["name"],)


def test_parts_without_labels_count_nothing() -> None:
    _, masks = labelled((1.0, 0.5, 1.0))
    loss = loss_of({"name": "cross_entropy"})
    assert torch.stack(loss.shares([(part,) for part in torch.split(masks, PARTS)])).flatten().tolist() == [0, 1, 0]
    nothing = torch.full_like(masks, 255)
    shares = loss.shares([(part,) for part in torch.split(nothing, PARTS)])
    assert torch.stack(shares).flatten().tolist() == [0, 0, 0]


def test_boundaries_of_the_parts_are_those_of_their_whole_masks() -> None:
    loss = loss_of({"name": "boundary", "w0": 4.0, "sigma": 0.7})
    logits, whole = labelled()
    thinned = whole.masked_fill(torch.rand(whole.shape, generator=torch.Generator().manual_seed(0)) < 0.5, 255)
    batches = parts_of(logits, thinned, whole)
    shares = loss.shares([masks for _, *masks in batches])
    losses = [loss(*batch, share) for batch, share in zip(batches, shares, strict=True)]
    torch.testing.assert_close(sum(losses), loss(logits, thinned, whole), rtol=1e-6, atol=0)


# --- gradients of several batches -------------------------------------------------------------------------------------


def supernet_gradients(term: str, recorder: Any = None) -> Gradients:
    """In evaluation, where no statistics of a batch enter: what is left must be equal."""
    torch.manual_seed(0)
    supernet = build_supernet(small_space(layers=2, blocks=2, strides=(4, 8)), 4, 0.1).double().eval()
    return Gradients(supernet, "float32", loss_of({"name": term}), recorder and recorder(supernet))


@pytest.mark.slow
@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("term", ["cross_entropy", "focal"])
def test_a_supernets_gradients_are_those_of_the_large_batch(half: Any, term: str) -> None:
    gradients = supernet_gradients(term)
    images = torch.randn(sum(PARTS), 3, 36, 48, dtype=torch.float64)
    masks = labelled()[1].repeat_interleave(4, 1).repeat_interleave(4, 2)
    found = {}
    for name, batches in (("large", [(images, masks)]), ("parts", parts_of(images, masks))):
        freeze_other_half(gradients, half)
        loss = gradients(half, *batches)
        found[name] = [loss, *(each.grad.clone() for each in gradients.parameters[half] if each.grad is not None)]
    assert len(found["large"]) > 1
    for one, other in zip(found["large"], found["parts"], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-9)


@pytest.mark.slow
def test_a_searchs_recorded_parts_are_the_eager_ones() -> None:
    images = torch.randn(6, 3, 36, 48, dtype=torch.float64)
    masks = labelled()[1].repeat_interleave(4, 1).repeat_interleave(4, 2)
    batches = list(zip(torch.split(images, 2), torch.split(masks, 2), strict=True))
    eager, recorded = (supernet_gradients("cross_entropy", recorder) for recorder in (None, StandIn))
    for gradients in (eager, recorded):
        gradients.freeze("architecture")
    for _ in range(3):
        assert torch.equal(*(gradients("weights", *batches) for gradients in (eager, recorded)))
        for one, other in zip(eager.parameters["weights"], recorded.parameters["weights"], strict=True):
            assert (one.grad is None) == (other.grad is None)
            assert one.grad is None or torch.equal(one.grad, other.grad)
    recorder = recorded.recordings.recorder
    assert (recorder.runs, recorder.records, recorder.replays) == (3, 1, 6)


def unet_task(**retrain: Any) -> RetrainTask:
    """A network without BatchNorm, in float64."""
    settings = {
        "network": {"name": "unet", "width": 0.04},
        "data": DATA,
        "retrain": {"crop": [32, 32], "epochs": 2, "optimizer": {"name": "sgd", "lr": 0.05}, **retrain},
        "device": "cpu",
    }
    config = parse(RetrainConfig, resolved(settings))
    task = RetrainTask(config, open_dataset(config.data, "train"), open_dataset(config.data, "val"), CPU)
    task.network.double()
    return task


@pytest.mark.slow
def test_a_network_without_batch_norm_trains_as_with_the_large_batch() -> None:
    large, parts = unet_task(batch_size=8), unet_task(batch_size=2, accumulate=4)
    assert large.steps_per_epoch == parts.steps_per_epoch == 2
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in large.network.modules())
    steps = [[(images.double(), masks) for images, masks in step] for step in parts.batches(0, 0)]
    for number, step in enumerate(steps):
        whole = [tuple(torch.cat(tensors) for tensors in zip(*step, strict=True))]
        losses = [task.step(given, 0, number)["train"]["loss"] for task, given in ((large, whole), (parts, step))]
        torch.testing.assert_close(*losses, rtol=1e-6, atol=0)
    for one, other in zip(large.network.parameters(), parts.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)


def test_the_batches_of_a_step_are_those_of_a_large_one() -> None:
    """Two batches of two show the images of one of four, in trainA and in trainB."""
    large, parts = search_task(batch_size=4), search_task(batch_size=2, accumulate=2)
    assert large.steps_per_epoch == parts.steps_per_epoch == 2
    for (one_a, one_b), (two_a, two_b) in zip(large.batches(1, 0), parts.batches(1, 0), strict=True):
        for (whole,), pair in ((one_a, two_a), (one_b, two_b)):
            assert [len(images) for images, _ in pair] == [2, 2]
            for tensor, pieces in zip(whole, zip(*pair, strict=True), strict=True):
                assert torch.equal(tensor, torch.cat(pieces))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["search", "retrain"])
def test_an_accumulating_run_goes_on_to_the_same_result(kind: str, tmp_path: Path) -> None:
    settings, changes = {"search": SEARCH, "retrain": RETRAIN}[kind], {kind: {"accumulate": 2}}
    config = write_config(tmp_path / "config.yaml", settings, changes)
    call(kind, "--config", config, "--out", tmp_path / "whole")
    assert len(rows(tmp_path / "whole", "train")) == {"search": 6, "retrain": 8}[kind]
    shorter = write_config(tmp_path / "shorter.yaml", settings, changes)
    from autoseg.engine.trainer import Trainer

    pause = Trainer._pause
    with pytest.MonkeyPatch.context() as patch:

        def interrupt(loop: Trainer, stop: Any) -> None:
            if loop.done == 3:
                stop.handle(signal.SIGINT, None)
            pause(loop, stop)

        patch.setattr(Trainer, "_pause", interrupt)
        assert run([kind, "--config", str(shorter), "--out", str(tmp_path / "run")]) == 130
    call(kind, "--out", tmp_path / "run", "--resume")
    if kind == "search":
        assert_same_run(tmp_path / "whole", tmp_path / "run")
    else:
        assert_same_state(*(checkpoint(tmp_path / name)["state"] for name in ("whole", "run")))


def test_accumulation_that_does_not_divide_an_epoch() -> None:
    with raises_code(ConfigError, "accumulate-indivisible", "search.accumulate is 3", "4 batches"):
        search_task(accumulate=3)
    with raises_code(ConfigError, "accumulate-indivisible", "retrain.accumulate is 5", "8 batches"):
        retrain_task(accumulate=5)
    assert retrain_task(accumulate=5, max_steps_per_epoch=1).steps_per_epoch == 1


def test_what_differs_from_the_large_batch_is_said() -> None:
    assert search_task().notes == []
    assert search_task(accumulate=2, loss=["cross_entropy", "dice", "lovasz"]).notes == [
        "search.accumulate 2: each step has the gradients of one batch of 4 images; computed from 2 images at a time:"
        " the statistics of BatchNorm, dice, lovasz"
    ]
    assert retrain_task(accumulate=4).notes == [
        "retrain.accumulate 4: each step has the gradients of one batch of 8 images; computed from 2 images at a time:"
        " the statistics of BatchNorm"
    ]
    assert unet_task(batch_size=2, accumulate=2).notes == [
        "retrain.accumulate 2: each step has the gradients of one batch of 4 images"
    ]


# --- fp16 -------------------------------------------------------------------------------------------------------------


def test_fp16_computes_in_float16_and_keeps_float32_weights() -> None:
    task, seen = retrain_task(precision="fp16", drop_path=0.0), []
    task.network.decoder.register_forward_hook(lambda *hooked: seen.append(hooked[2].dtype))
    task.step(next(task.batches(0, 0)), 0, 0)
    assert seen == [torch.float16]
    assert {parameter.dtype for parameter in task.network.parameters()} == {torch.float32}
    assert autocast(CPU, "fp16").fast_dtype == torch.float16


@pytest.mark.parametrize(
    "optimizer", [{"name": "sgd"}, {"name": "sgd", "nesterov": True}, {"name": "adam"}, {"name": "adamw"}]
)
def test_a_step_without_finite_gradients_is_left_out_and_the_scale_halved(optimizer: dict[str, Any]) -> None:
    from autoseg.config.training import OptimizerConfig

    parameter = torch.nn.Parameter(torch.ones(3))
    built = build_optimizer(parse(OptimizerConfig, {**optimizer, "lr": 0.1}), [parameter], fused=True)
    scaler = StepGuard(CPU, scales=True)
    trace = []
    for factor in (1.0, float("inf"), float("nan"), 1.0):
        built.zero_grad()
        scaler.scale(parameter.sum() * factor).backward()
        scaler.unscale_(built)
        scaler.step(built)
        scaler.update()
        trace.append((parameter.detach().clone(), scaler.get_scale()))
    assert [scale for _, scale in trace] == [65536, 32768, 16384, 16384]
    assert torch.equal(trace[0][0], trace[1][0])
    assert torch.equal(trace[1][0], trace[2][0])
    assert not torch.equal(trace[2][0], trace[3][0])
    assert bool(trace[3][0].isfinite().all())


@pytest.mark.parametrize(
    "optimizer", [{"name": "sgd"}, {"name": "sgd", "nesterov": True}, {"name": "sgd", "momentum": 0}]
)
def test_a_first_step_that_is_left_out_leaves_no_momentum(optimizer: dict[str, Any]) -> None:
    """As the first steps in fp16, whose scale is too large. What has no values is filled with NaN here."""
    from autoseg.config.training import OptimizerConfig

    found = []
    torch.use_deterministic_algorithms(True)
    try:
        for factors in ((1.0,), (float("inf"), 1.0)):
            parameter = torch.nn.Parameter(torch.ones(3))
            built = build_optimizer(parse(OptimizerConfig, {**optimizer, "lr": 0.1}), [parameter], fused=True)
            scaler = StepGuard(CPU, scales=True)
            for factor in factors:
                built.zero_grad()
                scaler.scale(parameter.sum() * factor).backward()
                scaler.step(built)
                scaler.update()
            found.append(parameter.detach())
    finally:
        torch.use_deterministic_algorithms(False)
    assert bool((found[0] < 1).all())
    assert torch.equal(*found)


def test_the_scale_changes_no_step_of_a_retraining() -> None:
    """Powers of two are exact, and gradients are clipped at their own size."""
    plain, scaled = (retrain_task(clip_grad_norm=0.01) for _ in range(2))
    scaled.scaler = StepGuard(CPU, scales=True)
    for task in (plain, scaled):
        task.step(next(task.batches(0, 0)), 0, 0)
    assert_same_weights(plain.network, scaled.network)


def test_the_scale_changes_no_step_of_a_search() -> None:
    plain, scaled = (search_task(clip_grad_norm=0.01) for _ in range(2))
    for half in HALVES:
        scaled.scalers[half] = StepGuard(CPU, scales=True)
    for task in (plain, scaled):
        task.step(next(task.batches(1, 0)), 1, 4)
    assert_same_weights(plain.supernet, scaled.supernet)


def assert_same_weights(one: torch.nn.Module, other: torch.nn.Module) -> None:
    for first, second in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_a_search_in_fp16_has_a_scale_a_half_and_resumes_with_it() -> None:
    task = search_task(precision="fp16")
    step = next(task.batches(1, 0))
    figures = task.step(step, 1, 4)
    assert {float(row["loss_scale"]) for row in figures.values()} <= {65536.0, 32768.0}
    task.scalers["weights"].update(128.0)
    other = search_task(precision="fp16")
    other.load_state(copy.deepcopy(task.state()))
    assert other.scalers["weights"].get_scale() == 128
    assert_same_state(task.state(), other.state())
    for each in (task, other):
        each.step(step, 1, 5)
    assert_same_state(task.state(), other.state())
    assert "scalers" not in search_task().state()


def test_a_retraining_in_fp16_keeps_its_scale() -> None:
    task = retrain_task(precision="fp16")
    task.step(next(task.batches(0, 0)), 0, 0)
    task.scaler.update(512.0)
    other = retrain_task(precision="fp16")
    other.load_state(copy.deepcopy(task.state()))
    assert other.scaler.get_scale() == 512


# --- a retraining's step ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_retraining_from_recordings_is_the_eager_one() -> None:
    """Drop path, whose probability grows, dropout, auxiliary head and moving average included."""
    changes = {"loss_sampling": 0.5, "clip_grad_norm": 5.0}
    eager, recorded = retrain_task(**changes), retrain_task(**changes)
    for compare in (False, True):
        recorder = StandIn(recorded.network)  # type: ignore[arg-type]
        recorded.recordings = Recordings(recorder, recorded.network.buffers, compare)
        for number, batches in enumerate(eager.batches(0, 0)):
            losses = [task.step(batches, 0, number)["train"]["loss"] for task in (eager, recorded)]
            assert torch.equal(*losses)
            assert_same_state(eager.state(), recorded.state())
        assert recorder.records == 1
        assert recorder.replays == 8 - recorder.runs


class OnMeta:
    """A retraining on the meta device, which has no values: whatever would read one fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **retrain: Any) -> None:
        monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # which meta tensors have not
        config = retrain_task(**retrain).config
        datasets = (open_dataset(config.data, split) for split in ("train", "val"))
        supported = optimizer._get_fused_kernels_supported_devices()
        monkeypatch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: [*supported, "meta"])
        self.task = RetrainTask(config, *datasets, torch.device("meta"))
        self.batch = tuple(part.to("meta") for part in next(self.task.loader.epoch(0)))


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_retraining_step_never_waits_for_the_device(accumulate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fused = {"name": "adamw", "lr": 0.01}  # PyTorch's fused SGD does not know meta tensors
    options = {"accumulate": accumulate, "clip_grad_norm": 1.0, "loss_sampling": 0.5, "optimizer": fused}
    on_meta = OnMeta(monkeypatch, **options)
    step = [on_meta.batch] * accumulate
    on_meta.task.step(step, 0, 0)
    with Watch() as watch:
        for number in (1, 2, 3):
            figures = on_meta.task.step(step, 0, number)
    assert figures["train"]["loss"].is_meta
    assert watch.mixed == set()
    assert {"convolution_backward", "native_batch_norm_backward", "_foreach_lerp_"} <= watch.operations
    assert {"_amp_foreach_non_finite_check_and_unscale_", "_fused_adamw_", "_foreach_copy_"} <= watch.operations
    assert not watch.operations & {"nonzero", "_local_scalar_dense", "masked_select", "equal"}


def test_the_moving_average_is_pytorchs() -> None:
    """The keys and the values of `AveragedModel`, which checkpoints of before hold."""
    from torch.optim.swa_utils import AveragedModel

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))

    def average(old: Tensor, new: Tensor, updates: Tensor | int) -> Tensor:
        if not old.is_floating_point():
            return new
        return old.lerp(new, 1 - min(0.9, (1 + int(updates)) / (10 + int(updates))))

    theirs, ours = AveragedModel(network, avg_fn=average, use_buffers=True), MovingAverage(network, 0.9)
    for _ in range(4):
        network(torch.randn(2, 3, 5, 5)).sum().backward()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn(parameter.shape))
        theirs.update_parameters(network)
        ours.update(network)
        assert_same_state(theirs.state_dict(), ours.state_dict())
    resumed = MovingAverage(network, 0.9)
    resumed.load_state_dict(theirs.state_dict())
    theirs.update_parameters(network)
    resumed.update(network)
    assert_same_state(theirs.state_dict(), resumed.state_dict())


# --- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_a_recorded_retraining_on_a_gpu_is_near_the_eager_one(precision: str) -> None:
    """Also: it was recorded, the comparison trusted it, and no memory is lost."""
    losses = []
    for graphs in (False, "auto"):
        config = retrain_task(precision=precision, cuda_graphs=graphs, accumulate=2).config
        datasets = (open_dataset(config.data, split) for split in ("train", "val"))
        task = RetrainTask(config, *datasets, torch.device("cuda"))
        losses.append([float(task.step(step, 0, number)["train"]["loss"]) for number, step in enumerate(_many(task))])
    assert task.recordings.recorder is not None
    assert len(task.recordings._trusted) == 1
    assert losses[1] == pytest.approx(losses[0], rel={"float32": 1e-2}.get(precision, 0.1))


def _many(task: RetrainTask) -> list[Any]:
    return [step for epoch in range(4) for step in task.batches(epoch, 0)]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_whole_steps_never_wait_for_a_gpu_and_take_no_memory(precision: str) -> None:
    """Of a retraining with everything on, eager and replayed, loading of batches included."""
    config = retrain_task(precision=precision, clip_grad_norm=1.0, loss_sampling=0.5).config
    datasets = (open_dataset(config.data, split) for split in ("train", "val"))
    task = RetrainTask(config, *datasets, torch.device("cuda"))
    for number, step in enumerate(_many(task)):  # recorded and compared
        task.step(step, 0, number + 1)
    batches = _many(task)
    torch.cuda.synchronize()
    held = torch.cuda.memory_allocated()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number, step in enumerate(batches):
            task.step(step, 0, number + 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.cuda.memory_allocated() <= held + 65536


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [False, "auto"])
def test_whole_iterations_of_a_search_never_wait_for_a_gpu(graphs: Any) -> None:
    from autoseg.engine.search import SearchTask

    config = search_task(cuda_graphs=graphs, clip_grad_norm=1.0, precision="fp16").config
    datasets = (open_dataset(config.data, split) for split in ("train", "val"))
    task = SearchTask(config, *datasets, torch.device("cuda"))
    steps = [step for _ in range(4) for step in task.batches(1, 0)]
    for step in steps:
        task.step(step, 1, 4)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in steps:
            task.step(step, 1, 4)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (task.gradients.recordings.recorder is None) == (graphs is False)


@pytest.mark.gpu
def test_the_gradients_of_several_batches_on_a_gpu() -> None:
    gradients = supernet_gradients("cross_entropy")
    gradients.supernet.cuda()
    gradients.freeze("architecture")
    images = torch.randn(6, 3, 36, 48, dtype=torch.float64, device="cuda")
    masks = labelled()[1].repeat_interleave(4, 1).repeat_interleave(4, 2).cuda()
    found = []
    for batches in ([(images, masks)], parts_of(images, masks)):
        loss = gradients("weights", *batches)
        found.append([loss, *(each.grad.clone() for each in gradients.parameters["weights"] if each.grad is not None)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-9)


def test_accumulated_asks_for_each_batch_once() -> None:
    parameter, seen = torch.nn.Parameter(torch.zeros(1)), []

    def gradients(inputs: Inputs) -> Tensor:
        seen.append(inputs)
        parameter.grad = torch.ones(1)
        return torch.ones(())

    loss = loss_of({"name": "dice"})
    masks = torch.zeros(1, 2, 2, dtype=torch.int64)
    assert float(accumulated([parameter], loss, [(masks, masks)] * 3, gradients)) == 3
    assert parameter.grad.tolist() == [3]
    assert [share.tolist() for _, _, share in seen] == [[pytest.approx(1 / 3)]] * 3
