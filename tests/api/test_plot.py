"""Drawing through the Python API."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.errors import raises_code
from helpers.tiny_runs import GENOTYPE, SPACE, write_config
from helpers.wide_spaces import KINDS, WIDE, of_stages
from PIL import Image

import autoseg
from autoseg.errors import ConfigError


@pytest.mark.slow
def test_plot_a_search(search_run: Path) -> None:
    files = autoseg.plot(search_run)
    assert {path.parent for path in files} == {search_run / "figures"}
    assert {path.name for path in files} == {
        f"{stem}.{suffix}" for stem in ("trellis", "alpha", "history") for suffix in ("svg", "png", "pdf")
    }
    autoseg.decode(search_run)
    assert {path.stem for path in autoseg.plot(search_run)} == {"trellis", "alpha", "history", "cell"}


@pytest.mark.slow
def test_plot_a_retraining_a_genotype_and_a_space(retrained: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures"
    genotype = write_config(tmp_path / "g.yaml", GENOTYPE)
    space = write_config(tmp_path / "s.yaml", SPACE)
    for source, stems in (
        (retrained, {"path", "cell", "history"}),
        (genotype, {"path", "cell"}),
        ("auto_deeplab_s", {"path", "cell"}),
        (space, {"trellis"}),
        ("tiny", {"trellis"}),
    ):
        files = autoseg.plot(source, out / Path(source).name, ("svg", "png"))
        assert {path.name for path in files} == {f"{stem}.{suffix}" for stem in stems for suffix in ("svg", "png")}
        for path in files:
            if path.suffix == ".png":
                with Image.open(path) as image:
                    assert min(image.size) > 100
                    assert len(image.convert("RGB").getcolors(1 << 24)) > 3
            else:
                assert path.read_text().lstrip().startswith("<?xml")
    for formats in ((), ("gif",)):
        with raises_code(ConfigError, "unknown-format", "svg", "png", "pdf", *formats):
            autoseg.plot("tiny", tmp_path, formats)


@pytest.mark.slow
def test_stages_are_drawn_and_a_cell_only_if_there_is_one(tmp_path: Path) -> None:
    for name in KINDS:
        of_stages(name).save(tmp_path / "g.yaml")
        files = {path.stem: path for path in autoseg.plot(tmp_path / "g.yaml", tmp_path / name, ("svg",))}
        assert set(files) == ({"path", "cell"} if "cell" in name else {"path"})
    assert {path.stem for path in autoseg.plot(write_config(tmp_path / "w.yaml", WIDE), tmp_path, ("svg",))} == {
        "trellis"
    }
