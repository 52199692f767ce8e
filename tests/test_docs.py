"""The commands of README and of docs/results run as they stand, with fewer steps."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autoseg.cli.main import run
from autoseg.config.data import DataConfig
from autoseg.data.dataset import open_dataset, resolve

ROOT = Path(__file__).resolve().parents[1]
CAMVID = ROOT.parent / "shared" / "data" / "camvid"

FEWER = {
    "search": [
        "--set", "search.epochs=2", "--set", "search.arch_start_epoch=1", "--set", "search.max_steps_per_epoch=2",
        "--set", "search.batch_size=2", "--set", "search.crop=[64, 64]", "--set", "search.val_images=4",
    ],
    "retrain": [
        "--set", "retrain.epochs=2", "--set", "retrain.max_steps_per_epoch=2", "--set", "retrain.batch_size=2",
        "--set", "retrain.crop=[64, 64]", "--set", "retrain.val_images=4",
    ],
}  # fmt: skip


def commands(document: Path) -> list[list[str]]:
    """The arguments of each `autoseg` command in a document's bash blocks, and each `python -c` with its code.

    A command may go on after a backslash.
    """
    blocks = re.findall(r"^```bash\n(.*?)^```", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True) for line in lines]
    kept = [words for words in found if words[:1] == ["autoseg"] or words[:2] == ["python", "-c"]]
    return [words[1:] if words[0] == "autoseg" else words for words in kept]


def run_all(all_commands: list[list[str]], replacements: dict[str, str]) -> list[str]:
    """Run each with its words replaced and fewer steps; returns the names of the commands."""
    for words in all_commands:
        for old, new in replacements.items():
            words = [word.replace(old, new) for word in words]
        if words[0] == "python":
            exec(words[2], {})
            continue
        assert run([*words, *FEWER.get(words[0], [])]) == 0, " ".join(words)
    return [words[0] for words in all_commands]


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


def test_commands_of_readme(tmp_path, monkeypatch):
    write_photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    names = run_all(commands(ROOT / "README.md"), {})
    story = ["check-data", "search", "decode", "retrain", "evaluate", "predict", "export", "plot"]
    assert names == [*story, "retrain", "evaluate"]
    assert Image.open("predictions/labels/street.png").size == (123, 77)
    for left in (
        "config.yaml", "environment.yaml", "split.yaml", "metrics.jsonl", "tensorboard", "arch/epoch_0000.npz",
        "checkpoints/last.pt", "checkpoints/best.pt", "genotype.yaml", "figures/trellis.pdf",
    ):  # fmt: skip
        assert (tmp_path / "runs/a" / left).exists(), left


@pytest.mark.skipif(not CAMVID.is_dir(), reason=f"CamVid is not at {CAMVID.relative_to(ROOT.parent)}")
def test_commands_of_the_camvid_result(tmp_path, monkeypatch):
    """A reader can repeat docs/results/camvid.md."""
    monkeypatch.chdir(tmp_path)
    names = run_all(
        commands(ROOT / "docs/results/camvid.md"),
        {"$CAMVID": str(CAMVID), "data_sets/": f"{ROOT}/data_sets/", "docs/": f"{ROOT}/docs/"},
    )
    assert names[:4] == ["search", "decode", "retrain", "evaluate"]


def test_commands_of_the_data_sets_result(tmp_path, monkeypatch):
    write_photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    names = run_all(commands(ROOT / "docs/results/data_sets.md"), {"DATA": "photos"})
    assert names == ["check-data", "search", "decode", "retrain", "evaluate"]


def test_pictures_of_the_documents_are_there():
    documents = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    links = [
        (document, link)
        for document in documents
        for link in re.findall(r"(?:\]\(|src=\")([^)#\"]+)[)\"]", document.read_text(encoding="utf-8"))
        if "://" not in link
    ]
    assert links
    missing = [f"{document.name}: {link}" for document, link in links if not (document.parent / link).exists()]
    assert not missing
