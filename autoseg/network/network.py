"""A genotype as a module: stem, one cell a layer along the path, ASPP and decoder."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.errors import GenotypeError
from autoseg.genotype.schema import Genotype
from autoseg.network.cell import Cell
from autoseg.ops.heads import AsppDecoder, AuxiliaryHead, DeepLabV3PlusDecoder, Stem
from autoseg.ops.resize import Size, level_size, resize

HEAD_BN_EPS = 1e-5
"""BatchNorm's epsilon in ASPP and decoder, as Auto-DeepLab's code has it; the cells' is the genotype's."""


class Network(nn.Module):
    """The discrete network of a genotype (Auto-DeepLab, section 4.2). Images of any height and width from 32 up.

    forward: (N, 3, H, W) normalised images -> logits (N, num_classes, H, W).
    """

    def __init__(self, genotype: Genotype, num_classes: int, auxiliary: bool = False) -> None:
        super().__init__()
        self.genotype, self.num_classes = genotype, num_classes
        constants = genotype.batch_norm
        norm = partial(nn.BatchNorm2d, eps=constants.eps, momentum=constants.momentum)
        head_norm = partial(nn.BatchNorm2d, eps=HEAD_BN_EPS, momentum=constants.momentum)

        self.stem = Stem(genotype.stem.channels, genotype.stem.strides, norm)
        widths = list(self.stem.out_channels)  # of H(-1), H(0), H(1), ...
        self.cells = nn.ModuleList()
        for layer, move in enumerate(genotype.moves, start=1):
            cell = Cell(genotype.cell, genotype.filters(genotype.levels[layer - 1]), widths[-1], widths[-2], move, norm)
            self.cells.append(cell)
            widths.append(cell.out_channels)

        self.low_level_layer = _low_level_layer(genotype)
        self.auxiliary_layer = max(1, round(len(self.cells) * 2 / 3))
        decoder, stride = genotype.decoder, genotype.network.strides[-1]
        rates = [max(1, rate // stride) for rate in decoder.aspp_rates]
        self.decoder: AsppDecoder | DeepLabV3PlusDecoder
        if decoder.name == "aspp":
            self.decoder = AsppDecoder(widths[-1], num_classes, decoder.filters, rates, decoder.dropout, head_norm)
        else:
            self.decoder = DeepLabV3PlusDecoder(
                widths[-1], widths[self.low_level_layer + 1], num_classes, decoder.filters,
                decoder.low_level_filters, rates, decoder.dropout, head_norm,
            )  # fmt: skip
        self.auxiliary = AuxiliaryHead(widths[self.auxiliary_layer + 1], num_classes, norm) if auxiliary else None
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes, H, W) of normalised images (N, 3, H, W)."""
        return self.forward_with_auxiliary(images)[0]

    def forward_with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits, and in training those of the auxiliary head where there is one."""
        size = (images.shape[-2], images.shape[-1])
        outputs = list(self.stem(images))  # outputs[1 + layer] is H(layer)
        for cell, stride in zip(self.cells, self.genotype.network.strides, strict=True):
            outputs.append(cell(outputs[-1], outputs[-2], level_size(size, stride)))
        logits = self.decoder(F.relu(outputs[-1]), outputs[1 + self.low_level_layer])
        auxiliary = None
        if self.auxiliary is not None and self.training:
            auxiliary = _enlarge(self.auxiliary(F.relu(outputs[1 + self.auxiliary_layer])), size)
        return _enlarge(logits, size), auxiliary

    def set_drop_path(self, greatest: float, progress: float) -> None:
        """Scheduled drop path: probability `greatest * progress * (cell + 1) / cells`; `progress` goes from 0 to 1."""
        for number, cell in enumerate(self.cells):
            cell.drop_probability = greatest * progress * (number + 1) / len(self.cells)  # type: ignore[assignment]


def build_network(genotype: Genotype, num_classes: int, auxiliary: bool = False) -> Network:
    """The network of a genotype with fresh weights. Raises: GenotypeError: fewer than two classes."""
    if num_classes < 2:
        raise GenotypeError(f"a network needs at least two classes, not {num_classes}")
    return Network(genotype, num_classes, auxiliary)


def _enlarge(logits: Tensor, size: Size) -> Tensor:
    """Logits at the images' size; those in bf16 as float32, where classes that differ by less than 1/256 do not tie."""
    return resize(logits.float() if logits.dtype == torch.bfloat16 else logits, size)


def _low_level_layer(genotype: Genotype) -> int:
    """The layer whose output is the decoder's low-level feature: the last at the low-level stride, else 0, the stem."""
    at_stride = [
        layer
        for layer, stride in enumerate(genotype.network.strides, start=1)
        if stride == genotype.decoder.low_level_stride
    ]
    return at_stride[-1] if at_stride else 0


def _initialise(network: nn.Module) -> None:
    """He initialisation (2015) of every convolution, by fan-out."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
