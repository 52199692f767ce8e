"""What is known by name."""

from autoseg.setup.names import known_names


def test_every_kind_with_a_description_or_a_paper() -> None:
    known = known_names()
    assert list(known) == ["search spaces", "genotypes", "networks of the literature"]
    assert known["search spaces"]["tiny"]
    assert "1901.02985" in known["genotypes"]["auto_deeplab_s"]
    assert "U-Net" in known["networks of the literature"]["unet"]
