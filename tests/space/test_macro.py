"""The group `macro` of a wide space: what is refused, each in one line that names it, and what its file says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.errors import check_line, raises_code
from helpers.wide_spaces import NAMED, WIDE, wide_space

from autoseg.cli.main import run
from autoseg.config.base import merge
from autoseg.errors import SearchSpaceError
from autoseg.files import to_yaml
from autoseg.genotype.count import count_networks
from autoseg.genotype.design import enumerate_genes, genotype_of, key_of
from autoseg.space.macro import MacroSpec
from autoseg.space.schema import SearchSpace

ROOT = Path(__file__).parents[2]

STEM_4 = {"channels": [4, 4], "strides": [2, 2]}
STEM_64 = {"channels": [4] * 6, "strides": [2] * 6}
WRONG: list[tuple[str, dict[str, Any], list[str]]] = [
    ("a block misspelt", {"blocks": ["residul"]}, ["macro.blocks", "'residul'", "did you mean 'residual'"]),
    ("an unknown block", {"blocks": ["zzz"]}, ["'zzz'", "conv_3x3"]),
    ("the cell misspelt", {"blocks": ["cel"]}, ["did you mean 'cell'"]),
    ("a block twice", {"blocks": ["cell", "residual", "cell"]}, ["blocks", "cell twice"]),
    ("a depth twice", {"depths": [2, 2]}, ["depths", "2 twice"]),
    ("a width twice", {"widths": [1, 1.0]}, ["widths", "1.0 twice"]),
    ("a number of layers twice", {"layers": [3, 3]}, ["layers", "3 twice"]),
    ("a kind of path twice", {"paths": ["multi", "multi"]}, ["paths", "multi twice"]),
    ("a cell twice", {"cells": ["auto_deeplab_s"] * 2}, ["cells", "auto_deeplab_s twice"]),
    ("a stem twice", {"stems": [WIDE["stem"]] * 2}, ["stems", "twice"]),
    ("a decoder twice", {"decoders": [{"name": "unet"}] * 2}, ["decoders", "unet twice"]),
    ("an upsampler twice", {"upsamplers": ["carafe"] * 2}, ["macro.upsamplers", "twice"]),
    ("a profile twice", {"profiles": [{"name": "a", "widths": [1] * 4}] * 2}, ["profiles", "a twice"]),
    ("no block", {"blocks": []}, ["blocks", "at least one"]),
    ("no depth", {"depths": []}, ["depths", "at least one"]),
    ("no width", {"widths": []}, ["widths", "at least one"]),
    ("no upsampler", {"upsamplers": []}, ["macro.upsamplers", "at least one"]),
    ("too deep", {"depths": [65]}, ["macro.depths.0", "64", "65"]),
    ("too wide", {"widths": [17]}, ["macro.widths.0", "16", "17"]),
    ("a cost of nothing", {"cost": 0}, ["macro.cost", "greater than 0"]),
    ("too large a stem", {"stems": [WIDE["stem"], STEM_64]}, ["macro.stems", "64", "16"]),
    ("too few widths", {"profiles": [{"name": "a", "widths": [1] * 3}]}, ["'a'", "3 widths", "4 levels"]),
    ("an unknown decoder", {"decoders": [{"name": "unett"}]}, ["did you mean 'unet'"]),
    ("an unknown key", {"block": ["cell"]}, ["'block'", "did you mean 'blocks'"]),
]  # fmt: skip
WRONG_NETWORKS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("a jump from the stem", {"strides": [8, 8]}, ["'x' behind a stem of stride 2", "2 to 8 at layer 1"]),
    ("above the stem", {"strides": [2, 1]}, ["'x'", "stride 1 at layer 2"]),
    ("beyond the space", {"strides": [4, 8, 16, 32]}, ["'x' goes to stride 32", "network.strides end at 16"]),
    ("a node without a way in", {"arrows": [["2->4"], ["2->4"]]}, ["'x'", "no way in"]),
    ("no arrow", {"arrows": [["2=>4"], ["4->4"]]}, ["'x'", "'2=>4'", "no arrow"]),
    ("an arrow twice", {"arrows": [["2->4", "2->4"], ["4->4"]]}, ["'x'", "layer 1", "twice"]),
    ("one layer", {"strides": [4]}, ["'x' needs at least two layers"]),
    ("nothing", {}, ["strides", "arrows"]),
    ("both", {"strides": [2, 2], "arrows": [["2->2"], ["2->2"]]}, ["strides", "arrows"]),
]


@pytest.mark.parametrize(("changes", "named"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_choices_that_cannot_be(changes: dict[str, Any], named: list[str]) -> None:
    code = "unknown-setting" if "block" in changes else "setting-invalid"
    with raises_code(SearchSpaceError, code, *named):
        wide_space(**changes)


@pytest.mark.parametrize(
    ("network", "named"), [case[1:] for case in WRONG_NETWORKS], ids=[case[0] for case in WRONG_NETWORKS]
)
def test_named_networks_that_cannot_be(network: dict[str, Any], named: list[str]) -> None:
    with raises_code(SearchSpaceError, "setting-invalid", "macro.networks", *named):
        wide_space(NAMED, networks=[{"name": "x", **network}])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"decoding": {"budget": 3.0}, "network": {"paths": "multi"}}, ["decoding.budget", "macro.cost"]),
        ({"network": {"moves": ["same", "down"]}}, ["'and up' moves up at layer 3", "network.moves are same, down"]),
        ({"macro": {"layers": [3]}}, ["networks name every path", "layers"]),
        ({"macro": {"networks": [{"name": "a", "strides": [2, 2]}] * 2}}, ["networks", "a twice"]),
        ({"network": {"filter_multiplier": 2000}}, ["'even'", "F = 2000", "8,000 channels", "4,096"]),
        ({"macro": {"stems": [NAMED["stem"], STEM_4]}}, ["'down'", "stem of stride 4"]),
    ],
)  # fmt: skip
def test_choices_that_do_not_fit_the_space(change: dict[str, Any], named: list[str]) -> None:
    with raises_code(SearchSpaceError, "setting-invalid", *named):
        SearchSpace.parse(merge(NAMED, change))


def test_profiles_need_widths_only_for_the_levels_that_networks_reach() -> None:
    """The space's strides go to 16, its named networks to 8."""
    assert wide_space(NAMED).macro is not None
    with raises_code(SearchSpaceError, "setting-invalid", "'even'", "3 widths", "4 levels"):
        wide_space(NAMED, networks=[])


def test_a_wide_space_comes_back_from_its_file() -> None:
    for plain in (WIDE, NAMED):
        space = SearchSpace.parse(plain)
        assert SearchSpace.parse(space.to_dict()) == space


def test_what_is_accepted_can_be_built() -> None:
    """No choice of a space that was accepted makes a genotype that is refused."""
    space = wide_space(NAMED)
    networks = [genotype_of(space, genes) for genes in enumerate_genes(space)]
    assert len(networks) == len(set(map(key_of, networks))) == 3 * 2 * 2 * 2


@pytest.mark.slow
def test_the_command_line_says_it_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wide.yaml"
    path.write_text(to_yaml(merge(WIDE, {"macro": {"blocks": ["residul"]}})), encoding="utf-8")
    for words in (["show", path], ["plot", path], ["search", "--space", path, "--data", "generated", "--out", "run"]):
        assert run([str(word) for word in words]) == 2
        check_line(capsys.readouterr().err, "setting-invalid", "'residul'", "did you mean 'residual'", path)


def test_the_guide_explains_every_key() -> None:
    text = (ROOT / "docs/guide/spaces.md").read_text(encoding="utf-8")
    table = text.split("| key of `macro` |")[1].split("\n\n")[0]
    assert set(MacroSpec.model_fields) <= set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))


def test_the_guide_says_how_many_networks_its_example_has() -> None:
    text = (ROOT / "docs/guide/spaces.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```yaml\n(# my_wide.yaml\n.*?)^```", text, re.DOTALL | re.MULTILINE)
    space = SearchSpace.parse(yaml.safe_load(example))
    assert space.description.startswith(f"{count_networks(space)} networks")
