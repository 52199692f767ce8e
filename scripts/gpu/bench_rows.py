"""What `bench` measures: one row a setting, in the order in which they are measured. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, Literal, NamedTuple

Kind = Literal["limits", "search", "operations", "network"]
CLASSES = 19
PAPER_IMAGES = 2975
"""Cityscapes' training set, on which the paper searches."""
SIZES = ((360, 480), (1024, 2048))
"""Height and width of what networks are trained and asked on."""
LAYOUTS = ("channels_last", "channels_first")
POINTWISE = ("convolution", "product")
PRECISIONS = ("float32", "bf16")
FASTEST = "fastest"
"""As a kernel's setting: the layout and pointwise kernels that were fastest in the rows before."""
DRY_SPACE: Mapping[str, Any] = {
    "cell": {"blocks": 1, "operations": ["none", "skip_connect", "max_pool_3x3", "sep_conv_3x3"]},
    "network": {"layers": 2, "filter_multiplier": 4},
    "stem": {"channels": [4, 4, 8]},
}
"""What of a space is smaller in a dry run."""
DRY_GENOTYPE: Mapping[str, Any] = {
    "network": {"filter_multiplier": 2},
    "stem": {"channels": 4},
    "decoder": {"filters": 8, "low_level_filters": 4},
}
"""What of a genotype is smaller in a dry run; the stem's channels are all alike."""
DRY_SIZES = ((33, 33), (33, 65))
DRY_LIMIT = 10.0
"""Seconds of each row of a dry run."""


class SearchSetting(NamedTuple):
    """A search whose steps are measured."""

    space: str = "auto_deeplab"
    precision: str = "float32"
    graphs: bool = True
    streams: bool = True
    crop: tuple[int, int] | None = None
    """Left out, the space's own; as is the batch."""
    kernels: tuple[tuple[str, Any], ...] = ()
    """Settings of `search.kernels`."""

    def overrides(self, dry: bool) -> dict[str, Any]:
        """As settings of a search. The kernels' must name no FASTEST."""
        search: dict[str, Any] = {"precision": self.precision, "cuda_graphs": self.graphs}
        if self.kernels:
            search["kernels"] = dict(self.kernels)
        if self.crop is not None:
            search["crop"] = list(self.crop)
        if dry:
            search |= {"crop": [33, 33], "batch_size": 2}
        return {"search": search, **({"space": dict(DRY_SPACE)} if dry else {})}

    def memory_key(self) -> tuple[str, str, tuple[int, int] | None]:
        """Settings with the same key need the same memory, by the prediction."""
        return self.space, self.precision, self.crop


class Row(NamedTuple):
    """One measurement. `limit` and `estimate`: seconds."""

    name: str
    kind: Kind
    limit: float
    estimate: float
    search: SearchSetting = SearchSetting()
    network: str = ""
    size: tuple[int, int] = (0, 0)


W1 = SearchSetting()


def all_rows(dry: bool = False) -> list[Row]:
    """Every row, most important first; of the variants the cheapest first."""
    rows = _rows(DRY_SIZES if dry else SIZES)
    return [row._replace(limit=DRY_LIMIT) for row in rows] if dry else rows


def _rows(sizes: Sequence[tuple[int, int]]) -> list[Row]:
    fast = W1._replace(space="fast")
    bf16 = W1._replace(precision="bf16")
    rows = [
        Row("limits", "limits", 20, 5),
        Row("W1 eager", "search", 40, 22, W1._replace(graphs=False)),
        Row("W1 graphs", "search", 25, 9, W1._replace(streams=False)),
        Row("W1 graphs, streams", "search", 25, 9, W1),
        Row("W1 bf16, graphs, streams", "search", 25, 12, bf16),
        Row("fast graphs, streams", "search", 25, 10, fast),
        Row("fast bf16, graphs, streams", "search", 25, 10, fast._replace(precision="bf16")),
    ]
    rows += [_variant(kernels, precision, 18, 8) for kernels, precision in product(_plain_kernels(), PRECISIONS)]
    measured = (("layout", FASTEST), ("pointwise", FASTEST), ("algorithms", "measured"))
    rows += [_variant(measured, precision, 30, 12) for precision in PRECISIONS]
    triton = (("layout", FASTEST), ("pointwise", FASTEST), ("depthwise", "triton"))
    rows += [_variant(triton, precision, 30, 14) for precision in PRECISIONS]
    rows += [
        Row(f"{network} {height}x{width}", "network", 25, 9, network=network, size=(height, width))
        for (height, width), network in product(sizes, ("auto_deeplab_s", "searched"))
    ]
    small = W1._replace(crop=(129, 129))
    rows += [
        Row("fast eager", "search", 20, 7, fast._replace(graphs=False)),
        Row("W1 at 129x129 eager", "search", 20, 7, small._replace(graphs=False)),
        Row("W1 at 129x129 graphs, streams", "search", 20, 7, small),
        Row("operations of W1 eager", "operations", 30, 15, W1._replace(graphs=False)),
    ]
    compiled = (("layout", FASTEST), ("pointwise", FASTEST), ("compile", True))
    return rows + [_variant(compiled, precision, 60, 40) for precision in PRECISIONS]


def _plain_kernels() -> list[tuple[tuple[str, Any], ...]]:
    return [(("layout", layout), ("pointwise", pointwise)) for layout, pointwise in product(LAYOUTS, POINTWISE)]


def _variant(kernels: tuple[tuple[str, Any], ...], precision: str, limit: float, estimate: float) -> Row:
    values = ", ".join(f"{key} {value}" for key, value in kernels)
    return Row(
        f"W1 {precision}: {values}", "search", limit, estimate, W1._replace(kernels=kernels, precision=precision)
    )


def predicted_settings() -> dict[str, SearchSetting]:
    """Name -> a setting whose memory is predicted and, in the rows of the same key, measured."""
    return {
        "W1 at 129x129": W1._replace(crop=(129, 129)),
        "W1": W1,
        "fast": W1._replace(space="fast"),
    }


def with_fastest(row: Row, results: Iterable[Mapping[str, Any]]) -> Row:
    """The row with kernels in place of FASTEST: those of the fastest finished row of the same precision.

    Where none was measured, the settings are left out, which means `auto`.
    """
    if FASTEST not in dict(row.search.kernels).values():
        return row
    by_name = {other.name: other for other in all_rows()}
    candidates = [
        (result["iteration_ms"], dict(by_name[result["name"]].search.kernels))
        for result in results
        if result.get("iteration_ms") and by_name[result["name"]].search.precision == row.search.precision
    ]
    plain = [one for one in candidates if set(one[1]) == {"layout", "pointwise"}]
    fastest = min(plain, key=lambda one: one[0])[1] if plain else {}
    kernels = {key: fastest.get(key) if value == FASTEST else value for key, value in row.search.kernels}
    given = tuple((key, value) for key, value in kernels.items() if value is not None)
    return row._replace(search=row.search._replace(kernels=given))


def chosen(rows: Sequence[Row], patterns: Sequence[str]) -> list[Row]:
    """The rows of whose names any pattern is a part; without patterns all."""
    return [row for row in rows if not patterns or any(pattern in row.name for pattern in patterns)]
