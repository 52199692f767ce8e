"""The supernet of a wide space, from its formulas: plain loops over tensors by name, and no code of autoseg.

Letters: F filters of the greatest width at a level, B blocks of the cell.
"""

from __future__ import annotations

import torch
from torch.nn.functional import avg_pool2d, conv2d, interpolate, max_pool2d, pad, relu


def bn(x):
    """BatchNorm in training, without factors."""
    mean = x.mean((0, 2, 3), keepdim=True)
    return (x - mean) / ((x - mean).square().mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()


def resized(x, size):
    return x if tuple(x.shape[2:]) == tuple(size) else interpolate(x, tuple(size), mode="bilinear", align_corners=True)


def depthwise(x, weight):
    return conv2d(x, weight, padding=weight.shape[-1] // 2, groups=x.shape[1])


def separable_twice(x, of, before):
    """[before, depthwise, 1x1, BN] twice."""
    for number in "12":
        x = bn(conv2d(depthwise(before(x), of[f"depthwise{number}.weight"]), of[f"pointwise{number}.weight"]))
    return x


def block(kind, x, of):
    """A block at stride 1; `of`: its weights by name."""

    def three(name, x, rate=1):
        return bn(conv2d(x, of[f"{name}.weight"], padding=rate, dilation=rate))

    def one(name, x):
        return bn(conv2d(x, of[f"{name}.weight"]))

    if kind == "conv_3x3":
        return relu(three("conv", x))
    if kind == "inverted_residual":
        wide = relu(bn(depthwise(relu(one("branch.conv1", x)), of["branch.conv2.weight"])))
        narrow = one("branch.conv3", wide)
        return x + narrow if narrow.shape == x.shape else narrow
    if kind in ("residual", "atrous_residual"):
        branch = three("branch.conv2", relu(three("branch.conv1", x)), 2 if kind == "atrous_residual" else 1)
    elif kind == "bottleneck":
        branch = one("branch.conv3", relu(three("branch.conv2", relu(one("branch.conv1", x)))))
    else:
        assert kind == "separable"
        first = conv2d(depthwise(x, of["branch.depthwise1.weight"]), of["branch.pointwise1.weight"])
        second = conv2d(depthwise(relu(bn(first)), of["branch.depthwise2.weight"]), of["branch.pointwise2.weight"])
        branch = bn(second)
    return relu(branch + (one("shortcut.conv", x) if "shortcut.conv.weight" in of else x))


def operation(name, x, of):
    if name == "none":
        return 0 * x
    if name == "skip_connect":
        return x
    if name == "avg_pool_3x3":
        return avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    if name == "max_pool_3x3":
        return max_pool2d(x, 3, 1, 1)
    assert name == "sep_conv_3x3"
    return separable_twice(x, of, relu)


def under(params, prefix):
    """The tensors below a name."""
    return {name.removeprefix(f"{prefix}."): value for name, value in params.items() if name.startswith(f"{prefix}.")}


class WideOracle:
    """`logits(images, params)`; params: the supernet's parameters by name. `chosen`: probabilities in place of softmax.

    facts: layers, strides, multi, filters (F_0), blocks, depths, widths by level (lists, a column an option), cell
    blocks B, operations, template (edges of a cell as (input, operation) pairs by block) or None.
    """

    def __init__(self, facts):
        self.facts = facts

    def probs(self, params, table, level, chosen):
        """Row of a table; a 1 if there is one option."""
        if table in chosen:
            rows = chosen[table]
        elif f"arch.{table}_logits" in params:
            rows = params[f"arch.{table}_logits"].softmax(-1)
        else:
            return torch.ones(1, dtype=torch.float64)
        return rows[level] if len(rows) > 1 else rows[0]

    def beta(self, params, layer, level, step, chosen):
        """The weight of the arrow that leaves (layer, level) by step -1, 0 or 1."""
        if "beta" in chosen:
            return chosen["beta"][layer, level, step + 1]
        logits = params["arch.beta_logits"][layer, level]
        if self.facts["multi"]:
            return logits[step + 1].sigmoid()
        legal = [one for one in (-1, 0, 1) if 0 <= level + one < len(self.facts["strides"])]
        return logits[[one + 1 for one in legal]].softmax(0)[legal.index(step)]

    def preprocess(self, x, of, step, size):
        """P_a: resize or halve, ReLU, 1x1 convolution, BN."""
        if step < 1:
            return bn(conv2d(relu(resized(x, size)), of["conv.weight"]))
        x = relu(x)
        odd = x[:, :, 1::2, 1::2]
        odd = pad(odd, (0, size[1] - odd.shape[3], 0, size[0] - odd.shape[2]))
        even = conv2d(x[:, :, ::2, ::2], of["conv.weight"])
        return bn(torch.cat([even, conv2d(odd, of["conv_offset.weight"])], 1))

    def cell(self, entering, before, params, name, chosen):
        facts, size = self.facts, entering.shape[2:]
        of = under(params, name)
        if facts["template"] is not None:
            of = under(of, "cell")
        weight = of.get("preprocess_prev_prev.conv.weight")  # none in a template that does not read H(l-2)
        states = [None if weight is None else bn(conv2d(relu(resized(before, size)), weight)), entering]
        if facts["template"] is not None:
            for number, edges in enumerate(facts["template"]):
                total = 0
                for place, (state, kind) in enumerate(edges):
                    total = total + operation(kind, states[state], under(of, f"blocks.{number}.{place}"))
                states.append(total)
            return torch.cat(states[2:], 1)
        alpha = chosen["alpha"] if "alpha" in chosen else params["arch.alpha_logits"].softmax(-1)
        edge = 0
        for _ in range(facts["cell_blocks"]):
            total = 0
            for state in list(states):
                for column, kind in enumerate(facts["operations"]):
                    weights = under(of, f"edges.{edge}.operations.{column}")
                    total = total + alpha[edge, column] * operation(kind, state, weights)
                edge += 1
            states.append(total)
        return torch.cat(states[2:], 1)

    def node(self, params, name, arriving, before, level, chosen):
        """arriving: (beta, step, feature) of each arrow."""
        facts, size = self.facts, self.size_at(level)
        of, entering = under(params, f"cells.{name}"), 0
        for number, (beta, step, feature) in enumerate(arriving):
            preprocess = under(of, f"preprocess_prev.{number}.preprocess")
            entering = entering + beta * self.preprocess(feature, preprocess, step, size)
        deltas = self.probs(params, "depth", level, chosen)
        total = 0
        for pi, kind in zip(self.probs(params, "block", level, chosen), facts["blocks"], strict=True):
            if kind == "cell":
                total = total + pi * self.cell(entering, before, params, f"cells.{name}.families.cell", chosen)
                continue
            y, x = 0, relu(entering)
            for number in range(1, max(facts["depths"]) + 1):
                x = block(kind, x, under(of, f"families.{kind}.blocks.{number - 1}"))
                for delta, depth in zip(deltas, facts["depths"], strict=True):
                    if depth == number:
                        y = y + delta * x
            if "cell" in facts["blocks"]:  # zeros up to the channels of the cell
                cell_blocks = facts["cell_blocks"] if facts["template"] is None else len(facts["template"])
                y = torch.cat([y, *[0 * y] * (cell_blocks - 1)], 1)
            total = total + pi * y
        nominal = [max(1, round(facts["filters"] * width * 2**level)) for width in facts["widths"][level]]
        mask = torch.zeros(total.shape[1], dtype=torch.float64)
        for omega, kept in zip(self.probs(params, "width", level, chosen), nominal, strict=True):
            for channel in range(total.shape[1]):
                if channel % max(nominal) < kept:
                    mask = mask + omega * torch.eye(total.shape[1], dtype=torch.float64)[channel]
        return total * mask[:, None, None]

    def size_at(self, level):
        return [-(-side // self.facts["strides"][level]) for side in self.image]

    def logits(self, images, params, chosen=None, ends=None):
        """ends: the levels of the last layer that count; by default all."""
        facts, chosen, self.image = self.facts, chosen or {}, images.shape[2:]
        levels, x, stem = range(len(facts["strides"])), images, []
        for number, stride in enumerate(facts["stem_strides"]):
            weight = params[f"stem.convs.{number}.weight"]
            x = bn(conv2d(relu(x) if number else x, weight, stride=stride, padding=1))
            stem.append(x)
        features = {(-1, 0): stem[-2] if len(stem) > 1 else stem[-1], (0, 0): stem[-1]}
        for layer in range(1, facts["layers"] + 1):
            there = [level for before, level in features if before == layer - 1]
            for level in levels:
                sources = [source for source in sorted(there) if abs(source - level) < 2]
                if not sources:
                    continue
                ago = [one for before, one in features if before == layer - 2]
                nearest = min(ago, key=lambda one: (abs(one - level), one))
                arriving = [
                    (self.beta(params, layer - 1, source, level - source, chosen), level - source,
                     features[layer - 1, source])
                    for source in sources
                ]  # fmt: skip
                name = f"layer{layer}_level{level}"
                features[layer, level] = self.node(params, name, arriving, features[layer - 2, nearest], level, chosen)
        last, total = [level for layer, level in features if layer == facts["layers"]], 0
        for number, level in enumerate(sorted(last)):
            if ends is None or level in ends:
                head = under(params, f"heads.{number}")
                scores = conv2d(relu(features[facts["layers"], level]), head["weight"], head["bias"])
                total = total + resized(scores, self.image)
        return total


def facts_of(space, template=None):
    """The numbers of a space; template: the edges of a fixed cell."""
    macro, strides = space.macro, space.network.strides
    by_profile = [[profile.widths[level] for profile in macro.profiles] for level in range(len(strides))]
    edges = template or ()
    numbers = {"prev_prev": 0, "prev": 1} | {f"b{number}": number + 1 for number in range(1, 17)}
    return {
        "layers": space.network.layers,
        "strides": strides,
        "stem_strides": space.stem.strides,
        "multi": space.network.paths == "multi",
        "filters": space.network.filter_multiplier,
        "blocks": macro.blocks,
        "depths": macro.depths,
        "widths": by_profile if macro.profiles else [macro.widths] * len(strides),
        "cell_blocks": space.cell.blocks,
        "operations": space.cell.operations,
        "template": [[(numbers[edge.input], edge.operation) for edge in of] for of in edges] if template else None,
    }
