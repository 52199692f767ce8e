"""What README, the guide and docs/results tell a reader to run does run, with fewer steps; links and names exist."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.document_commands import FEWER, blocks, commands, run_all
from PIL import Image
from typer.main import get_command

import autoseg
from autoseg.cli.main import app
from autoseg.config.base import merge, parse_assignments
from autoseg.config.data import DataConfig
from autoseg.data.dataset import open_dataset, resolve

ROOT = Path(__file__).resolve().parents[1]
CAMVID = ROOT.parent / "shared" / "data" / "camvid"
README = ROOT / "README.md"
GUIDE = sorted((ROOT / "docs/guide").glob("*.md"))
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def run_page(page: Path) -> None:
    """Write the files of a page, which begin with their name in a comment; run its commands, then its Python."""
    python = blocks(page, "python")
    for block in [*python, *blocks(page, "yaml")]:
        if name := re.match(r"# (\w+\.(?:py|yaml))\n", block):
            Path(name[1]).write_text(block, encoding="utf-8")
    run_all(commands(page), {})
    for block in python:
        if not block.startswith("# "):
            exec(block, {})


def with_fewer_steps(function: Callable[..., Any]) -> Callable[..., Any]:
    """`autoseg.search` or `autoseg.retrain` with fewer steps."""

    def shorter(*arguments: Any, overrides: Mapping[str, Any] | None = None, **options: Any) -> Any:
        fewer = merge(overrides or {}, parse_assignments(FEWER[function.__name__]))
        return function(*arguments, overrides=fewer, **options)

    return shorter


def write_photos(folder: Path) -> None:
    """A folder of images and masks as README describes one."""
    data = open_dataset(
        resolve(DataConfig.model_validate({"layout": "generated", "generated": {"size": (64, 80)}})), "train"
    )
    for split, indices in (("train", range(8)), ("val", range(8, 12))):
        for name in (split, f"{split}annot"):
            (folder / name).mkdir(parents=True)
        for index in indices:
            image, mask = data.load(index)
            Image.fromarray(image).save(folder / split / f"{index}.jpg")
            Image.fromarray(mask.astype(np.uint8)).save(folder / f"{split}annot" / f"{index}.png")
    (folder / "new").mkdir()
    Image.fromarray(data.load(20).image).resize((123, 77)).save(folder / "new" / "street.jpg")


@pytest.mark.slow
def test_readme_and_the_guide(tmp_path, monkeypatch):
    """README's commands in their order, then each page of the guide, which goes on from what README leaves."""
    write_photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    for name in ("search", "retrain"):
        monkeypatch.setattr(autoseg, name, with_fewer_steps(getattr(autoseg, name)))
    story = ["check-data", "search", "decode", "retrain", "evaluate", "export", "plot"]
    assert [words[0] for words in commands(README)] == story
    run_page(README)
    for left in (
        "config.yaml", "environment.yaml", "split.yaml", "metrics.jsonl", "tensorboard", "arch/epoch_0000.npz",
        "checkpoints/last.pt", "checkpoints/best.pt", "genotype.yaml", "figures/trellis.pdf",
    ):  # fmt: skip
        assert (tmp_path / "runs/a" / left).exists(), left
    for page in GUIDE:
        run_page(page)
    assert Image.open("predictions/labels/street.png").size == (123, 77)


@pytest.mark.slow
@pytest.mark.skipif(not CAMVID.is_dir(), reason=f"CamVid is not at {CAMVID.relative_to(ROOT.parent)}")
def test_commands_of_the_camvid_result(tmp_path, monkeypatch):
    """A reader can repeat docs/results/camvid.md."""
    monkeypatch.chdir(tmp_path)
    names = run_all(
        commands(ROOT / "docs/results/camvid.md"),
        {"$CAMVID": str(CAMVID), "data_sets/": f"{ROOT}/data_sets/", "docs/": f"{ROOT}/docs/"},
    )
    assert names[:4] == ["search", "decode", "retrain", "evaluate"]


@pytest.mark.slow
def test_commands_of_the_data_sets_result(tmp_path, monkeypatch):
    write_photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    names = run_all(commands(ROOT / "docs/results/data_sets.md"), {"DATA": "photos"})
    assert names == ["check-data", "search", "decode", "retrain", "evaluate", "retrain"]


def plain_text(document: Path) -> str:
    """A document without its code blocks."""
    return re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """What links may name behind #: the headings as GitHub writes them."""
    headings = re.findall(r"^#+ (.+)$", plain_text(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_and_pictures_are_there():
    links = [
        (document, link)
        for document in DOCUMENTS
        for link in re.findall(r"(?:\]\(|src=\")([^)\"]+)[)\"]", document.read_text(encoding="utf-8"))
        if "://" not in link
    ]
    assert len(links) > 100
    missing = []
    for document, link in links:
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append(f"{document.name}: {link}")
    assert not missing


def test_every_page_of_the_guide_is_in_its_contents():
    contents = (ROOT / "docs/guide/README.md").read_text(encoding="utf-8")
    assert [page.name for page in GUIDE if page.name != "README.md" and f"({page.name})" not in contents] == []


def test_every_option_that_the_guide_names_exists():
    known = {option for command in get_command(app).commands.values() for p in command.params for option in p.opts}
    named = {
        option
        for page in (README, *GUIDE)
        for span in re.findall(r"`([^`\n]+)`", plain_text(page))
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", span)
    }
    assert len(named) > 20
    assert named - known == {"--help", "--logdir", "--shm-size"}  # every command's, TensorBoard's and Docker's


def test_paths_and_names_on_the_pages_of_the_code_exist():
    """In docs/architecture.md and docs/fused_supernet.md each `path/file`, `package.module.name` and `Class.method`."""
    missing, seen = [], 0
    for page in (ROOT / "docs/architecture.md", ROOT / "docs/fused_supernet.md"):
        for span in re.findall(r"`([^`\n]+)`", plain_text(page)):
            first = ROOT / "autoseg" / span.partition(".")[0]
            if re.fullmatch(r"[\w./-]+/[\w.-]*", span):
                found = any((folder / span).exists() for folder in (ROOT, ROOT / "autoseg"))
            elif re.fullmatch(r"\w+\.py", span):
                found = (ROOT / "autoseg" / span).exists() or any((ROOT / "tests").rglob(span))
            elif re.fullmatch(r"[a-z_0-9]+(\.\w+)+", span) and (first.is_dir() or first.with_suffix(".py").exists()):
                if span.endswith((".yaml", ".jsonl")):
                    continue
                found = is_name(span)
            else:
                continue
            seen += 1
            if not found:
                missing.append(f"{page.name}: {span}")
    assert seen > 60
    assert not missing


def is_name(dotted: str) -> bool:
    """Whether `package.module`, `package.module.name` or `package.module.Class.member` is there, below `autoseg`."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        module = ".".join(["autoseg", *parts[:end]])
        try:
            there = find_spec(module) is not None
        except ModuleNotFoundError:  # its parent is a module and no package
            continue
        if there:
            value: Any = __import__(module, fromlist=["_"])
            for name in parts[end:]:
                if not hasattr(value, name):
                    return False
                value = getattr(value, name)
            return True
    return False


def test_the_iteration_that_the_page_quotes_is_that_of_the_engine():
    """Line by line, but for what is left out at `...`."""
    source = (ROOT / "autoseg/engine/search.py").read_text(encoding="utf-8")
    (quoted,) = [block for block in blocks(ROOT / "docs/architecture.md", "python") if "def step" in block]
    pieces = [bare(piece) for piece in re.split(r"^ +\.\.\.$", quoted, flags=re.MULTILINE)]
    assert len("".join(pieces).splitlines()) > 15
    assert [piece for piece in pieces if piece not in bare(source)] == []


def bare(code: str) -> str:
    """The lines of code without indents and without empty lines."""
    return "".join(f"{line.strip()}\n" for line in code.splitlines() if line.strip())
