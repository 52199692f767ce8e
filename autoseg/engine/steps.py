"""The loss of a batch and its gradients: computed eagerly, or replayed from a CUDA graph.

Launching the many small kernels of a supernet takes the CPU longer than running them takes a GPU. A CUDA graph launches
them all at once, but fixes shapes and addresses: so there is one for each half of the supernet and shape of a batch,
which reads its batch from tensors of its own and leaves loss and gradients in others. What it reads and writes besides,
weights and running statistics, stays where it is: optimisers and `load_state_dict` change it in place, and evaluation
goes on eagerly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from autoseg.config import SearchSchedule
from autoseg.errors import ConfigError, RunError
from autoseg.files import one_line
from autoseg.objectives.losses import SegmentationLoss
from autoseg.supernet import Supernet
from autoseg.supernet.upsampler_cost import relative_costs

EAGER_STEPS = 3
"""Batches of a half and shape that are computed eagerly before one is recorded, in which libraries choose their
kernels and make their workspaces. They are steps of the search like any other, so this leaves no trace."""
MOST_GRAPHS = 4
"""Both halves with whole batches and with the short one of an epoch's end; other shapes stay eager."""

Half = Literal["weights", "architecture"]
T = TypeVar("T")


class Recorder(Protocol):
    """Records work whose tensors stay where they are, to repeat it."""

    @property
    def streams(self) -> Sequence[torch.cuda.Stream]:
        """For the levels of the supernet; there may be none."""
        ...

    def run(self, work: Callable[[], T]) -> T:
        """Do some work as it will be recorded."""
        ...

    def record(self, work: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        """The results of some work, without values, and what gives them their values each time it is called."""
        ...


class CudaGraphs:
    """Records CUDA graphs. They share their memory: a replay may overwrite the results of graphs recorded after it.

    Warm-up and recording use the same streams, none of them the default one: autograd goes back on the streams of the
    way forward, and a recording must not meet any other.
    """

    def __init__(self, device: torch.device, levels: int) -> None:
        self._device, self._levels = device, levels

    @cached_property
    def streams(self) -> Sequence[torch.cuda.Stream]:
        """One a level."""
        return [torch.cuda.Stream(self._device) for _ in range(self._levels)]  # type: ignore[no-untyped-call]

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    @cached_property
    def _pool(self) -> Any:
        return torch.cuda.graph_pool_handle()

    def run(self, work: Callable[[], T]) -> T:
        """See `Recorder`."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = work()
        current.wait_stream(self._stream)
        return result

    def record(self, work: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        """See `Recorder`."""
        graph = torch.cuda.CUDAGraph()
        # thread_local: a loader's thread that pins memory may go on meanwhile
        recording = torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local")
        with torch.cuda.stream(self._stream), recording:
            result = work()
        return result, graph.replay


def make_recorder(supernet: Supernet, schedule: SearchSchedule, device: torch.device) -> Recorder | None:
    """What records the steps of a search; None where they stay eager.

    With operations that are sampled anew for each step (GDAS), no two steps are the same work.
    """
    if device.type != "cuda" or not schedule.cuda_graphs or supernet.space.relaxation.gdas is not None:
        return None
    return CudaGraphs(device, len(supernet.space.network.strides))


class _Graph(NamedTuple):
    """A recorded step."""

    inputs: tuple[Tensor, Tensor]
    loss: Tensor
    gradients: list[Tensor | None]
    replay: Callable[[], None]


class Gradients:
    """The loss of a batch, and its gradients in `.grad` of the parameters of one half of the supernet."""

    def __init__(
        self,
        supernet: Supernet,
        precision: str,
        loss: SegmentationLoss,
        recorder: Recorder | None = None,
        upsampler_cost: float = 0.0,
    ) -> None:
        """upsampler_cost: weight of what gamma's choices cost in the loss of the architecture.

        Raises: ConfigError: such a weight in a space without gamma.
        """
        self.supernet, self.precision, self.loss, self.recorder = supernet, precision, loss, recorder
        self.gamma_costs = _gamma_costs(supernet, upsampler_cost)
        self.parameters: dict[Half, list[torch.nn.Parameter]] = {
            "weights": supernet.weights(),
            "architecture": list(supernet.arch.parameters()),
        }
        self._seen: Counter[object] = Counter()
        self._graphs: dict[object, _Graph] = {}

    def __call__(self, half: Half, images: Tensor, masks: Tensor) -> Tensor:
        """The loss of images (N, 3, H, W) and masks (N, H, W); `.grad` of the other half means nothing afterwards.

        Raises: RunError: the step cannot be recorded.
        """
        recorder = self.recorder
        if recorder is None or type(images) is not Tensor:  # a stand-in without data has nothing to record
            return self._compute(half, images, masks)
        key = (half, self.supernet.training, images.shape, images.dtype, masks.shape, masks.dtype)
        if key not in self._graphs:
            self._seen[key] += 1
            if self._seen[key] <= EAGER_STEPS or len(self._graphs) == MOST_GRAPHS:
                return recorder.run(lambda: self._compute(half, images, masks, recorder.streams)).clone()
            self._graphs[key] = self._record(recorder, half, images, masks)
        graph = self._graphs[key]
        for static, given in zip(graph.inputs, (images, masks), strict=True):
            static.copy_(given)
        graph.replay()
        for parameter, gradient in zip(self.parameters[half], graph.gradients, strict=True):
            parameter.grad = gradient
        return graph.loss.clone()  # the next replay overwrites the loss

    def _compute(self, half: Half, images: Tensor, masks: Tensor, streams: Sequence[torch.cuda.Stream] = ()) -> Tensor:
        if half == "weights":
            self.supernet.train_weights()
        else:
            self.supernet.train_architecture()
        for parameter in self.parameters[half]:
            parameter.grad = None
        with self.supernet.on_streams(streams):
            # each weight is read once a step: a cache of their casts would save nothing, and would cross streams
            with torch.autocast(
                images.device.type, torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False
            ):
                logits = self.supernet(images)
            loss = self.loss(logits, masks)
            gamma_probs = self.supernet.arch.gamma_probs()
            if half == "architecture" and self.gamma_costs is not None and gamma_probs is not None:
                loss = loss + (self.gamma_costs * gamma_probs).sum()
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _record(self, recorder: Recorder, half: Half, images: Tensor, masks: Tensor) -> _Graph:
        inputs = (images.clone(), masks.clone())
        try:
            loss, replay = recorder.record(lambda: self._compute(half, *inputs, recorder.streams))
        except RuntimeError as error:
            reason = error.__context__ or error  # what went wrong first makes ending the recording fail too
            raise RunError(
                f"the step of the {half} cannot be recorded as a CUDA graph ({one_line(reason)[:100]});"
                " set cuda_graphs: false in the run's config.yaml, under search, and go on with --resume"
            ) from error
        return _Graph(inputs, loss, [parameter.grad for parameter in self.parameters[half]], replay)


def _gamma_costs(supernet: Supernet, weight: float) -> Tensor | None:
    """[site, upsampler]: what gamma's probabilities are multiplied with in the loss; None where that is nothing."""
    if not weight:
        return None
    logits, space = supernet.arch.gamma_logits, supernet.space
    if logits is None:
        raise ConfigError(
            f"search.upsampler_cost is {weight:g}, but in space '{space.name}' no upsamplers compete; leave it out, or"
            " name several in resolution.upsamplers or decoder.upsamplers"
        )
    return relative_costs(space, supernet.num_classes).to(logits) * (weight / len(logits))
