"""Folders of images written for a test."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write_pair(tmp_path: Path) -> Callable[..., None]:
    """write_pair("train/a.jpg", "trainannot/a.png"): a 40x32 (width x height) image and a mask with labels 0, 1, 2."""

    def write(image: str | None, mask: str | None, labels: np.ndarray | None = None) -> None:
        if labels is None:
            labels = np.tile(np.arange(40, dtype=np.uint8) % 3, (32, 1))
        for name, array in ((image, np.full((32, 40, 3), 90, dtype=np.uint8)), (mask, labels)):
            if name is not None:
                path = tmp_path / name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)

    return write
