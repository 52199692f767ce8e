"""What gamma's upsamplers cost in the loss of the architecture, and steps of such spaces without a host in between."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.errors import raises_code
from helpers.pretend_recorder import StandIn, Watch, freeze_other_half
from helpers.tiny_runs import SEARCH, write_config
from helpers.upsampling_spaces import SPACES, UPSAMPLERS, images_of, space_of

from autoseg.analysis.flops import count_multiply_adds
from autoseg.cli.main import run
from autoseg.config.base import merge
from autoseg.engine.cuda_graphs import CudaGraphs
from autoseg.engine.search import HALVES, Gradients
from autoseg.errors import ConfigError
from autoseg.losses.losses import SegmentationLoss
from autoseg.ops.upsample import build_upsampler
from autoseg.registry import UPSAMPLERS as ALL_UPSAMPLERS
from autoseg.space.resolution import find_upsampler
from autoseg.space.schema import SearchSpace
from autoseg.supernet import build_supernet
from autoseg.supernet.upsampling import relative_costs

WEIGHT = 3.0


def gradients_of(space: SearchSpace, weight: float, recorder: bool = False) -> Gradients:
    torch.manual_seed(0)
    supernet = build_supernet(space, 3, 0.5)
    return Gradients(supernet, "float32", SegmentationLoss(255), StandIn(supernet) if recorder else None, weight)


def step(gradients: Gradients, half: Any) -> tuple[float, torch.Tensor | None]:
    masks = torch.arange(32).remainder(3).expand(2, 32, 32)
    freeze_other_half(gradients, half)
    loss = gradients(half, (images_of(32, 32, dtype=torch.float32), masks))
    return loss.item(), gradients.supernet.arch.gamma_logits.grad


@pytest.mark.parametrize("channels", [3, 8])
@pytest.mark.parametrize("name", [*ALL_UPSAMPLERS, "pixel_dcl_5x5", "ipixel_dcl_equations_7x7"])
def test_a_record_says_the_multiply_adds_that_its_module_makes(name: str, channels: int) -> None:
    with torch.device("meta"):
        module = build_upsampler(name, channels, channels).eval()
        features, guide = torch.empty(1, channels, 8, 8), torch.empty(1, channels, 16, 16)
    assert find_upsampler(name).multiply_adds(channels, channels) * 64 == count_multiply_adds(
        module, features, (16, 16), guide
    )


def test_costs_are_shares_of_the_dearest_candidate_of_the_site() -> None:
    decoder = {"upsamplers": ["pixel_shuffle", "transposed_conv"]}
    space = space_of(resolution={"upsamplers": ["bilinear", "transposed_conv"]}, decoder=decoder)
    assert space.upsamplers == ("bilinear", "transposed_conv", "pixel_shuffle")
    up, stage = [1 / 16, 1, 0], [0, 16 / 36, 1]
    torch.testing.assert_close(relative_costs(space, 3), torch.tensor([up, up, stage, stage], dtype=torch.float64))


@pytest.mark.slow
@pytest.mark.parametrize("recorder", [False, True])
def test_the_architecture_pays_for_the_expected_multiply_adds_and_the_weights_do_not(recorder: bool) -> None:
    space = SPACES["both"]
    free, paying = gradients_of(space, 0.0), gradients_of(space, WEIGHT, recorder)
    assert step(free, "weights")[0] == pytest.approx(step(paying, "weights")[0], abs=1e-6)
    for _ in range(5):  # with a recorder the last are repetitions of a recording
        (loss, gradient), (loss_paying, gradient_paying) = step(free, "architecture"), step(paying, "architecture")
    arch = free.supernet.arch
    gamma_probs = arch.gamma_probs()
    costs = relative_costs(space, 3).float()
    expected = WEIGHT * torch.stack([(gamma_probs[row] * costs[row]).sum() for row in range(len(costs))]).mean()
    assert loss_paying - loss == pytest.approx(expected.item(), rel=1e-4)
    (of_cost,) = torch.autograd.grad(expected, arch.gamma_logits)
    torch.testing.assert_close(gradient_paying - gradient, of_cost, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_great_cost_makes_the_cheapest_win() -> None:
    gradients = gradients_of(SPACES["by level"], 100.0)
    arch = gradients.supernet.arch
    optimizer = torch.optim.Adam(arch.parameters(), 0.5)
    for _ in range(6):
        step(gradients, "architecture")
        optimizer.step()
    dear = UPSAMPLERS.index("transposed_conv")
    assert float(arch.gamma_probs()[:, dear].detach().max()) < 0.05


def test_a_space_without_gamma_refuses_it_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with raises_code(ConfigError, "no-competing-upsamplers", "search.upsampler_cost"):
        gradients_of(SPACES["hourglass"], 1.0)
    config = write_config(tmp_path / "config.yaml", merge(SEARCH, {"search": {"upsampler_cost": 0.5}}))
    assert run(["search", "--config", str(config), "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert error.endswith(" [no-competing-upsamplers]")
    assert "search.upsampler_cost is 0.5" in error
    assert "space 'mini'" in error
    assert "\n" not in error


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("name", ["both", "skips", "multi hourglass"])
def test_a_step_neither_copies_from_the_cpu_nor_reads_values(
    name: str, checkpoint: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either would end the recording of a CUDA graph; reading a value of a meta tensor raises."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # which meta tensors have not
    supernet = build_supernet(SPACES[name], 3).to("meta")
    supernet.checkpoint_cells = checkpoint
    gradients = Gradients(supernet, "float32", SegmentationLoss(255), None, 1.0)
    images, masks = torch.empty(2, 3, 65, 97, device="meta"), torch.empty(2, 65, 97, device="meta", dtype=torch.int64)
    with Watch() as watch:
        for half in HALVES:
            freeze_other_half(gradients, half)
            gradients(half, (images, masks))
    assert watch.mixed == set()
    assert not watch.operations & {"nonzero", "_local_scalar_dense", "masked_select", "unique_dim", "equal"}


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["both", "skips", "multi hourglass"])
def test_recorded_steps_equal_eager_ones_on_a_gpu(name: str) -> None:
    """With streams for the levels; eight steps of each half, in float32."""
    device = torch.device("cuda")
    torch.manual_seed(0)
    eager = build_supernet(SPACES[name], 3, 0.5).to(device)
    recorded = copy.deepcopy(eager)
    masks = torch.arange(64, device=device).remainder(3).expand(2, 64, 64)
    images, losses = images_of(64, 64, dtype=torch.float32).to(device), []
    for supernet, recorder in ((eager, None), (recorded, CudaGraphs(device, len(SPACES[name].network.strides)))):
        gradients = Gradients(supernet, "float32", SegmentationLoss(255), recorder, 1.0)
        optimizers = {half: torch.optim.SGD(of, 0.01) for half, of in gradients.parameters.items()}
        losses.append([])
        for _ in range(8):
            for half, optimizer in optimizers.items():
                freeze_other_half(gradients, half)
                losses[-1].append(gradients(half, (images, masks)).item())
                optimizer.step()
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=1e-3, atol=1e-3)
