"""Memory of a computation, followed on PyTorch's fake tensors or on real ones."""

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
    """The bytes of all live storages on `device`, and their peak, as an allocator sees them.

    Enter it after a `FakeTensorMode`. Tensors made before count only through `add`. Views share their storage and count
    once. It does not see what a kernel allocates inside itself, such as a convolution's work space: some megabytes in
    oneDNN for the weights of depthwise 5x5, whatever the crop.
    `block_bytes`: the allocator hands out multiples of it; CUDA's caching allocator 512.
    `stream`: set it while a CUDA stream of its own computes. A stream alone reuses what it frees: together they take
    `peak_bytes_of_streams`, which is more than the peak of live bytes.
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
        """The sum of the peaks of all streams."""
        return self._peaks.total()

    def restart(self) -> int:
        """Forget earlier peaks, and return the live bytes."""
        self.peak_bytes, self._peaks = self.live_bytes, self._live.copy()
        return self.live_bytes

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Count existing tensors as well."""
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
    """The bytes of the tensors that autograd saves for the backward pass within the context, each storage once.

    `own`: what exists anyway, such as parameters. Activations that checkpointing computes again do not count either.
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
    """Total size of tensors that share no storage."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
