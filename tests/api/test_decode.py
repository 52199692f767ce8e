"""Decoding through the Python API."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.errors import raises_code
from helpers.tiny_runs import SPACE, files_of, search_task

import autoseg
from autoseg.errors import CheckpointError, GenotypeError, RunError
from autoseg.genotype.decode import decode as decode_probs
from autoseg.genotype.schema import Genotype
from autoseg.space.snapshot import ArchProbs


@pytest.mark.slow
def test_decode_writes_what_the_last_snapshot_says(search_run: Path) -> None:
    genotype = autoseg.decode(search_run)
    probs = ArchProbs.load(search_run / "arch" / "epoch_0002.npz", search_task().space)
    expected = decode_probs(probs)
    assert (genotype.cell, genotype.network) == (expected.cell, expected.network)
    assert Genotype.load(search_run) == genotype
    source = genotype.source
    assert (source["run"], source["epoch"], source["seed"]) == (search_run.as_posix(), 2, 0)
    assert autoseg.decode(search_run) == genotype  # the same again is no conflict


def test_decode_never_writes_over_another_genotype(search_run: Path, tmp_path: Path) -> None:
    autoseg.decode(search_run)
    before = files_of(search_run)
    with raises_code(RunError, "genotype-exists", search_run / "genotype.yaml", "--out", "--overwrite"):
        autoseg.decode(search_run, epoch=0)
    assert files_of(search_run) == before
    earlier = autoseg.decode(search_run, epoch=0, out=tmp_path / "g.yaml", path_prior="paper")
    assert (earlier.source["epoch"], earlier.source["path_prior"]) == (0, "paper")
    assert Genotype.load(tmp_path / "g.yaml") == earlier
    autoseg.decode(search_run, epoch=0, overwrite=True)
    assert Genotype.load(search_run).source["epoch"] == 0


@pytest.mark.slow
def test_decode_refuses(search_run: Path, retrained: Path, tmp_path: Path) -> None:
    cases: tuple[tuple[dict[str, Any], str, tuple[object, ...]], ...] = (
        ({"run": retrained}, "run-kind-differs", (retrained,)),
        ({"run": search_run, "epoch": 9}, "epoch-missing", (search_run, "9", "0 to 2")),
        ({"run": search_run, "out": tmp_path / "no" / "g.yaml"}, "folder-missing", (tmp_path / "no" / "g.yaml",)),
        ({"run": search_run, "out": tmp_path}, "file-is-folder", (tmp_path,)),
    )
    for arguments, code, named in cases:
        with raises_code(RunError, code, *named):
            autoseg.decode(**arguments)
    with raises_code(GenotypeError, "unknown-path-prior", "'x'"):
        autoseg.decode(search_run, path_prior="x")
    (search_run / "arch" / "epoch_0002.npz").write_bytes(b"PK")
    with raises_code(CheckpointError, "snapshot-unreadable", "epoch_0002.npz"):
        autoseg.decode(search_run)
    shutil.rmtree(search_run / "arch")
    with raises_code(RunError, "no-epoch-yet", search_run):
        autoseg.decode(search_run)


def test_snapshots_are_read_with_numpy_alone(searched: Path) -> None:
    with np.load(searched / "arch" / "epoch_0002.npz", allow_pickle=False) as snapshot:
        alpha, beta = snapshot["alpha_probs"], snapshot["beta_probs"]
        assert snapshot["operations"].tolist() == SPACE["cell"]["operations"]
    assert np.allclose(alpha.sum(-1), 1)
    assert set(np.round(beta.sum(-1), 9).ravel()) <= {0.0, 1.0}
