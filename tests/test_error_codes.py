"""Every user error has a code: reads the source of each module and loads none."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoseg import errors

ROOT = Path(__file__).parents[1]
CHECKED = ("autoseg", "scripts")
"""Folders whose errors have codes."""
CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+){1,5}")
KINDS = {name for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.AutosegError)}
PARAMETER = "error"
"""What a function calls the kind of error that it is given."""
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def calls(node: ast.AST, parameters: frozenset[str] = frozenset()) -> Iterator[tuple[ast.Call, frozenset[str]]]:
    """Every call below a node, and the parameters of the functions around it."""
    if isinstance(node, Function):
        of = node.args
        parameters |= {each.arg for each in (*of.posonlyargs, *of.args, *of.kwonlyargs)}
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield child, parameters
        yield from calls(child, parameters)


def constructions(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls that make a user error: `DataError(...)`, `errors.DataError(...)`, and `error(...)` of a parameter."""
    for call, parameters in calls(tree):
        function = call.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        given = isinstance(function, ast.Name) and name == PARAMETER and name in parameters
        if name in KINDS or given:
            yield call


def given_code(call: ast.Call) -> ast.expr | None:
    return next((keyword.value for keyword in call.keywords if keyword.arg == "code"), None)


def choices(value: ast.expr | None) -> list[ast.expr | None]:
    """What a value may be: of `a if condition else b` both."""
    return [*choices(value.body), *choices(value.orelse)] if isinstance(value, ast.IfExp) else [value]


def is_text(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def is_attribute(value: ast.expr | None) -> bool:
    """`reason.code`, of another error."""
    return isinstance(value, ast.Attribute) and value.attr == "code"


def faults(source: str) -> list[str]:
    """A line each: an error without a code, or a code that is none. Codes of other calls are looked at too."""
    tree, found = ast.parse(source), []
    for call in constructions(tree):
        if not all(is_text(choice) or is_attribute(choice) for choice in choices(given_code(call))):
            found.append(f"{call.lineno}: {ast.unparse(call.func)}(...) has no code='...'")
    for call, _ in calls(tree):
        for choice in choices(given_code(call)):
            if is_text(choice) and not CODE.fullmatch(ast.literal_eval(choice)):
                found.append(f"{choice.lineno}: '{ast.literal_eval(choice)}' is no code")
    return found


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("folder", CHECKED)
def test_every_error_has_a_code(folder: str) -> None:
    found = {file: faults(file.read_text(encoding="utf-8")) for file in sources(folder)}
    assert [f"{file.relative_to(ROOT)}:{fault}" for file, of in found.items() for fault in of] == []


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "least"), [("autoseg", 200), ("scripts", 10)])
def test_the_walk_finds_them(folder: str, least: int) -> None:
    assert sum(1 for file in sources(folder) for _ in constructions(ast.parse(file.read_text("utf-8")))) >= least


@pytest.mark.parametrize(
    "source",
    [
        "raise DataError(f'label {label}', code='label-out-of-range')",
        "raise errors.RunError('x', code='run-exists') from None",
        "try: ...\nexcept AutosegError as reason: raise ConfigError(f'{reason} (in a.yaml)', code=reason.code)",
        "def read(path, error): raise error('x', code='file-missing')",
        "raise error('x', code='a-b' if newer else reason.code)",
        "raise DataError('x', code='a-b' if kind == 'search' else 'c-d')",
        "raise ValueError('x')",
        "self.error('x')",
        "error('x')",  # no parameter
        "raise typer.Exit(code=2)",
    ],
)
def test_what_is_right(source: str) -> None:
    assert faults(source) == []


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("raise DataError('x')", "1: DataError(...) has no code='...'"),
        ("\nraise errors.RunError('x') from None", "2: errors.RunError(...) has no code='...'"),
        ("def a():\n    return [CheckpointError('x')]", "2: CheckpointError(...) has no code='...'"),
        ("def a(error):\n    raise error('x')", "2: error(...) has no code='...'"),
        ("def a(*, error):\n    def b():\n        raise error('x')", "3: error(...) has no code='...'"),
        ("a(lambda error: error('x'))", "1: error(...) has no code='...'"),
        ("raise DataError('x', code=name)", "1: DataError(...) has no code='...'"),
        ("raise DataError('x', code=f'{name}-missing')", "1: DataError(...) has no code='...'"),
        ("raise DataError('x', code='a-b' if newer else name)", "1: DataError(...) has no code='...'"),
        ("raise DataError('x', code='')", "1: '' is no code"),
        ("raise DataError('x', code='missing')", "1: 'missing' is no code"),
        ("raise DataError('x', code='File-missing')", "1: 'File-missing' is no code"),
        ("raise DataError('x', code='file_missing')", "1: 'file_missing' is no code"),
        ("raise DataError('x', code='file-missing-')", "1: 'file-missing-' is no code"),
        ("raise DataError('x', code='a-b' if newer else 'c')", "1: 'c' is no code"),
        ("raise DataError('x', code='one-two-three-four-five-six-seven')", "1: 'one-two-three-four-five-six-seven' is"),
        ("problem = Problem('x', code='c')", "1: 'c' is no code"),
    ],
)
def test_what_is_wrong_is_found(source: str, fault: str) -> None:
    (found,) = faults(source)
    assert found.startswith(fault)
