"""With which kernels a supernet is computed: what is chosen, and that every choice computes the same."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from helpers.errors import raises_code
from helpers.oracle_options import options_pairs, options_textbook_of
from helpers.oracle_supernet import largest_difference, parameter_pairs, textbook_of
from helpers.oracle_upsampling import upsampling_oracle_of, upsampling_pairs
from helpers.spaces import TEMPERATURES, small_space, space_with
from helpers.supernets import results, supernet_of
from helpers.upsampling_spaces import SPACES as UPSAMPLING_SPACES
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autoseg.config.training import KernelConfig
from autoseg.errors import ConfigError
from autoseg.space.groups import PAPER_OPERATIONS
from autoseg.space.schema import SearchSpace
from autoseg.supernet import KernelChoice, Supernet, build_supernet, choose_kernels
from autoseg.supernet.fast.channel_groups import LAYOUTS
from autoseg.supernet.fast.kernels import DEFAULTS

CPU, CUDA, MPS = (torch.device(kind) for kind in ("cpu", "cuda", "mps"))
VARIANTS = [
    KernelChoice("channels_last", "product"),
    KernelChoice("channels_first", "convolution"),
    KernelChoice("channels_first", "product"),
]
SPACES: dict[str, tuple[SearchSpace, Any, Any]] = {
    "every operation": (small_space(layers=3, blocks=2), textbook_of, parameter_pairs),
    "paper": (
        small_space(layers=3, blocks=5, strides=(4, 8, 16), filters=1, operations=PAPER_OPERATIONS),
        textbook_of,
        parameter_pairs,
    ),
    "free alone": (
        small_space(layers=3, operations=["max_pool_3x3", "skip_connect", "avg_pool_3x3"]),
        textbook_of,
        parameter_pairs,
    ),
    **{
        name: (space_with(relaxation, layers=3, blocks=2, filters=4), options_textbook_of, options_pairs)
        for name, relaxation in {
            "pc_darts": {"pc_darts": 2},
            "mix": {"mix_before_cell": True},
            "gdas": {"gdas": TEMPERATURES, "pc_darts": 2},
            "all": {"pc_darts": 4, "mix_before_cell": True},
        }.items()
    },
    **{
        name: (UPSAMPLING_SPACES[name], upsampling_oracle_of, upsampling_pairs)
        for name in ("both", "skips", "multi hourglass")
    },
}
"""The last three have gamma; of each space its oracle, and which tensor of it is which."""


class Truth(NamedTuple):
    """A supernet, images, and what its oracle says of them."""

    supernet: Supernet
    images: Tensor
    logits: Tensor
    gradients: list[tuple[str, Any, Tensor]]
    """Name of a parameter, index into it, gradient there."""


@functools.cache
def truth_of(name: str, size: tuple[int, int]) -> Truth:
    space, oracle_of, pairs = SPACES[name]
    supernet = supernet_of(space)
    if space.relaxation.gdas:
        supernet.arch.draw(3, 1.7)
    oracle = oracle_of(supernet, 3)
    images = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    logits, _ = results(oracle, images)
    names = {parameter: name for name, parameter in supernet.named_parameters()}
    gradients = [
        (names[parameter], index, torch.zeros_like(other) if other.grad is None else other.grad)
        for parameter, index, other in pairs(supernet, oracle)
    ]
    assert {name for name, _, _ in gradients} == set(names.values())
    return Truth(supernet, images, logits, gradients)


def assert_equal_to_truth(truth: Truth, choice: KernelChoice, checkpoint: bool = False) -> None:
    supernet = copy.deepcopy(truth.supernet)
    supernet.checkpoint_cells = checkpoint
    supernet.use_kernels(choice)
    logits, gradients = results(supernet, truth.images)
    assert largest_difference(logits, truth.logits) < 1e-10
    parameters = dict(supernet.named_parameters())
    for name, index, expected in truth.gradients:
        found = gradients.get(name, torch.zeros_like(parameters[name]))
        assert largest_difference(found[index], expected) < 1e-10, name


def label(choice: KernelChoice) -> str:
    return "-".join((choice.layout, choice.pointwise))


@pytest.mark.slow
@pytest.mark.parametrize("choice", VARIANTS, ids=label)
@pytest.mark.parametrize("size", [(40, 51), (64, 32)], ids=str)
@pytest.mark.parametrize("name", SPACES)
def test_logits_and_gradients_equal_the_oracle(name: str, size: tuple[int, int], choice: KernelChoice) -> None:
    assert_equal_to_truth(truth_of(name, size), choice)


@pytest.mark.slow
@pytest.mark.parametrize("choice", VARIANTS, ids=label)
@pytest.mark.parametrize("name", ["every operation", "pc_darts", "gdas", "skips"])
def test_checkpointed_cells_equal_the_oracle(name: str, choice: KernelChoice) -> None:
    assert_equal_to_truth(truth_of(name, (40, 51)), choice, checkpoint=True)


@pytest.mark.slow
@pytest.mark.parametrize("choice", VARIANTS, ids=label)
@pytest.mark.parametrize("half", ["train_weights", "train_architecture"])
def test_frozen_halves_give_the_gradients_of_the_other(half: str, choice: KernelChoice) -> None:
    truth = truth_of("every operation", (40, 51))
    supernet = copy.deepcopy(truth.supernet)
    supernet.use_kernels(choice)
    getattr(supernet, half)()
    _, gradients = results(supernet, truth.images)
    wanted = [(name, index, expected) for name, index, expected in truth.gradients if name in gradients]
    assert {name for name, _, _ in wanted} == {name for name, p in supernet.named_parameters() if p.requires_grad}
    for name, index, expected in wanted:
        assert largest_difference(gradients[name][index], expected) < 1e-10, name


@pytest.mark.slow
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("choice", VARIANTS, ids=label)
def test_any_batch_gives_the_same_as_the_default(choice: KernelChoice, images: int) -> None:
    """One image too, where axes of length 1 make memory formats ambiguous."""
    supernet = supernet_of(small_space(layers=3, blocks=2, filters=1))
    batch = torch.randn(images, 3, 65, 64, dtype=torch.float64)
    expected, gradients = results(supernet, batch)
    supernet.use_kernels(choice)
    logits, found = results(supernet, batch)
    assert largest_difference(logits, expected) < 1e-10
    assert found.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert largest_difference(found[name], gradient) < 1e-9, name


@pytest.mark.slow
@pytest.mark.parametrize("choice", VARIANTS, ids=label)
def test_bfloat16_is_within_its_bound(choice: KernelChoice) -> None:
    """The bound of `test_paths`: the error of the logits has under a tenth of their standard deviation."""
    torch.manual_seed(0)
    supernet = build_supernet(small_space(layers=3, blocks=3, filters=8), 5)
    images = torch.randn(4, 3, 65, 64)
    exact, _ = results(supernet, images)
    supernet.use_kernels(choice)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, gradients = results(supernet, images)
    assert rounded.dtype == torch.float32
    assert float((rounded - exact).std()) < 0.1 * float(exact.std())
    assert all(bool(gradient.isfinite().all()) for gradient in gradients.values())


@pytest.mark.slow
def test_the_choice_can_change_and_leaves_no_trace() -> None:
    truth = truth_of("every operation", (40, 51))
    changed, never = copy.deepcopy(truth.supernet), copy.deepcopy(truth.supernet)
    assert never.kernels == DEFAULTS["cpu"] == KernelChoice("channels_last", "convolution", "convolution", False)
    changed.use_kernels(VARIANTS[-1])
    assert changed.kernels == copy.deepcopy(changed).kernels == VARIANTS[-1]
    results(copy.deepcopy(changed), truth.images)
    assert list(changed.state_dict()) == list(never.state_dict())
    changed.use_kernels(KernelChoice())
    (logits, gradients), (expected, others) = results(changed, truth.images), results(never, truth.images)
    assert torch.equal(logits, expected)
    assert all(torch.equal(gradients[name], other) for name, other in others.items())


# --- what is run ------------------------------------------------------------------------------------------------------


class Watch(TorchDispatchMode):
    """Names of the operations, and how the large results of convolutions, BatchNorms and pooling lie in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.formats: set[str] = set()
        self.dtypes: set[torch.dtype] = set()
        self.small_convolutions = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.names.append(name)
        self.dtypes |= {leaf.dtype for leaf in tree_leaves(result) if isinstance(leaf, Tensor)}
        if name == "convolution":
            self.small_convolutions += args[1].shape[2:] == (1, 1) and args[8] > 1
        if any(part in name for part in ("convolution", "batch_norm", "pool2d", "relu", "threshold")):
            self.formats |= {format for leaf in tree_leaves(result) for format in formats_of(leaf)}
        return result


def formats_of(value: Any) -> Iterator[str]:
    """How a feature lies; nothing of weights, and of shapes that say nothing."""
    if isinstance(value, Tensor) and value.dim() == 4 and min(value.shape[1:]) > 1 and value.shape[2] > 5:
        yield next(name for name in LAYOUTS if value.is_contiguous(memory_format=LAYOUTS[name].memory))


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["every operation", "pc_darts", "gdas", "skips"])
def test_all_features_lie_as_the_layout_says(name: str, layout: str) -> None:
    truth = truth_of(name, (64, 64))
    supernet = copy.deepcopy(truth.supernet)
    supernet.use_kernels(KernelChoice(layout))
    with Watch() as watch:
        supernet(truth.images).sum().backward()
    assert watch.formats == {layout}


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_channels_first_makes_no_strides_of_its_own_and_stays_in_float32(name: str) -> None:
    """Operations that mps cannot do, or not well."""
    truth = truth_of(name, (64, 64))
    supernet = copy.deepcopy(truth.supernet).float()
    supernet.use_kernels(KernelChoice("channels_first", "product"))
    with Watch() as watch:
        supernet(truth.images.float()).sum().backward()
    assert "as_strided" not in watch.names
    assert torch.float64 not in watch.dtypes


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_products_take_the_place_of_grouped_convolutions(layout: str) -> None:
    truth = truth_of("paper", (64, 64))
    watches = {}
    for pointwise in ("convolution", "product"):
        supernet = copy.deepcopy(truth.supernet)
        supernet.use_kernels(KernelChoice(layout, pointwise))
        with Watch() as watches[pointwise]:
            supernet(truth.images)
    groups = sum(len(cell.plan) for cell in supernet.cells.values())
    assert watches["convolution"].small_convolutions == 2 * groups  # the first and the second of sep_conv
    assert watches["product"].small_convolutions == 0
    assert watches["product"].names.count("bmm") == watches["convolution"].names.count("bmm") + 2 * groups


def test_in_channels_last_a_product_copies_nothing() -> None:
    layout = LAYOUTS["channels_last"]
    everything = torch.randn(2, 7, 5, 3 * 4 + 6).permute(0, 3, 1, 2)  # some of the channels of a feature
    with Watch() as watch:
        found = layout.multiply(torch.randn(3, 4, 4), everything[:, 6:])
    assert {"clone", "copy_", "cat", "contiguous"}.isdisjoint(watch.names)
    assert found.is_contiguous(memory_format=torch.channels_last)


# --- what is chosen ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", [CPU, CUDA, MPS, torch.device("cuda:3"), torch.device("xpu")], ids=str)
def test_auto_is_the_device_s_own(device: torch.device) -> None:
    assert choose_kernels(KernelConfig(), device) == DEFAULTS.get(device.type, DEFAULTS["cpu"])


def test_on_mps_features_lie_in_nchw() -> None:
    assert choose_kernels(KernelConfig(), MPS).layout == "channels_first"


def test_what_is_asked_for_is_taken() -> None:
    config = KernelConfig(layout="channels_first", pointwise="product", depthwise="convolution", compile=True)
    assert choose_kernels(config, CPU) == KernelChoice("channels_first", "product", "convolution", True)
    assert choose_kernels(KernelConfig(pointwise="product"), CPU) == KernelChoice("channels_last", "product")
    assert choose_kernels(KernelConfig(compile=False), CUDA).compile is False


@pytest.mark.parametrize("device", [CPU, MPS], ids=str)
def test_triton_needs_a_cuda_gpu(device: torch.device) -> None:
    with raises_code(
        ConfigError, "kernels-need-cuda", "search.kernels.depthwise: triton", f"is {device};", "auto or convolution"
    ):
        choose_kernels(KernelConfig(depthwise="triton"), device)


@pytest.mark.parametrize("installed", [True, False])
def test_triton_needs_its_package(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoseg.supernet.fast.kernels.find_spec", lambda name: installed or None)
    config = KernelConfig(depthwise="triton")
    if installed:
        assert choose_kernels(config, CUDA).depthwise == "triton"
    else:
        with raises_code(
            ConfigError, "package-missing", "search.kernels.depthwise", "pip install 'autoseg[triton]'", "auto"
        ):
            choose_kernels(config, CUDA)


@pytest.mark.parametrize("asked", [{"pointwise": "product"}, {"compile": True}], ids=str)
def test_what_gdas_cannot_do_is_refused_where_it_is_asked_for(asked: dict[str, Any]) -> None:
    (name,) = asked
    space = SPACES["gdas"][0]
    value = {"pointwise": "product", "compile": "true"}[name]
    with raises_code(
        ConfigError, "setting-not-for-space", f"search.kernels.{name}: {value}", "relaxation.gdas", "auto"
    ):
        choose_kernels(KernelConfig(**asked), CPU, space)
    assert choose_kernels(KernelConfig(**asked), CPU, SPACES["mix"][0]) == KernelChoice()._replace(**asked)


def test_gdas_passes_over_what_was_not_asked_for() -> None:
    truth = truth_of("gdas", (40, 51))
    config = KernelConfig(layout="channels_first", pointwise="convolution", compile=False)
    assert choose_kernels(config, CPU, truth.supernet.space) == KernelChoice("channels_first")
    assert_equal_to_truth(truth, KernelChoice("channels_first", "product", "triton", True))
