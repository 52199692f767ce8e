"""The logits, their probabilities, snapshots, and choosing a genotype."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.oracle_supernet import TextbookSupernet, largest_difference, textbook_of
from helpers.spaces import small_space
from helpers.supernets import supernet_of

from autoseg.genotype.sample import sample_genotype
from autoseg.space.schema import SearchSpace
from autoseg.supernet.arch_parameters import ArchParameters

SPACES = {
    "auto_deeplab": SearchSpace.load("auto_deeplab"),
    "tiny": SearchSpace.load("tiny"),
    "one stride": small_space(layers=2, strides=(4,)),
    "no up": small_space(layers=5, moves=["same", "down"]),
}


def arch_of(space: SearchSpace, std: float = 2.0, seed: int = 0) -> ArchParameters:
    torch.manual_seed(seed)
    return ArchParameters(space, std).double()


@pytest.mark.parametrize("name", SPACES)
def test_snapshot_has_the_probabilities_of_torch(name: str) -> None:
    arch = arch_of(SPACES[name])
    snapshot = arch.snapshot()
    np.testing.assert_allclose(snapshot.alpha_probs, arch.alpha_probs().detach().numpy(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(snapshot.beta_probs, arch.beta_probs().detach().numpy(), rtol=0, atol=1e-12)
    assert np.array_equal(snapshot.alpha_logits, arch.alpha_logits.detach().numpy())


def test_a_snapshot_stays_as_the_search_goes_on() -> None:
    arch = arch_of(SPACES["tiny"])
    snapshot = arch.snapshot()
    before = snapshot.alpha_logits.copy(), snapshot.beta_logits.copy()
    with torch.no_grad():
        arch.alpha_logits += 1
        arch.beta_logits += 1
    assert np.array_equal(snapshot.alpha_logits, before[0])
    assert np.array_equal(snapshot.beta_logits, before[1])


@pytest.mark.parametrize("name", SPACES)
def test_beta_of_arrows_is_a_softmax_over_the_arrows_that_leave_a_node(name: str) -> None:
    """Eq. 7 and 8, arrow by arrow."""
    arch = arch_of(SPACES[name])
    trellis, betas = SPACES[name].trellis, arch.beta_of_arrows()
    assert set(betas) == set(trellis.arrows)
    for node in {arrow.source for arrow in trellis.arrows}:
        arrows = trellis.arrows_from(node)
        weights = [float(arch.beta_logits.detach()[node.layer, node.level, arrow.move].exp()) for arrow in arrows]
        assert [betas[arrow].item() for arrow in arrows] == pytest.approx([w / sum(weights) for w in weights])


def test_gradients_reach_the_logits_of_legal_arrows_only() -> None:
    arch = arch_of(SPACES["auto_deeplab"])
    (arch.beta_probs() * torch.randn(arch.legal.shape)).sum().backward()
    assert torch.equal(arch.beta_logits.grad != 0, arch.legal)
    assert bool(arch.beta_logits.grad.isfinite().all())


def test_initial_logits_are_small_noise_on_legal_arrows() -> None:
    arch = arch_of(SPACES["auto_deeplab"], std=1e-3)
    assert arch.alpha_logits.shape == (20, 8)
    assert arch.beta_logits.shape == (12, 4, 3)
    assert int(arch.legal.sum()) == 105
    assert torch.equal(arch.beta_logits != 0, arch.legal)
    assert float(arch.alpha_logits.detach().std()) == pytest.approx(1e-3, rel=0.2)
    assert float(arch.beta_logits.detach()[arch.legal].std()) == pytest.approx(1e-3, rel=0.2)


# --- choosing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES)
def test_choosing_puts_probability_one_on_the_genotype(name: str) -> None:
    space = SPACES[name]
    genotype = sample_genotype(space, 3)
    arch = arch_of(space)
    arch.choose(genotype)
    alpha, expected = arch.alpha_probs(), torch.zeros(arch.alpha_logits.shape)
    for row, (block, state) in enumerate(space.topology.edges):
        for edge in genotype.cell[block]:
            if edge.state == state:
                expected[row, space.cell.operations.index(edge.operation)] = 1
    assert torch.equal(alpha, expected.double())
    assert int(alpha.sum()) == sum(len(block) for block in genotype.cell)
    levels = (0, *genotype.levels)
    chosen = {(arrow.source, arrow.target) for arrow, beta in arch.beta_of_arrows().items() if beta == 1}
    assert chosen == {((n, levels[n]), (n + 1, levels[n + 1])) for n in range(space.network.layers)}
    assert int(arch.beta_probs().sum()) == space.network.layers


def test_what_was_chosen_follows_the_module_but_is_no_state() -> None:
    arch = arch_of(SPACES["tiny"])
    names = set(arch.state_dict())
    arch.choose(sample_genotype(SPACES["tiny"], 0))
    assert set(arch.float().state_dict()) == names == {"alpha_logits", "beta_logits"}
    assert arch.alpha_probs().dtype == arch.beta_probs().dtype == torch.float32


class ChosenTextbook(TextbookSupernet):
    """The textbook with the probabilities of a genotype, and only the head at the end of its path."""

    def alphas(self):
        return self.chosen_alpha

    def beta_of(self, layer, source, level):
        return self.chosen_beta[layer - 1, source, level - source + 1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_chosen_supernet_equals_the_textbook_with_these_probabilities(seed: int) -> None:
    space = small_space(layers=5, blocks=3)
    genotype = sample_genotype(space, seed)
    fast = supernet_of(space, seed=seed)
    textbook = textbook_of(fast, 3)
    textbook.__class__ = ChosenTextbook
    fast.choose(genotype)
    textbook.chosen_alpha, textbook.chosen_beta = fast.arch.alpha_probs(), fast.arch.beta_probs()
    for level, head in enumerate(textbook.heads):
        if level != genotype.levels[-1]:
            torch.nn.init.zeros_(head.classifier.weight)
            torch.nn.init.zeros_(head.classifier.bias)
    images = torch.randn(2, 3, 64, 65, dtype=torch.float64)
    assert largest_difference(fast(images), textbook(images)) < 1e-10
