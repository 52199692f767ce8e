"""Bad input ends every command with one line that names it, at once and in little memory (docs/reliability.md)."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.bad_inputs import CASES, COMMANDS, LAUGHS, NAMES, TABLES, Place, fill, image_files, many_pages
from helpers.data_sets import write_folder
from helpers.errors import check_line, raises_code
from helpers.tiny_runs import GENOTYPE, SPACE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from autoseg import limits
from autoseg.cli.main import run
from autoseg.config.base import parse, parse_assignments
from autoseg.config.data import DataConfig, ResolvedDataConfig
from autoseg.config.inference import InferenceConfig
from autoseg.config.training import RetrainSchedule, SearchSchedule
from autoseg.data.io.images import read_image
from autoseg.data.io.opening import read_header
from autoseg.errors import MOST_LETTERS, AutosegError, ConfigError, DataError, GenotypeError, SearchSpaceError
from autoseg.files import cut, parse_json, parse_yaml, path_fault, read_yaml, short, user_path, write_text
from autoseg.genotype.schema import Genotype
from autoseg.registry import LOSSES, NETWORKS
from autoseg.space.schema import SearchSpace

SECONDS, MEGABYTES = 15, 1000
ROOT = Path(__file__).parents[1]


@contextlib.contextmanager
def within_limits() -> Iterator[None]:
    """At most 15 seconds, and 1 GB more than at any time before."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.monotonic() - started < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024 < MEGABYTES


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_command_refuses(
    name: str, tmp_path: Path, searched: Path, retrained: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    place = Place(tmp_path, tmp_path / "searched", tmp_path / "retrained")
    shutil.copytree(searched, place.searched)
    shutil.copytree(retrained, place.retrained)
    words = [str(word) for word in CASES[name].write(place)]
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    capsys.readouterr()
    with within_limits():
        assert run(words) == 2
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.endswith("left")]  # of progress
    assert len(lines) == 1
    assert len(lines[0]) < MOST_LETTERS + 100
    check_line(lines[0], CASES[name].code, *CASES[name].named)


MORE_COMMANDS = [
    "decode NAME --space tiny",
    "decode TABLES --space NAME",
    "decode SEARCHED --measure --retrained NAME",
    "retrain --weights NAME --data DATA --out OUT",
    "retrain --warm-start NAME --data DATA --out OUT",
]


@pytest.mark.slow
@pytest.mark.parametrize("command", [*COMMANDS, *MORE_COMMANDS])
def test_a_command_refuses_every_name_that_no_file_can_have(
    command: str, tmp_path: Path, searched: Path, retrained: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """`CASES` has each command with one of them alone."""
    place = Place(tmp_path, tmp_path / "searched", tmp_path / "retrained")
    shutil.copytree(searched, place.searched)
    shutil.copytree(retrained, place.retrained)
    shutil.copy(searched / "arch/epoch_0000.npz", tmp_path / "TABLES")
    monkeypatch.chdir(tmp_path)
    for name in NAMES.values():
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        words = [str(word) for word in fill(place, command, name)]
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        capsys.readouterr()
        assert run(words) == 2, name[:40]
        lines = [line for line in capsys.readouterr().err.splitlines() if not line.endswith("left")]
        assert [line[:7] for line in lines] == ["error: "], (name[:40], lines[0][:200])
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before, name[:40]


@pytest.mark.parametrize("name", TABLES)
def test_a_file_of_class_names_that_cannot_be_used_stops_nothing(name: str, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", {"train": [(40, 48)] * 2, "val": [(40, 48)]}, labels=3)
    (root / name).write_text(TABLES[name], encoding="utf-8")
    with within_limits():
        assert run(["check-data", str(root)]) == 0


def read_both(path: Path) -> None:
    read_header(path)
    read_image(path)


@pytest.mark.parametrize("name", image_files())
def test_an_image_is_refused_by_its_header(name: str, tmp_path: Path) -> None:
    image_files()[name](tmp_path / name)
    with within_limits(), pytest.raises(DataError) as caught:
        read_both(tmp_path / name)
    assert name in str(caught.value)
    assert caught.value.code in ("file-unreadable", "image-too-large", "image-shape-invalid", "several-frames",
                                 "pixel-type-unsupported", "channels-unclear")  # fmt: skip


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("sparse.npy", "image-too-large"),
        ("third.npy", "image-too-large"),
        ("first.npy", "image-too-large"),
        ("flat.npy", "image-too-large"),
        ("pages.tif", "several-frames"),
        ("size.bmp", "image-too-large"),
    ],
)
def test_what_is_wrong_with_an_image_is_said(name: str, code: str, tmp_path: Path) -> None:
    image_files()[name](tmp_path / name)
    with raises_code(DataError, code, name):
        read_header(tmp_path / name)


def test_a_tiff_has_at_most_as_many_pages_as_an_image_channels(tmp_path: Path) -> None:
    for pages, refused in ((limits.CHANNELS, False), (limits.CHANNELS + 2, True)):
        (tmp_path / "a.tif").write_bytes(many_pages(pages))
        with raises_code(DataError, "several-frames", "1,024") if refused else contextlib.nullcontext():
            assert read_header(tmp_path / "a.tif").channels == pages


def test_a_stray_snapshot_is_left_alone(searched: Path, tmp_path: Path) -> None:
    shutil.copytree(searched, tmp_path / "run")
    for name in ("epoch_last.npz", "epoch_.npz", "epoch_²²²².npz", "epoch_0001 (copy).npz"):
        (tmp_path / "run" / "arch" / name).write_bytes(b"")
    assert run(["decode", str(tmp_path / "run")]) == 0
    assert Genotype.load(tmp_path / "run").source["epoch"] == 2


# --- every number -----------------------------------------------------------------------------------------------------

MODELS: tuple[type[BaseModel], ...] = (
    SearchSpace, Genotype, DataConfig, ResolvedDataConfig, SearchSchedule, RetrainSchedule, InferenceConfig,
    *(loss.options for loss in LOSSES.values()), *(network.options for network in NETWORKS.values()),
)  # fmt: skip
CHECKED_BY_HAND = ("version", "output_stride")
"""Keys whose few legal values a validator names."""


Schema = Mapping[str, Any]


def leaves(schema: Schema, defs: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Path and schema of each value below a JSON schema."""
    if "$ref" in schema:
        schema = {**defs[schema["$ref"].rpartition("/")[2]], **schema}
    yield path, schema
    inner = [(f"{path}.{key}", value) for key, value in schema.get("properties", {}).items()]
    inner += [(path, value) for key in ("anyOf", "oneOf", "allOf") for value in schema.get(key, ())]
    inner += [(f"{path}[]", value) for value in schema.get("prefixItems", ())]
    both = (schema.get("items"), schema.get("additionalProperties"))
    inner += [(f"{path}[]", value) for value in both if isinstance(value, dict)]
    for place, value in inner:
        yield from leaves(value, defs, place)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_number_and_every_list_has_an_upper_limit(model: type[BaseModel]) -> None:
    schema = model.model_json_schema()
    found = list(leaves(schema, schema.get("$defs", {})))
    numbers = [(path, one) for path, one in found if one.get("type") in ("integer", "number") and "enum" not in one]
    without = [path for path, one in numbers if not {"maximum", "exclusiveMaximum"} & one.keys()]
    without += [path for path, one in numbers if not {"minimum", "exclusiveMinimum"} & one.keys()]
    without += [path for path, one in found if one.get("type") == "array" and "maxItems" not in one]
    assert len(found) >= 3
    assert [path for path in without if path.rpartition(".")[2] not in CHECKED_BY_HAND] == []


def test_the_limits_are_those_of_the_documentation() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [^|]+ \| ([\d,]+) \| `limits\.(\w+)` \|$", text, re.MULTILINE)
    assert {name: int(number.replace(",", "")) for number, name in rows} == {
        name: value for name, value in vars(limits).items() if name.isupper()
    }


@pytest.mark.parametrize(
    ("changes", "legal"),
    [
        ({"cell": [[{"input": "prev", "operation": "sep_conv_3x3"}] * 5] * 2, "strides": [8] * 200}, True),
        ({"cell": [[{"input": "prev", "operation": "sep_conv_3x3"}] * 7] * 3, "strides": [8] * 200}, False),
    ],
)
def test_the_whole_of_a_genotype(changes: dict[str, Any], legal: bool) -> None:
    data = {**GENOTYPE, "cell": changes["cell"], "network": {"strides": changes["strides"], "filter_multiplier": 4}}
    with contextlib.nullcontext() if legal else raises_code(GenotypeError, "setting-invalid", "4,200 operations"):
        assert Genotype.parse(data).layers == 200


def test_the_whole_of_a_space() -> None:
    data = {**SPACE, "network": {"layers": 256, "strides": [4, 8, 16, 32], "filter_multiplier": 2}}
    assert SearchSpace.parse(data).network.layers == 256
    with raises_code(SearchSpaceError, "setting-invalid", "2,545 arrows", "150,000"):
        SearchSpace.parse({**data, "cell": {"blocks": 16}})


# --- small parts ------------------------------------------------------------------------------------------------------


def test_aliases_and_merge_keys_within_the_limits_are_read() -> None:
    text = "base: &a {x: 1, y: [1, 2]}\nother:\n  <<: *a\n  x: 2\nagain: [*a, *a]\n"
    base = {"x": 1, "y": [1, 2]}
    assert parse_yaml(text) == {"base": base, "other": {"x": 2, "y": [1, 2]}, "again": [base, base]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "more than 400,000 values"),
        ("a: &a [*a]", "'*a' holds itself"),
        ("[" * 41 + "]" * 41, "more than 40 levels"),
        ("1" * 41, "a number of 41 digits"),
        ("a: *b", "undefined alias"),
    ],
)
def test_what_yaml_may_not_hold(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_yaml(text)


def test_what_yaml_may_just_hold() -> None:
    assert parse_yaml("1" * 40) == int("1" * 40)
    assert str(parse_yaml("[" * 40 + "]" * 40)) == "[" * 40 + "]" * 40


@pytest.mark.parametrize(
    "text", ["Infinity", "-Infinity", "NaN", "[" * 100_000, "1" * 300, '{"a":' * 2000, "", "{", "\0", "01"], ids=cut
)
def test_what_json_may_not_hold(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_json(text)


@pytest.mark.parametrize("path", ["a", "~", "~/a", "a/~x", "/~x", "x" * 255, "é" * 127, "a\udcff", " ", "/", "a:b"])
def test_a_path_that_is_right(path: str) -> None:
    assert path_fault(path) is None
    assert user_path(path) == Path(os.path.expanduser(path))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("x" * 256, "255 bytes"),
        ("é" * 128, "255 bytes"),
        ("a/" * 2100, "4,095"),
        ("~nosuchuser/x", "no user ~nosuchuser; write the whole path"),
        ("a\0b", "zero byte"),
        ("a\ud800b", "half a letter"),
    ],
)
def test_a_path_that_is_none(path: str, said: str) -> None:
    with raises_code(DataError, "path-invalid", said):
        user_path(path, DataError)


def test_long_values_and_messages_are_cut() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    assert re.fullmatch(r"\[{3,}[.\]]*", short(deep))
    assert len(short(deep)) <= 60
    assert short(10**5000) == "a number of 16,610 bits"
    assert short(["a" * 50] * 3) == repr(["a" * 50] * 3)[:57] + "..."
    assert short({"a": 1}) == "{'a': 1}"
    message = str(DataError("a" * 5000 + "; do this", code="a-b"))
    assert message.endswith("; do this")
    assert len(message) < MOST_LETTERS + 10
    with raises_code(ConfigError, "setting-invalid", "search"):
        parse(SearchSchedule, {"epochs": 10**5000}, "search")


def test_half_a_letter_is_written_as_an_escape(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", '"\udcff"')
    assert parse_json((tmp_path / "a.json").read_text(encoding="ascii")) == "\udcff"


# --- anything ---------------------------------------------------------------------------------------------------------

KEYS = (*SPACE, *SPACE["network"], *GENOTYPE, "classes", "splits", "<<", "unet", "4->8")
WORDS = st.one_of(st.sampled_from(KEYS), st.text())
TEXTS = st.one_of(
    st.text(),
    st.binary().map(lambda content: content.decode("latin-1")),
    WORDS.map(lambda word: f"a: &a [{word}, *a]"),
)
PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS, st.binary(max_size=4)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)
MAPPINGS = st.dictionaries(WORDS, PLAIN, max_size=6)
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
GROUPS = [model for model in MODELS if "name" not in model.model_fields or model in (SearchSpace, Genotype)]


@QUICK
@given(MAPPINGS, st.sampled_from([SPACE, GENOTYPE]), st.sampled_from(GROUPS))
def test_any_settings_are_right_or_an_error_of_ours(changes: dict[str, Any], base: dict[str, Any], model: Any) -> None:
    with contextlib.suppress(AutosegError):
        parse(model, {**base, **changes})
    with contextlib.suppress(AutosegError):
        parse(model, changes)


@QUICK
@given(TEXTS)
def test_any_text_is_yaml_and_json_or_an_error_of_ours(tmp_path: Path, text: str) -> None:
    for name in ("a.yaml", "a.json"):
        (tmp_path / name).write_bytes(text.encode(errors="surrogatepass"))
        with contextlib.suppress(ConfigError):
            assert isinstance(read_yaml(tmp_path / name, ConfigError), dict)
    with contextlib.suppress(ConfigError):
        parse_assignments([f"a={text}", f"{text}=1"])
    with contextlib.suppress(ConfigError):
        assert os.fspath(user_path(text)) is not None
