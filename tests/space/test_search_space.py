"""Search spaces: what ships, what follows from them, and that every mistake gets one line which says what and where."""

import pickle
from pathlib import Path
from typing import Any

import pytest
from helpers.errors import raises_code
from pydantic import ValidationError

from autoseg.config.base import parse
from autoseg.config.training import RetrainSchedule, SearchSchedule
from autoseg.errors import SearchSpaceError
from autoseg.files import read_yaml, to_yaml
from autoseg.space.schema import SPACE_VERSION, SearchSpace, genotype_names, load_space, space_names

FILES = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))


# --- what ships -------------------------------------------------------------------------------------------------------


def test_shipped_spaces_are_found_by_name() -> None:
    assert space_names() == [path.stem for path in FILES]
    assert "auto_deeplab" in space_names()
    assert {"auto_deeplab_s", "auto_deeplab_m", "auto_deeplab_l"} <= set(genotype_names())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_space_loads_by_name_and_path_with_valid_schedules(path: Path) -> None:
    space, schedules = load_space(path)
    assert space.name == path.stem
    assert space.description
    assert SearchSpace.load(path.stem) == space
    assert set(schedules) <= {"search", "retrain"}
    search = parse(SearchSchedule, schedules.get("search", {}), str(path))
    retrain = parse(RetrainSchedule, schedules.get("retrain", {}), str(path))
    assert search.epochs > search.arch_start_epoch
    assert retrain.epochs >= 1
    assert space.trellis.count_paths() >= 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_space_survives_yaml(path: Path, tmp_path: Path) -> None:
    space = SearchSpace.load(path)
    (tmp_path / "again.yaml").write_text(to_yaml(space.to_dict()))
    assert SearchSpace.load(tmp_path / "again.yaml") == space


def test_auto_deeplab_is_the_paper_to_the_letter() -> None:
    space, schedules = load_space("auto_deeplab")
    assert space.cell.blocks == 5
    assert len(space.cell.operations) == 8
    assert set(space.cell.operations) == {
        "none",
        "skip_connect",
        "avg_pool_3x3",
        "max_pool_3x3",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "atrous_conv_3x3",
        "atrous_conv_5x5",
    }
    assert space.network.layers == 12
    assert space.network.strides == (4, 8, 16, 32)
    assert space.network.filter_multiplier == 8
    assert space.network.moves == ("up", "same", "down")
    assert space.stem.channels == (64, 64, 128)
    assert space.stem.strides == (2, 1, 2)
    assert space.stem.stride == 4
    assert space.head.aspp_rate == 96
    assert space.decoder.name == "deeplabv3plus"
    assert space.decoder.filters == 256
    assert [rate // 8 for rate in space.decoder.aspp_rates] == [12, 24, 36]
    assert space.decoder.low_level_filters == 48
    assert space.decoder.dropout == 0.1
    assert space.network_batch_norm.eps == 1e-3
    assert space.network_batch_norm.momentum == pytest.approx(1 - 0.9997)
    assert space.decoding.path_prior == "paper"
    assert len(space.topology.edges) == 20
    assert len(space.trellis.arrows) == 105
    assert space.trellis.count_paths() == 75_025

    search = parse(SearchSchedule, schedules["search"])
    assert (search.epochs, search.arch_start_epoch, search.batch_size) == (40, 20, 2)
    assert search.crop == (321, 321)
    assert search.train_a_fraction == 0.5
    assert search.arch_init_std == 1e-3
    weights, arch = search.optimizer, search.arch_optimizer
    assert (weights.name, weights.lr, weights.momentum, weights.weight_decay) == ("sgd", 0.025, 0.9, 3e-4)
    assert (search.schedule.name, search.schedule.min_lr, search.schedule.warmup_epochs) == ("cosine", 1e-3, 0)
    assert (arch.name, arch.lr, arch.weight_decay) == ("adam", 3e-3, 1e-3)

    retrain = parse(RetrainSchedule, schedules["retrain"])
    assert (retrain.optimizer.name, retrain.optimizer.lr) == ("sgd", 0.05)
    assert (retrain.schedule.name, retrain.schedule.power) == ("poly", 0.9)
    assert retrain.crop == (769, 769)
    assert retrain.augment.scale == (0.5, 2.0)
    assert 0 < retrain.drop_path < 1


def test_defaults_of_a_search_are_the_paper_too() -> None:
    _, schedules = load_space("auto_deeplab")
    assert parse(SearchSchedule, schedules["search"]) == SearchSchedule()


# --- a space as an object ---------------------------------------------------------------------------------------------


def test_a_space_is_frozen_at_every_depth() -> None:
    space = SearchSpace.load("auto_deeplab")
    before = space.to_dict()
    for target, key in ((space, "name"), (space.cell, "blocks"), (space.network, "layers"), (space.stem, "strides")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(target, key, 3)
    assert space.to_dict() == before
    assert isinstance(space.network.strides, tuple)
    assert isinstance(space.cell.operations, tuple)


def test_equality_and_pickling_do_not_see_what_is_cached() -> None:
    one, other = SearchSpace.load("auto_deeplab"), SearchSpace.load("auto_deeplab")
    assert one.trellis is one.trellis
    assert one == other
    assert hash(one) == hash(other)
    again = pickle.loads(pickle.dumps(one))  # as a data loader's worker gets it
    assert again == one
    assert again.trellis.count_paths() == 75_025


@pytest.mark.parametrize("strides", [[1, 2], [2, 4, 8], [4], [8, 16, 32], [1, 2, 4, 8, 16, 32]])
def test_any_adjacent_strides_are_legal(strides: list[int]) -> None:
    convolutions = [2] * (strides[0].bit_length() - 1) or [1]
    space = SearchSpace.parse(
        {
            "name": "s",
            "network": {"layers": 4, "strides": strides},
            "stem": {"channels": [8] * len(convolutions), "strides": convolutions},
        }
    )
    assert space.stem.stride == strides[0]
    assert space.trellis.strides == tuple(strides)


def test_order_of_moves_does_not_matter() -> None:
    space = SearchSpace.parse({"name": "s", "network": {"moves": ["down", "same", "down"]}})
    assert space.network.moves == ("same", "down")


# --- mistakes ---------------------------------------------------------------------------------------------------------

MISTAKES: dict[str, list[tuple[dict[str, Any], list[str]]]] = {
    "unknown-setting": [
        ({"cel": {}}, ["'cel'", "did you mean 'cell'?"]),
        ({"network": {"layer": 3}}, ["'layer'", "network", "did you mean 'layers'?"]),
        ({"network": {"xyzzy": 3}}, ["'xyzzy'", "network", "known: layers, strides"]),
        ({"cell\nx": {}}, ["'cell x'"]),
        ({"resolution": {"upsampler": ["carafe"]}}, ["'upsampler'", "resolution", "'upsamplers'?"]),
    ],
    "setting-invalid": [
        ({"cell": {"operations": ["none", "sep_conv_3x4"]}}, ["cell.operations", "'sep_conv_3x4'", "'sep_conv_3x3'?"]),
        ({"cell": {"operations": ["warp\ndrive"]}}, ["cell.operations", "'warp drive'", "known: none"]),
        ({"cell": {"operations": ["none"]}}, ["cell.operations", "'none'"]),
        ({"cell": {"operations": []}}, ["cell.operations", "at least one operation"]),
        ({"cell": {"operations": ["skip_connect", "skip_connect"]}}, ["cell.operations", "twice"]),
        ({"cell": {"operations": "skip_connect"}}, ["cell.operations: ", "list, not 'skip_connect'"]),
        ({"cell": {"operations": [3]}}, ["cell.operations.0: ", "string, not 3"]),
        ({"cell": {"blocks": 0}}, ["cell.blocks: ", "1, not 0"]),
        ({"cell": {"blocks": 17}}, ["cell.blocks: ", "16, not 17"]),
        ({"cell": {"blocks": 2.5}}, ["cell.blocks: ", "integer, not 2.5"]),
        ({"cell": {"blocks": True}}, ["cell.blocks: ", "integer, not True"]),
        ({"cell": {"blocks": "5"}}, ["cell.blocks: ", "integer, not '5'"]),
        ({"cell": {"blocks": None}}, ["cell.blocks: ", "integer, not None"]),
        ({"cell": [1, 2]}, ["cell: ", "mapping, not [1, 2]"]),
        ({"network": {"layers": 1}}, ["network.layers: ", "2, not 1"]),
        ({"network": {"strides": [4, 16]}}, ["network.strides", "double", "not [4, 16]"]),
        ({"network": {"strides": [8, 4]}}, ["network.strides", "double", "not [8, 4]"]),
        ({"network": {"strides": [4, 4]}}, ["network.strides", "double", "not [4, 4]"]),
        ({"network": {"strides": [3, 6]}}, ["network.strides", "powers of two"]),
        ({"network": {"strides": []}}, ["network.strides", "powers of two"]),
        ({"network": {"strides": [4, 8, 16, 32, 64]}}, ["network.strides", "is 32", "not 64"]),
        ({"network": {"strides": [4, "8"]}}, ["network.strides.1: ", "integer, not '8'"]),
        ({"network": {"strides": 4}}, ["network.strides: ", "list, not 4"]),
        ({"network": {"moves": ["up", "down"]}}, ["network.moves", "'same'"]),
        ({"network": {"moves": ["same", "left"]}}, ["network.moves.1", "'up', 'same' or 'down'", "not 'left'"]),
        ({"network": {"filter_multiplier": 0}}, ["network.filter_multiplier", "not 0"]),
        ({"network": {"strides": [8, 16]}}, ["stem.strides [2, 1, 2]", "stride 4", "network.strides", "at 8"]),
        ({"stem": {"strides": [2, 2, 2]}}, ["stem.strides [2, 2, 2]", "stride 8"]),
        ({"stem": {"channels": [64]}}, ["stem", "one number a convolution"]),
        ({"stem": {"channels": [], "strides": []}}, ["stem", "at least one convolution"]),
        ({"stem": {"strides": [2, 1, 3]}}, ["stem.strides.2", "1 or 2", "not 3"]),
        ({"decoder": {"name": "fpn"}}, ["decoder.name", "decoder 'fpn'", "'fcn'"]),
        ({"decoder": {"dropout": 1.0}}, ["decoder.dropout", "1, not 1.0"]),
        ({"decoder": {"dropout": "much"}}, ["decoder.dropout: ", "number, not 'much'"]),
        ({"network_batch_norm": {"eps": float("nan")}}, ["network_batch_norm.eps", "finite"]),
        ({"decoding": {"path_prior": "papper"}}, ["decoding.path_prior", "'uniform' or 'paper'", "not 'papper'"]),
        (
            {"resolution": {"upsamplers": ["pixel_dcl_4x4"]}},
            ["resolution.upsamplers", "'pixel_dcl_4x4'", "even", "5x5"],
        ),
        (
            {"resolution": {"upsamplers": ["pixel_dcl_3x5"]}},
            ["resolution.upsamplers", "'pixel_dcl_3x5'", "'pixel_dcl'?"],
        ),
        ({"resolution": {"upsamplers": ["carafee"]}}, ["resolution.upsamplers", "did you mean 'carafe'?"]),
        ({"resolution": {"upsamplers": ["magic"]}}, ["resolution.upsamplers", "'magic'", "known: near"]),
        ({"resolution": {"upsamplers": ["pixel_dcl_99x99"]}}, ["'pixel_dcl_99x99'", "too large", "31x31"]),
        ({"decoding": {"budget": 3.5}}, ["decoding.budget", "network.paths", "multi"]),
        ({"decoding": {"threshold": 0.6}}, ["decoding.threshold", "network.paths", "multi"]),
        ({"resolution": {"upsamplers": ["bilinear_4x4"]}}, ["resolution.upsamplers", "'bilinear_4x4'"]),
        ({"resolution": {"upsamplers": []}}, ["resolution.upsamplers", "at least one upsampler", "[bilinear]"]),
        ({"resolution": {"upsamplers": ["carafe", "carafe"]}}, ["resolution.upsamplers", "twice"]),
        ({"resolution": {"upsamplers": ["pixel_dcl", "pixel_dcl_3x3"]}}, ["resolution.upsamplers", "twice"]),
        ({"resolution": {"upsamplers": "carafe"}}, ["resolution.upsamplers: ", "list, not 'carafe'"]),
        ({"resolution": {"shared_by": "node"}}, ["resolution.shared_by", "'level' or 'arrow', not 'node'"]),
        ({"resolution": {"skips": ["add"]}}, ["resolution.skips", "network.down_layers"]),
        ({"resolution": {"skips": []}}, ["resolution.skips", "none, add, concat"]),
        ({"resolution": {"skips": ["add", "add"]}}, ["resolution.skips", "each once"]),
        ({"resolution": {"skips": ["join"]}}, ["resolution.skips.0", "'none', 'add' or 'concat', not 'join'"]),
        ({"decoder": {"upsamplers": ["ipixel_dcl_2x2"]}}, ["decoder.upsamplers", "'ipixel_dcl_2x2'", "even", "3x3"]),
        ({"decoder": {"upsamplers": ["nope"]}}, ["decoder.upsamplers", "'nope'"]),
        ({"head": {"name": "unet"}}, ["head.name", "'aspp' or 'classifier', not 'unet'"]),
        ({"cell": {"up_cell": True}}, ["cell.up_cell", "network.down_layers"]),
        ({"cell": {"up_cell": 1}}, ["cell.up_cell: ", "boolean, not 1"]),
        ({"network": {"layers": 5, "down_layers": 4}}, ["3 layers down", "3 back up", "stride 4", "4 and 1"]),
        ({"network": {"layers": 9, "down_layers": 2}}, ["3 layers down", "3 back up", "2 and 7"]),
        ({"network": {"layers": 9, "down_layers": 12}}, ["12 and 0", "fewer strides"]),
        ({"network": {"down_layers": 0}}, ["network.down_layers", "1, not 0"]),
        ({"network": {"down_layers": 6, "moves": ["same", "down"]}}, ["down_layers", "moves up, same and down"]),
        *[
            (
                {"network": {"down_layers": 6}, "decoder": {"name": name}},
                [f"decoder.name '{name}'", "'classifier' or 'aspp'"],
            )
            for name in ("unet", "fcn", "deeplabv3plus")
        ],
        ({"network": {"paths": "many"}}, ["network.paths", "'single' or 'multi', not 'many'"]),
        ({"decoding": {"threshold": 0}}, ["decoding.threshold: ", "0, not 0"]),
        ({"decoding": {"threshold": 1}}, ["decoding.threshold: ", "1, not 1"]),
        ({"decoding": {"budget": 0}}, ["decoding.budget: ", "0, not 0"]),
        ({"decoding": {"budget": "much"}}, ["decoding.budget: ", "number, not 'much'"]),
        ({"version": 0}, ["version", "version 0", "newest"]),
        ({"version": "new"}, ["version: ", "integer, not 'new'"]),
        ({"name": 3}, ["name: ", "string, not 3"]),
        ({"name": ""}, ["name: ", "1 character"]),
        ({"name": None}, ["name: ", "string, not None"]),
        ({"search": [1]}, ["search", "mapping"]),
        ({"retrain": None}, ["retrain", "mapping"]),
    ],
    "version-too-new": [
        ({"version": SPACE_VERSION + 1}, [f"version {SPACE_VERSION + 1}", "update autoseg"]),
        ({"version": SPACE_VERSION + 1, "hyperspace": 1}, [f"version {SPACE_VERSION + 1}", "update autoseg"]),
    ],
}


@pytest.mark.parametrize(
    ("code", "change", "named"),
    [
        pytest.param(code, change, named, id=str(change)[:50])
        for code, cases in MISTAKES.items()
        for change, named in cases
    ],
)
def test_a_mistake_gets_one_line_with_what_and_where(
    code: str, change: dict[str, Any], named: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(to_yaml({"name": "mine", **change}))
    with raises_code(SearchSpaceError, code, *named, path):
        SearchSpace.load(path)


def test_name_is_needed(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("version: 1\n")
    with raises_code(SearchSpaceError, "setting-missing", "name ", tmp_path / "space.yaml"):
        SearchSpace.load(tmp_path / "space.yaml")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "code", "named"),
    [
        (b"", "file-without-mapping", ""),
        (b"# only a comment\n", "file-without-mapping", ""),
        (b"- a\n- b\n", "file-without-mapping", ""),
        (b"just words", "file-without-mapping", ""),
        (b"name: [1, 2\nx: 3", "file-malformed", "YAML"),
        (b"name: a\n\tcell: 3\n", "file-malformed", "YAML"),
        (b"name: a\nname: b\n", "file-malformed", "'name' is there twice"),
        (b"name: a\ncell: {blocks: 3, blocks: 4}\n", "file-malformed", "'blocks' is there twice"),
        (b"name: !!python/object/apply:os.system ['true']\n", "file-malformed", "YAML"),
        (b"\x80\x02\xff\xfe\x00binary", "file-unreadable", ""),
        (b"name: a\x00b", "file-malformed", "YAML"),
        (b"1: 2\n", "key-not-text", "key 1,"),
        (b"~: 2\n", "key-not-text", "key None,"),
        (b"[" * 5000, "file-malformed", "YAML"),
    ],
)
def test_files_that_are_no_space(content: bytes, code: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_bytes(content)
    with raises_code(SearchSpaceError, code, path, named):
        SearchSpace.load(path)


def test_names_and_folders_that_are_no_space(tmp_path: Path) -> None:
    with raises_code(SearchSpaceError, "unknown-space", "'auto_deplab'", "did you mean 'auto_deeplab'?"):
        SearchSpace.load("auto_deplab")
    with raises_code(SearchSpaceError, "path-invalid", "it is empty"):
        SearchSpace.load("")
    for wrong in (tmp_path, tmp_path / "none.yaml", "a\nb"):
        with raises_code(SearchSpaceError, "unknown-space", repr(str(wrong)), "auto_deeplab", "path of a YAML file"):
            SearchSpace.load(wrong)


def test_the_file_is_data_that_read_yaml_returns() -> None:
    data = read_yaml(FILES[0], SearchSpaceError)
    assert isinstance(data["name"], str)
