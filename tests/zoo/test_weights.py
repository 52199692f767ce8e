"""Weights of a classifier in a network: read from files of every kind, filled in by name, or refused in one line."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.errors import raises_code
from helpers.zoo_contract import noise
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.errors import CheckpointError
from autoseg.registry import NETWORKS
from autoseg.zoo.build import build_network
from autoseg.zoo.resnet import ResNet
from autoseg.zoo.schema import FixedNetwork
from autoseg.zoo.vgg import VGG16
from autoseg.zoo.weights import WeightsReport, load_backbone, read_weights, recognise
from autoseg.zoo.xception import Xception65

State = dict[str, Tensor]
WIDTH = 0.05
HIDDEN = 16
"""Filters of the fully connected layers of the small classifiers here."""


class Wrapped(nn.Module):
    """The least that is a network with a backbone."""

    def __init__(self, backbone: nn.Module, **parts: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        for name, part in parts.items():
            self.add_module(name, part)


def random_state(build: Callable[[], nn.Module], seed: int = 1) -> State:
    """Of a fresh module, every floating tensor at random."""
    torch.manual_seed(seed)
    return {
        name: torch.rand_like(value) if value.is_floating_point() else value
        for name, value in build().state_dict().items()
    }


def vgg_state(width: float = WIDTH, hidden: int = HIDDEN, **options: Any) -> State:
    """With torchvision's three fully connected layers."""
    backbone = VGG16(width=width, **options)
    state = random_state(lambda: backbone)
    features = backbone.channels[-1] * 49
    for layer, shape in ((0, (hidden, features)), (3, (hidden, hidden)), (6, (10, hidden))):
        state[f"classifier.{layer}.weight"] = noise(*shape, seed=layer)
        state[f"classifier.{layer}.bias"] = noise(shape[0], seed=layer + 1)
    return state


def resnet_state(depth: int = 50, **options: Any) -> State:
    state = random_state(lambda: ResNet(depth, width=WIDTH, **options))
    return {**state, "fc.weight": noise(10, 8), "fc.bias": noise(10)}


def published(build: Callable[[], nn.Module]) -> State:
    """Names and shapes of a published classifier's trunk, without data."""
    with torch.device("meta"):
        return build().state_dict()


def snapshot(network: nn.Module) -> State:
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_same(one: Mapping[str, Tensor], another: Mapping[str, Tensor]) -> None:
    assert sorted(one) == sorted(another)
    assert [name for name in one if not torch.equal(one[name], another[name])] == []


# --- files -----------------------------------------------------------------------------------------------------------

STATE = {"layer.weight": noise(3, 4), "layer.bias": noise(3), "norm.num_batches_tracked": torch.tensor(3)}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_reads_files(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    save_file(STATE, path) if suffix == ".safetensors" else torch.save(STATE, path)
    assert_same(read_weights(path), STATE)


@pytest.mark.parametrize(
    "contents",
    [
        {"state_dict": STATE, "epoch": 3},
        {"model": STATE, "optimizer": {"lr": 0.1}},
        {f"module.{name}": value for name, value in STATE.items()},
        {"state_dict": {f"module.{name}": nn.Parameter(value.float()) for name, value in STATE.items()}},
        {**STATE, "epoch": 3, "note": "a word"},
    ],
    ids=["state_dict", "model", "module", "both", "beside"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_finds_the_state_dict(contents: Any, zipped: bool, tmp_path: Path) -> None:
    torch.save(contents, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    found = read_weights(str(tmp_path / "a.pth"))
    assert list(found) == list(STATE)
    assert all(torch.equal(found[name], STATE[name].to(found[name].dtype)) for name in STATE)
    assert not any(value.requires_grad for value in found.values())


class Malicious:
    """Creates a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def write_bad(path: Path, kind: str) -> None:
    torch.save(STATE, path)
    whole = path.read_bytes()
    if kind == "missing":
        path.unlink()
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "truncated, old":
        torch.save(STATE, path, _use_new_zipfile_serialization=False)
        path.write_bytes(path.read_bytes()[:-40])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not weights at all\n" * 10)
    elif kind == "code":
        torch.save({"state_dict": STATE, "x": Malicious(path.parent / "ran")}, path)
    elif kind == "plain pickle":
        path.write_bytes(pickle.dumps(Malicious(path.parent / "ran")))
    elif kind == "whole model":
        torch.save(nn.Linear(2, 2), path)
    elif kind == "nothing in it":
        torch.save({"epoch": 3}, path)
    elif kind == "a list":
        torch.save([noise(2)], path)


@pytest.mark.parametrize(
    ("kind", "code", "named"),
    [
        ("missing", "file-missing", ""),
        ("folder", "file-missing", ""),
        ("truncated", "weights-damaged", ""),
        ("truncated, old", "weights-damaged", ""),
        ("empty", "weights-damaged", ""),
        ("text", "weights-damaged", ""),
        ("code", "pickle-with-code", ".mkdir)"),
        ("plain pickle", "pickle-with-code", ""),
        ("whole model", "pickle-with-code", "(torch.nn.modules.linear.Linear)"),
        ("nothing in it", "file-without-weights", ""),
        ("a list", "file-without-weights", ""),
    ],
)
def test_refuses_bad_files_in_one_line(kind: str, code: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    write_bad(path, kind)
    with raises_code(CheckpointError, code, path, named):
        read_weights(path)
    assert not (tmp_path / "ran").exists()


def test_refuses_truncated_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(STATE, path)
    path.write_bytes(path.read_bytes()[:-8])
    with raises_code(CheckpointError, "weights-damaged", path, "as safetensors"):
        read_weights(path)


# --- what matches ----------------------------------------------------------------------------------------------------


def build(name: str, num_classes: int = 3, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    spec = FixedNetwork.parse({"name": name, "width": WIDTH, **options})
    return build_network(spec, num_classes)


def trunk_state(name: str) -> State:
    backbone = NETWORKS[name].backbone
    if backbone == "vgg16":
        norm = FixedNetwork.parse(name).batch_norm
        return vgg_state(batch_norm=norm, hidden=300)  # at least what fc6 has at this width
    if backbone == "xception65":
        return {**random_state(lambda: Xception65(width=WIDTH)), "head.fc.weight": noise(10, 4)}
    return resnet_state(int(backbone.removeprefix("resnet")))


@pytest.mark.parametrize("name", [name for name, entry in NETWORKS.items() if entry.backbone and "101" not in name])
def test_fills_every_network(name: str) -> None:
    network, state = build(name), trunk_state(name)
    before = snapshot(network)
    report = load_backbone(network, state, "a.pth")
    assert sorted([*report.matched, *report.unused]) == sorted(state)
    own = network.state_dict()
    filled = set(own) - set(report.fresh)
    backbone_names = {f"backbone.{key}" for key in state if f"backbone.{key}" in own}
    assert len(backbone_names) > 25
    assert backbone_names <= filled
    for key in backbone_names:
        assert torch.equal(own[key], state[key.removeprefix("backbone.")]), key
    rest = [key for key in filled - backbone_names if not key.endswith("num_batches_tracked")]
    assert all(key.split(".")[-2] in ("fc6", "fc7") for key in rest)
    assert all(not torch.equal(own[key], before[key]) for key in rest)
    assert_same({key: own[key] for key in report.fresh}, {key: before[key] for key in report.fresh})
    assert ("fc" in str(report)) or ("classifier.6" in str(report))


def test_a_cascade_begins_its_added_layers_fresh() -> None:
    report = load_backbone(build("deeplabv3_cascade_resnet50"), resnet_state(), "a.pth")
    assert report.unused == ["fc.weight", "fc.bias"]
    added = {name.split(".")[1] for name in report.fresh if name.startswith("backbone.")}
    assert added == {"layer5", "layer6", "layer7"}


def test_counts_of_batches_are_not_needed() -> None:
    state = {name: value for name, value in resnet_state().items() if not name.endswith("num_batches_tracked")}
    report = load_backbone(Wrapped(ResNet(50, width=WIDTH)), state, "a.pth")
    assert report.fresh == []
    state["bn1.num_batches_tracked"] = torch.tensor(7)
    network = Wrapped(ResNet(50, width=WIDTH))
    assert load_backbone(network, state, "a.pth").fresh == []
    assert network.backbone.bn1.num_batches_tracked == 7


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision(precision: torch.dtype) -> None:
    state = {name: value.to(precision) for name, value in vgg_state().items()}
    network = Wrapped(VGG16(width=WIDTH))
    load_backbone(network, state, "a.pth")
    assert network.backbone.features[0].weight.dtype == torch.float32
    assert torch.equal(network.backbone.features[0].weight, state["features.0.weight"].float())


# --- fully connected layers ------------------------------------------------------------------------------------------


def connected(size: int, filters: int) -> nn.Module:
    channels = VGG16(width=WIDTH).channels[-1]
    fc6 = nn.Conv2d(channels, filters, size)
    return nn.Sequential(Branch(fc6, nn.Conv2d(filters, filters, 1)))


class Branch(nn.Module):
    def __init__(self, fc6: nn.Conv2d, fc7: nn.Conv2d) -> None:
        super().__init__()
        self.fc6, self.fc7 = fc6, fc7


def test_fully_connected_layers_become_convolutions() -> None:
    network, state = Wrapped(VGG16(width=WIDTH), head=connected(7, HIDDEN)), vgg_state()
    report = load_backbone(network, state, "a.pth")
    assert report.unused == ["classifier.6.weight", "classifier.6.bias"]
    assert report.fresh == []
    features = noise(2, VGG16(width=WIDTH).channels[-1], 9, 8)
    branch = network.head[0]
    result = branch.fc7(branch.fc6(features).relu())
    for row in range(3):
        for column in range(2):
            window = features[:, :, row : row + 7, column : column + 7].flatten(1)
            hidden = F.linear(window, state["classifier.0.weight"], state["classifier.0.bias"]).relu()
            expected = F.linear(hidden, state["classifier.3.weight"], state["classifier.3.bias"])
            torch.testing.assert_close(result[:, :, row, column], expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("size", "taps"), [(3, [0, 3, 6]), (4, [0, 2, 4, 6]), (7, list(range(7)))])
def test_smaller_layers_take_evenly_spaced_taps_and_filters(size: int, taps: list[int]) -> None:
    backbone = VGG16(width=WIDTH)
    network = Wrapped(backbone, one=connected(size, HIDDEN // 4), another=connected(size, HIDDEN // 4))
    state = vgg_state()
    report = load_backbone(network, state, "a.pth")
    whole = state["classifier.0.weight"].reshape(HIDDEN, backbone.channels[-1], 7, 7)
    for branch in (network.one[0], network.another[0]):
        assert torch.equal(branch.fc6.weight, whole[::4][:, :, taps][:, :, :, taps])
        assert torch.equal(branch.fc6.bias, state["classifier.0.bias"][::4])
        assert torch.equal(branch.fc7.weight[:, :, 0, 0], state["classifier.3.weight"][::4, ::4])
        assert torch.equal(branch.fc7.bias, state["classifier.3.bias"][::4])
    assert report.matched[-4:] == [f"classifier.{layer}.{kind}" for layer in (0, 3) for kind in ("weight", "bias")]


def test_without_fully_connected_layers_in_the_file_they_begin_fresh() -> None:
    state = {name: value for name, value in vgg_state().items() if name.startswith("features")}
    report = load_backbone(Wrapped(VGG16(width=WIDTH), head=connected(7, HIDDEN)), state, "a.pth")
    assert report.unused == []
    assert report.fresh == [f"head.0.{layer}.{kind}" for layer in ("fc6", "fc7") for kind in ("weight", "bias")]


# --- what does not ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "state", "code", "named"),
    [
        (lambda: ResNet(101), lambda: published(lambda: ResNet(50)),
         "backbone-differs", ["of ResNet-50, not of ResNet-101", "layer3.6.conv1.weight"]),
        (lambda: ResNet(50), lambda: published(lambda: ResNet(101)),
         "backbone-differs", ["of ResNet-101, not of ResNet-50;"]),
        (lambda: VGG16(batch_norm=True), lambda: published(VGG16),
         "backbone-differs", ["of VGG16, not of VGG16 with BatchNorm", "features.1.weight"]),
        (VGG16, lambda: published(lambda: VGG16(batch_norm=True)),
         "backbone-differs", ["of VGG16 with BatchNorm, not of VGG16 ", "features.2.weight"]),
        (VGG16, lambda: published(lambda: ResNet(50)),
         "backbone-differs", ["of ResNet-50, not of VGG16 ", "features.0.weight"]),
        (lambda: ResNet(50), lambda: published(Xception65),
         "backbone-differs", ["of Xception-65, not of ResNet-50"]),
        (Xception65, lambda: {"something": noise(1)},
         "backbone-differs", ["Xception-65", "stem.0.conv.weight"]),
        (lambda: VGG16(width=0.5), lambda: published(VGG16),
         "weights-need-width-one", ["width 1", "width 0.5", "features.0.weight", "64x3x3x3", "32x3x3x3"]),
        (lambda: ResNet(50, in_channels=1), lambda: published(lambda: ResNet(50)),
         "channels-differ", ["3 channels", "have 1"]),
        (lambda: ResNet(50), lambda: published(lambda: ResNet(50, width=0.5)),
         "weights-do-not-fit", ["ResNet-50", "conv1.weight is 32x"]),
        (lambda: VGG16(in_channels=4), lambda: published(VGG16), "channels-differ", ["3 channels", "have 4"]),
    ],
)  # fmt: skip
def test_refuses_weights_of_another_network(
    make: Callable[[], nn.Module], state: Callable[[], State], code: str, named: list[str]
) -> None:
    with torch.device("meta"):
        network = Wrapped(make())
    with raises_code(CheckpointError, code, "a.pth", *named):
        load_backbone(network, state(), "a.pth")


def test_refuses_a_network_without_a_backbone() -> None:
    with raises_code(CheckpointError, "no-backbone", "a.pth", "unet"):
        load_backbone(build("unet"), vgg_state(), "a.pth")


@pytest.mark.parametrize(
    ("change", "code", "named"),
    [
        (
            {"classifier.0.weight": noise(HIDDEN, 50)},
            "weights-do-not-fit",
            ["classifier.0.weight is 16x50", "head.0.fc6"],
        ),
        (
            {"classifier.3.weight": noise(2, 2), "classifier.3.bias": noise(2)},
            "weights-do-not-fit",
            ["classifier.3.weight is 2x2"],
        ),
        ({"classifier.3.bias": noise(2)}, "weights-do-not-fit", ["classifier.3.weight is 16x16", "head.0.fc7"]),
        ({"features.28.weight": noise(3, 3, 3, 3)}, "weights-need-width-one", ["features.28.weight", "3x3x3x3"]),
    ],
)
def test_nothing_changes_when_refused(change: State, code: str, named: list[str]) -> None:
    network = Wrapped(VGG16(width=WIDTH), head=connected(3, 4))
    before = snapshot(network)
    with raises_code(CheckpointError, code, "a.pth", *named):
        load_backbone(network, {**vgg_state(), **change}, "a.pth")
    assert_same(snapshot(network), before)


def test_recognises_torchvisions_and_timms_classifiers() -> None:
    with torch.device("meta"):
        vgg19 = {f"features.{place}.weight": torch.empty(4, 4, 3, 3) for place in range(16)}
        basic = {f"layer{stage}.{block}.conv1.weight": torch.empty(1) for stage in range(1, 5) for block in (0, 1)}
        wide = {**published(lambda: ResNet(50)), "layer1.3.conv1.weight": torch.empty(1)}
    assert recognise(vgg19) == "VGG19"
    assert recognise(basic) == "ResNet-18"
    assert recognise(wide) is None
    assert recognise({f"blocks.{block}.stack.conv1.conv_dw.weight": noise(1) for block in range(13)}) == "Xception-41"
    assert recognise({"weight": noise(1)}) is None


def test_the_report_names_prefixes() -> None:
    report = WeightsReport(
        ["conv1.weight"] * 3,
        ["fc.weight", "fc.bias"],
        ["backbone.layer5.0.conv1.weight", "backbone.layer5.1.conv1.weight", "score.weight"],
    )
    assert str(report) == (
        "3 of 5 weights in the file are used\nunused: fc (2)\nfresh in the network: backbone.layer5 (2), score (1)"
    )
    assert str(WeightsReport(["a"], [], [])) == "1 of 1 weights in the file are used"
    many = [f"decoder.part{number}.conv.weight" for number in range(30)] + ["score.weight"]
    assert str(WeightsReport([], [], many)).endswith("fresh in the network: decoder (30), score (1)")
