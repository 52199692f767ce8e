"""Records, the registries that hold them, and plugins that register more, each kind in the same way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.errors import raises_code
from helpers.plugins import RECORDS, nothing_stays, source

import autoseg
from autoseg.errors import PluginError
from autoseg.plugins import load_plugin
from autoseg.registry import BLOCKS, DECODERS, LOSSES, NETWORKS, OPERATIONS, REGISTRIES, UPSAMPLERS, register

PACKAGE = Path(autoseg.__file__).parent
KINDS = {registry.kind: registry for registry in REGISTRIES.values()}


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with nothing_stays():
        yield


def write(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def held() -> dict[str, list[str]]:
    return {kind: list(registry) for kind, registry in KINDS.items()}


# --- what ships with autoseg ------------------------------------------------------------------------------------------


def test_every_kind_has_a_registry_and_a_public_class() -> None:
    assert set(KINDS) == set(RECORDS) == {"operation", "block", "upsampler", "decoder", "loss", "network"}
    assert all(getattr(autoseg, kind.__name__) is kind for kind in REGISTRIES)
    assert all(kind.__name__ in autoseg.__all__ for kind in REGISTRIES)


def test_records_are_found_by_their_names_in_the_order_of_their_files() -> None:
    for registry in KINDS.values():
        assert len(registry) == len(list(registry)) > 4
        for name, record in registry.items():
            assert record.name == name
            assert registry.plugin_of(name) is None
    assert list(OPERATIONS)[:3] == ["none", "skip_connect", "avg_pool_3x3"]
    assert list(BLOCKS) == [
        "conv_3x3", "residual", "atrous_residual", "separable", "bottleneck", "inverted_residual"
    ]  # fmt: skip
    assert list(UPSAMPLERS) == [
        "nearest", "bilinear", "transposed_conv", "transposed_conv_bilinear", "pixel_shuffle", "pixel_shuffle_icnr",
        "pixel_dcl", "pixel_dcl_equations", "pixel_dcl_average", "ipixel_dcl", "ipixel_dcl_equations", "max_unpool",
        "carafe", "dysample",
    ]  # fmt: skip
    assert list(DECODERS) == ["deeplabv3plus", "aspp", "unet", "fcn", "classifier"]
    assert list(LOSSES) == ["cross_entropy", "ohem", "focal", "boundary", "dice", "lovasz"]
    assert [name for name in NETWORKS if "_" not in name] == ["unet", "pixeldcn", "deconvnet", "segnet"]
    assert next(iter(NETWORKS)) == "fcn32s_vgg16"


def test_short_names_of_networks_are_distinct_and_no_full_names() -> None:
    short = [network.short for network in NETWORKS.values() if network.short]
    assert len(set(short)) == len(short) == 8
    assert not set(short) & set(NETWORKS)


def test_an_unknown_name_gets_the_nearest() -> None:
    assert UPSAMPLERS.unknown("bilinar") == "unknown upsampler 'bilinar' (did you mean 'bilinear'?)"
    assert "known: deeplabv3plus, aspp" in DECODERS.unknown("zzz")
    with pytest.raises(KeyError):
        DECODERS["zzz"]


NETWORK = """
from autoseg.registry import Network, register
from autoseg.zoo.schema import FixedNetwork


class Options(FixedNetwork):
    depth: int = 4


register(Network("added", "a paper", Options, lambda options, outputs: None))
"""
LOOK = """
from autoseg.registry import NETWORKS
from autoseg.zoo.schema import FixedNetwork

print(list(NETWORKS)[-1], NETWORKS.plugin_of("added"), FixedNetwork.parse({"name": "added", "width": 0.5}).to_dict())
"""


@pytest.mark.slow
def test_a_network_is_added_by_one_file(tmp_path: Path) -> None:
    copy = shutil.copytree(PACKAGE, tmp_path / "autoseg", ignore=shutil.ignore_patterns("__pycache__"))
    write(copy / "zoo" / "networks", NETWORK, "added.py")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", LOOK]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=True)
    assert done.stdout == "added None {'name': 'added', 'width': 0.5, 'in_channels': 3, 'depth': 4}\n"


# --- plugins ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_registers_a_record_once(kind: str, tmp_path: Path) -> None:
    path, registry = write(tmp_path, source(kind, "my_own")), KINDS[kind]
    load_plugin(path)
    load_plugin(str(path))  # does nothing
    assert registry["my_own"].name == "my_own"
    assert registry.plugin_of("my_own") == "mine.py"
    assert registry.owners(["my_own", next(iter(registry))]) == {"my_own": "mine.py"}
    assert [each for each in KINDS if "my_own" in KINDS[each]] == [kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_of_the_running_program_belongs_to_its_module(kind: str) -> None:
    exec(source(kind, "my_own"), {"__name__": "my_script"})
    assert KINDS[kind].plugin_of("my_own") == "my_script"


def test_several_kinds_may_use_one_name(tmp_path: Path) -> None:
    load_plugin(write(tmp_path, "".join(source(kind, "my_own") for kind in KINDS)))
    assert all(registry.plugin_of("my_own") == "mine.py" for registry in KINDS.values())


def test_a_module_is_loaded_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, source("loss", "my_own"), "my_module_of_losses.py")
    monkeypatch.syspath_prepend(tmp_path)
    load_plugin("my_module_of_losses")
    assert LOSSES.plugin_of("my_own") == "my_module_of_losses"


def test_an_entry_point_is_loaded_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, source("decoder", "my_own"), "my_module_of_decoders.py")
    info = tmp_path / "my_dist-1.0.dist-info"
    info.mkdir()
    write(info, "Metadata-Version: 2.1\nName: my-dist\nVersion: 1.0\n", "METADATA")
    write(info, "[autoseg.plugins]\nmy-decoders = my_module_of_decoders\n", "entry_points.txt")
    monkeypatch.syspath_prepend(tmp_path)
    load_plugin("my-decoders")
    assert DECODERS.plugin_of("my_own") == "my-decoders"


MISTAKES: list[tuple[str, str, tuple[str, ...]]] = [
    ("import autoseg\n1 / 0\n", "plugin-import-fails", ("ZeroDivisionError", "line 2")),
    ("import there_is_no_such_module\n", "plugin-import-fails", ("ModuleNotFoundError", "line 1")),
    ("import autoseg\n\ndef f(:\n", "plugin-import-fails", ("SyntaxError", "line 3")),
    ("raise SystemExit(3)\n", "plugin-import-fails", ("SystemExit",)),
    ("import autoseg\n", "plugin-empty", ("autoseg.register",)),
    ("import autoseg\nautoseg.register('conv')\n", "plugin-record-invalid", ("'conv'", "autoseg.Loss")),
    *(
        (source(kind, name), "plugin-name-invalid", (kind, repr(name)))
        for kind in KINDS
        for name in ("My-Op", "", "3x3", "a b")
    ),
    *((source(kind, 3), "plugin-name-invalid", (kind, "3")) for kind in KINDS),
    *((2 * source(kind, "my_own"), "plugin-name-taken", (kind, "'my_own'")) for kind in KINDS),
    *(
        (source(kind, next(iter(registry))), "plugin-name-taken", (kind, "autoseg itself"))
        for kind, registry in KINDS.items()
    ),
    *((source(kind, "my_own", "None"), "plugin-lacks-function", (kind, "'my_own'")) for kind in KINDS),
    (source("network", "fcn8s"), "plugin-name-taken", ("network", "'fcn8s'", "autoseg itself")),
    (
        "import autoseg\nautoseg.register(autoseg.Upsampler('my_own', 'mine', None, lambda a, b: None))\n",
        "plugin-lacks-function",
        ("'my_own'", "multiply_adds"),
    ),
    (
        "import autoseg\nautoseg.register(autoseg.Loss('my_own', {'alpha': 1}, lambda logits, target: 0))\n",
        "plugin-lacks-options",
        ("'my_own'", "options", "autoseg.LossTerm"),
    ),
    (
        "import autoseg\nautoseg.register(autoseg.Network('my_own', 'a paper', dict, lambda options, outputs: 0))\n",
        "plugin-lacks-options",
        ("'my_own'", "options", "autoseg.FixedNetwork"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "code", "named"), MISTAKES)
def test_a_wrong_file_is_refused_in_one_line_and_leaves_nothing(
    text: str, code: str, named: tuple[str, ...], tmp_path: Path
) -> None:
    before = held()
    with raises_code(PluginError, code, "mine.py", *named):
        load_plugin(write(tmp_path, text))
    assert held() == before
    if code != "plugin-empty":
        with raises_code(PluginError, code, "late.py", named[0]):
            load_plugin(write(tmp_path, source("operation", "fine") + text, "late.py"))
        assert held() == before
    write(tmp_path, source("operation", "fine"))
    load_plugin(tmp_path / "mine.py")  # a file that was mended can be loaded
    assert "fine" in OPERATIONS


def test_a_plugin_that_is_not_there(tmp_path: Path) -> None:
    with raises_code(PluginError, "plugin-missing", "nowhere.py"):
        load_plugin(tmp_path / "nowhere.py")
    with raises_code(PluginError, "plugin-missing", "no_such_plugin_anywhere"):
        load_plugin("no_such_plugin_anywhere")


def test_two_plugins_with_one_name_of_a_record(tmp_path: Path) -> None:
    load_plugin(write(tmp_path, source("loss", "my_own"), "first.py"))
    with raises_code(PluginError, "plugin-name-taken", "second.py", "first.py", "'my_own'"):
        load_plugin(write(tmp_path, source("loss", "my_own"), "second.py"))
    assert LOSSES.plugin_of("my_own") == "first.py"


def test_only_records_are_registered() -> None:
    with raises_code(PluginError, "plugin-record-invalid", "autoseg.Network"):
        register(object())  # type: ignore[type-var]
