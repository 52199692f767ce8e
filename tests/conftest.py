"""Every test runs on one thread, so that two workers share two cores, and its figures do not depend on the machine."""

import atexit
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
import torch

from autoseg.process import prepare_process

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"

os.environ.setdefault("MPLCONFIGDIR", str(Path("~/.cache/matplotlib").expanduser()))  # its fonts are listed once
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="autoseg-cache-")  # what runs keep there is not the user's
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
torch.set_num_threads(1)
prepare_process()  # as every command does
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it for what it runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that need a CUDA GPU where torch finds none."""
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="needs a CUDA GPU, and torch finds none")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that was never stopped. Not to be changed."""
    from helpers.tiny_runs import SEARCH, call, write_config

    folder = tmp_path_factory.mktemp("searched")
    call("search", "--config", write_config(folder / "config.yaml", SEARCH), "--out", folder / "run")
    return folder / "run"


@pytest.fixture(scope="session")
def retrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A retraining that was never stopped. Not to be changed."""
    from helpers.tiny_runs import RETRAIN, call, write_config

    folder = tmp_path_factory.mktemp("retrained")
    call("retrain", "--config", write_config(folder / "config.yaml", RETRAIN), "--out", folder / "run")
    return folder / "run"


@pytest.fixture
def camvid() -> Path:
    return real("camvid")


@pytest.fixture
def voc() -> Path:
    return real("voc10")


def real(name: str) -> Path:
    if not (REAL / name).is_dir():
        pytest.skip(f"the real images are not here: {REAL / name}")
    return REAL / name
