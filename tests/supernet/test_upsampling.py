"""Upsamplers, skip connections, hourglasses and several paths in the supernet, against an oracle in float64."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from helpers.oracle_supernet import largest_difference
from helpers.oracle_upsampling import upsampling_oracle_of, upsampling_pairs
from helpers.pretend_streams import streams
from helpers.spaces import small_space
from helpers.supernets import loss_of, results, supernet_of
from helpers.upsampling_spaces import SPACES, images_of, space_of

from autoseg.analysis.flops import count_cost
from autoseg.genotype.decode import decode
from autoseg.genotype.schema import Genotype
from autoseg.losses.losses import SegmentationLoss
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import STEM_NODE, Arrow, Move, Node
from autoseg.supernet import build_supernet
from autoseg.supernet.fast.cell import Preprocess

__all__ = ["streams"]  # the fixture


@pytest.mark.slow
@pytest.mark.parametrize("size", [(35, 40), (32, 32)], ids=str)
@pytest.mark.parametrize("name", SPACES)
def test_logits_and_gradients_equal_the_oracle(name: str, size: tuple[int, int]) -> None:
    fast = supernet_of(SPACES[name])
    oracle = upsampling_oracle_of(fast, 3)
    images = images_of(*size)
    ours, gradients = results(fast, images)
    theirs, _ = results(oracle, images)
    assert largest_difference(ours, theirs) < 1e-10
    of_parameters = {parameter: gradients.get(name) for name, parameter in fast.named_parameters()}
    compared = set()
    for parameter, index, other in upsampling_pairs(fast, oracle):
        compared.add(parameter)
        expected = torch.zeros_like(other) if other.grad is None else other.grad
        assert largest_difference(of_parameters[parameter][index], expected) < 1e-10
    assert compared == set(fast.parameters())
    fast.eval(), oracle.eval()
    with torch.no_grad():
        assert largest_difference(fast(images), oracle(images)) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["both", "skips", "multi hourglass"])
def test_every_logit_that_decides_something_has_a_gradient(name: str) -> None:
    supernet = supernet_of(SPACES[name])
    loss_of(supernet, images_of(40, 40)).backward()
    for of, parameter in supernet.named_parameters():
        assert parameter.grad is not None, of
        assert float(parameter.grad.abs().max()) > 0, of
    gamma = supernet.arch.gamma_logits.grad
    assert torch.equal(gamma != 0, supernet.arch.gamma_legal)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["both", "skips", "multi hourglass"])
def test_checkpointed_cells_give_the_same_gradients_and_statistics(name: str) -> None:
    plain = supernet_of(SPACES[name])
    checkpointed = copy.deepcopy(plain)
    checkpointed.checkpoint_cells = True
    images = images_of(33, 40)
    (logits, gradients), (again, others) = results(plain, images), results(checkpointed, images)
    assert torch.equal(logits, again)
    assert gradients.keys() == others.keys()
    for of, gradient in gradients.items():
        assert largest_difference(others[of], gradient) < 1e-12, of
    found = checkpointed.state_dict()
    for of, value in plain.state_dict().items():
        assert torch.equal(value, found[of]), of


@pytest.mark.slow
@pytest.mark.parametrize("name", ["both", "skips"])
def test_gamma_and_skips_belong_to_the_half_of_the_architecture(name: str) -> None:
    supernet, images = supernet_of(SPACES[name]), images_of(40, 40)
    supernet.train_weights()
    _, of_weights = results(supernet, images)
    supernet.train_architecture()
    _, of_architecture = results(supernet, images)
    assert not any(of.startswith("arch.") for of in of_weights)
    assert set(of_architecture) == {of for of, _ in supernet.named_parameters() if of.startswith("arch.")}
    assert set(of_weights) | set(of_architecture) == {of for of, _ in supernet.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize("relaxation", [{"pc_darts": 2}, {"gdas": [4.0, 0.5]}, {"mix_before_cell": True}], ids=str)
@pytest.mark.parametrize("checkpoint", [False, True])
def test_options_of_the_cell_go_with_two_cells_and_bfloat16(relaxation: dict[str, Any], checkpoint: bool) -> None:
    space = SearchSpace.parse({**SPACES["skips"].to_dict(), "relaxation": relaxation})
    torch.manual_seed(0)
    supernet = build_supernet(space, 3)
    supernet.checkpoint_cells = checkpoint
    edges = 2 * len(space.topology.edges)
    assert len(supernet.arch.alpha_logits) == edges
    assert relaxation.get("pc_darts") is None or supernet.arch.edge_probs().sum().item() == pytest.approx(4)
    exact, _ = results(supernet, images_of(40, 40, dtype=torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        rounded, gradients = results(supernet, images_of(40, 40, dtype=torch.float32))
    assert rounded.dtype == torch.float32
    assert float((rounded - exact).std()) < 0.2 * float(exact.std())
    assert all(bool(gradient.isfinite().all()) for gradient in gradients.values())
    searched = {f"arch.{of}" for of, _ in supernet.arch.named_parameters()}
    assert {of for of in gradients if of.startswith("arch.")} == searched


@pytest.mark.slow
@pytest.mark.parametrize("relaxation", [{}, {"pc_darts": 2}, {"gdas": [4.0, 0.5]}], ids=str)
@pytest.mark.parametrize("second", [False, True])
def test_the_second_half_of_alpha_is_for_the_up_path_only(relaxation: dict[str, Any], second: bool) -> None:
    space = SearchSpace.parse({**SPACES["skips"].to_dict(), "relaxation": relaxation})
    supernet = supernet_of(space).eval()
    edges = len(space.topology.edges)
    rows = slice(edges, None) if second else slice(edges)
    outputs: dict[str, list[torch.Tensor]] = {node: [] for node in supernet.cells}
    for node, cell in supernet.cells.items():
        cell.register_forward_hook(lambda _, __, output, node=node: outputs[node].append(output.plain))
    with torch.no_grad():
        supernet(images_of(40, 40))
        supernet.arch.alpha_logits[rows] = supernet.arch.alpha_logits[rows].flip(-1)
        supernet(images_of(40, 40))
    changed = {node for node, (before, after) in outputs.items() if not torch.equal(before, after)}
    assert changed == {node for node in supernet.cells if not second or int(node[5]) > space.network.down_layers}


def test_a_plain_space_has_no_trace_of_it() -> None:
    """Names and random numbers are those of spaces before upsamplers competed."""
    supernet = supernet_of(small_space(layers=3))
    assert not supernet.upsampling.state_dict()
    assert {of for of, _ in supernet.arch.named_parameters()} == {"alpha_logits", "beta_logits"}
    assert {type(arrival) for cell in supernet.cells.values() for arrival in cell.arrivals} == {Preprocess}
    torch.manual_seed(0)
    competing = build_supernet(SPACES["skips"], 3)
    torch.manual_seed(0)
    alpha = 1e-3 * torch.randn(competing.arch.alpha_logits.shape)
    beta = 1e-3 * torch.randn(competing.arch.beta_logits.shape) * competing.arch.legal
    assert torch.equal(competing.arch.alpha_logits, alpha)
    assert torch.equal(competing.arch.beta_logits, beta)


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_a_snapshot_has_the_probabilities_of_torch(name: str) -> None:
    arch = supernet_of(SPACES[name]).arch
    snapshot = arch.snapshot()
    for of in ("alpha", "beta", "gamma", "skip"):
        ours, theirs = getattr(arch, f"{of}_probs")(), getattr(snapshot, f"{of}_probs")
        assert (ours is None) == (theirs is None)
        assert ours is None or largest_difference(ours, torch.as_tensor(theirs)) < 1e-12


@pytest.mark.slow
def test_on_streams_it_is_the_same(streams: list[Any]) -> None:
    """The skip features of the levels run on the streams, too."""
    plain = supernet_of(SPACES["skips"])
    parallel, images, places = copy.deepcopy(plain), images_of(40, 40), []
    for skip in parallel.upsampling.skips:
        skip.register_forward_hook(lambda *_: places.append(torch.cuda.current_stream().name))
    expected, gradients = results(plain, images)
    with parallel.on_streams(streams[1:]):
        logits, others = results(parallel, images)
        assert parallel._crossing
    assert not parallel._crossing
    assert places == ["first", "second"]
    assert torch.equal(logits, expected)
    assert all(torch.equal(others[of], gradient) for of, gradient in gradients.items())


# --- choosing ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SPACES if "multi" not in name])
def test_a_chosen_genotype_is_evaluated_alone(name: str) -> None:
    supernet, images = supernet_of(SPACES[name]), images_of(40, 33)
    genotype = decode(supernet.arch.snapshot())
    supernet.choose(genotype)
    arch, space = supernet.arch, SPACES[name]
    assert {arrow for arrow, beta in arch.beta_of_arrows().items() if beta == 1} == set(genotype.arrows)
    for arrow in genotype.up_arrows:
        row = space.gamma_row(arrow)
        if row is not None:
            assert space.upsamplers[int(arch.gamma_probs()[row].argmax())] == genotype.upsampler(arrow)
            assert sorted(set(arch.gamma_probs()[row].tolist())) in ([0, 1], [1])
        if arch.skip_probs() is not None:
            chosen = arch.skip_probs()[arrow.target.level]
            assert chosen[space.resolution.skips.index(genotype.skip(arrow))] == chosen.sum() == 1
    before = supernet(images).detach()
    assert bool(before.isfinite().all())
    assert float(before.std()) > 0
    for logits in arch.parameters():
        torch.nn.init.normal_(logits)
    assert torch.equal(supernet(images), before)


def test_a_genotype_of_several_paths_keeps_each_of_its_arrows() -> None:
    space = SPACES["multi"]
    supernet = supernet_of(space)
    fine, coarse = [Node(layer, 0) for layer in (1, 2, 3)], [Node(layer, 1) for layer in (1, 2, 3)]
    arrows = [
        Arrow(STEM_NODE, fine[0], Move.SAME), Arrow(STEM_NODE, coarse[0], Move.DOWN),
        Arrow(fine[0], fine[1], Move.SAME), Arrow(coarse[0], fine[1], Move.UP), Arrow(coarse[0], coarse[1], Move.SAME),
        Arrow(fine[1], fine[2], Move.SAME), Arrow(coarse[1], coarse[2], Move.SAME),
    ]  # fmt: skip
    cell = decode(supernet_of(space_of()).arch.snapshot()).cell
    genotype = Genotype.of_space(space, "several", [cell], arrows, {})
    supernet.choose(genotype)
    assert {arrow for arrow, beta in supernet.arch.beta_of_arrows().items() if beta == 1} == set(arrows)
    assert int(supernet.arch.beta_probs().sum()) == len(arrows)
    assert supernet.last_levels == {0, 1}
    heads = []
    for number, head in enumerate(supernet.heads):
        head.register_forward_hook(lambda *_, number=number: heads.append(number))
    supernet(images_of(32, 32))
    assert heads == [0, 1]


def test_the_way_down_without_the_descent_leaves_no_nan() -> None:
    """A chosen path that never goes down has no skip connection."""
    supernet = supernet_of(SPACES["skips"])
    cells = decode(supernet.arch.snapshot())
    stay = [Node(layer, 0) for layer in range(6)]
    arrows = [Arrow(a, b, Move.SAME) for a, b in itertools.pairwise(stay)]
    supernet.choose(Genotype.of_space(SPACES["skips"], "flat", [cells.cell, cells.up_cell], arrows, {}))
    assert torch.equal(supernet.arch.descent_probs(), torch.zeros(3, 3, dtype=torch.float64))
    assert bool(supernet(images_of(32, 32)).isfinite().all())


# --- searching --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["both", "skips", "multi hourglass"])
def test_a_few_steps_of_weights_and_architecture_lower_the_loss(name: str) -> None:
    torch.manual_seed(0)
    supernet = build_supernet(SPACES[name], 3)
    masks = torch.zeros(2, 32, 32, dtype=torch.int64)
    masks[0, :16], masks[1, :, :16] = 1, 2
    images = masks.unsqueeze(1) + 0.1 * images_of(32, 32, dtype=torch.float32)
    weights = torch.optim.SGD(supernet.weights(), lr=0.05, momentum=0.9)
    architecture = torch.optim.Adam(supernet.arch.parameters(), lr=0.05)
    before = {of: logits.detach().clone() for of, logits in supernet.arch.named_parameters()}
    losses = []
    for _ in range(8):
        for train, optimizer in ((supernet.train_weights, weights), (supernet.train_architecture, architecture)):
            train()
            loss = SegmentationLoss(255)(supernet(images), masks)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(not torch.equal(logits, before[of]) for of, logits in supernet.arch.named_parameters())
    assert count_cost(lambda: build_supernet(SPACES[name], 3), (32, 32)).multiply_adds > 0
