"""How the package is written: no long function, and English that says its subject first."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "autoseg"
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES = 60
"""Lines of a function's body, without its docstring."""
BEGINS_WITH_OF = re.compile(r"(^|[.!?:]\s+)Of\s")


def bodies(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Name and number of lines of each function's body."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            has_docstring = ast.get_docstring(node) is not None and len(node.body) > 1
            first = node.body[1] if has_docstring else node.body[0]
            yield node.name, (node.end_lineno or 0) - first.lineno + 1


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each docstring, those of attributes too, and of each block of comments."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value.strip()
    block, last = "", -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            said = token.string.lstrip("# ")
            if token.start[0] == last + 1:
                block += f" {said}"
            else:
                if block:
                    yield last, block
                block = said
            last = token.start[0]
    if block:
        yield last, block


def test_no_function_is_long() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}: {name} has {lines} lines"
        for path in FILES
        for name, lines in bodies(ast.parse(path.read_text("utf-8")))
        if lines > MOST_LINES
    ]
    assert found == []


def test_no_sentence_begins_with_of() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}, line {line}: {text}"
        for path in FILES
        for line, text in texts(path.read_text("utf-8"))
        if BEGINS_WITH_OF.search(text)
    ]
    assert found == []


def test_what_is_looked_for_is_found() -> None:
    source = """
def f():
    'Of a thing.'
    # Of two
    a = 1  # lines
    'One. Of the other.'
    return a
"""
    assert list(bodies(ast.parse(source))) == [("f", 3)]
    assert sorted(text for _, text in texts(source) if BEGINS_WITH_OF.search(text)) == [
        "Of a thing.", "Of two lines", "One. Of the other.",
    ]  # fmt: skip
