"""The supernet in its fused form: a few kernels for all edges and arrows of a node, levels side by side on a GPU.

It computes the same as `autoseg.supernet.reference`, whose loop over the layers it runs; `docs/fused_supernet.md` says
how and why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import Node
from autoseg.supernet.fast.cell import SearchCell
from autoseg.supernet.fast.channel_groups import LAYOUTS, LaidOut
from autoseg.supernet.fast.kernels import KernelChoice
from autoseg.supernet.fast.weights import BYPASS, AlphaFactors, WeightLayout
from autoseg.supernet.reference import Supernet, cell_name
from autoseg.supernet.variants.gdas import SampledCell

T = TypeVar("T")


class FusedSupernet(Supernet):
    """The same function as `Supernet`, for spaces whose operations all have a fused form."""

    arrow_index: Tensor
    random_cells = False

    def __init__(self, space: SearchSpace, *settings: Any, **named_settings: Any) -> None:
        """The arguments are those of `Supernet`."""
        super().__init__(space, *settings, **named_settings)
        self._streams: Sequence[torch.cuda.Stream] = ()
        self._crossing: list[object] = []
        # the few gathers that give weights, alpha and beta to all cells
        trellis = self.space.trellis
        cells = {node: self._cell(node) for node in trellis.nodes}
        if self.space.relaxation.gdas is None:
            columns = (BYPASS,) if self.space.relaxation.pc_darts else ()
            plans = [cell.plan for cell in cells.values()]
            self.weight_layout = WeightLayout([cell.weights for cell in cells.values()], plans)
            groups = {cell.groups: cell.plan for cell in cells.values()}
            kinds = {(cell.groups, cell.weights.channels) for cell in cells.values()}
            self.alpha_factors = AlphaFactors(groups, kinds, (*self.space.cell.operations, *columns))
        arrows = [arrow for node in cells for arrow in trellis.arrows_into(node)]
        self.register_buffer("arrow_index", self.arch.index_of(arrows), persistent=False)

    def _cell_class(self) -> Callable[..., nn.Module]:
        return SampledCell if self.space.relaxation.gdas else SearchCell

    def _cell(self, node: Node) -> SearchCell:
        return self.cells[cell_name(node)]  # type: ignore[return-value]

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes, H, W) of normalised images (N, Cin, H, W)."""
        return super().forward(LAYOUTS[self.kernels.layout].arrange(images))

    def _run(self, tasks: Mapping[Any, Callable[[], Any]]) -> dict[Any, Any]:
        results = run_side_by_side(list(tasks.values()), self._streams)
        if self._streams:
            self._crossing += (tasks, results)  # the tasks hold their inputs
        return dict(zip(tasks, results, strict=True))

    @contextmanager
    def on_streams(self, streams: Sequence[torch.cuda.Stream]) -> Iterator[None]:
        """Around one forward pass and its backward pass: each cell of a layer runs on one of the streams.

        streams: as many as the space has levels, or none; then the cells run one after the other.
        """
        for stream in streams:
            stream.wait_stream(torch.cuda.current_stream())
        self._streams = streams
        try:
            yield
            for stream in streams:
                torch.cuda.current_stream().wait_stream(stream)
        finally:
            self._streams, self._crossing = (), []  # tensors that crossed streams had to live until here

    def _cell_inputs(self, dtype: torch.dtype) -> dict[Node, tuple[Any, ...]]:
        """For each node: the weights and factors of its edge groups (or a sample), and its arrows' betas (G, 1, 1)."""
        nodes = self.space.trellis.nodes
        betas = self.arch.beta_probs().view(-1, 1, 1).index_select(0, self.arrow_index)
        of_nodes = dict(zip(nodes, torch.split(betas, [self._cell(node).arrows for node in nodes]), strict=True))
        numbers = {node: self.space.cell_of(node.layer) for node in nodes}
        if self.space.relaxation.gdas is not None:
            samples = self.arch.samples()
            return {node: (samples[numbers[node]], of_nodes[node]) for node in nodes}
        factors = [self.alpha_factors(mixture) for mixture in self.arch.of_cells(self.arch.mixture())]
        kinds = {node: (self._cell(node).groups, self._cell(node).weights.channels) for node in nodes}
        weights = zip(nodes, self.weight_layout(dtype), strict=True)
        return {node: (of, factors[numbers[node]][kinds[node]], of_nodes[node]) for node, of in weights}

    def use_kernels(self, choice: KernelChoice) -> None:
        """From now on compute with these kernels, as far as they apply (with GDAS: layout and algorithms)."""
        super().use_kernels(choice)
        if self.space.relaxation.gdas is None:
            self.weight_layout.taps_together = choice.depthwise == "triton"
        for module in self.modules():
            if isinstance(module, LaidOut):
                module.use_kernels(choice)


def run_side_by_side(tasks: Sequence[Callable[[], T]], streams: Sequence[torch.cuda.Stream]) -> list[T]:
    """The results of some tasks, each on its own stream, or one after the other without streams.

    The streams, at least as many as tasks, start after the current stream's work, which waits for them at the end. A
    stream reuses its memory as soon as no tensor refers to it, even if another stream still reads it. So the caller
    must keep all inputs and results until the streams are joined after the backward pass. Autograd runs that on the
    streams of the forward pass; it protects the gradients that cross streams, but not the saved tensors.
    """
    if not streams:
        return [task() for task in tasks]
    current, results = torch.cuda.current_stream(), []
    for task, stream in zip(tasks, streams[: len(tasks)], strict=True):
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            results.append(task())
    for stream in streams[: len(tasks)]:
        current.wait_stream(stream)
    return results
