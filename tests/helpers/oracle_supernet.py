"""The textbook supernet, written straight from the equations of Auto-DeepLab: one module an edge, operation and arrow.

Slow on purpose. It shares no code with autoseg's supernet; `parameter_pairs` says which tensor is which, so that the
weights can be copied in and the gradients compared.

Letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def norm(channels):
    return nn.BatchNorm2d(channels, affine=False)


def enlarge(x, size):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


class SepConv(nn.Module):
    def __init__(self, channels, kernel_size, arrows):
        super().__init__()
        pad = kernel_size // 2
        self.depthwise1 = nn.Conv2d(channels, channels, kernel_size, padding=pad, groups=channels, bias=False)
        self.pointwise1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.depthwise2 = nn.Conv2d(channels, channels, kernel_size, padding=pad, groups=channels, bias=False)
        self.pointwise2 = nn.Conv2d(channels, channels, 1, bias=False)
        self.norms1 = nn.ModuleList(norm(channels) for _ in range(arrows))
        self.norms2 = nn.ModuleList(norm(channels) for _ in range(arrows))

    def forward(self, x, arrow):
        x = self.norms1[arrow](self.pointwise1(self.depthwise1(F.relu(x))))
        return self.norms2[arrow](self.pointwise2(self.depthwise2(F.relu(x))))


class AtrousConv(nn.Module):
    def __init__(self, channels, kernel_size, arrows):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size - 1, dilation=2, bias=False)
        self.norms = nn.ModuleList(norm(channels) for _ in range(arrows))

    def forward(self, x, arrow):
        return self.norms[arrow](self.conv(F.relu(x)))


class DilConv(nn.Module):
    """DARTS' dilated separable convolution: once, at rate 2."""

    def __init__(self, channels, kernel_size, arrows):
        super().__init__()
        pad = kernel_size - 1
        self.depthwise = nn.Conv2d(
            channels, channels, kernel_size, padding=pad, dilation=2, groups=channels, bias=False
        )
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norms = nn.ModuleList(norm(channels) for _ in range(arrows))

    def forward(self, x, arrow):
        return self.norms[arrow](self.pointwise(self.depthwise(F.relu(x))))


class Pool(nn.Module):
    def __init__(self, pool):
        super().__init__()
        self.pool = pool

    def forward(self, x, arrow):
        return self.pool(x)


class Skip(nn.Module):
    def forward(self, x, arrow):
        return x


class Zero(nn.Module):
    def forward(self, x, arrow):
        return torch.zeros_like(x)


def operation(name, channels, arrows):
    return {
        "none": Zero,
        "skip_connect": Skip,
        "avg_pool_3x3": lambda: Pool(nn.AvgPool2d(3, 1, 1, count_include_pad=False)),
        "max_pool_3x3": lambda: Pool(nn.MaxPool2d(3, 1, 1)),
        "sep_conv_3x3": lambda: SepConv(channels, 3, arrows),
        "sep_conv_5x5": lambda: SepConv(channels, 5, arrows),
        "dil_conv_3x3": lambda: DilConv(channels, 3, arrows),
        "dil_conv_5x5": lambda: DilConv(channels, 5, arrows),
        "atrous_conv_3x3": lambda: AtrousConv(channels, 3, arrows),
        "atrous_conv_5x5": lambda: AtrousConv(channels, 5, arrows),
    }[name]()


class MixedOperation(nn.Module):
    """Eq. 3: sum over k of alpha_k * O_k(x)."""

    def __init__(self, operations, channels, arrows):
        super().__init__()
        self.operations = nn.ModuleList(operation(name, channels, arrows) for name in operations)

    def forward(self, x, alphas, arrow):
        return sum(alpha * op(x, arrow) for alpha, op in zip(alphas, self.operations, strict=True))


class Same(nn.Module):
    """ReLU-1x1-BN of a feature brought to a size; from twice the stride this is the up move."""

    def __init__(self, in_channels, channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.norm = norm(channels)

    def forward(self, x, size):
        return self.norm(self.conv(F.relu(enlarge(x, size) if x.shape[2:] != size else x)))


class Halve(nn.Module):
    """The down move: even pixels through one 1x1 convolution, odd ones through another; ReLU first, BN last."""

    def __init__(self, in_channels, channels):
        super().__init__()
        self.even = nn.Conv2d(in_channels, channels - channels // 2, 1, bias=False)
        self.odd = nn.Conv2d(in_channels, channels // 2, 1, bias=False)
        self.norm = norm(channels)

    def forward(self, x, size):
        x = F.relu(x)
        odd = x[:, :, 1::2, 1::2]
        missing = (0, size[1] - odd.shape[3], 0, size[0] - odd.shape[2])
        return self.norm(torch.cat([self.even(x[:, :, ::2, ::2]), self.odd(F.pad(odd, missing))], 1))


class TextbookCell(nn.Module):
    def __init__(self, blocks, operations, channels, prev_prev_channels, arrivals):
        """arrivals: (channels, change of level) of each arrow."""
        super().__init__()
        arrows = len(arrivals)
        self.blocks = blocks
        self.prev_prev = nn.ModuleList([Same(prev_prev_channels, channels)])
        self.arrivals = nn.ModuleList(
            (Halve if step == 1 and channels > 1 else Same)(width, channels) for width, step in arrivals
        )
        self.edges = nn.ModuleDict(
            {
                f"{block}_{state}": MixedOperation(operations, channels, arrows)
                for block in range(blocks)
                for state in range(block + 2)
            }
        )

    def one_cell(self, prev, prev_prev, alphas, arrow):
        """Eq. 1-4: every block sums its mixed inputs; the output is their concatenation."""
        states, row = [prev_prev, prev], 0
        for block in range(self.blocks):
            total = 0
            for state in range(block + 2):
                total = total + self.edges[f"{block}_{state}"](states[state], alphas[row], arrow)
                row += 1
            states.append(total)
        return torch.cat(states[2:], 1)

    def forward(self, prev_prev, prevs, alphas, betas, size):
        """Eq. 6: sum over the arrows of beta * Cell(H(l-1), H(l-2))."""
        prev_prev = self.prev_prev[0](prev_prev, size)
        return sum(
            beta * self.one_cell(arrival(prev, size), prev_prev, alphas, arrow)
            for arrow, (arrival, prev, beta) in enumerate(zip(self.arrivals, prevs, betas, strict=True))
        )


class Branch(nn.Module):
    def __init__(self, in_channels, channels, kernel_size, rate=1):
        super().__init__()
        pad = rate * (kernel_size // 2)
        self.conv = nn.Conv2d(in_channels, channels, kernel_size, padding=pad, dilation=rate, bias=False)
        self.norm = norm(channels)

    def forward(self, x):
        return F.relu(self.norm(self.conv(x)))


class Head(nn.Module):
    """ASPP with three branches: 1x1, 3x3 at rate 96/s, image pooling."""

    def __init__(self, channels, num_classes, rate):
        super().__init__()
        self.one, self.atrous = Branch(channels, channels, 1), Branch(channels, channels, 3, rate)
        self.pooled = Branch(channels, channels, 1)
        self.classifier = nn.Conv2d(3 * channels, num_classes, 1)

    def forward(self, x):
        x = F.relu(x)
        pooled = self.pooled(x.mean((2, 3), keepdim=True)).expand_as(x)
        return self.classifier(torch.cat([self.one(x), self.atrous(x), pooled], 1))


class TextbookSupernet(nn.Module):
    """Logits of the relaxed network; `space` gives only numbers: layers, strides, blocks, operations, widths."""

    def __init__(self, space, num_classes):
        super().__init__()
        self.layers, self.strides = space.network.layers, space.network.strides
        self.operations, self.blocks = space.cell.operations, space.cell.blocks
        self.steps = [step for step, move in ((-1, "up"), (0, "same"), (1, "down")) if move in space.network.moves]
        filters = [space.network.filter_multiplier * 2**level for level in range(len(self.strides))]
        edges = sum(block + 2 for block in range(self.blocks))
        self.alpha = nn.Parameter(torch.zeros(edges, len(self.operations)))
        self.beta = nn.Parameter(torch.zeros(self.layers, len(self.strides), 3))
        before = (3, *space.stem.channels)
        self.stem_strides = space.stem.strides
        self.stem = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride, 1, bias=False)
            for a, b, stride in zip(before, space.stem.channels, self.stem_strides, strict=False)
        )
        self.stem_norms = nn.ModuleList(norm(channels) for channels in space.stem.channels)
        self.before_last = max(0, len(space.stem.channels) - 2)
        widths = {(-1, 0): space.stem.channels[self.before_last], (0, 0): space.stem.channels[-1]}
        self.exists = [{0}]
        for _ in range(self.layers):
            reached = {level + step for level in self.exists[-1] for step in self.steps}
            self.exists.append({level for level in reached if 0 <= level < len(self.strides)})
        self.cells = nn.ModuleDict()
        for layer in range(1, self.layers + 1):
            for level in sorted(self.exists[layer]):
                arrivals = [(widths[layer - 1, source], level - source) for source in self.sources(layer, level)]
                self.cells[f"{layer}_{level}"] = TextbookCell(
                    self.blocks, self.operations, filters[level], widths[self.two_back(layer, level)], arrivals
                )
                widths[layer, level] = self.blocks * filters[level]
        self.heads = nn.ModuleList(
            Head(widths[self.layers, level], num_classes, max(1, 96 // self.strides[level]))
            for level in sorted(self.exists[-1])
        )

    def sources(self, layer, level):
        """The levels of the previous layer from which an arrow leads here."""
        return [other for other in sorted(self.exists[layer - 1]) if level - other in self.steps]

    def two_back(self, layer, level):
        """The node read as H(l-2): this level, or the nearest that exists; H(-1) is the stem's last but one."""
        if layer == 1:
            return (-1, 0)
        return layer - 2, min(self.exists[layer - 2], key=lambda other: (abs(other - level), other))

    def alphas(self):
        """Eq. 4: softmax over the operations of each edge."""
        return self.alpha.softmax(-1)

    def beta_of(self, layer, source, level):
        """Eq. 7: softmax over the arrows that leave (layer - 1, source)."""
        steps = [step for step in self.steps if 0 <= source + step < len(self.strides)]
        probs = self.beta[layer - 1, source, [step + 1 for step in steps]].softmax(0)
        return probs[steps.index(level - source)]

    def forward(self, images):
        size = images.shape[2:]
        features, x = {}, images
        for number, (conv, bn) in enumerate(zip(self.stem, self.stem_norms, strict=True)):
            x = bn(conv(F.relu(x) if number else x))
            if number == self.before_last:
                features[-1, 0] = x
        features[0, 0] = x
        alphas = self.alphas()
        for layer in range(1, self.layers + 1):
            for level in sorted(self.exists[layer]):
                stride = self.strides[level]
                sources = self.sources(layer, level)
                features[layer, level] = self.cells[f"{layer}_{level}"](
                    features[self.two_back(layer, level)],
                    [features[layer - 1, source] for source in sources],
                    alphas,
                    [self.beta_of(layer, source, level) for source in sources],
                    torch.Size((-(-size[0] // stride), -(-size[1] // stride))),
                )
        last = [features[self.layers, level] for level in sorted(self.exists[-1])]
        return sum(enlarge(head(feature), size) for head, feature in zip(self.heads, last, strict=True))


# --- which tensor is which --------------------------------------------------------------------------------------------


def parameter_pairs(fast, textbook) -> Iterator[tuple[nn.Parameter, tuple, nn.Parameter]]:
    """(parameter of the fast supernet, index into it, parameter of the textbook one) for every tensor of the latter."""
    everything = (Ellipsis,)
    yield fast.arch.alpha_logits, everything, textbook.alpha
    yield fast.arch.beta_logits, everything, textbook.beta
    for a, b in zip(fast.stem.convs, textbook.stem, strict=True):
        yield a.weight, everything, b.weight
    for name, cell in textbook.cells.items():
        layer, level = name.split("_")
        yield from _cell_pairs(fast.cells[f"layer{layer}_level{level}"], cell, textbook.operations)
    for a, b in zip(fast.heads, textbook.heads, strict=True):
        yield a.aspp.pointwise[0].weight, everything, b.one.conv.weight
        yield a.aspp.atrous[0][0].weight, everything, b.atrous.conv.weight
        yield a.aspp.pooled[0].weight, everything, b.pooled.conv.weight
        yield a.classifier.weight, everything, b.classifier.weight
        yield a.classifier.bias, everything, b.classifier.bias


def _cell_pairs(fast, textbook, operations):
    everything = (Ellipsis,)
    for a, b in zip(fast.arrivals, [textbook.prev_prev[0], *textbook.arrivals], strict=True):
        if isinstance(b, Halve):
            yield a.conv.weight, everything, b.even.weight
            yield a.conv_offset.weight, everything, b.odd.weight
        else:
            yield a.conv.weight, everything, b.conv.weight
    separable = [name for name in operations if name.startswith("sep")]
    dilated = [name for name in operations if name.startswith("dil")]
    atrous = [name for name in operations if name.startswith("atrous")]
    weights, edges = fast.weights, len(textbook.edges)
    by_state = sorted(range(edges), key=lambda number: int(list(textbook.edges)[number].split("_")[1]))
    for number, edge in enumerate(textbook.edges.values()):
        rows = slice(number * weights.channels, (number + 1) * weights.channels)
        for name, op in zip(operations, edge.operations, strict=True):
            if name in separable:
                kernel = separable.index(name)
                yield weights.depthwise1[kernel], (rows,), op.depthwise1.weight
                yield weights.depthwise2[kernel], (rows,), op.depthwise2.weight
                yield weights.pointwise1, (kernel * edges + number, ..., None, None), op.pointwise1.weight
                yield weights.pointwise2, (kernel * edges + number, ..., None, None), op.pointwise2.weight
            elif name in dilated:
                kernel = dilated.index(name)
                yield weights.dilated[kernel], (rows,), op.depthwise.weight
                place = (len(separable) + kernel) * edges + number
                yield weights.pointwise2, (place, ..., None, None), op.pointwise.weight
            elif name in atrous:
                place = by_state.index(number) * weights.channels
                yield weights.atrous[atrous.index(name)], (slice(place, place + weights.channels),), op.conv.weight


def textbook_of(fast, num_classes) -> TextbookSupernet:
    """A textbook supernet with the weights and the type of the fast one."""
    textbook = TextbookSupernet(fast.space, num_classes).to(next(fast.parameters()).dtype)
    with torch.no_grad():
        for parameter, index, other in parameter_pairs(fast, textbook):
            other.copy_(parameter[index])
    return textbook


def largest_difference(a: Tensor, b: Tensor) -> float:
    """The greatest absolute difference, relative to the greatest value where that is above one."""
    a, b = a.detach(), b.detach()
    return float((a - b).abs().max() / max(1.0, float(b.abs().max())))
