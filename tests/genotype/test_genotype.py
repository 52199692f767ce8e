"""Genotypes as files: round trips, the published ones, and that every mistake gets one line with what and where."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.errors import raises_code
from pydantic import ValidationError

from autoseg.config.base import parse
from autoseg.config.training import RetrainSchedule
from autoseg.errors import GenotypeError
from autoseg.files import read_yaml
from autoseg.genotype.schema import GENOTYPE_VERSION, Genotype
from autoseg.space.schema import SearchSpace, genotype_names
from autoseg.space.trellis import Move

PUBLISHED = {"auto_deeplab_s": 20, "auto_deeplab_m": 32, "auto_deeplab_l": 48}


def data(**changes: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "name": "mine",
        "cell": [
            [{"input": "prev_prev", "operation": "skip_connect"}, {"input": "prev", "operation": "sep_conv_3x3"}],
            [{"input": "prev", "operation": "sep_conv_5x5"}, {"input": "b1", "operation": "avg_pool_3x3"}],
        ],
        "network": {"strides": [4, 8, 16, 8], "filter_multiplier": 8},
        **changes,
    }


def with_edge(**edge: Any) -> dict[str, Any]:
    changed = data()
    changed["cell"][0][1] = {**changed["cell"][0][1], **edge}
    return changed


# --- the published networks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", genotype_names())
def test_shipped_genotypes_load_with_valid_schedules(name: str) -> None:
    genotype = Genotype.load(name)
    assert genotype.name == name
    assert parse(RetrainSchedule, genotype.retrain, name).epochs >= 1
    assert genotype.source


@pytest.mark.parametrize(("name", "filters"), PUBLISHED.items())
def test_auto_deeplab_networks_are_the_published_ones(name: str, filters: int) -> None:
    genotype = Genotype.load(name)
    assert genotype.network.strides == (4, 4, 4, 8, 16, 8, 16, 16, 32, 32, 16, 8)
    assert genotype.network.filter_multiplier == filters
    assert genotype.levels == (0, 0, 0, 1, 2, 1, 2, 2, 3, 3, 2, 1)
    assert "".join(move.name[0] for move in genotype.moves) == "SSSDDUDSDSUU"
    cell = [{(edge.input, edge.operation) for edge in block} for block in genotype.cell]
    assert cell == [
        {("prev_prev", "atrous_conv_5x5"), ("prev", "sep_conv_3x3")},
        {("prev_prev", "sep_conv_3x3"), ("prev", "atrous_conv_3x3")},
        {("b2", "sep_conv_3x3"), ("prev_prev", "sep_conv_3x3")},
        {("b3", "sep_conv_5x5"), ("b1", "sep_conv_5x5")},
        {("b2", "sep_conv_5x5"), ("b4", "atrous_conv_5x5")},
    ]
    assert (genotype.stem.channels, genotype.stem.strides) == ((64, 64, 128), (2, 1, 2))
    assert genotype.batch_norm.eps == 1e-3
    assert genotype.batch_norm.momentum == pytest.approx(1 - 0.9997)
    assert [rate // 8 for rate in genotype.decoder.aspp_rates] == [12, 24, 36]
    assert (genotype.decoder.filters, genotype.decoder.low_level_filters) == (256, 48)
    space = SearchSpace.load("auto_deeplab")
    assert (genotype.stem, genotype.batch_norm) == (space.stem, space.network_batch_norm)
    fixed = space.decoder.model_dump(exclude={"upsamplers"})
    assert genotype.decoder.model_dump(exclude={"upsamplers"}) == fixed


# --- as an object -----------------------------------------------------------------------------------------------------


def test_what_follows_from_the_path() -> None:
    genotype = Genotype.parse(data())
    assert genotype.levels == (0, 1, 2, 1)
    assert genotype.moves == (Move.SAME, Move.DOWN, Move.DOWN, Move.UP)
    assert [genotype.filters(level) for level in genotype.levels] == [8, 16, 32, 16]
    assert [[edge.state for edge in block] for block in genotype.cell] == [[0, 1], [1, 2]]


def test_levels_count_from_the_stem() -> None:
    stem = {"channels": [8], "strides": [2]}
    genotype = Genotype.parse(data(stem=stem, network={"strides": [2, 4, 8], "filter_multiplier": 4}))
    assert genotype.levels == (0, 1, 2)
    assert genotype.filters(genotype.levels[2]) == 16


def test_a_genotype_is_frozen_and_shares_no_default() -> None:
    one, other = Genotype.parse(data()), Genotype.parse(data())
    with pytest.raises(ValidationError, match="frozen"):
        one.name = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        one.cell[0][0].operation = "none"  # type: ignore[misc]
    one.source["seen"] = True
    assert other.source == {}
    assert Genotype.parse(data()).source == {}


def test_what_follows_from_several_paths() -> None:
    arrows = [["4->4", "4->8"], ["4->8", "8->4", "8->8"], ["4->4", "8->4"]]
    network = {"arrows": arrows, "filter_multiplier": 8, "upsamplers": ["carafe", "pixel_dcl"]}
    genotype = Genotype.parse(data(network=network))
    assert (genotype.layers, genotype.is_path, genotype.end_level) == (3, False, 0)
    assert [genotype.nodes_at(layer) for layer in (1, 2, 3)] == [[(1, 0), (1, 1)], [(2, 0), (2, 1)], [(3, 0)]]
    assert [(arrow.source, arrow.target) for arrow in genotype.up_arrows] == [((1, 1), (2, 0)), ((2, 1), (3, 0))]
    assert [genotype.upsampler(arrow) for arrow in genotype.up_arrows] == ["carafe", "pixel_dcl"]
    assert [genotype.encoder_node(0, layer) for layer in (1, 2, 3)] == [(0, 0), (1, 0), (1, 0)]
    assert genotype.to_dict()["network"] == network
    assert (
        Genotype.parse(data(network={**network, "arrows": [layer[::-1] for layer in arrows]})).arrows == genotype.arrows
    )


def test_what_follows_from_an_hourglass() -> None:
    network = {"strides": [8, 16, 16, 8, 8, 4], "filter_multiplier": 8, "down_layers": 3}
    up_cell = [[{"input": "prev", "operation": "sep_conv_5x5"}]]
    genotype = Genotype.parse(data(network={**network, "skips": ["concat", "add"]}, up_cell=up_cell))
    assert [genotype.cell_at(layer) == genotype.cell for layer in range(1, 7)] == [True] * 3 + [False] * 3
    assert [genotype.skip(arrow) for arrow in genotype.up_arrows] == ["concat", "add"]
    assert [genotype.upsampler(arrow) for arrow in genotype.up_arrows] == ["bilinear"] * 2
    assert (genotype.encoder_node(1, 4), genotype.encoder_node(0, 6)) == ((1, 1), (0, 0))


@pytest.mark.parametrize(
    ("name", "low_level_stride", "levels"),
    [
        ("unet", 4, (2, 1)),
        ("fcn", 4, (2, 1)),
        ("aspp", 4, (2, 1)),
        ("deeplabv3plus", 4, (2, 1)),
        ("deeplabv3plus", 8, (2,)),
    ],
)
def test_stages_of_the_decoder(name: str, low_level_stride: int, levels: tuple[int, ...]) -> None:
    decoder = {"name": name, "low_level_stride": low_level_stride}
    genotype = Genotype.parse(data(network={"strides": [4, 8, 16], "filter_multiplier": 8}, decoder=decoder))
    assert genotype.decoder_levels == levels


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_files_give_back_the_same_genotype(form: Any, tmp_path: Path) -> None:
    source = {"commit": "12e4567", "paper": "1e5", "note": "größer 😀: yes", "epoch": 3, "loss": 1e-7, "none": None}
    genotype = Genotype.parse(data(name="3e-3", source=source, retrain={"optimizer": {"lr": 3e-5}}))
    path = tmp_path / f"genotype.{form}"
    genotype.save(path, form)
    assert Genotype.load(path) == genotype
    assert Genotype.load(str(path)).source == source
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_json_is_json_and_yaml_is_short(tmp_path: Path) -> None:
    genotype = Genotype.load("auto_deeplab_s")
    genotype.save(tmp_path / "g.json", "json")
    assert Genotype.parse(json.loads((tmp_path / "g.json").read_text())) == genotype
    genotype.save(tmp_path / "g.yaml")
    assert len((tmp_path / "g.yaml").read_text().splitlines()) < 60
    assert "&id" not in (tmp_path / "g.yaml").read_text()


def test_json_without_its_suffix_is_read_too(tmp_path: Path) -> None:
    genotype = Genotype.parse(data(name="smile \N{GRINNING FACE}", source={"loss": 1e-7}))
    genotype.save(tmp_path / "genotype", "json")
    assert Genotype.load(tmp_path / "genotype") == genotype  # JSON is YAML, but for escaped surrogate pairs


def test_json_as_other_programs_write_it(tmp_path: Path) -> None:
    name = "smile \N{GRINNING FACE} \t"
    path = tmp_path / "g.json"
    path.write_text(json.dumps(data(name=name), indent="\t"))  # surrogate pairs and tabs, which YAML refuses
    assert Genotype.load(path).name == name
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(data()).encode())
    assert Genotype.load(path) == Genotype.parse(data())


def test_a_run_directory_stands_for_its_genotype(tmp_path: Path) -> None:
    with raises_code(GenotypeError, "genotype-missing", f"`autoseg decode {tmp_path}`", "genotype.yaml"):
        Genotype.load(tmp_path)
    Genotype.parse(data()).save(tmp_path / "genotype.yaml")
    assert Genotype.load(tmp_path) == Genotype.parse(data())


def test_unknown_names() -> None:
    with raises_code(GenotypeError, "unknown-genotype", "'auto_deplab_s'", "did you mean 'auto_deeplab_s'?"):
        Genotype.load("auto_deplab_s")
    with raises_code(GenotypeError, "unknown-genotype", "'x/y.yaml'", "known: auto_deeplab_l, ", "path of a YAML file"):
        Genotype.load("x/y.yaml")


@pytest.mark.parametrize(
    ("name", "content", "code", "named"),
    [
        ("g.yaml", b"", "file-without-mapping", ""),
        ("g.yaml", b"- a\n", "file-without-mapping", ""),
        ("g.yaml", b"a: [", "file-malformed", "YAML"),
        ("g.yaml", b"\xff\xfe\x80", "file-unreadable", ""),
        ("g.yaml", b"1: 2", "key-not-text", "key 1,"),
        ("g.json", b"{'a': 1}", "file-malformed", "JSON"),
        ("g.json", b"[1]", "file-without-mapping", ""),
        ("g.json", b"[" * 200_000, "file-malformed", "JSON"),
    ],
)
def test_files_that_are_no_genotype(name: str, content: bytes, code: str, named: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with raises_code(GenotypeError, code, tmp_path / name, named):
        Genotype.load(tmp_path / name)


# --- mistakes ---------------------------------------------------------------------------------------------------------

NEWER = GENOTYPE_VERSION + 1
MISTAKES: list[tuple[str, str, dict[str, Any], list[str]]] = [
    ("newer", "version-too-new", data(version=NEWER), [f"version {NEWER}", "update autoseg"]),
    (
        "newer with new keys",
        "version-too-new",
        data(version=NEWER, wormholes=3),
        [f"version {NEWER}", "update autoseg"],
    ),
    ("unknown key", "unknown-setting", data(stemm={}), ["'stemm'", "did you mean 'stem'?"]),
    ("unknown key of an edge", "unknown-setting", with_edge(op="x"), ["'op'", "cell.0.1", "known: input, operation"]),
    ("unknown key of a block's edge", "unknown-setting", with_edge(inputt="x"), ["'inputt'", "cell.0.1", "'input'?"]),
    ("half an edge", "setting-missing", data(cell=[[{"input": "prev"}]]), ["cell.0.0.operation"]),
    ("no F", "setting-missing", data(network={"strides": [4, 8]}), ["network.filter_multiplier"]),
    *[
        (name, "setting-invalid", wrong, named)
        for name, wrong, named in (
            ("version 0", data(version=0), ["version 0"]),
            ("version word", data(version="1"), ["version: ", "integer, not '1'"]),
            ("unknown operation", with_edge(operation="conv_9x9"), ["cell.0.1.operation", "'conv_9x9'"]),
            ("none", with_edge(operation="none"), ["cell.0.1.operation", "'none'"]),
            ("two-line operation", with_edge(operation="a\nb"), ["cell.0.1.operation", "'a b'"]),
            ("operation of a wrong type", with_edge(operation=3), ["cell.0.1.operation: ", "string, not 3"]),
            ("unknown input", with_edge(input="next"), ["cell", "'next'", "prev_prev, prev, b1"]),
            ("input from itself", with_edge(input="b1"), ["block b1 reads 'b1'"]),
            ("input from a later block", with_edge(input="b2"), ["block b1 reads 'b2'"]),
            ("b0", with_edge(input="b0"), ["'b0'"]),
            ("two names of one block", with_edge(input="b01"), ["'b01'"]),
            ("no edge", data(cell=[[]]), ["block b1", "no inputs"]),
            ("no block", data(cell=[]), ["cell", "at least one block"]),
            ("cell of words", data(cell="abc"), ["cell: ", "list, not 'abc'"]),
            ("edge of words", data(cell=[["prev"]]), ["cell.0.0: ", "mapping, not 'prev'"]),
            ("up cell alone", data(up_cell=data()["cell"]), ["up_cell", "network.down_layers"]),
            ("up cell", data(up_cell=[[{"input": "b1", "operation": "skip_connect"}]]), ["block b1 reads 'b1'"]),
            (
                "stages",
                data(decoder={"name": "unet", "upsamplers": ["carafe"] * 2}),
                ["decoder.upsamplers", "2", "decoder 'unet'", "1 times"],
            ),
            ("decoder", data(decoder={"name": "unett"}), ["decoder.name", "decoder 'unett'", "'unet'"]),
            (
                "decoder's kernel",
                data(decoder={"upsamplers": ["pixel_dcl_4x4"]}),
                ["decoder.upsamplers", "even kernel"],
            ),
            ("no name", data(name=""), ["name: ", "1 character"]),
            ("list as source", data(source=[1]), ["source: ", "mapping, not [1]"]),
        )
    ],
    *[
        (f"network {network}", "setting-invalid", data(network={"filter_multiplier": 8, **network}), named)
        for network, named in (
            ({"strides": [4, 16]}, ["stride 4 to 16", "layer 2"]),
            ({"strides": [16, 8]}, ["stride 4 to 16", "layer 1"]),
            ({"strides": [2, 4]}, ["stride 2 at layer 1", "4 to 32"]),
            ({"strides": [8, 16, 32, 64]}, ["stride 64 at layer 4"]),
            ({"strides": [4]}, ["network: ", "at least two layers"]),
            ({"strides": [4, 8.5]}, ["network.strides.1", "8.5"]),
            ({}, ["network: ", "'strides'", "'arrows'"]),
            ({"strides": [4, 8], "arrows": [["4->4"], ["4->4"]]}, ["network: ", "'strides'", "'arrows'"]),
            ({"arrows": [["4->4"]]}, ["at least two layers"]),
            ({"arrows": [["4->4"], ["8->8"]]}, ["layer 1 at stride 4", "no way out"]),
            ({"arrows": [["4->4", "4->8"], ["4->4"]]}, ["layer 1 at stride 8", "no way out"]),
            ({"arrows": [["4->4"], ["4->4", "8->8"]]}, ["layer 1 at stride 8", "no way in"]),
            ({"arrows": [["8->8"], ["8->8"]]}, ["layer 0 at stride 4", "no way out"]),
            ({"arrows": [["4->4"], ["4->4", "4->4"]]}, ["layer 2", "twice"]),
            ({"arrows": [["4->4"], ["4->16"]]}, ["'4->16'", "layer 2", "such as '4->8'"]),
            ({"arrows": [["4->4"], ["four"]]}, ["'four'", "layer 2"]),
            ({"strides": [8, 4], "upsamplers": ["pixel_dcl_4x4"]}, ["network.upsamplers", "'pixel_dcl_4x4'", "even"]),
            ({"strides": [8, 4], "upsamplers": ["pixel_dlc"]}, ["'pixel_dlc'", "'pixel_dcl'?"]),
            ({"strides": [8, 4], "upsamplers": ["carafe"] * 2}, ["network.upsamplers names 2", "1 up moves"]),
            ({"strides": [8, 4], "skips": ["add"]}, ["network.skips", "network.down_layers"]),
            ({"strides": [8, 4], "skips": ["join"]}, ["network.skips.0", "not 'join'"]),
            ({"strides": [8, 4, 8], "down_layers": 1}, ["network.down_layers", "first 1 layers", "none down after"]),
            ({"strides": [8, 4], "down_layers": 2}, ["network.down_layers", "up in the first 2 layers"]),
            ({"strides": [8, 4], "down_layers": 1, "skips": ["add"] * 2}, ["network.skips names 2"]),
        )
    ],
]


@pytest.mark.parametrize(
    ("code", "wrong", "named"), [case[1:] for case in MISTAKES], ids=[case[0] for case in MISTAKES]
)
def test_a_mistake_gets_one_line_with_what_and_where(
    code: str, wrong: dict[str, Any], named: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "genotype.json"
    path.write_text(json.dumps(wrong))
    with raises_code(GenotypeError, code, *named, path):
        Genotype.load(path)


def test_the_helper_that_makes_a_right_genotype_is_right(tmp_path: Path) -> None:
    Genotype.parse(data()).save(tmp_path / "g.yaml")
    assert read_yaml(tmp_path / "g.yaml", GenotypeError)["network"] == data()["network"]
