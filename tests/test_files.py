"""Small files: numbers in YAML, errors on one line, and writing that leaves all or nothing."""

import errno
import fcntl
import math
import os
from pathlib import Path
from typing import Any

import pytest
from helpers.errors import raises_code

from autoseg.errors import ConfigError, DataError, RunError
from autoseg.files import (
    WAITS,
    one_line,
    parse_yaml,
    read_yaml,
    shell_quoted,
    to_yaml,
    write_atomically,
    write_text,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-3", 0.003),
        ("1e5", 100000.0),
        ("-2E+3", -2000.0),
        ("1.5e-4", 0.00015),
        (".5", 0.5),
        ("5.", 5.0),
        ("0.1", 0.1),
        (".inf", math.inf),
        ("-.inf", -math.inf),
    ],
)
def test_numbers_with_an_exponent_are_floats(text: str, value: float) -> None:
    parsed = parse_yaml(text)
    assert isinstance(parsed, float)
    assert parsed == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-7", -7),
        ("e3", "e3"),
        ("3e", "3e"),
        ("1.2.3", "1.2.3"),
        ("v1e5", "v1e5"),
        ("'3e-3'", "3e-3"),
        ("true", True),
        ("null", None),
        ("", None),
        ("[1, 2e0]", [1, 2.0]),
        ("{a: 1e-3}", {"a": 0.001}),
    ],
)
def test_other_scalars_are_what_they_look_like(text: str, value: Any) -> None:
    parsed = parse_yaml(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        3e-3, 1e-5, 1e22, 0.1, 5.0, -0.0, math.inf, 7, True, None, "3e-3", "1e5", "12e4567", "1", "0x10", "true", "no",
        "~", "", " x ", "a: b", "# c", "- d", "two\nlines\n", "größer 😀", "1:30", "2024-01-01", [], {}, [[1, [2]]],
    ],
    ids=repr,
)  # fmt: skip
def test_yaml_gives_back_what_was_written(value: Any, tmp_path: Path) -> None:
    write_text(tmp_path / "a.yaml", to_yaml({"key": value, "list": [value], "map": {"inner": value}}))
    again = read_yaml(tmp_path / "a.yaml", ConfigError)
    assert again == {"key": value, "list": [value], "map": {"inner": value}}
    assert type(again["key"]) is type(value)


def test_yaml_keeps_the_order_of_keys_and_repeats_what_is_shared() -> None:
    shared = [1, 2]
    text = to_yaml({"z": shared, "a": shared, "t": (3, 4)})
    assert text == "z: [1, 2]\na: [1, 2]\nt: [3, 4]\n"


def test_merge_keys_still_work() -> None:
    text = "base: &base {a: 1, b: 2}\nuse: {<<: *base, b: 3}\n"
    assert parse_yaml(text)["use"] == {"a": 1, "b": 3}


def test_yaml_never_makes_objects() -> None:
    with pytest.raises(Exception, match="could not determine a constructor"):
        parse_yaml("!!python/object/apply:os.getcwd []")


@pytest.mark.parametrize(
    ("content", "code", "named"),
    [
        (b"a: [1,\n  2\nb: 3\n", "file-malformed", "YAML"),
        (b"a: b: c\n", "file-malformed", "line 1"),
        (b"a: 1\nb: 2\na: 3\n", "file-malformed", "'a'"),
        (b"a: {b: 1, b: 1}", "file-malformed", "'b'"),
        (b"a: *nowhere", "file-malformed", "'nowhere'"),
        (b"{[1]: 2, {a: 1}: 3}", "file-malformed", "YAML"),
        (b"a: 2024-13-45", "file-malformed", "YAML"),
        (b"a: 1\n---\nb: 2\n", "file-malformed", "YAML"),
        (b"\xff\xfe", "file-unreadable", ""),
        (b"", "file-without-mapping", ""),
        (b"[a]", "file-without-mapping", ""),
        (b"true: 1", "key-not-text", "True"),
        (b"~: 1", "key-not-text", "None"),
    ],
)
def test_errors_name_the_file_on_one_line(content: bytes, code: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with raises_code(DataError, code, path, named):
        read_yaml(path, DataError)


def test_json_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{a: 1}")
    with raises_code(ConfigError, "file-malformed", tmp_path / "x.json", "JSON", "line 1"):
        read_yaml(tmp_path / "x.json", ConfigError)


def test_yaml_errors_say_the_line(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: 1\nb: 2\nc: [\n")
    with raises_code(ConfigError, "file-malformed", tmp_path / "x.yaml", "line 4"):
        read_yaml(tmp_path / "x.yaml", ConfigError)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with raises_code(ConfigError, "file-missing", tmp_path / "none.yaml"):
        read_yaml(tmp_path / "none.yaml", ConfigError)
    with raises_code(ConfigError, "file-unreadable", tmp_path):
        read_yaml(tmp_path, ConfigError)


# --- atomic writing ---------------------------------------------------------------------------------------------------


def test_a_writer_that_raises_leaves_nothing_behind(tmp_path: Path) -> None:
    def half(temporary: Path) -> None:
        temporary.write_text("half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    with raises_code(RunError, "disk-full", tmp_path / "new.txt", "No space left", "free", "make room"):
        write_atomically(tmp_path / "new.txt", half)
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_raises_leaves_the_old_file_as_it_was(tmp_path: Path) -> None:
    def interrupted(temporary: Path) -> None:
        temporary.write_text("half of it")
        raise KeyboardInterrupt

    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a.txt", interrupted)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    seen = []

    def write(temporary: Path) -> None:
        temporary.write_text("new")
        seen.append((tmp_path / "a.txt").read_text())
        assert temporary.parent == tmp_path  # another folder may be another disk, where a rename is a copy

    write_atomically(tmp_path / "a.txt", write)
    assert seen == ["old"]
    assert (tmp_path / "a.txt").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_writer_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with raises_code(RunError, "file-unwritable", tmp_path / "a.txt"):
        write_atomically(tmp_path / "a.txt", lambda temporary: None)
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_file_is_flushed_by_a_handle_that_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows refuses others. The folder is flushed next, which only other systems can."""
    writes: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda handle: writes.append(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_RDWR > 0))
    write_text(tmp_path / "a.txt", "new")
    assert writes == [True, False]


@pytest.mark.parametrize("refusals", [1, len(WAITS)])
def test_a_file_that_another_program_reads_is_waited_for(
    refusals: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = refuse_to_replace(refusals, monkeypatch)
    write_text(tmp_path / "a.txt", "new")
    assert waits == list(WAITS[:refusals])
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]


def test_a_file_that_another_program_never_leaves_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "a.txt", "old")
    waits = refuse_to_replace(100, monkeypatch)
    with raises_code(RunError, "file-unwritable", tmp_path / "a.txt", "The process cannot access"):
        write_text(tmp_path / "a.txt", "new")
    assert waits == list(WAITS)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def refuse_to_replace(refusals: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """As Windows does, so many times; the seconds that were slept."""
    replace, left, waits = Path.replace, [refusals], list[float]()

    def refusing(path: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] >= 0:
            raise PermissionError(13, "The process cannot access the file")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", refusing)
    monkeypatch.setattr("time.sleep", waits.append)
    return waits


@pytest.mark.parametrize(
    ("text", "posix", "windows"),
    [
        ("search.batch_size=2", "search.batch_size=2", "search.batch_size=2"),
        ("search.crop=[64, 64]", "'search.crop=[64, 64]'", '"search.crop=[64, 64]"'),
        ("C:/my runs/a", "'C:/my runs/a'", '"C:/my runs/a"'),
    ],
)
def test_words_of_a_printed_command(text: str, posix: str, windows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shell_quoted(text) == posix
    monkeypatch.setattr("autoseg.files.os.name", "nt")
    assert shell_quoted(text) == windows


def test_text_is_utf8_with_plain_newlines(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "größer\n")
    assert (tmp_path / "a.txt").read_bytes() == "größer\n".encode()


def test_one_line() -> None:
    assert one_line(ValueError("a\n  b\t c ")) == "a b c"
    assert one_line(ValueError()) == "ValueError"
