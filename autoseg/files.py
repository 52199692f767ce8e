"""Reading and writing small files on any system: YAML with one-line errors, and atomic writes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shlex
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from reprlib import Repr
from typing import Any, BinaryIO, NoReturn

import yaml

from autoseg import limits
from autoseg.errors import AutosegError, ConfigError, RunError
from autoseg.host_memory import lacks_memory

WAITS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds between attempts to write over a file that another program has open."""
_SEAL, _DIGITS, _ZIP_END = b"autoseg sha256 ", 64, 22
_PROBE = bytes(4096)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk is full, or the user's share of it, or a file is as large as one may be."""
_OF_MACHINE = (
    *_FULL, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM,
    errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN,
)  # fmt: skip
ELSEWHERE = "or give another place"
"""What else to do than to make it possible to write."""


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, except that `3e-3` is a number, as in YAML 1.2 (PyYAML reads a string).

    A mapping with the same key twice is an error (PyYAML takes the last value), and so is what exceeds the limits:
    depth, digits, and nodes, of which an alias has as many as what it stands for.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = self._depth = 0
        self._nodes_of: dict[str, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.NodeEvent = self.peek_event()  # type: ignore[no-untyped-call]
        before, anchor, is_alias = self._nodes, event.anchor or "", isinstance(event, yaml.AliasEvent)
        self._nodes += 1 + (self._nodes_of.get(anchor, 0) if is_alias else 0)
        self._depth += 1
        if is_alias and anchor in self.anchors and anchor not in self._nodes_of:
            self._refuse(f"'*{anchor}' holds itself", event)
        if self._nodes > limits.NODES:
            self._refuse(f"more than {limits.NODES:,} values, aliases included", event)
        if self._depth > limits.DEPTH:
            self._refuse(f"more than {limits.DEPTH} levels", event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if anchor and not is_alias:
            self._nodes_of[anchor] = self._nodes - before
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > limits.DIGITS:
            self._refuse(f"a number of {len(node.value):,} digits", node)
        return super().construct_yaml_int(node)

    @staticmethod
    def _refuse(message: str, at: yaml.NodeEvent | yaml.Node) -> NoReturn:
        raise yaml.MarkedYAMLError(None, None, message, at.start_mark)  # type: ignore[arg-type]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    self._refuse(f"'{key.value}' is there twice", key)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
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
    """A YAML scalar or document as plain Python data. Raises: ValueError: it is none, or exceeds the limits."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as reason:
        raise ValueError(one_line(reason)) from None


def parse_json(text: str, **options: Any) -> Any:
    """`json.loads`. Raises: ValueError: no JSON, nested too deeply, or numbers that are none or of 300 digits."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no number of JSON")

    if _MANY_DIGITS.search(text):
        raise ValueError(f"a number of {limits.JSON_DIGITS} digits or more")
    try:
        return json.loads(text, parse_constant=refuse, **options)
    except RecursionError:
        raise ValueError("lists and mappings are nested too deeply") from None


_HALF_LETTER = re.compile(r"[\ud800-\udc7f\udd00-\udfff]")
"""The other surrogates stand for bytes of names that are no UTF-8."""
_MANY_DIGITS = re.compile(rf"\d{{{limits.JSON_DIGITS}}}")


def check_size(data: Any) -> None:
    """Raises: ValueError: plain data of more values or levels than the limits, or a text with half a letter in it."""
    level, count = [data], 0
    for _ in range(limits.DEPTH):
        inner: list[Any] = []
        count += len(level)
        if count > limits.NODES:
            raise ValueError(f"more than {limits.NODES:,} values")
        for value in level:
            if isinstance(value, str) and _HALF_LETTER.search(value):
                raise ValueError(f"{short(value)} has half a letter (a lone surrogate) in it")
            elif isinstance(value, Mapping):
                inner += (part for pair in value.items() for part in pair)
            elif isinstance(value, list | tuple):
                inner += value
        level = inner
    if level:
        raise ValueError(f"more than {limits.DEPTH} levels")


def read_yaml(path: Path, error: type[AutosegError]) -> dict[str, Any]:
    """The mapping in a YAML file, or in a JSON file if its name ends in `.json`.

    Raises: `error`: the file is missing, unreadable, no YAML, holds no mapping, or exceeds the limits.
    """
    form = "JSON" if path.suffix == ".json" else "YAML"
    try:
        if path.stat().st_size > limits.TEXT_BYTES:
            raise ValueError(f"more than {limits.TEXT_BYTES:,} bytes")
        text = path.read_text(encoding="utf-8-sig")
        data = parse_json(text) if form == "JSON" else parse_yaml(text)
        check_size(data)
    except FileNotFoundError:
        raise error(f"{path} does not exist; give the path of a YAML file", code="file-missing") from None
    except (OSError, UnicodeDecodeError) as reason:
        raise error(f"{path} cannot be read as text ({one_line(reason)})", code="file-unreadable") from None
    except ValueError as reason:
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


def write_atomically(path: Path, write: Callable[[Path], Any], remedy: str = ELSEWHERE) -> None:
    """Call `write` with a temporary file beside `path`, flush that to disk, then rename it to `path`.

    Raises: RunError: as `writing`, which `remedy` is for. Nothing is left of the new file then, and the old one stands.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path, remedy):
            write(temporary)
            with temporary.open("r+b") as file:  # Windows flushes only files opened for writing
                os.fsync(file.fileno())
            replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # it was renamed, or the disk is gone
            temporary.unlink()


@contextlib.contextmanager
def writing(path: Path, remedy: str = ELSEWHERE) -> Iterator[None]:
    """Say in one line that the system does not write `path`, why, how much room there is, and what to do (`remedy`).

    Raises: RunError: instead of any OSError, and of a RuntimeError that an OSError led to, or where the system refuses
    another file there too: PyTorch, NumPy and Pillow do not say that a disk is full.
    """
    try:
        yield
    except (OSError, RuntimeError) as given:
        reason = _cause(given) or _refusal(path) or given
        if not isinstance(reason, OSError):
            raise
        is_full = reason.errno in _FULL
        first = "make room" if is_full else "see that it can be"
        raise RunError(
            f"{path} cannot be written ({system_text(reason, path)}); {first}, {remedy}",
            code="disk-full" if is_full else "file-unwritable",
        ) from None


def _cause(reason: BaseException | None) -> OSError | None:
    """The first of an error and those that led to it which has a number of the system."""
    while reason is not None and not (isinstance(reason, OSError) and reason.errno):
        reason = reason.__cause__ or reason.__context__
    return reason


def _refusal(path: Path) -> OSError | None:
    """Why the system makes no file at `path`, or none with something in it; None if it does. Nothing is left there."""
    place = existing(path)
    try:
        with tempfile.TemporaryFile(dir=place if place.is_dir() else place.parent) as probe:
            probe.write(_PROBE)
    except OSError as reason:
        return reason
    return None


def system_text(reason: OSError, path: Path) -> str:
    """What the system says, and the room on the disk of `path` if it lacks that."""
    text = one_line(reason.strerror or reason)
    if reason.errno in _FULL:
        with contextlib.suppress(OSError):
            return f"{text}; {format_bytes(shutil.disk_usage(existing(path)).free)} are free"
    if reason.errno in (errno.EMFILE, errno.ENFILE):
        return f"{text}; raise the limit of open files, `ulimit -n`"
    return text


def of_machine(reason: BaseException) -> AutosegError | None:
    """What the machine refuses, in one line; None for what is a fault of autoseg."""
    if lacks_memory(reason):
        return RunError(
            f"the machine gives no more memory or threads ({cut(one_line(reason), 200)}); end other programs, raise the"
            " limits (`ulimit -a`), or take smaller settings",
            code="out-of-memory",
        )
    if not isinstance(reason, OSError) or reason.errno not in _OF_MACHINE:
        return None
    text = one_line(reason.strerror or reason)
    if isinstance(reason.filename, str | bytes):
        path = Path(os.fsdecode(reason.filename))
        text = f"{path} cannot be used ({system_text(reason, path)}); see that it can be"
    elif reason.errno in _FULL:
        text = f"the output cannot be written ({text}); send it elsewhere"
    return RunError(text, code="disk-full" if reason.errno in _FULL else "file-unusable")


def existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))


def make_folder(path: Path) -> None:
    """Make a folder and those above it. Raises: RunError: it cannot be made."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def check_room(path: Path, needed: int = 0, remedy: str = ELSEWHERE) -> None:
    """Try whether a file or folder can be made at `path`, before long work. Nothing is left of it.

    needed: bytes that will be written there. Raises: RunError: it cannot, or the disk has not that much room.
    """
    with writing(path, remedy):
        if reason := _refusal(path):
            raise reason
        if (free := shutil.disk_usage(existing(path)).free) < needed:
            raise RunError(
                f"{path} needs {format_bytes(needed)}, and {format_bytes(free)} are free; make room, {remedy}",
                code="disk-full",
            )


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


@contextlib.contextmanager
def utf8_name(path: Path) -> Iterator[str]:
    """A name of an existing file for libraries that take no other than UTF-8."""
    if os.fsencode(path).decode(errors="replace") == str(path):
        yield str(path)
    else:
        with path.open("rb") as file:
            yield f"/dev/fd/{file.fileno()}"


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
    write_atomically(path, lambda temporary: temporary.write_text(text, "utf-8", "backslashreplace", "\n"))


def write_sealed_json(path: Path, content: object) -> None:
    """Write JSON with a checksum of it, atomically."""
    text = json.dumps(content)
    write_text(path, f"{_sealed(text)}{text}}}")


def read_sealed_json(path: Path) -> Any:
    """What `write_sealed_json` wrote. Raises: OSError; ValueError: the file is another, or not as it was written."""
    whole = path.read_bytes().decode()
    text = whole[len(_sealed("")) : -1]
    if whole != f"{_sealed(text)}{text}}}":
        raise ValueError("its checksum differs")
    return parse_json(text)


def _sealed(text: str) -> str:
    """What stands before a text in a file with its checksum."""
    return f'{{"sha256": "{hashlib.sha256(text.encode()).hexdigest()}", "content": '


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
        return user_path(cache_dir)
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if os.path.isabs(root) else Path("~/.cache").expanduser()) / "autoseg"


def check_members(path: Path, most: int) -> None:
    """Raises: ValueError: the members of a zip file are larger than `most` bytes together when unpacked."""
    with zipfile.ZipFile(path) as file:
        size = sum(member.file_size for member in file.infolist())
    if size > most:
        raise ValueError(f"it unpacks to {size:,} bytes, of which at most {most:,} are read")


def user_path(path: str | Path, error: type[AutosegError] = ConfigError) -> Path:
    """A path that a user gave, with `~` resolved. Raises: `error`: no file can have it (see `path_fault`)."""
    if fault := path_fault(path):
        raise error(f"{short(str(path))} is no path: {fault}", code="path-invalid")
    return Path(os.path.expanduser(path))


def path_fault(path: str | Path, expands: bool = True) -> str | None:
    """Why no file can have this path, and what to do; None for a path that is right. expands: `~` stands for a home."""
    text = str(path)
    if expands and not text:
        return "it is empty; write `.` for the current folder"
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:
        return "it has half a letter (a lone surrogate) in it; correct it"
    if b"\0" in encoded:
        return "it has a zero byte in it; correct it"
    longest = max(map(len, re.split(rb"[/\\]" if os.name == "nt" else rb"/", encoded)))
    if longest > limits.NAME_BYTES or len(encoded) > limits.PATH_BYTES:
        return f"names have at most {limits.NAME_BYTES} bytes, and paths {limits.PATH_BYTES:,}; shorten it"
    if expands and text.startswith("~") and os.path.expanduser(text).startswith("~"):
        return f"there is no user {Path(text).parts[0]}; write the whole path of a file of that name"
    return None


def shell_quoted(text: str | Path) -> str:
    """`text` as one word of a printed command line. Windows takes double quotes only."""
    quoted = shlex.quote(str(text))
    return f'"{text}"' if os.name == "nt" and quoted != str(text) else quoted


def short(value: object, most: int = 60) -> str:
    """Python's text of a value, with a line's room: cut after `most` letters, and for large values left out inside."""
    shown = _Short().repr(value) if isinstance(value, list | tuple | dict | set | int) else repr(value)
    return cut(shown, most)


def cut(text: str, most: int = 60) -> str:
    """A text with a line's room: at most `most` letters."""
    return text if len(text) <= most else text[: most - 3] + "..."


class _Short(Repr):
    """`repr` of a few levels and items, for values of any depth and numbers of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = 30
        self.maxstring = self.maxother = 60

    def repr_int(self, value: int, level: int) -> str:
        return str(value) if value.bit_length() < 1000 else f"a number of {value.bit_length():,} bits"


def format_bytes(size: float) -> str:
    """Three digits and a unit of 10^3, 10^6, ... bytes: "7.21 GB"."""
    units, power = ("", "K", "M", "G", "T"), 0
    while size >= 999.5 and power < len(units) - 1:
        size, power = size / 1000, power + 1
    digits = 0 if power == 0 or size >= 99.95 else 1 if size >= 9.995 else 2
    return f"{size:.{digits}f} {units[power]}B"


def one_line(reason: object) -> str:
    """An exception's text on one line."""
    return " ".join(str(reason).split()) or type(reason).__name__
