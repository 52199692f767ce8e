"""Several processes that paint the same annotations at once do not disturb each other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autoseg.data.annotations.masks import Painted, annotations_in

from . import writers

IMAGES = 12


def write(root: Path) -> None:
    """Images of one COCO file, with the same regions each."""
    content = writers.coco_content()
    first, regions = content["images"][0], content["annotations"]
    for number in range(IMAGES):
        name = f"image_{number}.png"
        content["images"].append({**first, "id": 100 + number, "file_name": name})
        content["annotations"] += [
            {**one, "id": 1000 * number + 100 + one["id"], "image_id": 100 + number} for one in regions
        ]
        writers.image(root / "images" / name)
    writers.coco(root, content)


def masks(painted: Painted) -> list[list[list[int]]]:
    return [np.asarray(Image.open(mask)).tolist() for some in painted.images.values() for _, _, mask in some]


def test_all_get_the_same_masks(tmp_path: Path) -> None:
    root, cache = tmp_path / "data", tmp_path / "cache"
    write(root)
    alone = annotations_in(root, cache=tmp_path / "alone")
    assert alone is not None
    assert len(masks(alone)) > IMAGES
    with ThreadPoolExecutor(8) as pool:
        found = [work.result() for work in [pool.submit(annotations_in, root, "auto", cache) for _ in range(16)]]
    assert all(one is not None and masks(one) == masks(alone) for one in found)
    assert len(list((cache / "annotations").iterdir())) == 1, "folders of painters are left"


def test_masks_of_before_are_replaced(tmp_path: Path) -> None:
    root, cache = tmp_path / "data", tmp_path / "cache"
    write(root)
    annotations_in(root, cache=cache)
    content = writers.coco_content()
    del content["annotations"][1:]
    writers.coco(root, content)
    after, anew = annotations_in(root, cache=cache), annotations_in(root, cache=tmp_path / "anew")
    assert after is not None
    assert anew is not None
    assert masks(after) == masks(anew)
    assert after.pixels == anew.pixels
    assert len(list((cache / "annotations").iterdir())) == 1


@pytest.mark.parametrize("name", ["000003.png", "annotations.json"])
def test_a_flipped_bit_is_found_and_the_masks_are_painted_anew(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, cache = tmp_path / "data", tmp_path / "cache"
    write(root)
    first = annotations_in(root, cache=cache)
    assert first is not None
    (place,) = (cache / "annotations").iterdir()
    before = masks(first), first.pixels
    for bit in (3, 500, 8 * (place / name).stat().st_size - 1):
        content = bytearray((place / name).read_bytes())
        content[bit // 8] ^= 1 << bit % 8
        (place / name).write_bytes(content)
        caplog.clear()
        again = annotations_in(root, cache=cache)
        assert again is not None
        assert (masks(again), again.pixels) == before
        warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
        assert warnings == [f"{place} is damaged, or of another version; making it anew"]
    caplog.clear()
    annotations_in(root, cache=cache)
    assert not caplog.records
