"""The weights of a supernet in the network of a genotype, tensor by tensor.

The network then computes what the supernet reduced to the genotype does (`Supernet.choose`), but where the two differ:
`Inherited.differs` names each such place. Equality is that of evaluation mode. BatchNorm's affine factors, which the
supernet lacks, make up for another epsilon, and for the second BatchNorm of a searched up move.

Letters: C channels of a block, G groups of a state, E edges of a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from autoseg.data.wording import first_of
from autoseg.errors import GenotypeError
from autoseg.genotype.contains import check_in_space
from autoseg.genotype.node_inputs import NodeInputs, is_plain
from autoseg.genotype.schema import Genotype
from autoseg.network.network import Network
from autoseg.ops.heads import Aspp, AsppHead, ScoreDecoder, number_of_outputs
from autoseg.registry import DECODERS
from autoseg.space.cell import PREV, PREV_PREV
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import Arrow, Move
from autoseg.supernet.fast.cell import SearchCell, state_order
from autoseg.supernet.fast.mixed_op import BN_EPS, StackedNorm, given
from autoseg.supernet.fast.weights import WEIGHTED, of_kind
from autoseg.supernet.reference import ReferenceCell, Supernet, cell_name
from autoseg.supernet.upsampling import UNPOOLING, MixedUpsample
from autoseg.supernet.variants.gdas import SampledNorm

COUNTERS = "num_batches_tracked"
"""BatchNorm's number of batches: no weight."""


class Inherited(NamedTuple):
    """What a network has from a supernet."""

    taken: tuple[str, ...]
    """Names of the tensors that were filled."""
    anew: tuple[str, ...]
    """Names of the others, but for the auxiliary head."""
    differs: tuple[str, ...]
    """Where the network computes something else than the supernet reduced to the genotype, one phrase each."""

    def __str__(self) -> str:
        said = f"{len(self.taken)} of {len(self.taken) + len(self.anew)} tensors"
        return f"{said}; {'; '.join(self.differs) or 'the network computes what the reduced supernet does'}"


class Moments(NamedTuple):
    """The running mean and variance of a BatchNorm, (C,) each."""

    mean: Tensor
    var: Tensor

    @classmethod
    def of(cls, norm: nn.Module, first: int = 0, count: int | None = None) -> Moments:
        """Those of `count` channels of a supernet's BatchNorm from `first` on; by default of all."""
        assert isinstance(norm, StackedNorm)
        part = slice(first, None if count is None else first + count)
        return cls(norm.running_mean[part], norm.running_var[part])

    @property
    def deviation(self) -> Tensor:
        """What the supernet's BatchNorm divides by."""
        return (self.var + BN_EPS).sqrt()


class Arrival(NamedTuple):
    """How a feature enters a cell of the supernet."""

    convs: Sequence[Tensor]
    """The 1x1 convolutions: one, or the two of a down move, which give half the channels each."""
    upsample: MixedUpsample | None
    moments: Moments


def check_inheritable(genotype: Genotype, space: SearchSpace) -> None:
    """Raises: GenotypeError: the genotype is of another or of a wide space, or not of the supernet's width or stem."""
    if space.macro is not None:
        raise GenotypeError(
            f"genotype '{genotype.name}' cannot take weights of a search of space '{space.name}', which is wide: its"
            " stages begin otherwise than the supernet's; train it from scratch",
            code="supernet-differs",
        )
    check_in_space(genotype, space)
    pairs = (
        ("network.filter_multiplier", genotype.network.filter_multiplier, space.network.filter_multiplier),
        ("stem.channels", list(genotype.stem.channels), list(space.stem.channels)),
        ("stem.strides", list(genotype.stem.strides), list(space.stem.strides)),
    )
    for key, here, there in pairs:
        if here != there:
            raise GenotypeError(
                f"genotype '{genotype.name}' has {key} {here}, the supernet of space '{space.name}' {there}: its"
                f" weights do not fit; --set genotype.{key}={str(there).replace(' ', '')} trains the network that they"
                " fit",
                code="supernet-differs",
            )


@torch.no_grad()
def inherit(supernet: Supernet, network: Network) -> Inherited:
    """Fill a network with the weights and statistics of the supernet, where it has a place for them.

    Raises: GenotypeError: `check_inheritable`.
    """
    check_inheritable(network.genotype, supernet.space)
    return _Inheritance(supernet, network).run()


class _Inheritance:
    """One call of `inherit`."""

    def __init__(self, supernet: Supernet, network: Network) -> None:
        self.supernet, self.network, self.genotype, self.space = supernet, network, network.genotype, supernet.space
        self.here = network.state_dict()
        self.taken: list[str] = []
        self.layers: dict[str, list[int]] = {}
        """What differs -> the layers in which it does, if it is of layers."""

    def run(self) -> Inherited:
        stem = self.supernet.stem
        for number, (conv, norm) in enumerate(zip(stem.convs, stem.norms, strict=True)):
            self._put(f"stem.convs.{number}.weight", conv.get_parameter("weight"))
            self._put_norm(f"stem.norms.{number}", Moments.of(norm))
        for number, inputs in enumerate(self.network.node_inputs):
            self._take_cell(f"cells.{number}", inputs)
        self._take_decoder()
        others = (name for name in self.here if not name.startswith("auxiliary.") and not name.endswith(COUNTERS))
        anew = tuple(name for name in others if name not in self.taken)
        said = ((what, [str(layer) for layer in sorted(set(layers))]) for what, layers in self.layers.items())
        lines = (f"{what} (layer{'s' * (len(of) > 1)} {first_of(of, 20)})" if of else what for what, of in said)
        return Inherited(tuple(self.taken), anew, tuple(lines))

    def _differs(self, what: str, *layers: int) -> None:
        self.layers.setdefault(what, []).extend(layers)

    def _put(self, name: str, value: Tensor) -> bool:
        """Copy a tensor, if the network has one of that name and shape."""
        fits = name in self.here and self.here[name].shape == value.shape
        if fits:
            self.here[name].copy_(value)
            self.taken.append(name)
        return fits

    def _put_all(self, name: str, tensors: Mapping[str, Tensor | Moments]) -> None:
        """Everything of a part of the supernet into the part `name` of the network, which has the same names."""
        for key, value in tensors.items():
            target = f"{name}.{key}"
            if isinstance(value, Moments):
                self._put_norm(target, value)
            else:
                self._put(target, value)

    def _put_norm(self, name: str, moments: Moments, scale: Tensor | float = 1.0, shift: Tensor | float = 0.0) -> None:
        """Make a BatchNorm compute `scale` times what the supernet's does, plus `shift`."""
        norm = self.network.get_submodule(name)
        if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None:
            return
        if self._put(f"{name}.running_mean", moments.mean) and self._put(f"{name}.running_var", moments.var):
            ones = torch.ones_like(moments.mean)
            factor = ones if norm.eps == BN_EPS else (moments.var + norm.eps).sqrt() / moments.deviation
            self._put(f"{name}.weight", factor * scale)
            self._put(f"{name}.bias", ones * shift)

    # --- cells --------------------------------------------------------------------------------------------------------

    def _take_cell(self, name: str, inputs: NodeInputs) -> None:
        node, trellis = inputs.node, self.space.trellis
        cell, arrows = self.supernet.cells[cell_name(node)], trellis.arrows_into(node)
        assert isinstance(cell, SearchCell | ReferenceCell)
        places = [arrows.index(arrow) for arrow in inputs.arrows]
        if self.genotype.is_path and inputs.arrows[0].move is Move.DOWN:
            self._differs("down moves stride in the operations, the supernet's before its cell", node.layer)
        if len(places) > 1 and not self.space.relaxation.mix_before_cell:
            self._differs("arrows are summed before the cell, the supernet's after it", node.layer)
        if self.space.relaxation.pc_darts:
            self._differs("the supernet has partial channels and weighs its edges")
        edges = {edge: number for number, edge in enumerate(self.space.topology.edges)}
        blocks = self.genotype.cell_at(node.layer)
        for block, place, edge in ((b, p, edge) for b, of in enumerate(blocks) for p, edge in enumerate(of)):
            tensors = operation_of(cell, edges[block, edge.state], edge.state, places[0], edge.operation)
            self._put_all(f"{name}.blocks.{block}.{place}", tensors)
        if any(edge.state == PREV_PREV for of in blocks for edge in of):
            if inputs.prev_prev == trellis.prev_prev(node):
                self._put_arrival(f"{name}.preprocess_prev_prev", arrival_of(cell, 0))
            else:
                self._differs("H(l-2) comes from another stride, where the supernet keeps to its own", node.layer)
        for number, (arrow, place) in enumerate(zip(inputs.arrows, places, strict=True)):
            target = f"{name}.preprocess_prev" + (f".{number}" if len(places) > 1 else "")
            arrival = arrival_of(cell, 1 + place)
            if arrival.upsample is None:
                self._put_arrival(target, arrival)
            else:
                self._take_up_move(target, arrow, arrival, inputs)

    def _put_arrival(self, name: str, arrival: Arrival) -> None:
        """Into ReLU, 1x1 convolution and BN, or the two of a factorised reduction."""
        if f"{name}.conv_offset.weight" in self.here:
            parts = zip(("", "_offset"), arrival.convs, strict=True)
        else:
            parts = zip(("",), [torch.cat(list(arrival.convs))], strict=True)
        start = 0
        for suffix, weight in parts:
            end = start + len(weight)
            self._put(f"{name}.conv{suffix}.weight", weight)
            self._put_norm(f"{name}.norm{suffix}", Moments(*(of[start:end] for of in arrival.moments)))
            start = end

    def _take_up_move(self, name: str, arrow: Arrow, arrival: Arrival, inputs: NodeInputs) -> None:
        """An up move where upsamplers or skips compete: 1x1, upsampler u, BN of u, the skip, then a second BN.

        The 1x1 convolutions in a row become one, and so do the two BNs. The joined map is z = A f + B g (`concat`), or
        f + g (`add`), or f, with f the upsampled feature and g the skip feature.
        """
        mixed, outer, layer = arrival.upsample, arrival.moments, arrow.target.layer
        assert mixed is not None
        upsampler, skip = self.genotype.upsampler(arrow), self.genotype.skip(arrow)
        number, channels = self.space.resolution.upsamplers.index(upsampler), mixed.channels
        inner = Moments.of(mixed.norm, number * channels, channels)
        module, weight = mixed.upsamplers[number], matrix(mixed.conv.weight)
        if upsampler == "bilinear":
            self._differs("bilinear up moves resize before the ReLU, the supernet's after it", layer)
            weight = matrix(module.get_parameter("project.weight")) @ weight
        elif upsampler == UNPOOLING and self.supernet.upsampling.sources:
            self._check_encoder(inputs)
        elif upsampler == UNPOOLING:
            self._differs("max_unpool reads the encoder, in the supernet H(l-2)", layer)
        second = {"scale": 1 / outer.deviation, "shift": -outer.mean / outer.deviation}
        if upsampler != "bilinear":
            self._put(f"{name}.narrow.weight", conv_weight(weight))
            self._put_all(f"{name}.doubling.up", tensors_of(module))
        if skip == "concat":
            self._differs("a skip is concatenated before the ReLU, in the supernet after it", layer)
            self._take_concatenation(name, inputs, mixed, None if upsampler != "bilinear" else weight, inner, outer)
            if upsampler != "bilinear":
                self._put_norm(f"{name}.doubling.norm", inner)
            return
        if upsampler != "bilinear":
            self._put_norm(f"{name}.doubling.norm", inner, **second)
        else:
            target = name if is_plain(self.genotype, arrow) else f"{name}.merge"
            self._put(f"{target}.conv.weight", conv_weight(weight))
            self._put_norm(f"{target}.norm", inner, **second)
        if skip == "add":
            conv, moments = self._skip_feature(inputs)
            self._put(f"{name}.side.conv.weight", conv)
            self._put_norm(f"{name}.side.norm", moments, 1 / outer.deviation)

    def _take_concatenation(
        self, name: str, inputs: NodeInputs, mixed: MixedUpsample, before: Tensor | None, inner: Moments, outer: Moments
    ) -> None:
        """The 1x1 convolution of both features and its BN. before: the (C, Cin) convolution taken into it, if any."""
        assert mixed.join is not None
        of_feature, of_skip = torch.split(matrix(mixed.join.weight), mixed.channels, 1)
        conv, moments = self._skip_feature(inputs)
        of_skip = of_skip / moments.deviation
        mean = outer.mean + of_skip @ moments.mean
        if before is not None:
            of_feature = of_feature / inner.deviation
            mean = mean + of_feature @ inner.mean
            of_feature = of_feature @ before
        self._put(f"{name}.merge.conv.weight", conv_weight(torch.cat([of_feature, of_skip @ matrix(conv)], 1)))
        self._put_norm(f"{name}.merge.norm", Moments(mean, outer.var))

    def _skip_feature(self, inputs: NodeInputs) -> tuple[Tensor, Moments]:
        """The 1x1 convolution of the encoder's feature, (C, Cin, 1, 1), and its BN."""
        upsampling, node = self.supernet.upsampling, inputs.encoder_node
        assert node is not None  # a skip needs an encoder
        self._check_encoder(inputs)
        skip = upsampling.skips[list(upsampling.sources).index(node.level)]
        place = upsampling.sources[node.level].index(node)
        return skip.get_parameter(f"convs.{place}.weight"), Moments.of(skip.get_submodule("norm"))

    def _check_encoder(self, inputs: NodeInputs) -> None:
        """Say if several nodes lead down from the level of an up move, whose features the supernet averages."""
        level = inputs.node.level
        if sum(arrow.move is Move.DOWN and arrow.source.level == level for arrow in self.genotype.arrows) > 1:
            what = "an up move reads one encoder node, in the supernet all that are left downwards"
            self._differs(what, inputs.node.layer)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _take_decoder(self) -> None:
        """The head and its doublings of scores, if the network ends as the supernet does."""
        decoder, genotype, trellis, kind = self.network.decoder, self.genotype, self.space.trellis, self.space.head.name
        inner = decoder.head if isinstance(decoder, ScoreDecoder) else None
        ends, nodes = genotype.nodes_at(genotype.layers), trellis.nodes_at(trellis.layers)
        has_aspp = isinstance(inner, Aspp)
        if inner is None or isinstance(inner, AsppHead) or has_aspp != (kind == "aspp") or (has_aspp and len(ends) > 1):
            self._differs(
                f"the decoder, {genotype.decoder.name}, starts anew: the supernet ends in its own head ({kind})"
            )
            return
        heads = [self.supernet.heads[nodes.index(end)] for end in ends]
        if len(heads) > 1:
            self._differs("scores of several strides are summed in another order")
        classifier = "classifier." if has_aspp else ""
        for key in ("weight", "bias"):
            parts: list[Tensor] = [of.get_parameter(f"{classifier}{key}") for of in heads]
            joined = torch.cat(parts, 1) if key == "weight" else torch.stack(parts).sum(0)
            self._put(f"decoder.classifier.{key}", joined)
        if has_aspp:
            self._put_all("decoder.head", tensors_of(heads[0].get_submodule("aspp")))
        if not self.space.decoder_stages:
            return
        names = genotype.decoder.upsamplers if DECODERS[genotype.decoder.name].joins == "none" else ()
        if len(names) < ends[0].level:
            self._differs("scores are resized in one step")
        for number, (level, upsampler) in enumerate(zip(genotype.decoder_levels, names, strict=False)):
            if upsampler == "bilinear":
                self._differs("bilinear doublings of scores have no 1x1 convolution")
            elif upsampler == UNPOOLING:
                self._differs("max_unpool of scores reads the encoder, in the supernet the last layer")
            stage = self.supernet.upsampling.stages[self.space.decoder_stages.index(level)]
            module = stage.get_submodule(f"upsamplers.{self.space.decoder.upsamplers.index(upsampler)}")
            self._put_all(f"decoder.doublings.{number}.up", tensors_of(module))


def with_supernet_head(network: Network, space: SearchSpace) -> Network:
    """Give a network the head that the supernet has at its end, in place of the genotype's decoder.

    The decoder of a genotype is as a rule not searched, and starts anew. What is lost by decoding the searched part can
    then only be measured behind the head that was trained with it. A network of several ends keeps its decoder.
    """
    genotype, decoder = network.genotype, network.decoder
    end, *others = network.end_nodes
    if others:
        return network
    width = space.cell.blocks * genotype.filters(end.level)
    outputs = number_of_outputs(network.num_classes, network.single_output)
    head: nn.Module = nn.Identity()
    if space.head.name == "aspp":
        norm = partial(nn.BatchNorm2d, eps=BN_EPS, momentum=genotype.batch_norm.momentum)
        head = Aspp(width, width, [max(1, space.head.aspp_rate // genotype.stride(end.level))], norm)
        width = head.out_channels
    staged = DECODERS[genotype.decoder.name].joins == "none"
    network.decoder = ScoreDecoder(head, width, outputs, genotype.decoder.upsamplers if staged else ())
    return network.to(next(decoder.parameters()))  # device and precision


def matrix(conv: Tensor) -> Tensor:
    """(Cout, Cin, 1, 1) -> (Cout, Cin)."""
    return conv.flatten(1)


def conv_weight(rows: Tensor) -> Tensor:
    """(Cout, Cin) -> (Cout, Cin, 1, 1)."""
    return rows[..., None, None]


def arrival_of(cell: SearchCell | ReferenceCell, place: int) -> Arrival:
    """How H(l-2) (place 0) or the feature of the arrow number `place` - 1 enters a cell of the supernet."""
    if isinstance(cell, SearchCell):
        module = cell.arrivals[place]
        moments = Moments.of(cell.norm, place * cell.channels, cell.channels)
        upsample = module if isinstance(module, MixedUpsample) else None
        return Arrival(() if upsample else [of for key, of in module.named_parameters()], upsample, moments)
    module = cell.preprocess_prev[place - 1] if place else cell.preprocess_prev_prev
    if isinstance(upsample := getattr(module, "upsample", None), MixedUpsample):
        return Arrival((), upsample, Moments.of(module.get_submodule("norm")))
    norms = [Moments.of(part) for part in module.modules() if isinstance(part, StackedNorm)]
    return Arrival(list(module.parameters()), None, Moments(*map(torch.cat, zip(*norms, strict=True))))


def operation_of(
    cell: SearchCell | ReferenceCell, edge: int, state: int, arrow: int, name: str
) -> dict[str, Tensor | Moments]:
    """The tensors of an operation on an edge for one arrow into the node, by the names that it has in a network."""
    if isinstance(cell, SearchCell):
        return _fused_operation(cell, edge, state, arrow, name)
    of_arrow: Any = cell.edges[min(arrow, len(cell.edges) - 1)]
    mixed = of_arrow[edge]
    return tensors_of(mixed.operations[mixed.names.index(name)])


def tensors_of(module: nn.Module) -> dict[str, Tensor | Moments]:
    """Name -> tensor of a part of the supernet, and of each BatchNorm in it the moments."""
    norms = {key: Moments.of(part) for key, part in module.named_modules() if isinstance(part, StackedNorm)}
    plain = {key: value for key, value in module.state_dict().items() if key.rpartition(".")[0] not in norms}
    return {**plain, **norms}


def _fused_operation(cell: SearchCell, edge: int, state: int, arrow: int, name: str) -> dict[str, Tensor | Moments]:
    """`operation_of` a fused cell. See `CellWeights` and `MixedEdges` for the order of the stacked channels."""
    separable, dilated, atrous = (of_kind(cell.operations, kind) for kind in WEIGHTED)
    weights, reading = cell.weights, cell.readings[max(0, state - 1)]
    channels, edges = weights.channels, weights.edges
    group = (0 if state == PREV_PREV else 1 if state == PREV else 0) + (min(arrow, cell.groups - 1) if state else 0)
    numbers = cell.plan[max(0, state - 1)].groups[group]
    slot, slots = group * len(numbers) + numbers.index(edge), len(cell.plan[max(0, state - 1)].numbers)

    def rows(weight: Tensor, row: int) -> Tensor:
        return weight[row * channels : (row + 1) * channels]

    def moments(norm: nn.Module, names: Sequence[str]) -> Moments:
        place = norm.rows[name, slot] if isinstance(norm, SampledNorm) else names.index(name) * slots + slot
        return Moments.of(norm, place * channels, channels)

    if name in separable:
        number = separable.index(name)
        return {
            "depthwise1.weight": rows(weights.depthwise1[number], edge),
            "pointwise1.weight": conv_weight(given(weights.pointwise1)[number * edges + edge]),
            "norm1": moments(reading.inner_norm, separable),
            "depthwise2.weight": rows(weights.depthwise2[number], edge),
            "pointwise2.weight": conv_weight(given(weights.pointwise2)[number * edges + edge]),
            "norm2": moments(reading.norm, [*separable, *dilated, *atrous]),
        }
    if name in dilated:
        number = dilated.index(name)
        return {
            "depthwise.weight": rows(weights.dilated[number], edge),
            "pointwise.weight": conv_weight(given(weights.pointwise2)[(len(separable) + number) * edges + edge]),
            "norm": moments(reading.norm, [*separable, *dilated, *atrous]),
        }
    if name in atrous:
        place = state_order(cell.topology).index(edge)
        return {
            "conv.weight": rows(weights.atrous[atrous.index(name)], place),
            "norm": moments(reading.norm, [*separable, *dilated, *atrous]),
        }
    return {}
