"""Every test runs on one thread, so that two workers share two cores, and its figures do not depend on the machine."""

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that was never stopped. Not to be changed."""
    from tiny_runs import SEARCH, call, write_config

    folder = tmp_path_factory.mktemp("searched")
    call("search", "--config", write_config(folder / "config.yaml", SEARCH), "--out", folder / "run")
    return folder / "run"


@pytest.fixture(scope="session")
def retrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A retraining that was never stopped. Not to be changed."""
    from tiny_runs import RETRAIN, call, write_config

    folder = tmp_path_factory.mktemp("retrained")
    call("retrain", "--config", write_config(folder / "config.yaml", RETRAIN), "--out", folder / "run")
    return folder / "run"
