"""The textbook supernet with upsamplers, skip connections, an hourglass and several paths, straight from the equations.

Slow on purpose, and without code of autoseg's supernet, as `oracle_supernet.py`, whose cells it takes. The upsamplers
are copies of the fast one's, and have oracles of their own.
"""

from __future__ import annotations

import copy
import itertools
import math

import torch
from torch import nn
from torch.nn import functional as F

from helpers.oracle_supernet import Head, TextbookCell, _cell_pairs, enlarge, norm


class OracleAscent(nn.Module):
    """u = sum over the candidates of gamma * BN(Up(1x1(ReLU(H)))), then none, add or concat with S; BN last."""

    def __init__(self, fast, in_channels, channels, skips):
        super().__init__()
        self.skips = skips
        self.conv = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.upsamplers = copy.deepcopy(fast.upsamplers)
        self.norms = nn.ModuleList(norm(channels) for _ in fast.upsamplers)
        self.join = nn.Conv2d(2 * channels, channels, 1, bias=False) if "concat" in skips else None
        self.norm = norm(channels)

    def forward(self, reading, size):
        x, guide, gammas, skip, skip_probs = reading
        if guide.shape[2:] != size:
            guide = enlarge(guide, size)
        low = self.conv(F.relu(x))
        mixed = 0
        for gamma, upsampler, bn in zip(gammas, self.upsamplers, self.norms, strict=True):
            mixed = mixed + gamma * bn(upsampler(low, tuple(size), guide))
        if skip is None:
            return self.norm(mixed)
        total = 0
        for name, prob in zip(self.skips, skip_probs, strict=True):
            joined = {"none": mixed, "add": mixed + skip}.get(name)
            total = total + prob * (self.join(torch.cat([mixed, skip], 1)) if joined is None else joined)
        return self.norm(total)


class OracleSkip(nn.Module):
    """S = BN(sum over the nodes of w(node) * 1x1(ReLU(H(node))))."""

    def __init__(self, widths, channels):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width, channels, 1, bias=False) for width in widths)
        self.norm = norm(channels)

    def forward(self, features, weights):
        return self.norm(sum(w * conv(F.relu(x)) for w, conv, x in zip(weights, self.convs, features, strict=True)))


class Classifier(nn.Module):
    def __init__(self, channels, num_classes):
        super().__init__()
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x):
        return self.classifier(F.relu(x))


class UpsamplingSupernet(nn.Module):
    def __init__(self, space, num_classes, fast):
        super().__init__()
        self.space, network = space, space.network
        self.layers, self.strides, self.down = network.layers, network.strides, network.down_layers
        self.operations, self.blocks, self.skips = space.cell.operations, space.cell.blocks, space.resolution.skips
        self.filters = [network.filter_multiplier * 2**level for level in range(len(self.strides))]
        self.edges = sum(block + 2 for block in range(self.blocks))
        self.arrows = self.every_arrow()  # (layer it leads into, level before, level after)
        for name in ("alpha", "beta", "gamma", "skip"):
            logits = getattr(fast.arch, f"{name}_logits")
            self.register_parameter(name, None if logits is None else nn.Parameter(torch.zeros_like(logits)))
        before = (3, *space.stem.channels)
        self.stem = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride, 1, bias=False)
            for a, b, stride in zip(before, space.stem.channels, space.stem.strides, strict=False)
        )
        self.stem_norms = nn.ModuleList(norm(channels) for channels in space.stem.channels)
        self.before_last = max(0, len(space.stem.channels) - 2)
        self.widths = {(-1, 0): space.stem.channels[self.before_last], (0, 0): space.stem.channels[-1]}
        self.cells = nn.ModuleDict()
        for layer in range(1, self.layers + 1):
            for level in self.levels_at(layer):
                self.cells[f"{layer}_{level}"] = self.build_cell(fast, layer, level)
                self.widths[layer, level] = self.blocks * self.filters[level]
        ends = self.levels_at(self.layers)
        self.heads = nn.ModuleList(
            Classifier(self.widths[self.layers, level], num_classes)
            if space.head.name == "classifier"
            else Head(self.widths[self.layers, level], num_classes, max(1, 96 // self.strides[level]))
            for level in ends
        )
        self.skip_features = nn.ModuleDict()
        if self.skips != ("none",):
            for level in range(len(self.strides) - 1):
                widths = [self.widths[node] for node in self.left_at(level)]
                self.skip_features[str(level)] = OracleSkip(widths, self.filters[level])
        self.plain_decoder = space.decoder.upsamplers == ("bilinear",)
        self.stages = nn.ModuleDict()
        if not self.plain_decoder:
            for level, stage in zip(reversed(range(1, max(ends) + 1)), fast.upsampling.stages, strict=True):
                self.stages[str(level)] = copy.deepcopy(stage.upsamplers)

    # --- the trellis, from all of its paths ---------------------------------------------------------------------------

    def every_arrow(self):
        found = set()
        for steps in itertools.product((-1, 0, 1), repeat=self.layers):
            levels = [0]
            for step in steps:
                levels.append(levels[-1] + step)
            if min(levels) < 0 or max(levels) >= len(self.strides):
                continue
            if self.down is not None and (-1 in steps[: self.down] or 1 in steps[self.down :] or levels[-1] != 0):
                continue
            found |= {(layer, levels[layer - 1], levels[layer]) for layer in range(1, self.layers + 1)}
        return sorted(found)

    def levels_at(self, layer):
        return [0] if layer < 1 else sorted({after for into, _, after in self.arrows if into == layer})

    def sources(self, layer, level):
        return [before for into, before, after in self.arrows if (into, after) == (layer, level)]

    def two_back(self, layer, level):
        if layer == 1:
            return (-1, 0)
        return layer - 2, min(self.levels_at(layer - 2), key=lambda other: (abs(other - level), other))

    def left_at(self, level):
        """The nodes at this level from which an arrow leads down."""
        return [(into - 1, before) for into, before, after in self.arrows if before == level and after == level + 1]

    def build_cell(self, fast, layer, level):
        sources = self.sources(layer, level)
        arrivals = [(self.widths[layer - 1, source], level - source) for source in sources]
        before = self.widths[self.two_back(layer, level)]
        cell = TextbookCell(self.blocks, self.operations, self.filters[level], before, arrivals)
        for number, (width, step) in enumerate(arrivals):
            if step == -1 and self.something_competes():
                theirs = fast.cells[f"layer{layer}_level{level}"].arrivals[1 + number]
                cell.arrivals[number] = OracleAscent(theirs, width, self.filters[level], self.skips)
        return cell

    def something_competes(self):
        return self.space.resolution.upsamplers != ("bilinear",) or self.skips != ("none",)

    # --- probabilities ------------------------------------------------------------------------------------------------

    def beta_of(self, layer, before, after):
        """The beta of the arrow into `layer`: a softmax over the arrows that leave its source, or a sigmoid."""
        logits = self.beta[layer - 1, before]
        if self.space.network.paths == "multi":
            return 1 / (1 + (-logits[after - before + 1]).exp())
        leaving = [end for into, start, end in self.arrows if (into, start) == (layer, before)]
        return logits[after - before + 1].exp() / sum(logits[end - before + 1].exp() for end in leaving)

    def gammas(self, site, candidates):
        """Softmax over the candidates alone."""
        if self.gamma is None:
            return [1.0]
        row = [of.name for of in self.space.gamma_sites].index(site)
        logits = [self.gamma[row, self.space.upsamplers.index(name)] for name in candidates]
        return [logit.exp() / sum(other.exp() for other in logits) for logit in logits]

    def up_gammas(self, layer, before, after):
        place = "up" if self.space.resolution.shared_by == "level" else f"layer{layer}"
        site = f"{place}_{self.strides[before]}_{self.strides[after]}"
        competing = self.space.resolution.upsamplers != ("bilinear",)
        return self.gammas(site, self.space.resolution.upsamplers) if competing else [1.0]

    def reach(self, layer, level):
        """The sum over all ways from the stem to a node of the products of their betas."""
        if layer == 0:
            return 1.0
        return sum(
            self.reach(layer - 1, source) * self.beta_of(layer, source, level) for source in self.sources(layer, level)
        )

    def descent_weights(self, level):
        nodes = self.left_at(level)
        weights = [self.reach(*node) * self.beta_of(node[0] + 1, level, level + 1) for node in nodes]
        return [weight / sum(weights) for weight in weights]

    # --- forward ------------------------------------------------------------------------------------------------------

    def forward(self, images):
        size, features, x = images.shape[2:], {}, images
        for number, (conv, bn) in enumerate(zip(self.stem, self.stem_norms, strict=True)):
            x = bn(conv(F.relu(x) if number else x))
            if number == self.before_last:
                features[-1, 0] = x
        features[0, 0] = x
        skips = {}
        for layer in range(1, self.layers + 1):
            if self.down == layer - 1:
                for level, module in self.skip_features.items():
                    nodes = [features[node] for node in self.left_at(int(level))]
                    skips[int(level)] = module(nodes, self.descent_weights(int(level)))
            for level in self.levels_at(layer):
                features[layer, level] = self.evaluate(layer, level, features, skips, size)
        return self.decode(features, size)

    def evaluate(self, layer, level, features, skips, size):
        second = int(self.space.cell.up_cell and layer > self.down)
        alphas = self.alpha[second * self.edges : (second + 1) * self.edges].softmax(-1)
        sources, prevs = self.sources(layer, level), []
        for source in sources:
            reading = features[layer - 1, source]
            if source == level + 1 and self.something_competes():
                skip_probs = None if self.skip is None else self.skip[level].softmax(0)
                guide = self.guide(layer, level, features)
                reading = (reading, guide, self.up_gammas(layer, source, level), skips.get(level), skip_probs)
            prevs.append(reading)
        return self.cells[f"{layer}_{level}"](
            features[self.two_back(layer, level)],
            prevs,
            alphas,
            [self.beta_of(layer, source, level) for source in sources],
            self.size_of(level, size),
        )

    def size_of(self, level, size):
        return torch.Size(-(-length // self.strides[level]) for length in size)

    def guide(self, layer, level, features):
        """H(l-2); in an hourglass the expected encoder feature, means over groups of its channels."""
        if self.down is None:
            return features[self.two_back(layer, level)].detach()
        total = 0
        for node, weight in zip(self.left_at(level), self.descent_weights(level), strict=True):
            x, channels = features[node], self.filters[level]
            shares = [
                x[:, math.floor(n * x.shape[1] / channels) : math.ceil((n + 1) * x.shape[1] / channels)].mean(1)
                for n in range(channels)
            ]
            total = total + weight * torch.stack(shares, 1)
        return total.detach()

    def decode(self, features, size):
        levels = self.levels_at(self.layers)
        scores = {level: head(features[self.layers, level]) for level, head in zip(levels, self.heads, strict=True)}
        if self.plain_decoder:
            return sum(enlarge(score, size) for score in scores.values())
        total = scores[max(levels)]
        for level, upsamplers in self.stages.items():
            finer = int(level) - 1
            gammas = self.gammas(
                f"decoder_{self.strides[finer + 1]}_{self.strides[finer]}", self.space.decoder.upsamplers
            )
            of_size, guide = tuple(self.size_of(finer, size)), features[self.layers, finer].detach()
            ups = [gamma * up(total, of_size, guide) for gamma, up in zip(gammas, upsamplers, strict=True)]
            total = scores[finer] + sum(ups)
        return enlarge(total, size)


def whole(ours, theirs):
    return [(a, (Ellipsis,), b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)]


def upsampling_pairs(fast, oracle):
    """(parameter of the fast supernet, index into it, parameter of the oracle) for every tensor of the latter."""
    everything = (Ellipsis,)
    for name in ("alpha", "beta", "gamma", "skip"):
        if getattr(oracle, name) is not None:
            yield getattr(fast.arch, f"{name}_logits"), everything, getattr(oracle, name)
    yield from whole(fast.stem.convs, oracle.stem)
    for name, cell in oracle.cells.items():
        layer, level = name.split("_")
        ours = fast.cells[f"layer{layer}_level{level}"]
        yield from _cell_pairs(ours, cell, oracle.operations)
        for a, b in zip(list(ours.arrivals)[1:], cell.arrivals, strict=True):
            if isinstance(b, OracleAscent):
                yield from whole(a.upsamplers, b.upsamplers)
                if b.join is not None:
                    yield from whole(a.join, b.join)
    yield from _head_pairs(fast.heads, oracle.heads)
    if fast.upsampling is not None:
        for a, b in zip(fast.upsampling.skips, oracle.skip_features.values(), strict=True):
            yield from whole(a.convs, b.convs)
        for a, b in zip(fast.upsampling.stages, oracle.stages.values(), strict=True):
            yield from whole(a.upsamplers, b)


def _head_pairs(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        if isinstance(b, Classifier):
            yield from whole(a, b.classifier)
            continue
        for one, other in ((a.aspp.pointwise, b.one), (a.aspp.atrous[0], b.atrous), (a.aspp.pooled, b.pooled)):
            yield one[0].weight, (Ellipsis,), other.conv.weight
        yield from whole(a.classifier, b.classifier)


def upsampling_oracle_of(fast, num_classes):
    """An oracle with the weights and the type of the fast supernet."""
    oracle = UpsamplingSupernet(fast.space, num_classes, fast).to(next(fast.parameters()).dtype)
    with torch.no_grad():
        for parameter, index, other in upsampling_pairs(fast, oracle):
            other.copy_(parameter[index])
    return oracle
