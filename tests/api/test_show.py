"""What is told of spaces, genotypes and trained networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.errors import check_line, raises_code
from helpers.genotypes import down_to_8, genotype, hourglass, several_paths
from helpers.spaces import hourglass_space, open_space
from helpers.tiny_runs import SPACE, write_config
from helpers.wide_spaces import KINDS, NAMED, WIDE, of_stages, wide_space

import autoseg
from autoseg.api.show import describe, describe_choices, describe_levels, describe_wide
from autoseg.cli.main import run
from autoseg.config.base import merge
from autoseg.errors import AutosegError, GenotypeError, SearchSpaceError
from autoseg.files import to_yaml
from autoseg.genotype.schema import Genotype
from autoseg.space.schema import SearchSpace


def test_a_space_in_which_upsamplers_skips_and_two_cells_compete() -> None:
    found = describe_levels(hourglass_space())
    assert found["layers"] == "5, strides 2 4 8, 3 on the way down and 2 on the way up"
    assert found["cell"] == "2 blocks, 5 edges, 8 operations, for the way down and for the way up each"
    assert found["cells"] == f"{((1 * 49) * (3 * 49)) ** 2:.3g} discrete ones, pairs of two"
    assert found["upsamplers"] == "bilinear pixel_dcl_5x5 carafe"
    assert found["gamma"] == "2 sites: up_4_2 up_8_4"
    assert found["skips"] == "none add concat, into each stride of the way up"
    assert found["decoder"] == "classifier"


def test_a_space_whose_decoder_competes() -> None:
    found = describe_levels(open_space())
    assert found["gamma"] == "4 sites: up_4_2 up_8_4 decoder_8_4 decoder_4_2"
    assert found["decoder"] == "aspp, 256 filters, upsamplers bilinear dysample"
    assert "skips" not in found


def test_a_plain_space_says_no_more() -> None:
    found = describe_levels(SearchSpace.load("auto_deeplab"))
    assert found["layers"] == "12, strides 4 8 16 32"
    assert found["decoder"] == "deeplabv3plus, 256 filters"
    assert not {"upsamplers", "gamma", "skips"} & set(found)


def test_a_decoded_hourglass() -> None:
    assert describe_choices(hourglass()) == {
        "layers": "5, 3 on the way down and 2 on the way up, path 4 8 8 4 2",
        "filters": "F = 4",
        "b1": "sep_conv_3x3(prev) + skip_connect(prev_prev)",
        "up b1": "max_pool_3x3(prev)",
        "up b2": "sep_conv_5x5(b1)",
        "upsamplers": "layer 4, 8->4: pixel_dcl_5x5; layer 5, 4->2: carafe",
        "skips": "layer 4, 8->4: add from layer 1; layer 5, 4->2: concat from the stem",
        "decoder": "classifier",
    }
    some = genotype({"strides": [4, 8, 4, 2], "down_layers": 2, "skips": ["none", "concat"]}, {"name": "classifier"})
    assert describe_choices(some)["skips"] == "layer 3, 8->4: none; layer 4, 4->2: concat from the stem"


def test_several_paths_and_a_decoder_in_steps() -> None:
    found = describe_choices(several_paths())
    assert found["layers"] == "3, 8 arrows"
    assert found["arrows"] == "2->2 2->4 | 2->2 4->4 4->2 | 2->2 2->4 4->4"
    steps = describe_choices(down_to_8("unet", ["pixel_dcl", "bilinear"]))
    assert steps["decoder"] == "unet, 16 filters, 8->4: pixel_dcl, 4->2: bilinear"
    assert "arrows" not in describe_choices(Genotype.load("auto_deeplab_s"))


def test_stages_take_the_place_of_one_width() -> None:
    found = {name: describe_choices(of_stages(name)) for name in KINDS}
    assert found["path"] == {
        "layers": "4, path 2 4 8 4",
        "stride 2": "residual, 4 channels",
        "stride 4": "2 \u00d7 conv 3x3, 6 channels",
        "stride 8": "3 \u00d7 inverted residual, 5 channels",
        "decoder": "unet, 6 filters",
    }
    assert found["path with a cell"]["stride 4"] == "cell, 2 \u00d7 3 channels"
    assert "b1" in found["several paths with a cell"]
    assert "b1" not in found["several paths"]
    assert found["several paths"]["layers"] == "3, 10 arrows"


def test_a_wide_space_says_what_its_networks_choose_and_how_many_there_are() -> None:
    assert describe_wide(wide_space(NAMED, upsamplers=["bilinear", "carafe"])) == {
        "strides": "2 4 8 16",
        "paths": "down (2 4 8), and up (4 8 4), parallel (8 arrows)",
        "stem": "6/2",
        "widths": "even (1 1 1), fine (2 1.4 1); F = 4",
        "blocks": "residual conv_3x3, for the network",
        "depths": "1 2, for the network",
        "decoders": "classifier",
        "upsamplers": "bilinear carafe",
        "networks": f"{3 * 2 * 2 * 2 * 2}",
    }
    drawn = describe_wide(wide_space(paths=["single", "multi"], cost=3))
    assert drawn["paths"] == "one path or several paths in 3 5 layers"
    assert drawn["widths"] == "0.5 1 1.4 at each level; F = 4"
    assert drawn["cell"].endswith(": 7.2e+03 cells")
    assert drawn["cost"] == "each is scaled to 3 billion multiply-adds a megapixel"
    assert drawn["networks"] == "not counted, as topologies are drawn"
    assert describe_wide(wide_space(cells=["auto_deeplab_s"]))["cell"] == "of auto_deeplab_s"
    assert "e+" in describe_wide(wide_space(layers=[20]))["networks"]


@pytest.mark.slow
def test_show_finds_wide_spaces_in_files(tmp_path: Path) -> None:
    (space,) = describe(write_config(tmp_path / "wide.yaml", NAMED))
    assert (space["space"], space["networks"]) == ("wide_tests", "24")
    assert space["supernet"]


@pytest.mark.parametrize(
    ("kind", "code", "changes", "named"),
    [
        (GenotypeError, "unknown-genotype", {"cells": ["auto_deeplab_x"]}, ["'auto_deeplab_x'", "auto_deeplab_s"]),
        (SearchSpaceError, "template-without-cell", {"cells": ["path.yaml"]}, ["wide_tests", "path.yaml", "no cell"]),
        (
            SearchSpaceError,
            "template-not-in-space",
            {"cells": ["auto_deeplab_s"]},
            ["_s has", "'atrous_conv_5x5'"],
        ),
    ],
)
def test_cells_that_cannot_be_templates_are_refused(
    kind: type[AutosegError], code: str, changes: dict[str, Any], named: list[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Before a search opens any data, too."""
    monkeypatch.chdir(tmp_path)
    of_stages("path").save("path.yaml")
    choices = {"blocks": ["cell"], "depths": [1], "layers": [4], **changes}
    space = merge(WIDE, {"cell": {"operations": ["skip_connect"]}, "macro": choices})
    path = write_config(tmp_path / "wide.yaml", space)
    with raises_code(kind, code, *named):
        describe(path)
    assert run(["search", "--space", str(path), "--data", "nowhere", "--out", "run"]) == 2
    check_line(capsys.readouterr().err, code, *named)


@pytest.mark.slow
def test_a_space_of_several_paths_says_what_stays(tmp_path: Path) -> None:
    space = open_space(
        "multi",
        network={"layers": 2, "strides": [2, 4], "paths": "multi"},
        resolution={},
        decoder={"name": "aspp"},
        decoding={"threshold": 0.3, "budget": 2.5},
    )
    (tmp_path / "s.yaml").write_text(to_yaml(space.to_dict()))
    (found,) = describe(tmp_path / "s.yaml", 3, (32, 32))
    assert found["arrows"] == "several stay, threshold 0.3, at most 2.5 billion multiply-adds a megapixel"
    assert "path prior" not in found
    assert "at 32x32 with 3 classes" in found["supernet"]


@pytest.mark.slow
def test_a_space_and_a_retrained_network(retrained: Path, tmp_path: Path) -> None:
    (space,) = describe(write_config(tmp_path / "s.yaml", SPACE), 7, (96, 96))
    assert space["cell"] == "1 blocks, 2 edges, 3 operations"
    assert space["paths"] == "4"
    assert "at 96x96 with 7 classes" in space["supernet"]
    (network,) = describe(str(retrained), 7, (64, 64))
    assert network["layers"] == "2, path 8 4"
    config = yaml.safe_load((retrained / "config.yaml").read_text())
    parameters = sum(parameter.numel() for parameter in autoseg.load_network(retrained)[0].parameters())
    assert config["data"]["num_classes"] == 7
    assert network["network"].startswith(f"{parameters / 1e6:.2f}M parameters ({parameters:,})")
    assert network["field of view"] == "the whole image"  # ASPP pools it


def test_the_cost_of_a_space_of_very_many_candidates_is_not_counted(tmp_path: Path) -> None:
    operations = ["none", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"]
    space = open_space(
        "large", cell={"blocks": 2, "operations": operations}, network={"layers": 256, "strides": [2, 4, 8, 16]}
    )
    (found,) = describe(write_config(tmp_path / "s.yaml", space.to_dict()))
    arrows = len(space.trellis.arrows)
    assert found["supernet"] == f"not counted, as it has {arrows * 5 * 6:,} candidates (more than 30,000)"
    assert found["paths"] == f"{space.trellis.count_paths():.3g}"
