"""The scripts that measure: what they count is what is there, and what they print can be read by a program."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))

import bench_supernet
from bench import contenders
from bench.contenders import Contender, Workload, build_contenders
from bench.growth import fit
from bench.measure import Watch, held_bytes, observe, saved_bytes, timed

from autoseg.space.schema import SearchSpace

SMALL = Workload(2, 2, 2, 33, 2)
CPU = torch.device("cpu")


class Product(torch.nn.Module):
    """images -> logits by one 1x1 convolution, weighted by the first of the two architecture parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, contenders.CLASSES, 1, bias=False)
        self.alpha = torch.nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images) * self.alpha


@pytest.fixture
def contender() -> Contender:
    network = Product()
    return Contender(network, [network.alpha], contenders.random_batch(32, 2), CPU, "float32")


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script writes at a very small workload."""
    file = tmp_path_factory.mktemp("bench") / "figures.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(contenders.WORKLOADS, "W3", SMALL)
        assert bench_supernet.main(["--workloads", "W3", "--repeats", "2", "--threads", "1", "--json", str(file)]) == 0
    return json.loads(file.read_text())


@pytest.mark.slow
def test_figures_are_complete_and_plausible(figures: dict[str, Any]) -> None:
    assert {"device", "torch", "threads", "precision"} <= figures["machine"].keys()
    found = figures["workloads"]["W3"]
    assert found["workload"] == SMALL._asdict()
    assert found["limits"]["flops_per_s"] > 1e8
    assert found["limits"]["bytes_per_s"] > 1e8
    fast, textbook = found["contenders"]["fast"], found["contenders"]["textbook"]
    assert fast["parameters"] == textbook["parameters"]
    assert 4 * fast["operations"] < textbook["operations"]
    assert 2 * fast["convolutions"] < textbook["convolutions"]
    for of in (fast, textbook):
        seconds, saved = of["seconds"], of["saved_bytes"]
        rounds = of["seconds_of_rounds"]
        assert len(rounds["weights"]) == 2
        assert seconds["iteration"] == pytest.approx(sum(rounds["weights"] + rounds["architecture"]) / 2)
        assert of["cpu_seconds"]["iteration"] > 0
        assert saved["weights"] <= saved["everything"] > saved["architecture"], "freezing saves nothing"
        assert of["peak_bytes"]["iteration"] > of["held_bytes"] + min(saved["weights"], saved["architecture"])
        assert of["flops"]["weights"] > of["flops"]["architecture"] > 0
        assert of["flops_per_s"] == pytest.approx(of["flops"]["iteration"] / seconds["iteration"])
        assert 0 < of["share_of_product"] < 1


def test_what_is_counted_of_one_convolution(contender: Contender) -> None:
    """By hand: 2 images of 32x32, 3 channels to 19, in float32."""
    pixels, classes = 2 * 32 * 32, contenders.CLASSES
    contender.step("weights")
    found = observe(contender, "weights")
    assert (found["operations"], found["convolutions"]) == (2, 1)
    assert found["flops"] == 2 * (2 * pixels * 3 * classes)  # forward and the weights' gradient
    assert observe(contender, "architecture")["flops"] == 2 * pixels * 3 * classes
    assert saved_bytes(contender, "weights") == 4 * pixels * 3  # the images; alpha is a parameter
    assert saved_bytes(contender, "architecture") == 4 * pixels * classes  # what alpha is multiplied with
    held = held_bytes(contender.held())
    assert held == 4 * (3 * classes * 3 + 2) + 4 * (2 * 1 + 1) + pixels * (4 * 3 + 8)
    # at the most: logits, their logarithm, and the gradients of both
    assert held + 4 * pixels * classes * 3 <= found["peak_bytes"] <= held + 4 * pixels * classes * 5


def test_flops_of_a_grouped_convolution_count_its_groups() -> None:
    images = torch.randn(2, 8, 10, 10, requires_grad=True)
    weight = torch.randn(8, 1, 3, 3, requires_grad=True)
    with Watch(CPU, ()) as watch:
        torch.nn.functional.conv2d(images, weight, padding=1, groups=8).sum().backward()
    assert watch.flops == 3 * 2 * (2 * 8 * 100 * 9)


def test_peak_is_that_of_tensors_alive_at_once() -> None:
    alive = torch.zeros(1000)
    with Watch(CPU, [alive]) as watch:
        for _ in range(3):
            view = (alive + 1).view(10, 100)
            del view
        assert watch.live_bytes == 4000
        alive.add_(1)
    assert watch.peak_bytes == 8000
    assert watch.moved_bytes == 3 * 8000 + 2 * 4000


def test_time_is_that_of_the_work() -> None:
    seconds, cpu_seconds = timed(lambda: [0 for _ in range(10**6)] and None, CPU)
    assert 0 < cpu_seconds < 2 * seconds + 0.1


@pytest.mark.slow
def test_growth_is_measured_fitted_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench import growth

    first = growth.sweeps(SMALL._replace(layers=4))[0]
    monkeypatch.setattr(growth, "sweeps", lambda base: [first._replace(workloads=first.workloads[:2], values=[4, 6])])
    monkeypatch.setitem(contenders.WORKLOADS, "W3", SMALL)
    picture, file = tmp_path / "growth.png", tmp_path / "growth.json"
    assert bench_supernet.main(["--growth", str(picture), "--repeats", "1", "--json", str(file)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    sweep = json.loads(file.read_text())["growth"]["sweeps"][0]
    assert sweep["saved_bytes"][0] < sweep["saved_bytes"][1]
    assert "layers: seconds" in capsys.readouterr().out


def test_fit_finds_the_line_and_says_how_well_it_fits() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0])
    line = fit(x, 3 * x + 2)
    assert (line.slope, line.offset, line.r2) == pytest.approx((3, 2, 1))
    assert fit(x, x**3).r2 < 0.95


def test_growth_sweeps_keep_the_parity_of_all_levels() -> None:
    from bench import growth

    for base in contenders.WORKLOADS.values():
        sizes = {workload.size for workload in growth.sweeps(base)[2].workloads}
        assert base.size in sizes
        assert {size % 32 for size in sizes} == {base.size % 32}


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["--workloads", "W9"], "option-invalid", ("--workloads", "'W9' (known: W1, W2, W3)")),
        (["--repeats", "0"], "option-invalid", ("--repeats", "from 1 up", "'0'")),
        (["--space", "nowhere"], "unknown-space", ("'nowhere'",)),
        (["--json", "no/such/folder/figures.json"], "folder-missing", ("--json", "no/such/folder ")),
        (["--growth", "growth.bmp"], "unknown-format", ("--growth", "growth.bmp", "svg, png, pdf")),
        (["--dints", "wide"], "option-invalid", ("--dints", "above 0", "'wide'")),
    ],
)
def test_wrong_arguments_are_one_line_and_status_2(
    arguments: list[str], code: str, named: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench_supernet.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.endswith(f" [{code}]\n")
    assert [text for text in named if text not in error] == []
    assert error.count("\n") == 1


def test_dints_says_how_to_install_it_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "monai", None)
    monkeypatch.setitem(sys.modules, "monai.networks.nets.dints", None)
    monkeypatch.setitem(contenders.WORKLOADS, "W3", SMALL)
    assert bench_supernet.main(["--workloads", "W3", "--no-textbook", "--dints"]) == 2
    error = capsys.readouterr().err
    assert "pip install monai" in error
    assert error.endswith(" [package-missing]\n")


@pytest.mark.slow
def test_checkpointing_keeps_less_and_computes_again() -> None:
    space = SearchSpace.load("auto_deeplab")
    plain, checkpointed = (build_contenders(space, SMALL, CPU, checkpoint=on)["fast"] for on in (False, True))
    for half in bench_supernet.HALVES:
        assert saved_bytes(checkpointed, half) < saved_bytes(plain, half)
        assert observe(checkpointed, half)["flops"] > observe(plain, half)["flops"]


def test_a_workload_is_its_space_with_other_numbers() -> None:
    space = contenders.resized(SearchSpace.load("auto_deeplab"), SMALL)
    assert (space.network.layers, space.network.filter_multiplier, space.cell.blocks) == (2, 2, 2)
    assert len(space.trellis.nodes_at(2)) == 3
    found = build_contenders(space, SMALL, CPU, textbook=True)
    assert torch.equal(found["fast"].images, found["textbook"].images)
    for network in found.values():
        network.network.eval()
        network.train("weights")
    assert torch.allclose(found["fast"].logits(), found["textbook"].logits(), atol=1e-4)


@pytest.mark.slow
def test_checkouts_are_compared_turn_by_turn() -> None:
    """One checkout with itself: equal operations and losses, and a ratio near one."""
    import compare_checkouts

    folder = Path(__file__).resolve().parents[1]
    small = {"layers": 2, "filters": 2, "blocks": 1, "size": 33, "batch": 2}
    found = compare_checkouts.compare((folder, folder), small, turns=4)
    assert found["equal_losses"] is True
    before, after = found["operations"]  # type: ignore[misc]
    assert before == after > 100
    low, high = found["interval"]  # type: ignore[misc]
    assert 0 < low <= found["ratio"] <= high  # type: ignore[operator]
    assert 0.2 < found["ratio"] < 5  # type: ignore[operator]
