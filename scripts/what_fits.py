"""Which crops fit on which card: predicted for the spaces that ship with autoseg, written to a page and as JSON.

    python scripts/what_fits.py                                         all spaces: docs/what_fits.md, half an hour
    python scripts/what_fits.py --spaces tiny --cards 8 --out fits.md --json fits.json

No card is needed. At a side of 32k + 1 pixels every feature has a side of that form, so that the bytes of a step are a
polynomial of second degree in k: three predictions tell it. They are a straight line in the number of images.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from autoseg.engine.config import RetrainConfig, SearchConfig
from autoseg.errors import AutosegError, ConfigError
from autoseg.files import format_bytes, write_text
from autoseg.planning.memory import Memory, Setting, predict_memory
from autoseg.setup.settings import retrain_config, retrain_sources, search_config, search_sources

GPU = torch.device("cuda")
SPACES = ("auto_deeplab", "auto_deeplab_pixeldcl", "fast", "unet", "tiny")
CARDS = (8, 12, 16, 24, 80)
"""In GB of 10^9 bytes, a little less than such cards have."""
PRECISIONS = ("float32", "bf16")
GENOTYPE, CROP, BATCH, SMALL_BATCH = "auto_deeplab_s", 769, 8, 2
CLASSES = 19
CHECKED = (("auto_deeplab", 129, 2), ("auto_deeplab", 321, 2), ("fast", 321, 8))
"""Spaces, crops and batches that `scripts/gpu/run.sh bench` measures."""
STEPS = (10, 20, 40)
"""k of the sides 32k + 1 that are predicted."""
MOST = 128
"""The greatest k that is proposed."""


class Options(NamedTuple):
    """What is predicted, for which cards."""

    spaces: Sequence[str] = SPACES
    genotype: str = GENOTYPE
    cards: Sequence[int] = CARDS
    precisions: Sequence[str] = PRECISIONS
    crop: int = CROP
    steps: Sequence[int] = STEPS
    checked: Sequence[tuple[str, int, int]] = CHECKED


DEFAULTS = Options()


class Need(NamedTuple):
    """Bytes that a card must have, the margin and its context included."""

    eager: float
    graphs: float
    """Where steps are recorded as CUDA graphs, the default."""

    @classmethod
    def of(cls, memory: Memory) -> Need:
        """Of a prediction with CUDA graphs."""
        return cls(
            Memory(**{**vars(memory), "peak_bytes": memory.eager_bytes}).needed_bytes(GPU), memory.needed_bytes(GPU)
        )


class Curve:
    """A polynomial through as many points as are given, of each field of `Need`."""

    def __init__(self, points: Sequence[tuple[int, Need]]) -> None:
        self.points = points

    def __call__(self, at: int) -> Need:
        """The need at another place."""
        shares = [self._share(number, at) for number in range(len(self.points))]
        return Need(
            *(
                sum(share * need[field] for share, (_, need) in zip(shares, self.points, strict=True))
                for field in (0, 1)
            )
        )

    def _share(self, number: int, at: int) -> float:
        """Lagrange's polynomial of one point."""
        share, own = 1.0, self.points[number][0]
        for other, (place, _) in enumerate(self.points):
            if other != number:
                share *= (at - place) / (own - place)
        return share

    def largest(self, field: int, memory_bytes: float, places: Iterable[int]) -> int | None:
        """The last of some growing places whose need fits; None where not even the first does."""
        fitting = [at for at in places if self(at)[field] <= memory_bytes]
        return max(fitting, default=None)


class Fits(NamedTuple):
    """What fits of one setting: by card, the crop's side (or the batch) with CUDA graphs and without; None: nothing."""

    name: str
    what: str
    precision: str
    how: str
    curve: Curve
    by_card: dict[int, tuple[int | None, int | None]]


def side(step: int) -> int:
    return 32 * step + 1


def crops(name: str, what: str, precision: str, how: str, predict: Callable[[int], Memory], options: Options) -> Fits:
    """The largest square crops; predict: the memory at a side."""
    curve = Curve([(step, Need.of(predict(side(step)))) for step in options.steps])
    by_card = {}
    for card in options.cards:
        found = [curve.largest(field, card * 1e9, range(1, MOST + 1)) for field in (1, 0)]
        by_card[card] = tuple(None if step is None else side(step) for step in found)
    return Fits(name, what, precision, how, curve, by_card)


def batches(name: str, what: str, precision: str, predict: Callable[[int], Memory], cards: Sequence[int]) -> Fits:
    """The largest batches; predict: the memory at one."""
    curve = Curve([(batch, Need.of(predict(batch))) for batch in (SMALL_BATCH, BATCH)])
    by_card = {card: tuple(curve.largest(field, card * 1e9, range(2, 513)) for field in (1, 0)) for card in cards}
    return Fits(name, what, precision, "", curve, by_card)


# --- predictions ------------------------------------------------------------------------------------------------------


def of_space(space: str, options: Options) -> list[Fits]:
    """The crops of a space, with a batch of 2 and with its own, in both precisions, without and with checkpointing."""
    config = config_of(space)
    own, found = config.search.batch_size, []
    for batch in sorted({SMALL_BATCH, own}):
        for precision in options.precisions:
            for checkpoint in (False, True):
                say(f"{space}, batch {batch}, {precision}{', checkpointed' if checkpoint else ''}")

                def predict(length: int, batch=batch, precision=precision, checkpoint=checkpoint) -> Memory:  # type: ignore[no-untyped-def]
                    return predict_memory(Setting((length, length), batch, checkpoint, precision).apply(config), GPU)

                what = f"batch {batch}" + (", its own" if batch == own else "")
                found.append(crops(space, what, precision, "checkpointed" if checkpoint else "", predict, options))
    return found


def config_of(space: str) -> SearchConfig:
    return search_config(
        search_sources(space, {"layout": "generated", "num_classes": CLASSES}, None, {"device": "cpu"})
    )


def of_retraining(options: Options) -> list[Fits]:
    """The crops of a retraining at batch 8, and the batches at one crop."""
    genotype, crop = options.genotype, options.crop
    data = {"layout": "generated", "num_classes": CLASSES}
    found = []
    for precision in options.precisions:
        say(f"retraining {genotype}, {precision}")

        def config(length: int, batch: int, precision: str = precision) -> RetrainConfig:
            schedule = {"crop": [length, length], "batch_size": batch, "precision": precision}
            return retrain_config(retrain_sources(genotype, data, None, {"device": "cpu", "retrain": schedule}))

        def at_side(length: int, config: Callable[[int, int], RetrainConfig] = config) -> Memory:
            return predict_memory(config(length, BATCH), GPU)

        def at_batch(batch: int, config: Callable[[int, int], RetrainConfig] = config) -> Memory:
            return predict_memory(config(crop, batch), GPU)

        found.append(crops(genotype, f"crop at batch {BATCH}", precision, "", at_side, options))
        found.append(batches(genotype, f"batch at {crop}x{crop}", precision, at_batch, options.cards))
    return found


def to_be_checked(options: Options) -> list[dict[str, Any]]:
    """Peaks that will be measured on a card, where both kinds of step are taken from the start."""
    found = []
    for space, length, batch in options.checked:
        if space in options.spaces:
            say(f"{space} at {length}x{length}, to be checked")
            config = Setting((length, length), batch, False, "float32").apply(config_of(space))
            in_turn = config.search.model_copy(update={"arch_start_epoch": 0})
            memory = predict_memory(config.model_copy(update={"search": in_turn}), GPU)
            sizes = {"eager": memory.eager_bytes, "graphs": memory.peak_bytes}
            found.append({"space": space, "crop": length, "batch": batch, **sizes})
    return found


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- the page ---------------------------------------------------------------------------------------------------------

PAGE = """# What fits on which card

Everything on this page is predicted, by stepping a copy of the run on tensors without data. Nothing of it has been \
checked on a card yet. To reproduce:

```bash
python scripts/what_fits.py
```

For another space or crop: `autoseg plan --space SPACE --crop H W --batch N --device cuda --memory 16GB`, which \
needs no card either.

A card of 8 GB is taken to have 8 x 10^9 bytes. A tenth is added to what is predicted, for what the allocator \
cannot use, and 600 MB for the GPU's context. The data set is not in it: where it is kept on the card, its size \
comes on top.

## Search

The side of the largest square crop, with {classes} classes. Where there are two numbers, the first is with CUDA \
graphs, which are the default, and the second without them (`--set search.cuda_graphs=false`), which is slower. \
Graphs keep a step's memory to themselves: {graphs}.

Checkpointed: `--set search.checkpoint_cells=true`. Cells are then computed again in the backward pass, which takes \
more time and changes no result.

{search}

## Retraining

{genotype} with {classes} classes, again with CUDA graphs and without (`--set retrain.cuda_graphs=false`).

{retraining}

## To be checked on a card

`scripts/gpu/run.sh bench` measures these three, with weight steps and architecture steps in turn from the start. \
What it measures may differ by a tenth.

{checked}
"""
GRAPHS = "what runs beside them, validation and the first steps of the architecture, needs memory of its own"


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    ruler = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, ruler, *lines))


def cell(found: tuple[int | None, int | None]) -> str:
    with_graphs, without = (
        ("none" if value is None else f"{value}+" if value == side(MOST) else f"{value}") for value in found
    )
    return f"{with_graphs} / {without}" if with_graphs != without else with_graphs


def page(
    found: Sequence[Fits], retraining: Sequence[Fits], checked: Sequence[dict[str, Any]], cards: Sequence[int]
) -> str:
    """The page, from what was predicted."""
    heads = [f"{card} GB" for card in cards]
    search = []
    for name, what in dict.fromkeys((fits.name, fits.what) for fits in found):
        of = [fits for fits in found if (fits.name, fits.what) == (name, what)]
        lines = [
            [fits.precision + (f", {fits.how}" if fits.how else ""), *(cell(fits.by_card[card]) for card in cards)]
            for fits in of
        ]
        search.append(f"### `{name}`, {what}\n\n" + table(["", *heads], lines))
    of_retraining = [
        [f"{fits.what}, {fits.precision}", *(cell(fits.by_card[card]) for card in cards)] for fits in retraining
    ]
    of_checked = [
        [
            f"`{one['space']}`, {one['crop']}x{one['crop']}, batch {one['batch']}, float32",
            format_bytes(one["eager"]), format_bytes(one["graphs"]), "not yet checked on a card",
        ]
        for one in checked
    ]  # fmt: skip
    return PAGE.format(
        classes=CLASSES,
        graphs=GRAPHS,
        genotype=f"`{GENOTYPE}`",
        search="\n\n".join(search),
        retraining=table(["", *heads], of_retraining),
        checked=table(["", "peak, eager", "peak, CUDA graphs", "measured"], of_checked),
    )


def to_dict(fits: Fits) -> dict[str, Any]:
    """Plain data for JSON."""
    return {
        **{key: getattr(fits, key) for key in ("name", "what", "precision", "how")},
        "points": [{"at": at, **need._asdict()} for at, need in fits.curve.points],
        "largest": {str(card): {"graphs": graphs, "eager": eager} for card, (graphs, eager) in fits.by_card.items()},
    }


def main(arguments: Sequence[str] | None = None, rest: Options = DEFAULTS) -> int:
    """`rest`: what the command line does not say. Returns the exit status: 0, or 2 where what was given is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--spaces", nargs="+", default=SPACES, help="by name or path")
    add("--cards", nargs="+", type=int, default=CARDS, metavar="GB")
    add("--genotype", default=GENOTYPE, help="what is retrained")
    add("--out", type=Path, default=Path("docs/what_fits.md"), metavar="FILE", help="the page")
    add("--json", type=Path, metavar="FILE", help="all figures")
    given = parser.parse_args(arguments)
    options = rest._replace(spaces=given.spaces, genotype=given.genotype, cards=given.cards)
    try:
        for path in (given.out, given.json):
            if path is not None and not path.parent.is_dir():
                raise ConfigError(f"{path.parent} is no folder; make it or give another file", code="folder-missing")
        found = [fits for space in options.spaces for fits in of_space(space, options)]
        retraining, checked = of_retraining(options), to_be_checked(options)
        texts = {given.out: page(found, retraining, checked, options.cards)}
        if given.json:
            figures = {
                "search": [*map(to_dict, found)],
                "retraining": [*map(to_dict, retraining)],
                "to_be_checked": checked,
            }
            texts[given.json] = json.dumps(figures, indent=1) + "\n"
        for path, text in texts.items():
            write_text(path, text)
    except AutosegError as reason:
        print(f"error: {reason} [{reason.code}]", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
