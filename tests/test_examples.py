"""The files in examples/, as docs/extending.md shows them, at a tiny size; and what is refused of a plugin's parts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.document_commands import FEWER, commands, run_all
from helpers.errors import check_line, raises_code
from helpers.plugins import nothing_stays
from helpers.tiny_runs import GENOTYPE, RETRAIN, SEARCH, SPACE, call, write_config
from torch import nn

import autoseg
from autoseg.analysis.flops import count_multiply_adds
from autoseg.cli.main import run
from autoseg.config.base import merge
from autoseg.errors import AutosegError, GenotypeError, PluginError, SearchSpaceError
from autoseg.genotype.flops import topology_cost
from autoseg.losses.losses import SegmentationLoss
from autoseg.losses.target import Target
from autoseg.ops.check import check_blocks, check_operations
from autoseg.ops.upsample import build_upsampler, upsample_by
from autoseg.registry import BLOCKS, LOSSES, OPERATIONS, UPSAMPLERS
from autoseg.viz.graph import short_name

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["data.generated={size: [64, 64], train: 8, val: 4, test: 4}"]
SMALL_SPACE = ["space.network.layers=2", "space.cell.blocks=1"]
OWN_BLOCKS = ROOT / "examples" / "own_block.yaml"
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("own_*.py"))


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with nothing_stays():
        yield


def example(name: str) -> Path:
    return ROOT / "examples" / f"{name}.py"


def load(name: str) -> None:
    autoseg.load_plugin(example(name))


def test_the_document_shows_every_example_as_it_is() -> None:
    text = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert EXAMPLES == ["own_block", "own_decoder", "own_loss", "own_network", "own_operation", "own_upsampler"]
    for name in EXAMPLES:
        assert example(name).read_text(encoding="utf-8") in blocks, name
    yaml_blocks = re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert OWN_BLOCKS.read_text(encoding="utf-8") in yaml_blocks


@pytest.mark.parametrize("heading", ["An operation", "A block", "An upsampler", "A decoder", "A loss", "A network"])
def test_the_commands_of_a_section_run(heading: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    (section,) = (part for part in re.split(r"^## ", text, flags=re.MULTILINE) if part.startswith(f"{heading}\n"))
    (tmp_path / "section.md").write_text(section, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for command in FEWER:
        monkeypatch.setitem(FEWER, command, [*FEWER[command], *SMALL, *(SMALL_SPACE if command == "search" else [])])
    assert run_all(commands(tmp_path / "section.md"), {"examples/": f"{ROOT}/examples/"})


# --- an operation -----------------------------------------------------------------------------------------------------


def test_own_operation_costs_what_it_says_and_can_be_searched() -> None:
    load("own_operation")
    operation = OPERATIONS["inverted_3x3"]
    check_operations(("inverted_3x3",))
    module = operation.build(6, 1, nn.BatchNorm2d).eval()
    assert count_multiply_adds(module, torch.zeros(1, 6, 5, 7)) == operation.multiply_adds(6) * 35
    space = autoseg.SearchSpace.parse(merge(SPACE, {"cell": {"operations": ["none", "skip_connect", "inverted_3x3"]}}))
    assert space.to_dict()["plugins"] == {"inverted_3x3": "own_operation.py"}
    supernet = autoseg.build_supernet(space, 3)
    assert supernet(torch.randn(2, 3, 32, 32)).shape == (2, 3, 32, 32)
    genotype = autoseg.sample_genotype(space, 1)
    assert autoseg.Genotype.parse(genotype.to_dict()) == genotype


# --- a block ----------------------------------------------------------------------------------------------------------


def test_own_block_costs_what_it_says_and_is_in_networks_and_files() -> None:
    load("own_block")
    block = BLOCKS["convnext"]
    for stride in (1, 2):
        module = block.build(6, 5, stride, nn.BatchNorm2d).eval()
        counted = count_multiply_adds(module, torch.zeros(1, 6, 4, 8))
        assert counted == block.multiply_adds(6, 5, stride) * 32 / stride**2
    genotype = autoseg.Genotype.load(OWN_BLOCKS)
    assert genotype.to_dict()["plugins"] == {"convnext": "own_block.py"}
    assert autoseg.build_network(genotype, 3).eval()(torch.zeros(1, 3, 40, 33)).shape == (1, 3, 40, 33)
    load("own_decoder")
    choices = {"blocks": ["conv_3x3", "convnext"], "decoders": [{"name": "parsenet"}, {"name": "unet"}]}
    wide = autoseg.SearchSpace.parse(merge(SPACE, {"macro": choices})).to_dict()
    assert wide["plugins"] == {"convnext": "own_block.py", "parsenet": "own_decoder.py"}
    assert autoseg.SearchSpace.parse(wide).to_dict() == wide
    BLOCKS.discard("own_block.py")
    with raises_code(GenotypeError, "plugin-not-given", "'convnext'", "--plugin own_block.py"):
        autoseg.Genotype.parse(genotype.model_dump() | {"plugins": {"convnext": "own_block.py"}})
    with raises_code(SearchSpaceError, "plugin-not-given", "'convnext'", "--plugin own_block.py"):
        autoseg.SearchSpace.parse(wide)


BLOCK = """
import autoseg
from torch import nn
class Block(nn.Module):
    def __init__(self, in_channels, channels, stride, norm):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, {out}, 3, {stride}, padding=1)
        self.relu = nn.ReLU({inplace})
    def forward(self, features):
        return self.conv(self.relu(features)){more}
autoseg.register(autoseg.Block("{name}", "mine", {cost}, Block))
"""
RIGHT_BLOCK = {
    "out": "channels", "stride": "stride", "inplace": "", "more": "", "cost": "lambda cin, c, stride: 9 * cin * c"
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "change", "code", "named"),
    [
        ("narrow", {"out": "in_channels"}, "block-changes-size", ["2x8x9x12 of 2x8x9x12", "2x5x9x12"]),
        ("fixed", {"out": "5"}, "block-changes-size", ["2x5x9x12 of 2x8x9x12 at stride 1", "2x8x9x12"]),
        ("no_stride", {"stride": "1"}, "block-changes-size", ["2x8x9x12", "stride 2", "2x8x5x6"]),
        ("infinite", {"more": " / 0"}, "block-not-finite", ["not finite"]),
        ("in_place", {"inplace": "inplace=True"}, "block-changes-input", ["changes its input"]),
        ("no_cost", {"cost": "lambda cin, c, stride: None"}, "block-cost-invalid", ["None"]),
        ("no_stride_cost", {"cost": "lambda cin, c: c"}, "block-cost-invalid", ["TypeError"]),
        ("fails", {"out": "channels / 2"}, "block-fails", ["stride 1 with 8 to 8 channels", "TypeError"]),
    ],
)
def test_a_block_that_does_something_else_is_refused_by_networks_and_supernets(
    name: str, change: dict[str, str], code: str, named: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "blocks.py"
    path.write_text(BLOCK.format(name=f"block_{name}", **(RIGHT_BLOCK | change)))
    autoseg.load_plugin(path)
    before = torch.random.get_rng_state()
    stages = [{"stride": stride, "block": f"block_{name}", "filters": 4} for stride in (4, 8)]
    with raises_code(PluginError, code, f"block 'block_{name}' of the plugin blocks.py", *named):
        autoseg.build_network({**GENOTYPE, "cell": [], "stages": stages}, 3)
    with raises_code(PluginError, code, f"block 'block_{name}' of the plugin blocks.py", *named):
        autoseg.build_supernet(autoseg.SearchSpace.parse(merge(SPACE, {"macro": {"blocks": [f"block_{name}"]}})), 3)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_right_block_of_that_form_is_built(tmp_path: Path) -> None:
    path = tmp_path / "blocks.py"
    path.write_text(BLOCK.format(name="block_right", **RIGHT_BLOCK))
    autoseg.load_plugin(path)
    check_blocks(("block_right", "residual"))


# --- an upsampler -----------------------------------------------------------------------------------------------------


def with_upsampler(name: str) -> dict[str, Any]:
    return merge(GENOTYPE, {"network": {"upsamplers": [name]}, "decoder": {"name": "fcn", "upsamplers": []}})


def test_own_upsampler_is_searched_drawn_counted_and_named_in_files() -> None:
    load("own_upsampler")
    module = build_upsampler("resize_conv", 6, 6)
    features, guide = torch.randn(2, 6, 5, 4), torch.randn(2, 6, 9, 8)
    assert module(features, None, guide).shape == (2, 6, 10, 8)
    assert module(features, (9, 8), guide).shape == (2, 6, 9, 8)
    assert (
        count_multiply_adds(module, features[:1], None, guide[:1]) == UPSAMPLERS["resize_conv"].multiply_adds(6, 6) * 20
    )
    assert upsample_by("resize_conv", 4, 3, 5)(torch.zeros(1, 3, 4, 4)).shape == (1, 5, 16, 16)
    assert short_name("resize_conv") == "resize conv"
    space = autoseg.SearchSpace.parse(merge(SPACE, {"resolution": {"upsamplers": ["bilinear", "resize_conv"]}}))
    assert space.to_dict()["plugins"] == {"resize_conv": "own_upsampler.py"}
    assert autoseg.build_supernet(space, 3)(torch.randn(2, 3, 32, 32)).shape == (2, 3, 32, 32)
    genotype = autoseg.Genotype.parse(with_upsampler("resize_conv"))
    assert genotype.to_dict()["plugins"] == {"resize_conv": "own_upsampler.py"}
    plain = autoseg.Genotype.parse(with_upsampler("nearest"))
    more = topology_cost(genotype) - topology_cost(plain)
    assert more == pytest.approx((36 - 1) * 4**2 / 4 / 4**2)  # 4 filters, a quarter of the pixels at stride 4
    assert autoseg.build_network(genotype, 3)(torch.zeros(1, 3, 32, 32)).shape == (1, 3, 32, 32)
    assert autoseg.build_network({"name": "fcn8s", "width": 0.02, "upsampler": "resize_conv"}, 3) is not None


def test_files_say_which_plugin_they_need() -> None:
    with nothing_stays():
        load("own_upsampler")
        load("own_decoder")
        load("own_network")
        genotype = autoseg.Genotype.parse(with_upsampler("resize_conv")).to_dict()
        space = autoseg.SearchSpace.parse(merge(SPACE, {"decoder": {"name": "parsenet"}})).to_dict()
        network = autoseg.FixedNetwork.parse("small_linknet").to_dict()
    with raises_code(GenotypeError, "plugin-not-given", "'resize_conv'", "--plugin own_upsampler.py", "mine.yaml"):
        autoseg.Genotype.parse(genotype, "mine.yaml")
    with raises_code(SearchSpaceError, "plugin-not-given", "'parsenet'", "--plugin own_decoder.py"):
        autoseg.SearchSpace.parse(space)
    with raises_code(autoseg.errors.ConfigError, "plugin-not-given", "'small_linknet'", "--plugin own_network.py"):
        autoseg.FixedNetwork.parse(network)


UPSAMPLER = """
import autoseg, torch
from torch import nn
class Up(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, {out}, 1)
    def forward(self, features, size=None, guide=None):
        size = {size}
        return nn.functional.interpolate(self.conv(features), size){more}
autoseg.register(autoseg.Upsampler("{name}", "mine", {cost}, Up))
"""
RIGHT = {
    "out": "out_channels", "more": "", "cost": "lambda c, guide: c",
    "size": "size or [2 * side for side in features.shape[2:]]",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "change", "code", "named"),
    [
        ("widths", {"out": "in_channels"}, "upsampler-changes-size", ["2x8x18x24 of 2x8x9x12", "2x5x18x24"]),
        ("no_size", {"size": "[2 * side for side in features.shape[2:]]"}, "upsampler-changes-size", ["2x5x17x23"]),
        ("no_double", {"size": "size or features.shape[2:]"}, "upsampler-changes-size", ["2x5x9x12"]),
        ("infinite", {"more": " / 0"}, "upsampler-not-finite", ["not finite"]),
        ("no_cost", {"cost": "lambda c, guide: None"}, "upsampler-cost-invalid", ["None"]),
        ("negative", {"cost": "lambda c, guide: -c"}, "upsampler-cost-invalid", ["-8"]),
        ("one_argument", {"cost": "lambda c: c"}, "upsampler-cost-invalid", ["TypeError"]),
        ("fails", {"size": "size[0], size[1]"}, "upsampler-fails", ["18x24 from 9x12", "TypeError"]),
    ],
)
def test_an_upsampler_that_does_something_else_is_refused(
    name: str, change: dict[str, str], code: str, named: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "up.py"
    path.write_text(UPSAMPLER.format(name=f"up_{name}", **(RIGHT | change)))
    autoseg.load_plugin(path)
    before = torch.random.get_rng_state()
    with raises_code(PluginError, code, f"upsampler 'up_{name}' of the plugin up.py", *named):
        build_upsampler(f"up_{name}", 3, 4)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_right_upsampler_of_that_form_is_built(tmp_path: Path) -> None:
    path = tmp_path / "up.py"
    path.write_text(UPSAMPLER.format(name="up_right", **RIGHT))
    autoseg.load_plugin(path)
    assert build_upsampler("up_right", 3, 4)(torch.zeros(1, 3, 2, 2)).shape == (1, 4, 4, 4)


# --- a loss -----------------------------------------------------------------------------------------------------------


def test_own_loss_is_dice_where_both_errors_cost_alike() -> None:
    load("own_loss")
    logits, masks = torch.randn(2, 3, 5, 4, dtype=torch.float64), torch.randint(0, 3, (2, 5, 4))
    masks[0, :2] = 255
    target = Target(masks, 255)
    tversky, dice = LOSSES["tversky"].function, LOSSES["dice"].function
    assert tversky(logits, target, alpha=0.5).item() == pytest.approx(dice(logits, target, smooth=0.0).item())
    labels, probs = target.one_hot(3).double(), logits.softmax(1) * target.counted.unsqueeze(1)
    false_positives = tversky(logits, target, alpha=1.0)
    expected = 1 - ((labels * probs).sum((0, 2, 3)) / probs.sum((0, 2, 3))).mean()
    assert false_positives.item() == pytest.approx(expected.item())
    assert tversky(logits, Target(torch.full_like(masks, 255), 255), alpha=0.5).item() == 0


@pytest.mark.slow
def test_a_search_takes_the_loss_with_its_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path / "config.yaml", SEARCH)
    arguments = [
        "search", "--plugin", str(example("own_loss")), "--config", str(config), "--out", str(tmp_path / "run"),
        "--set", "search.epochs=1", "--set", "search.arch_start_epoch=0", "--set", "search.max_steps_per_epoch=1",
    ]  # fmt: skip
    for setting, named in (
        ("[{name: tversky, alhpa: 0.3}]", ["'alhpa'", "search.loss.0", "did you mean 'alpha'"]),
        ("[{name: tversky, alpha: 2}]", ["search.loss.0.alpha", "not 2"]),
        ("[tverski]", ["search.loss.0", "tversky", "'tverski'"]),
    ):
        capsys.readouterr()
        assert run([*arguments, "--set", f"search.loss={setting}"]) == 2
        check_line(capsys.readouterr().err, "unknown-setting" if "alhpa" in setting else "setting-invalid", *named)
    call(*arguments, "--set", "search.loss=[{name: tversky, alpha: 0.3}, cross_entropy]")
    settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert settings["search"]["loss"] == [
        {"name": "tversky", "weight": 1.0, "alpha": 0.3}, {"name": "cross_entropy", "weight": 1.0},
    ]  # fmt: skip


def test_terms_of_a_plugin_are_weighed_as_others_are() -> None:
    load("own_loss")
    terms = [autoseg.LossTerm.model_validate({"name": "tversky", "alpha": 0.3, "weight": 2})]
    logits, masks = torch.randn(2, 3, 5, 4), torch.randint(0, 3, (2, 5, 4))
    loss = SegmentationLoss(255, terms=terms)
    plain = LOSSES["tversky"].function(logits, Target(masks, 255), alpha=0.3)
    assert loss(logits, masks).item() == pytest.approx(2 * plain.item())
    assert loss.inexact == ("tversky",)


# --- a network --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_own_network_is_trained_evaluated_listed_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = ["--plugin", example("own_network")]
    options = {key: RETRAIN["retrain"][key] for key in ("batch_size", "crop")}
    settings = {"data": RETRAIN["data"], "device": "cpu", "retrain": {**options, "epochs": 1, "max_steps_per_epoch": 1}}
    config = write_config(tmp_path / "config.yaml", settings)
    call(
        "retrain", *plugin, "--network", "small_linknet", "--set", "network.width=0.1", "--set", "network.levels=2",
        "--config", config, "--out", tmp_path / "run",
    )  # fmt: skip
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["network"]
    assert written == {
        "name": "small_linknet", "width": 0.1, "in_channels": 3, "levels": 2,
        "plugins": {"small_linknet": "own_network.py"},
    }  # fmt: skip
    call("evaluate", *plugin, tmp_path / "run", "--device", "cpu")
    call("spaces", *plugin)
    call("show", *plugin, "small_linknet", "--size", 64, 64)
    shown = capsys.readouterr().out
    assert "after LinkNet" in shown
    assert "down.2" in shown
    assert re.search(r"options +width 1.0, in_channels 3, levels 3$", shown, re.MULTILINE)


def test_options_of_own_network_are_checked_as_others_are() -> None:
    load("own_network")
    for data, code, named in (
        ({"name": "small_linknet", "levels": 9}, "setting-invalid", ["levels", "not 9"]),
        ({"name": "small_linknet", "level": 2}, "unknown-setting", ["'level'", "did you mean 'levels'"]),
        ({"name": "small_linknet", "aspp_rates": [6]}, "setting-invalid", ["no option 'aspp_rates'", "levels"]),
        ({"name": "unet", "levels": 2}, "setting-invalid", ["unet has no option 'levels'"]),
    ):
        with raises_code(autoseg.errors.ConfigError, code, *named):
            autoseg.FixedNetwork.parse(data)
    network = autoseg.build_network({"name": "small_linknet", "width": 0.1}, 4)
    assert network.eval()(torch.zeros(1, 3, 45, 33)).shape == (1, 4, 45, 33)


def test_a_network_of_another_class_is_refused() -> None:
    autoseg.register(autoseg.Network("mine_is_plain", "a paper", autoseg.FixedNetwork, lambda options, k: nn.ReLU()))
    with raises_code(PluginError, "network-of-wrong-kind", "'mine_is_plain'", "ReLU", "SegmentationNetwork"):
        autoseg.build_network("mine_is_plain", 3)


# --- a decoder --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_own_decoder_is_in_genotypes_pictures_and_networks(tmp_path: Path) -> None:
    load("own_decoder")
    genotype = autoseg.Genotype.parse(merge(GENOTYPE, {"decoder": {"name": "parsenet"}}))
    assert genotype.to_dict()["plugins"] == {"parsenet": "own_decoder.py"}
    network = autoseg.build_network(genotype, 3).eval()
    assert network(torch.zeros(1, 3, 40, 33)).shape == (1, 3, 40, 33)
    genotype.save(tmp_path / "genotype.yaml")
    call("plot", tmp_path / "genotype.yaml", "--out", tmp_path)
    call("export", tmp_path / "genotype.yaml", "--format", "dot", "--out", tmp_path / "a.dot")
    assert "ParseNet" in (tmp_path / "a.dot").read_text()


def test_an_unknown_decoder_gets_the_nearest() -> None:
    load("own_decoder")
    with pytest.raises(AutosegError, match="did you mean 'parsenet'"):
        autoseg.Genotype.parse(merge(GENOTYPE, {"decoder": {"name": "parsnet"}}))
