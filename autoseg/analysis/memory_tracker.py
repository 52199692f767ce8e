"""Memory that a computation needs, followed on tensors without data (PyTorch's fake tensors) or with."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveStorages(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The bytes of all storages on `device` that are alive, and the most there were, as an allocator sees them.

    Enter it after a `FakeTensorMode`; what was made before does not count, but for what `add` is told. Views share
    their storage and count once. What a kernel allocates inside itself is not seen: the work space of a
    convolution, which is some megabytes in oneDNN, whatever the crop, for the weights of depthwise 5x5.
    `block_bytes`: the allocator hands out multiples of it; CUDA's caching allocator 512.
    `stream`: set it while something is computed on a CUDA stream of its own. What a stream frees, only that stream gets
    again: together they take `peak_bytes_of_streams`, which is more than were alive at once.
    """

    def __init__(self, device: torch.device, block_bytes: int = 1) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device, self.block_bytes = device, block_bytes
        self.live_bytes = self.peak_bytes = 0
        self.stream: Hashable = None
        self._live, self._peaks = Counter[Hashable](), Counter[Hashable]()
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not isinstance(result, torch.device):  # half of all calls only ask for it
            self.add(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result

    @property
    def peak_bytes_of_streams(self) -> int:
        """The sum of the most that were alive at once on each stream."""
        return self._peaks.total()

    def restart(self) -> int:
        """Forget the peaks of before; returns the bytes that are alive."""
        self.peak_bytes, self._peaks = self.live_bytes, self._live.copy()
        return self.live_bytes

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors too that were there before."""
        for tensor in tensors:
            if tensor.device.type == self.device.type:
                self._add(tensor.untyped_storage())

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, stream = storage._cdata, self.stream
        if key in self._known:
            return
        size = -(-storage.nbytes() // self.block_bytes) * self.block_bytes
        self._known.add(key)
        self.live_bytes += size
        self._live[stream] += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        self._peaks[stream] = max(self._peaks[stream], self._live[stream])
        weakref.finalize(storage, self._drop, key, size, stream).atexit = False

    def _drop(self, key: int, size: int, stream: Hashable) -> None:
        self._known.discard(key)
        self.live_bytes -= size
        self._live[stream] -= size


class SavedStorages(torch.autograd.graph.saved_tensors_hooks):
    """The bytes of the tensors that autograd saves for backward within the context, each storage once.

    `own`: tensors that exist anyway and do not count, such as parameters and buffers. What is computed again in
    backward (activation checkpointing) does not count, since it is not kept.
    """

    def __init__(self, own: Iterable[Tensor]) -> None:
        self._own = {tensor.untyped_storage()._cdata for tensor in own}
        self._sizes: dict[int, int] = {}
        super().__init__(self._pack, lambda tensor: tensor)

    @property
    def total_bytes(self) -> int:
        """The sum over all saved storages."""
        return sum(self._sizes.values())

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._own:
            self._sizes[storage._cdata] = storage.nbytes()
        return tensor


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """The sum of the sizes of tensors that share no storage."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
