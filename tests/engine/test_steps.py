"""Steps from recordings equal eager ones: with a stand-in for CUDA graphs on a CPU, and with CUDA graphs on a GPU."""

from __future__ import annotations

import contextlib
import copy
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.pretend_recorder import StandIn, Watch, freeze_other_half
from helpers.spaces import small_space
from helpers.tiny_runs import SEARCH, assert_same_run, assert_same_state, call, rows, write_config
from torch import Tensor
from torch.utils._pytree import tree_leaves

from autoseg.cli.main import run
from autoseg.config.training import SearchSchedule
from autoseg.engine import search
from autoseg.engine.cuda_graphs import EAGER_STEPS, CudaGraphs, Recordings, relative_difference
from autoseg.engine.search import HALVES, Gradients, Half, SearchTask, make_recorder
from autoseg.losses.losses import SegmentationLoss
from autoseg.space.schema import SearchSpace
from autoseg.supernet import KernelChoice, Supernet, build_supernet

CUDA = torch.device("cuda")
OPERATIONS = ("none", "skip_connect", "max_pool_3x3", "sep_conv_3x3", "atrous_conv_3x3")
ALTERNATING: list[tuple[Half, int]] = [("weights", 2)] * 5 + [(half, 2) for _ in range(6) for half in HALVES]
"""(half, images in the batch): weights alone at first, then both in turn."""
WITH_SHORT_BATCHES = [step for of_epoch in [ALTERNATING[-4:] + [(half, 3) for half in HALVES]] * 5 for step in of_epoch]


class Training:
    """A supernet, its gradients and its optimisers."""

    def __init__(
        self,
        recorder: Callable[[Supernet], CudaGraphs | None] = lambda _: None,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        precision: str = "float32",
        checkpoint: bool = False,
        layers: int = 2,
        blocks: int = 1,
    ) -> None:
        self.device, self.dtype = device or torch.device("cpu"), dtype
        torch.manual_seed(0)
        space = small_space(layers=layers, blocks=blocks, strides=(4, 8, 16), operations=OPERATIONS, filters=4)
        self.supernet = build_supernet(space, 3, 0.1).to(self.device, dtype)
        self.supernet.checkpoint_cells = checkpoint
        weights = torch.tensor([1.0, 2.0, 0.5], device=self.device)
        loss = SegmentationLoss(255, weights)
        self.gradients = Gradients(self.supernet, precision, loss, recorder(self.supernet))
        self.optimizers: dict[Half, torch.optim.Optimizer] = {
            "weights": torch.optim.SGD(self.gradients.parameters["weights"], 0.01, 0.9, weight_decay=1e-3),
            "architecture": torch.optim.Adam(self.gradients.parameters["architecture"], 3e-3),
        }

    def step(self, half: Half, number: int, images: int = 2) -> Tensor:
        generator = torch.Generator().manual_seed(number)
        batch = torch.randn(images, 3, 33, 49, generator=generator).to(self.device, self.dtype)
        masks = torch.randint(3, (images, 33, 49), generator=generator)
        masks[:, :5] = 255
        freeze_other_half(self.gradients, half)
        loss = self.gradients(half, (batch, masks.to(self.device)))
        self.optimizers[half].step()
        return loss

    def steps(self, halves: Sequence[tuple[Half, int]], first: int = 0) -> list[Tensor]:
        return [self.step(half, first + number, images) for number, (half, images) in enumerate(halves)]

    def evaluate(self) -> Tensor:
        self.supernet.eval()
        with torch.no_grad():
            logits = self.supernet(torch.ones(1, 3, 65, 65, device=self.device, dtype=self.dtype))
        self.supernet.train()
        return logits

    def state(self) -> dict[str, Any]:
        parts = {"supernet": self.supernet, **self.optimizers}
        return copy.deepcopy({name: part.state_dict() for name, part in parts.items()})

    def load(self, state: dict[str, Any]) -> None:
        for name, part in {"supernet": self.supernet, **self.optimizers}.items():
            part.load_state_dict(copy.deepcopy(state[name]))


# --- the bookkeeping, on a CPU ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("halves", [ALTERNATING, WITH_SHORT_BATCHES], ids=["alternating", "short batches"])
def test_recorded_steps_are_eager_ones_bit_for_bit(halves: list[tuple[Half, int]]) -> None:
    """Batches, losses, gradients and running statistics, after every step; recording leaves no trace."""
    eager, recorded = Training(), Training(StandIn)
    losses = []
    for number, (half, images) in enumerate(halves):
        losses.append((eager.step(half, number, images), recorded.step(half, number, images)))
        assert_same_state(eager.state(), recorded.state())
    assert all(torch.equal(*pair) for pair in losses)  # the early ones still: no replay has overwritten them
    kinds = len(set(halves))
    recorder = recorded.gradients.recordings.recorder
    assert (recorder.records, recorder.runs) == (kinds, kinds * EAGER_STEPS)
    assert recorder.replays == len(halves) - recorder.runs


@pytest.mark.slow
def test_gradients_of_the_other_half_are_never_used() -> None:
    eager, recorded = Training(), Training(StandIn)
    for number, (half, images) in enumerate(ALTERNATING):
        other = HALVES[half == "weights"]
        for training in (eager, recorded):
            for parameter in training.gradients.parameters[other]:
                parameter.grad = torch.full_like(parameter, torch.nan)
            training.step(half, number, images)
        assert_same_state(eager.state(), recorded.state())


@pytest.mark.slow
def test_evaluation_in_between() -> None:
    eager, recorded = Training(), Training(StandIn)
    for first in (0, 20):
        for training in (eager, recorded):
            training.steps(ALTERNATING, first)
        assert torch.equal(eager.evaluate(), recorded.evaluate())
    assert recorded.gradients.recordings.recorder.records == 2
    assert_same_state(eager.state(), recorded.state())


@pytest.mark.slow
def test_an_earlier_state_is_loaded_into_a_recorded_search() -> None:
    training = Training(StandIn)
    training.steps(ALTERNATING)
    state = training.state()
    losses = training.steps(ALTERNATING, 20)
    expected = training.state()
    training.load(state)
    assert all(torch.equal(*pair) for pair in zip(training.steps(ALTERNATING, 20), losses, strict=True))
    assert_same_state(expected, training.state())
    assert training.gradients.recordings.recorder.records == 2


@pytest.mark.slow
def test_the_callers_batches_are_left_alone() -> None:
    training = Training(StandIn)
    batches = [(torch.randn(2, 3, 33, 33), torch.randint(3, (2, 33, 33))) for _ in range(EAGER_STEPS + 2)]
    given = copy.deepcopy(batches)
    for batch in batches:
        training.gradients("weights", batch)
    assert training.gradients.recordings.recorder.replays == 2
    assert all(torch.equal(*pair) for pair in zip(tree_leaves(batches), tree_leaves(given), strict=True))


@pytest.mark.slow
def test_further_shapes_stay_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoseg.engine.cuda_graphs.MOST_GRAPHS", 2)
    eager, recorded = Training(), Training(StandIn)
    recorder = recorded.gradients.recordings.recorder
    recorded.gradients.recordings = Recordings(recorder, recorded.supernet.buffers, False)
    for training in (eager, recorded):
        training.steps(WITH_SHORT_BATCHES)
    assert recorded.gradients.recordings.recorder.records == 2
    assert_same_state(eager.state(), recorded.state())


def cannot_record(work: Callable[[], Tensor]) -> None:
    try:
        raise torch.OutOfMemoryError("CUDA out of memory")
    finally:
        raise RuntimeError("capture was invalidated")


@pytest.mark.slow
def test_a_step_that_cannot_be_recorded_goes_on_eagerly_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    eager, recorded = Training(), Training(StandIn)
    recorded.gradients.recordings.recorder.record = cannot_record  # type: ignore[method-assign,union-attr]
    for number, (half, images) in enumerate(ALTERNATING):
        losses = [training.step(half, number, images) for training in (eager, recorded)]
        assert torch.equal(*losses)
    assert_same_state(eager.state(), recorded.state())
    assert recorded.gradients.recordings.recorder is None
    assert [record.getMessage() for record in caplog.records] == [
        "the step of the weights cannot be recorded as a CUDA graph (CUDA out of memory); going on without CUDA graphs,"
        " which is slower"
    ]


# --- a recording is compared once with the eager step -----------------------------------------------------------------


class Faulty(StandIn):
    """Replays something else than was recorded: `fault` changes what was written, the loss first."""

    def __init__(self, supernet: Supernet, fault: Callable[[list[Tensor]], None]) -> None:
        super().__init__(supernet)
        self.fault = fault

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        loss, replay = super().record(work)
        written = [
            loss,
            *(each.grad for each in self.supernet.parameters() if each.requires_grad and each.grad is not None),
        ]

        def wrong() -> None:
            replay()
            self.fault(written)

        return loss, wrong


def comparing(recorder: Callable[[Supernet], CudaGraphs], precision: str = "float32") -> Training:
    training = Training(recorder, precision=precision)
    recordings = Recordings(training.gradients.recordings.recorder, training.supernet.buffers, True, precision)
    training.gradients.recordings = recordings
    return training


@pytest.mark.slow
def test_a_right_recording_is_compared_once_and_leaves_no_trace() -> None:
    eager, recorded = Training(), comparing(StandIn)
    for number, (half, images) in enumerate(ALTERNATING):
        assert torch.equal(eager.step(half, number, images), recorded.step(half, number, images))
        assert_same_state(eager.state(), recorded.state())
    recorder = recorded.gradients.recordings.recorder
    assert recorder.records == 2
    # the step that records is compared; each later one is replayed
    assert recorder.replays == len(ALTERNATING) - recorder.runs


def scale_all(written: list[Tensor]) -> None:
    torch._foreach_mul_(written[1:], 1.5)


def clear_one(written: list[Tensor]) -> None:
    written[2].zero_()


def spoil_one(written: list[Tensor]) -> None:
    written[-1].fill_(torch.nan)


def change_loss(written: list[Tensor]) -> None:
    written[0].mul_(1.2)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [scale_all, clear_one, spoil_one, change_loss])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_recording_that_differs_is_dropped_with_a_line(
    fault: Callable[[list[Tensor]], None], precision: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The step that found it out, and all others, are the eager ones."""
    eager = Training(precision=precision)
    recorded = comparing(lambda supernet: Faulty(supernet, fault), precision)
    for number, (half, images) in enumerate(ALTERNATING):
        assert torch.equal(eager.step(half, number, images), recorded.step(half, number, images))
        assert_same_state(eager.state(), recorded.state())
    assert recorded.gradients.recordings.recorder is None
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("the recorded step of the weights has other gradients than the eager one (by ")
    assert line.endswith("; going on without CUDA graphs, which is slower")


@pytest.mark.slow
def test_a_step_without_finite_gradients_proves_nothing() -> None:
    """As the first steps in fp16, whose scale is too large: the comparison waits for the next."""
    training = comparing(StandIn)
    batch = torch.randn(2, 3, 33, 33), torch.zeros(2, 33, 33, dtype=torch.int64)
    endless = torch.full_like(batch[0], torch.inf), batch[1]
    for _ in range(EAGER_STEPS):
        training.gradients("weights", batch)
    state = training.state()
    replays = []
    for given in (endless, endless, batch, batch):
        training.load(state)
        training.gradients("weights", given)
        replays.append(training.gradients.recordings.recorder.replays)
    assert (training.gradients.recordings.recorder.records, replays) == (1, [1, 2, 3, 4])
    assert len(training.gradients.recordings._trusted) == 1


@pytest.mark.slow
@pytest.mark.parametrize("compare", [False, True])
def test_an_eager_step_runs_out_of_memory_beside_recordings(
    compare: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the first steps of the architecture may: the recordings are given up, and the step is computed again."""
    eager, recorded = Training(), comparing(StandIn) if compare else Training(StandIn)
    forward_backward, fails = recorded.gradients.forward_backward, [True]

    def short(half: Half, *arguments: Any) -> Tensor:
        if half == "architecture" and recorded.gradients.recordings._graphs and fails.pop():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward_backward(half, *arguments)

    monkeypatch.setattr(recorded.gradients, "forward_backward", short)
    for number, (half, images) in enumerate(ALTERNATING):
        assert torch.equal(eager.step(half, number, images), recorded.step(half, number, images))
        assert_same_state(eager.state(), recorded.state())
    assert recorded.gradients.recordings.recorder is None
    assert fails == []
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        "there is no memory for an eager step beside the recorded ones; going on without CUDA graphs, which is slower"
    )


def test_a_lack_of_memory_without_recordings_is_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(StandIn)

    def short(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training.gradients, "forward_backward", short)
    with pytest.raises(torch.OutOfMemoryError):
        training.step("weights", 0)


def test_what_counts_as_different() -> None:
    expected = [torch.full((4,), 2.0), torch.full((100,), 1.0), torch.full((3,), 1e-6)]
    near = [tensor * 1.001 for tensor in expected]
    assert relative_difference(near, expected) == pytest.approx(0.001, rel=1e-3)
    assert relative_difference([*near[:2], -expected[2]], expected) < 2e-3  # short beside the others: rounding
    assert relative_difference([expected[0], torch.zeros(100), expected[2]], expected) == pytest.approx(1)
    assert relative_difference(near[:2], expected) == float("inf")
    assert relative_difference([torch.full((4,), torch.nan), *near[1:]], expected) == float("inf")
    assert relative_difference(near, [torch.full((4,), torch.inf), *expected[1:]]) is None


def test_stand_ins_without_data_are_not_recorded() -> None:
    training = Training(StandIn)

    class NoData(Tensor):
        pass

    images, masks = torch.randn(2, 3, 33, 33), torch.zeros(2, 33, 33, dtype=torch.int64)
    for _ in range(EAGER_STEPS + 1):
        training.gradients("weights", (images.as_subclass(NoData), masks))
    recorder = training.gradients.recordings.recorder
    assert (recorder.runs, recorder.records) == (0, 0)


@pytest.mark.parametrize("algorithms", ["heuristic", "measured"])
def test_cudnn_chooses_its_algorithms_as_it_is_told_in_steps_alone(
    algorithms: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, seen = Training(), []
    training.supernet.use_kernels(KernelChoice(algorithms=algorithms))
    training.supernet.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.benchmark))
    for before in (False, True):
        monkeypatch.setattr(torch.backends.cudnn, "benchmark", before)
        training.step("weights", 0)
        assert torch.backends.cudnn.benchmark == before
        with pytest.raises(RuntimeError, match="channels"):
            training.gradients("weights", (torch.randn(2, 5, 33, 33), torch.zeros(2, 33, 33, dtype=torch.int64)))
        assert torch.backends.cudnn.benchmark == before
    assert seen == [algorithms == "measured"] * 2


def test_what_is_recorded() -> None:
    supernet = build_supernet(small_space(layers=2), 3)
    on, off = SearchSchedule(), SearchSchedule(cuda_graphs=False)
    assert isinstance(make_recorder(supernet, on, CUDA), CudaGraphs)
    assert make_recorder(supernet, off, CUDA) is None
    assert make_recorder(supernet, on, torch.device("cpu")) is None
    sampled = SearchSpace.parse({**small_space(layers=2).to_dict(), "relaxation": {"gdas": [10.0, 0.1]}})
    assert make_recorder(build_supernet(sampled, 3), on, CUDA) is None


@pytest.mark.slow
def test_a_whole_search_from_recordings(searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights alone, then both halves, validations in between; interrupted and resumed."""
    made: list[StandIn] = []
    monkeypatch.setattr(search, "make_recorder", lambda supernet, *_: made.append(StandIn(supernet)) or made[-1])
    config, step = write_config(tmp_path / "config.yaml", SEARCH), SearchTask.step
    call("search", "--config", config, "--out", tmp_path / "whole")
    assert made[0].records == 2
    assert_same_run(searched, tmp_path / "whole")

    def interrupted(*arguments: Any) -> Any:
        if arguments[-1] == 8:
            signal.raise_signal(signal.SIGINT)
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(SearchTask, "step", interrupted)
        assert run(["search", "--config", str(config), "--out", str(tmp_path / "run")]) == 130
    call("search", "--out", tmp_path / "run", "--resume")
    assert made[1].records == 2
    assert_same_run(searched, tmp_path / "run")


# --- nothing in a step waits for the GPU ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("relaxation", [{}, {"pc_darts": 2}, {"mix_before_cell": True}])
def test_a_step_neither_copies_from_the_cpu_nor_reads_values(
    relaxation: dict[str, Any], checkpoint: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either would end the recording of a CUDA graph; reading a value of a meta tensor raises."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # which meta tensors have not
    space = small_space(layers=2, blocks=2, strides=(4, 8), filters=4)
    space = SearchSpace.parse({**space.to_dict(), **({"relaxation": relaxation} if relaxation else {})})
    supernet = build_supernet(space, 3).to("meta")
    supernet.checkpoint_cells = checkpoint
    gradients = Gradients(supernet, "float32", SegmentationLoss(255, torch.ones(3, device="meta")))
    images, masks = torch.empty(2, 3, 65, 97, device="meta"), torch.empty(2, 65, 97, device="meta", dtype=torch.int64)
    with Watch() as watch:
        for half in HALVES:
            freeze_other_half(gradients, half)
            gradients(half, (images, masks))
    assert watch.mixed == set()
    assert {"convolution_backward", "native_batch_norm", "nll_loss2d_backward", "index"} <= watch.operations
    assert not watch.operations & {"nonzero", "_local_scalar_dense", "masked_select", "unique_dim", "equal"}


# --- CUDA graphs, on a GPU --------------------------------------------------------------------------------------------


def with_streams(supernet: Supernet) -> CudaGraphs:
    return CudaGraphs(CUDA, 3)


def without_streams(supernet: Supernet) -> CudaGraphs:
    return CudaGraphs(CUDA, 0)


def assert_near(one: Any, other: Any, tolerance: float) -> None:
    """Two states: within tolerance of each other, relative to the largest value of each tensor."""
    for first, second in zip(tree_leaves(one), tree_leaves(other), strict=True):
        if isinstance(first, Tensor):
            limit = tolerance * max(1.0, float(first.abs().max()))
            assert float((first.double() - second.double()).abs().max()) <= limit


def assert_same_steps(one: Training, other: Training, halves: Sequence[tuple[Half, int]], tolerance: float) -> None:
    losses = [torch.stack(training.steps(halves)) for training in (one, other)]
    torch.testing.assert_close(losses[0], losses[1], rtol=tolerance, atol=tolerance)
    assert_near(one.state(), other.state(), min(100 * tolerance, 0.1))  # Adam makes much of small gradients


@pytest.mark.gpu
@pytest.mark.parametrize("recorder", [with_streams, without_streams])
@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize(
    ("dtype", "precision", "tolerance"),
    [(torch.float64, "float32", 1e-6), (torch.float32, "float32", 1e-5), (torch.float32, "bf16", 2e-2)],
    ids=["float64", "float32", "bf16"],
)
@pytest.mark.parametrize("halves", [ALTERNATING, WITH_SHORT_BATCHES], ids=["alternating", "short batches"])
def test_cuda_graphs_equal_eager_steps(
    halves: list[tuple[Half, int]],
    dtype: torch.dtype,
    precision: str,
    tolerance: float,
    checkpoint: bool,
    recorder: Callable[[Supernet], CudaGraphs],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A GPU adds up some sums in another order each time, in eager steps too, so not bit for bit."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # whose rounding would make much of that
    eager = Training(device=CUDA, dtype=dtype, precision=precision, layers=5, blocks=2)
    graphed = Training(recorder, CUDA, dtype, precision, checkpoint, layers=5, blocks=2)
    assert_same_steps(eager, graphed, halves, tolerance)


@pytest.mark.gpu
def test_cuda_graphs_with_evaluation_in_between_and_an_earlier_state() -> None:
    eager = Training(device=CUDA, dtype=torch.float64)
    graphed = Training(with_streams, CUDA, torch.float64)
    for first in (0, 20):
        for training in (eager, graphed):
            training.steps(ALTERNATING, first)
        torch.testing.assert_close(eager.evaluate(), graphed.evaluate(), rtol=1e-6, atol=1e-6)
    state = graphed.state()
    losses = torch.stack(graphed.steps(ALTERNATING, 40))
    graphed.load(state)
    torch.testing.assert_close(torch.stack(graphed.steps(ALTERNATING, 40)), losses, rtol=1e-6, atol=1e-6)
    fresh = Training(with_streams, CUDA, torch.float64)
    fresh.load(state)
    torch.testing.assert_close(torch.stack(fresh.steps(ALTERNATING, 40)), losses, rtol=1e-6, atol=1e-6)


@pytest.mark.gpu
def test_replays_neither_take_memory_nor_random_numbers() -> None:
    training = Training(with_streams, CUDA)
    training.steps(ALTERNATING)
    torch.cuda.manual_seed(5)
    expected, held = torch.randn(3, device=CUDA), torch.cuda.memory_allocated()
    torch.cuda.manual_seed(5)
    training.steps(ALTERNATING, 20)
    assert torch.equal(torch.randn(3, device=CUDA), expected)
    assert torch.cuda.memory_allocated() <= held + 4096


@pytest.mark.gpu
def test_an_eager_step_never_waits_for_the_gpu() -> None:
    training = Training(device=CUDA)
    batch = torch.randn(2, 3, 33, 49, device=CUDA), torch.zeros(2, 33, 49, dtype=torch.int64, device=CUDA)
    training.gradients("weights", batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for half in HALVES:
            freeze_other_half(training.gradients, half)
            training.gradients(half, batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_search_with_cuda_graphs_logs_the_losses_of_one_without(precision: str, tmp_path: Path) -> None:
    losses = []
    for name, graphs in (("eager", False), ("graphs", True)):
        changes = {"search": {"cuda_graphs": graphs, "precision": precision, "epochs": 4}, "device": "cuda"}
        call("search", "--config", write_config(tmp_path / "c.yaml", SEARCH, changes), "--out", tmp_path / name)
        losses.append([row["loss"] for kind in ("train", "arch") for row in rows(tmp_path / name, kind)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3 if precision == "float32" else 5e-2)
