"""CUDA graphs: all kernels of a step launched at once. A reader of the algorithm may skip this file.

A supernet has many small kernels, which a CPU launches more slowly than a GPU runs them. A CUDA graph launches them all
at once, but it fixes shapes and addresses. So there is one graph for each kind of step and shape of a batch. It reads
the batch from its own tensors and writes loss and gradients to others. Weights and running statistics stay at their
addresses: optimizers and `load_state_dict` change them in place. Evaluation stays eager.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from autoseg.files import one_line

EAGER_STEPS = 3
"""Eager steps of a kind and shape before one is recorded. In them, libraries choose kernels and make workspaces. They
are ordinary steps of the run, so its result stays the same."""
MOST_GRAPHS = 4
"""Recordings at most: both halves of a search, for full batches and for an epoch's last one. Others are eager."""
TOLERANCE = {"float32": 0.01, "bf16": 0.1, "fp16": 0.1}
"""Greatest relative difference of a recorded step's loss and gradients from the eager ones. Sums in another order
differ by far less; a kernel that is missing or runs too early makes a far larger difference."""

T = TypeVar("T")
Inputs = tuple[Tensor, ...]
Key = tuple[Hashable, ...]
"""The kind of a step, the mode, and shape and type of each input."""
Compute = Callable[[Inputs, Sequence[torch.cuda.Stream]], Tensor]
"""From a batch and streams for parallel work to the loss, with the gradients in `.grad`."""

_log = logging.getLogger(__name__)


class CudaGraphs:
    """Records work as CUDA graphs.

    The graphs share their memory: a replay may overwrite the results of graphs recorded after it. Warm-up and recording
    use the same streams and never the default one, because autograd runs the backward pass on the streams of the
    forward pass, and a recording must not use any other stream.
    """

    def __init__(self, device: torch.device, levels: int = 0) -> None:
        """levels: number of streams for parallel work."""
        self._device, self._levels = device, levels

    @cached_property
    def streams(self) -> Sequence[torch.cuda.Stream]:
        """One stream for each level; may be empty."""
        return [torch.cuda.Stream(self._device) for _ in range(self._levels)]  # type: ignore[no-untyped-call]

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    @cached_property
    def _pool(self) -> Any:
        return torch.cuda.graph_pool_handle()

    def run(self, work: Callable[[], T]) -> T:
        """Do work eagerly on the stream on which it will be recorded."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = work()
        current.wait_stream(self._stream)
        return result

    def record(self, work: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        """Record work. Returns its results, still without values, and a function that replays it to fill them."""
        graph = torch.cuda.CUDAGraph()
        # thread_local: a loader's thread may pin memory during the recording
        recording = torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local")
        with torch.cuda.stream(self._stream), recording:
            result = work()
        return result, graph.replay


class _Graph(NamedTuple):
    inputs: Inputs
    loss: Tensor
    gradients: list[Tensor | None]
    replay: Callable[[], None]


class Recordings:
    """Steps that are eager at first and are then replayed from recordings.

    Without a recorder every step is eager. All further steps become eager, with one line in the log, if a step cannot
    be recorded, if its recording gives other results than the eager step, or if memory runs out beside the recordings.
    """

    def __init__(
        self,
        recorder: CudaGraphs | None,
        changed: Callable[[], Iterable[Tensor]],
        compare: bool = True,
        precision: str = "float32",
    ) -> None:
        """changed: returns the tensors that a step changes besides gradients, such as running statistics. compare:
        compare each recording once with the eager step, in the first step with finite gradients."""
        self.recorder = recorder
        self._changed, self._compare = changed, compare
        self._tolerance = TOLERANCE[precision]
        self._seen: Counter[Key] = Counter()
        self._graphs: dict[Key, _Graph] = {}
        self._trusted: set[Key] = set()

    def __call__(
        self, name: str, inputs: Inputs, parameters: Sequence[torch.nn.Parameter], compute: Compute, mode: Hashable = ()
    ) -> Tensor:
        """The loss of a batch; its gradients are in `.grad` of the parameters.

        name: the kind of step. mode: anything besides the inputs' shapes that decides which kernels run.
        """
        recorder = self.recorder
        if recorder is None or type(inputs[0]) is not Tensor:  # a tensor without data cannot be recorded
            return compute(inputs, ())
        key = (name, mode, *((tensor.shape, tensor.dtype) for tensor in inputs))
        if key not in self._graphs:
            self._seen[key] += 1
            if self._seen[key] <= EAGER_STEPS or len(self._graphs) == MOST_GRAPHS:
                streams = recorder.streams
                return self._eager(inputs, compute, lambda: recorder.run(lambda: compute(inputs, streams)).clone())
            if not self._compare and not self._record(key, inputs, parameters, compute):
                return compute(inputs, ())
        if self._compare and key not in self._trusted:
            return self._compared(key, inputs, parameters, compute)
        return _replay(self._graphs[key], inputs, parameters)

    def _eager(self, inputs: Inputs, compute: Compute, work: Callable[[], Tensor]) -> Tensor:
        """An eager step. If it runs out of memory, drop the recordings and try again."""
        try:
            return work()
        except torch.OutOfMemoryError:
            if not self._graphs:
                raise
        self._give_up("there is no memory for an eager step beside the recorded ones")
        return compute(inputs, ())

    def _record(self, key: Key, inputs: Inputs, parameters: Sequence[torch.nn.Parameter], compute: Compute) -> bool:
        """Record a step. Returns whether that worked."""
        recorder = self.recorder
        assert recorder is not None
        own = tuple(tensor.clone() for tensor in inputs)
        try:
            loss, replay = recorder.record(lambda: compute(own, recorder.streams))
        except RuntimeError as error:
            reason = error.__context__ or error  # the first error makes the end of the recording fail too
            self._give_up(f"the step of the {key[0]} cannot be recorded as a CUDA graph ({one_line(reason)[:100]})")
            return False
        self._graphs[key] = _Graph(own, loss, [parameter.grad for parameter in parameters], replay)
        return True

    def _compared(self, key: Key, inputs: Inputs, parameters: Sequence[torch.nn.Parameter], compute: Compute) -> Tensor:
        """An eager step and its comparison with the recording, which is made first if there is none.

        The eager step runs before the recording, so that they do not need memory at the same time.
        """
        devices = [inputs[0].device] if inputs[0].is_cuda else []
        before = torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)
        loss = self._eager(inputs, compute, lambda: compute(inputs, ()))
        if self.recorder is None:
            return loss
        gradients = [None if each.grad is None else each.grad.clone() for each in parameters]
        changed = list(self._changed())
        after = [tensor.clone() for tensor in changed]
        if key in self._graphs or self._record(key, inputs, parameters, compute):
            with torch.random.fork_rng(devices):
                torch.set_rng_state(before[0])
                for device, state in zip(devices, before[1:], strict=True):
                    torch.cuda.set_rng_state(state, device)
                found = [_replay(self._graphs[key], inputs, parameters)]
            found += [each.grad for each in parameters if each.grad is not None]
            self._judge(key, found, [loss, *(gradient for gradient in gradients if gradient is not None)])
        for tensor, value in zip(changed, after, strict=True):
            tensor.copy_(value)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        return loss

    def _judge(self, key: Key, found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
        """Trust a recording whose loss and gradients are close to the eager ones; give up if they are not."""
        apart = relative_difference(found, expected)
        if apart is not None and apart <= self._tolerance:
            self._trusted.add(key)
        elif apart is not None:
            self._give_up(f"the recorded step of the {key[0]} has other gradients than the eager one (by {apart:.0%})")

    def _give_up(self, reason: str) -> None:
        self.recorder = None
        self._graphs.clear()
        _log.warning(f"{reason}; going on without CUDA graphs, which is slower")


def relative_difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float | None:
    """The greatest distance of a pair of tensors relative to the expected norm; None if a norm is not finite.

    Norms count at least a hundredth of their root mean square, because tiny tensors differ by rounding. Waits for the
    device.
    """
    if len(found) != len(expected):
        return float("inf")
    lengths = torch.stack([tensor.norm() for tensor in expected]).double()
    apart = torch.stack([(a - b).norm() for a, b in zip(found, expected, strict=True)]).double()
    if not bool(lengths.isfinite().all()):
        return None
    share = apart / lengths.clamp_min(float(lengths.square().mean().sqrt()) / 100 + 1e-30)
    return float(share.max()) if bool(share.isfinite().all()) else float("inf")


def _replay(graph: _Graph, inputs: Inputs, parameters: Sequence[torch.nn.Parameter]) -> Tensor:
    for own, given in zip(graph.inputs, inputs, strict=True):
        own.copy_(given)
    graph.replay()
    for parameter, gradient in zip(parameters, graph.gradients, strict=True):
        parameter.grad = gradient
    return graph.loss.clone()  # the next replay overwrites the loss
