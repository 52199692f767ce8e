"""Reading and writing small files on any system: YAML with one-line errors, and atomic writes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from autoseg.errors import AutosegError

WAITS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds between attempts to write over a file that another program has open."""
_SEAL, _DIGITS, _ZIP_END = b"autoseg sha256 ", 64, 22


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, except that `3e-3` is a number, as in YAML 1.2 (PyYAML reads a string).

    A mapping with the same key twice is an error (PyYAML takes the last value).
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' is there twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    key: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:float"]
    for key, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)$|^[-+]?(\d+\.\d*|\.\d+)$|^[-+]?\.(inf|Inf)$|^\.(nan|NaN)$"),
    list("-+0123456789."),
)


class _Dumper(yaml.SafeDumper):
    """Safe dumper that indents lists in mappings, quotes text that `_Loader` reads as a number, and never aliases."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        return super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def parse_yaml(text: str) -> Any:
    """A YAML scalar or document as plain Python data."""
    return yaml.load(text, Loader=_Loader)


def read_yaml(path: Path, error: type[AutosegError]) -> dict[str, Any]:
    """The mapping in a YAML file, or in a JSON file if its name ends in `.json`.

    Raises: `error`: the file is missing, unreadable, no YAML, or holds no mapping.
    """
    form = "JSON" if path.suffix == ".json" else "YAML"
    try:
        text = path.read_text(encoding="utf-8-sig")
        data = json.loads(text) if form == "JSON" else parse_yaml(text)
    except FileNotFoundError:
        raise error(f"{path} does not exist; give the path of a YAML file", code="file-missing") from None
    except (OSError, UnicodeDecodeError) as reason:
        raise error(f"{path} cannot be read as text ({one_line(reason)})", code="file-unreadable") from None
    except (yaml.YAMLError, ValueError, RecursionError) as reason:
        raise error(
            f"{path} is not valid {form}: {one_line(reason)}; correct the file", code="file-malformed"
        ) from None
    if not isinstance(data, dict):
        raise error(
            f"{path} holds no mapping of keys to values; see `autoseg show` for what such a file looks like",
            code="file-without-mapping",
        )
    for stray in (key for key in data if not isinstance(key, str)):
        raise error(f"{path} has the key {stray!r}, which is no word; correct the file", code="key-not-text")
    return data


def to_yaml(data: Mapping[str, Any]) -> str:
    """Readable YAML: keys in their order, short lists on one line."""
    return yaml.dump(
        dict(data), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True
    )


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Call `write` with a temporary file beside `path`, flush that to disk, then rename it to `path`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with temporary.open("r+b") as file:  # Windows flushes only files opened for writing
            os.fsync(file.fileno())
        replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def replace(temporary: Path, path: Path) -> None:
    """Rename `temporary` to `path`, on the disk too. Windows refuses while another program reads either: try again."""
    for seconds in (*WAITS, None):
        try:
            temporary.replace(path)
            break
        except PermissionError:
            if seconds is None:
                raise
            time.sleep(seconds)
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the system can."""
    with contextlib.suppress(OSError):  # Windows opens no folders, and some network file systems flush none
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def seal(path: Path) -> None:
    """Put a checksum of the whole file into the comment of a ZIP archive without one, as PyTorch and NumPy write."""
    with path.open("r+b") as file:
        file.seek(-2, os.SEEK_END)  # the length of the comment
        file.write((len(_SEAL) + _DIGITS).to_bytes(2, "little") + _SEAL)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.write(digest.encode())


def is_intact(path: Path) -> bool:
    """Whether a ZIP archive is as it was sealed; true of one without a seal. Raises: OSError: it cannot be read."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(_SEAL) - _DIGITS))
        end = file.read()
        if len(end) == len(_SEAL) + _DIGITS and end.startswith(_SEAL):
            file.seek(0)
            return _digest(file, size - _DIGITS) == end[len(_SEAL) :].decode("latin-1")
    return end[-_ZIP_END:].startswith(b"PK\x05\x06") and end.endswith(b"\0\0")


def _digest(file: BinaryIO, size: int) -> str:
    """SHA-256 of the next `size` bytes."""
    found = hashlib.sha256()
    while size > 0 and (chunk := file.read(min(size, 2**20))):
        found.update(chunk)
        size -= len(chunk)
    return found.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline="\n"))


def digest(content: object) -> str:
    """The SHA-256 of what JSON can hold, in hexadecimal digits; it names files in the cache folder."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def file_state(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds; zeros if the file does not exist."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """`cache_dir`, or else the user's cache folder: $XDG_CACHE_HOME/autoseg or ~/.cache/autoseg."""
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if os.path.isabs(root) else Path("~/.cache").expanduser()) / "autoseg"


def shell_quoted(text: str) -> str:
    """`text` as one word of a printed command line. Windows takes double quotes only."""
    quoted = shlex.quote(text)
    return f'"{text}"' if os.name == "nt" and quoted != text else quoted


def one_line(reason: object) -> str:
    """An exception's text on one line."""
    return " ".join(str(reason).split()) or type(reason).__name__
