"""Tensors on the CPU that take the way of a GPU."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from helpers.oracle_supernet import largest_difference
from helpers.spaces import small_space
from helpers.supernets import loss_of, supernet_of

import autoseg
from autoseg.ops.devices import acting_as, device_type
from autoseg.supernet import Supernet


def test_a_tensor_acts_as_being_elsewhere_while_it_lasts() -> None:
    tensor = torch.zeros(1)
    with acting_as("cuda"):
        assert device_type(tensor) == "cuda"
        with acting_as("mps"):
            assert device_type(tensor) == "mps"
        assert device_type(tensor) == "cuda"
    assert device_type(tensor) == "cpu"


def test_acting_ends_with_an_error() -> None:
    with pytest.raises(RuntimeError), acting_as("cuda"):
        raise RuntimeError
    assert device_type(torch.zeros(1)) == "cpu"


@pytest.mark.slow
@pytest.mark.parametrize("half", ["weights", "architecture"])
def test_the_way_of_a_gpu_gives_the_same_gradients(half: str) -> None:
    plain = supernet_of(small_space(layers=4, blocks=3, filters=4))
    acting = copy.deepcopy(plain)
    images = torch.randn(2, 3, 65, 97, dtype=torch.float64)
    _backward(plain, half, images)
    with acting_as("cuda"):
        _backward(acting, half, images)
    of_acting = dict(acting.named_parameters())
    trained = [name for name, parameter in plain.named_parameters() if parameter.requires_grad]
    for name in trained:
        assert largest_difference(of_acting[name].grad, plain.get_parameter(name).grad) < 1e-10, name
    assert trained


def _backward(supernet: Supernet, half: str, images: torch.Tensor) -> None:
    supernet.train_weights() if half == "weights" else supernet.train_architecture()
    loss_of(supernet, images).backward()


def test_what_predictions_follow_asks_for_devices_by_one_function() -> None:
    """Else a prediction would follow the CPU's way where the GPU's is another."""
    folder = Path(autoseg.__file__).parent
    asks = re.compile(r"\b(?!self\b)\w+\.(device\.type|is_cuda)\b")
    allowed = {"analysis/memory_tracker.py", "ops/devices.py"}
    for package in ("supernet", "ops", "network", "zoo", "losses", "metrics", "analysis"):
        for file in (folder / package).rglob("*.py"):
            name = file.relative_to(folder).as_posix()
            found = asks.search(file.read_text(encoding="utf-8"))
            assert found is None or name in allowed, f"{name}: {found[0]}; use ops.devices.device_type"
