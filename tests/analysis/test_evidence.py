"""Replays with random signs: what they make of planted, of white and of real gradients, and which choices count."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from autoseg.analysis import evidence as module
from autoseg.analysis.choices import Choice, Table, tables_of
from autoseg.analysis.evidence import Replays, decide, holm, replays_of, said_of, undecided_in
from autoseg.config.training import OptimizerConfig
from autoseg.genotype.decode import decode
from autoseg.genotype.schema import Genotype
from autoseg.space.schema import SearchSpace
from autoseg.space.snapshot import ArchProbs, logits_shapes

EDGES, OPERATIONS, STEPS = 6, 5, 60
ADAM = OptimizerConfig(name="adam", lr=0.02, betas=(0.5, 0.999), weight_decay=1e-3)


def table(edges: int = EDGES) -> Table:
    rows = [range(row * OPERATIONS, (row + 1) * OPERATIONS) for row in range(edges)]
    choices = [Choice(f"edge {number}", row) for number, row in enumerate(rows)]
    return Table("alpha", np.arange(edges * OPERATIONS), rows, choices, "edges")


def replayed(gradients: np.ndarray, number: int, of: Table | None = None) -> module.TableEvidence:
    of = of or table()
    replays = module.ReplayedTable(of, Replays(np.zeros(gradients.shape[1]), ADAM, number, [1]))
    for epoch in np.split(gradients.astype(np.float32), 4):
        replays.take_epoch(epoch, np.full(len(epoch), ADAM.lr))
    return replays.evidence()


# --- planted and white gradients --------------------------------------------------------------------------------------


def test_gradients_that_persist_are_far_beyond_noise_and_decided() -> None:
    rng = np.random.default_rng(0)
    drift = -2.0 * (np.arange(EDGES * OPERATIONS) % OPERATIONS == 1)  # one operation of each edge
    found = replayed(drift + rng.normal(size=(STEPS, len(drift))), 499)
    assert found.ratio > 2 > found.noise[1]
    assert found.p == 1 / 500
    assert found.mean_persistence > 0.8
    assert found.undecided == []
    assert found.figures()["decided"] == EDGES


def test_one_edge_that_persists_is_the_one_that_is_decided() -> None:
    rng = np.random.default_rng(1)
    gradients = rng.normal(size=(STEPS, EDGES * OPERATIONS))
    gradients[:, 2 * OPERATIONS + 1] -= 2
    assert replayed(gradients, 499).undecided == [f"edge {number}" for number in (0, 1, 3, 4, 5)]


def test_white_gradients_give_uniform_p_and_a_ratio_near_one() -> None:
    """Kolmogorov and Smirnov's distance over 120 seeds is below its 1% point, 1.63 / sqrt(120)."""
    found = []
    for seed in range(120):
        gradients = np.random.default_rng([2, seed]).normal(size=(20, EDGES * OPERATIONS))
        found.append(replayed(gradients, 99))
    ps = np.sort([one.p for one in found])
    expected = np.arange(1, 121) / 120
    assert np.abs(ps - expected).max() < 1.63 / math.sqrt(120)
    assert 0.95 < np.median([one.ratio for one in found]) < 1.05
    assert abs(np.mean([one.mean_persistence for one in found])) < 0.05
    assert sum(len(one.undecided) < EDGES for one in found) <= 0.05 * 120 + 7  # one false choice a table in 5%


def test_what_changes_no_probability_does_not_count() -> None:
    """The same gradient for all operations of an edge moves logits and no probability."""
    rng = np.random.default_rng(3)
    gradients = np.repeat(rng.normal(size=(STEPS, EDGES)) + 5, OPERATIONS, axis=1)
    found = replayed(gradients, 99)
    assert found.gradient_mean == pytest.approx(0, abs=1e-6)
    assert found.gradient_spread == pytest.approx(0, abs=1e-6)
    assert len(found.undecided) == EDGES


def test_replays_are_the_same_each_time() -> None:
    gradients = np.random.default_rng(4).normal(size=(STEPS, EDGES * OPERATIONS))
    assert replayed(gradients, 99) == replayed(gradients, 99)


def test_no_step_is_no_evidence() -> None:
    found = replayed(np.full((STEPS, EDGES * OPERATIONS), np.nan), 99)
    assert math.isnan(found.ratio)
    assert math.isnan(found.mean_persistence)
    assert len(found.undecided) == EDGES


# --- the optimizers ---------------------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adam": {"name": "adam", "betas": (0.5, 0.999), "weight_decay": 1e-3},
    "adamw": {"name": "adamw", "betas": (0.9, 0.99), "weight_decay": 0.1},
    "sgd": {"name": "sgd", "momentum": 0.0, "weight_decay": 0.01},
    "momentum": {"name": "sgd", "momentum": 0.9, "weight_decay": 0.01},
    "nesterov": {"name": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.0},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_replay_without_flips_is_pytorchs_optimizer(name: str) -> None:
    from autoseg.engine.optim import build_optimizer

    config = OptimizerConfig(lr=0.02, **OPTIMIZERS[name])
    rng = np.random.default_rng(5)
    logits = torch.nn.Parameter(torch.from_numpy(rng.normal(size=7).astype(np.float32)))
    replays = Replays(logits.detach().numpy(), config, 3, [0])
    optimizer = build_optimizer(config, [logits])
    for step in range(30):
        gradient, lr = rng.normal(size=7).astype(np.float32), 0.02 if step < 20 else 0.01
        if step == 11:
            replays.step(np.full(7, np.nan), lr)  # skipped
            continue
        optimizer.param_groups[0]["lr"] = lr
        logits.grad = torch.from_numpy(gradient)
        optimizer.step()
        replays.step(gradient, lr)
    np.testing.assert_allclose(replays.logits[0], logits.detach().numpy(), rtol=2e-6, atol=1e-7)
    assert len({row.tobytes() for row in replays.logits}) == 4


# --- what counts as decided -------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1, 1])
    assert holm([]) == []


def test_a_margin_must_be_rare_for_the_number_of_choices() -> None:
    """Two of 99 replays have the margin: p is 0.03, enough for one choice and too much for two."""
    logits = np.zeros((100, 4))
    logits[[0, 1, 2], 0] = 1
    one, other = Choice("one", [0, 1]), Choice("other", [2, 3])
    assert [found.decided for found in decide([one], logits)] == [True]
    assert [found.p for found in decide([one, other], logits)] == pytest.approx([0.06, 1])
    assert not any(found.decided for found in decide([one, other], logits))


def test_margins() -> None:
    logits = np.array([[3.0, 1.0, 2.5, -4.0]])
    assert Choice("best", [0, 1, 2]).margins(logits) == pytest.approx([0.5])
    assert Choice("two of three", [0, 1, 2], kept=2).margins(logits) == pytest.approx([1.5])
    assert Choice("stays", [3], threshold=-1.0).margins(logits) == pytest.approx([3.0])


def test_replays_are_enough_for_the_choices_to_be_decided() -> None:
    for number in (1, 9, 44, 105):
        assert (1 / (1 + replays_of(table(number)))) * number < module.LEVEL


# --- tables of spaces -------------------------------------------------------------------------------------------------

CELL = {"blocks": 2, "operations": ["none", "skip_connect", "sep_conv_3x3"]}
HOURGLASS = {"layers": 4, "strides": [2, 4, 8], "down_layers": 2, "filter_multiplier": 4}


def space(**changes: Any) -> SearchSpace:
    plain: dict[str, Any] = {
        "version": 1, "name": "s", "cell": CELL,
        "network": {"layers": 3, "strides": [4, 8, 16], "filter_multiplier": 4},
    }  # fmt: skip
    return SearchSpace.parse({**plain, **changes})


FULL = {
    "cell": {**CELL, "up_cell": True},
    "network": HOURGLASS,
    "stem": {"channels": [4, 4], "strides": [2, 1]},
    "decoder": {"name": "classifier"},
    "resolution": {"upsamplers": ["bilinear", "dysample"], "skips": ["none", "add", "concat"]},
    "relaxation": {"pc_darts": 2},
}


def test_choices_of_a_path() -> None:
    tables = tables_of(space())
    assert [choice.name for choice in tables["alpha"].choices] == [
        "prev_prev -> b1", "prev -> b1", "prev_prev -> b2", "prev -> b2", "b1 -> b2",
    ]  # fmt: skip
    assert list(tables["alpha"].choices[1].columns) == [4, 5]  # without `none`, which is never decoded
    assert list(tables["alpha"].rows[1]) == [3, 4, 5]  # but it takes part in the softmax
    names = [choice.name for choice in tables["beta"].choices]
    assert names[:3] == ["stem", "layer 1, stride 4", "layer 1, stride 8"]
    assert sum(len(choice.columns) for choice in tables["beta"].choices) == len(space().trellis.arrows)


def test_choices_of_several_paths_are_arrows_without_a_softmax() -> None:
    network = {"layers": 3, "strides": [4, 8, 16], "filter_multiplier": 4, "paths": "multi"}
    multi = space(network=network, decoding={"threshold": 0.25})
    beta = tables_of(multi)["beta"]
    assert not beta.is_softmax
    assert len(beta.choices) == len(multi.trellis.arrows)
    assert beta.choices[0].name == "layer 1, 4->4"
    assert beta.choices[0].threshold == pytest.approx(math.log(1 / 3))
    logits = np.random.default_rng(0).normal(size=(2, len(beta.legal)))
    np.testing.assert_array_equal(beta.centred(logits), logits)


def test_choices_of_every_table() -> None:
    tables = tables_of(space(**FULL))
    assert [*tables] == ["alpha", "beta", "edge", "gamma", "skip"]
    assert [choice.name for choice in tables["edge"].choices] == ["b2", "up b2"]  # b1 keeps both of its edges
    assert tables["edge"].choices[1].kept == 2
    assert [choice.name for choice in tables["gamma"].choices] == ["up_4_2", "up_8_4"]
    assert [choice.name for choice in tables["skip"].choices] == ["stride 2", "stride 4"]
    assert tables["alpha"].choices[5].name == "up prev_prev -> b1"


@pytest.mark.parametrize("of", [space(), space(**FULL)], ids=["path", "full"])
def test_centring_changes_no_probability_and_the_spread_is_of_what_competes(of: SearchSpace) -> None:
    rng = np.random.default_rng(6)
    logits = {name: rng.normal(size=shape) for name, shape in logits_shapes(of).items()}
    centred = {name: values.ravel().copy() for name, values in logits.items()}
    for name, one in tables_of(of).items():
        values = one.centred(logits[name].ravel()[one.legal][None])
        centred[name][one.legal] = values[0]
        competing = sorted(column for row in one.rows for column in row)
        assert one.spreads(logits[name].ravel()[one.legal][None])[0] == pytest.approx(values[0, competing].std())
    again = {f"{name}_logits": values.reshape(logits[name].shape) for name, values in centred.items()}
    before = ArchProbs(of, **{f"{name}_logits": values for name, values in logits.items()})
    for name in logits:
        np.testing.assert_allclose(getattr(ArchProbs(of, **again), f"{name}_probs"), getattr(before, f"{name}_probs"))


# --- genotypes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", [None, 3, [], {"verdict": 3}, {"alpha": 3}, {"alpha": {"undecided": "all"}}])
def test_what_people_write_into_a_genotype_is_no_evidence(written: object) -> None:
    genotype = decode(ArchProbs.zeros(space()), source={"evidence": written})
    assert said_of(genotype) is None
    assert undecided_in(genotype) == {}
    assert Genotype.parse(genotype.to_dict()) == genotype
