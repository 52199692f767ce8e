"""What every network of the zoo promises, whatever is inside it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from autoseg.export.formats import trace
from autoseg.network.base import SegmentationNetwork
from autoseg.network.fold import fold_batch_norm

SIZES = [(32, 32), (33, 47), (65, 40)]
CLASSES = 5
Build = Callable[[], SegmentationNetwork]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def count_parameters(build: Build) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build().parameters())


def made(build: Build, seed: int = 0) -> SegmentationNetwork:
    """The network in evaluation mode, with BatchNorm statistics that are not those of the beginning."""
    torch.manual_seed(seed)
    network = build()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
    return network.eval()


def assert_fills_every_size(network: SegmentationNetwork) -> None:
    for size in SIZES:
        images = noise(2, network.in_channels, *size)
        for training in (True, False):
            logits, auxiliary = network.train(training).forward_with_auxiliary(images)
            assert logits.shape == (2, CLASSES, *size)
            assert logits.isfinite().all()
            assert auxiliary is None
        together = network(images)
        assert together.std() > 0
        torch.testing.assert_close(network(images[1:]), together[1:], rtol=1e-4, atol=1e-5)


def assert_gradient_everywhere(network: SegmentationNetwork) -> None:
    """In evaluation mode: in training, BatchNorm takes away what a bias before it adds."""
    images = noise(2, network.in_channels, 65, 40)
    logits = network(images)
    (logits * noise(*logits.shape, seed=1)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def assert_stages(network: SegmentationNetwork) -> None:
    """Each is called once, in order, and returns one feature."""
    called: list[str] = []

    def note(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            assert isinstance(output, Tensor), name
            assert output.dim() == 4, name
            called.append(name)

        return hook

    handles = [network.get_submodule(name).register_forward_hook(note(name)) for name in network.stages]
    network(noise(1, network.in_channels, 33, 47))
    for handle in handles:
        handle.remove()
    assert 6 <= len(called) <= 20
    assert tuple(called) == network.stages


def assert_folds(network: SegmentationNetwork) -> None:
    """Folded, it computes the same, with no BatchNorm left but those after upsamplers that are no single convolution.

    And channels_last changes nothing, and stays from stage to stage.
    """
    images = noise(1, network.in_channels, 33, 47)
    expected = network(images)
    folded = fold_batch_norm(network)
    left = [name for name, module in folded.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(name.endswith(".doubling.norm") for name in left), left
    torch.testing.assert_close(folded(images), expected, rtol=1e-3, atol=1e-4)
    last = folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    seen = record(last, *network.stages)
    turned = last(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(turned, expected, rtol=1e-3, atol=1e-4)
    for name, (_, output) in seen.items():
        assert output.is_contiguous(memory_format=torch.channels_last), name


def assert_contract(build: Build) -> None:
    network = made(build)
    assert_fills_every_size(network)
    network = made(build)
    assert_stages(network)
    assert_folds(network)
    assert_gradient_everywhere(network)


def assert_traces(build: Build) -> None:
    """One graph computes the same for every number of images and every size."""
    network = made(build)
    program = trace(network).module()
    for images, size in enumerate(SIZES, start=1):
        batch = noise(images, network.in_channels, *size)
        torch.testing.assert_close(program(batch), network(batch), rtol=1e-3, atol=1e-4)


def record(network: nn.Module, *names: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Name -> (first input, output) of these modules, filled at the next call; copies, for what is changed in place."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def begin(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found[name] = (inputs[0].detach().clone(), inputs[0])

        return hook

    def end(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            found[name] = (found[name][0], output.detach().clone())

        return hook

    for name in names:
        network.get_submodule(name).register_forward_pre_hook(begin(name))
        network.get_submodule(name).register_forward_hook(end(name))
    return found
