"""The testbed's training loop, its task and its ESS by definition."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch

from ess_client.testbed import (
    EssTestbedConfig,
    EssTestbedModel,
    effective_state_size,
    gate_distance,
    mqar_batches,
    regularized,
    train,
)

SMALL = EssTestbedConfig(
    vocab_size=32, mixers=("GLA", "SA"), hidden_size=16, num_attention_heads=2, gate_rank=2
)


def batches(**changes: int):
    sizes = {"vocab_size": 32, "length": 24, "pairs": 4, "batch_size": 8, "seed": 1}
    return mqar_batches(**{**sizes, **changes})


def test_a_query_of_mqar_asks_for_the_value_that_followed_its_key() -> None:
    token_ids, labels = next(batches())

    asked = labels != -100
    assert asked.sum(-1).tolist() == [4] * 8
    for row, answers in zip(token_ids, labels, strict=True):
        value_of = dict(zip(row[0:8:2].tolist(), row[1:8:2].tolist(), strict=True))
        assert len(value_of) == 4
        for position in (answers != -100).nonzero().flatten().tolist():
            assert position >= 8
            assert value_of[int(row[position])] == int(answers[position])
    assert not torch.equal(next(batches()).token_ids, next(batches(seed=2)).token_ids)


@pytest.mark.parametrize("changes", [{"pairs": 9}, {"pairs": 0}, {"vocab_size": 8}])
def test_a_task_that_does_not_fit_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="pairs is"):
        next(batches(**changes))


@pytest.mark.parametrize("mixers", [("GLA",), ("SA",), ("LA", "WLA"), ("S6", "GLA-S6")])
def test_training_lowers_the_loss(mixers: tuple[str, ...]) -> None:
    config = EssTestbedConfig(
        vocab_size=32, mixers=mixers, hidden_size=16, num_attention_heads=2, gate_rank=2
    )
    model = EssTestbedModel(config, seed=1)
    steps = []

    losses = train(
        model, batches(), 30, learning_rate=1e-2, after_step=lambda s, _: steps.append(s)
    )

    assert steps == list(range(1, 31))
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert not model.training


def test_training_learns_associative_recall() -> None:
    """Two pairs: two layers of attention need few steps."""
    model = EssTestbedModel(
        EssTestbedConfig(vocab_size=16, mixers=("SA", "SA"), hidden_size=32, num_attention_heads=2),
        seed=1,
    )
    data = mqar_batches(vocab_size=16, length=8, pairs=2, batch_size=64, seed=1)
    train(model, data, 250, learning_rate=5e-3, weight_decay=0.0)

    token_ids, labels = next(data)
    asked = labels != -100
    right = (model(token_ids).argmax(-1) == labels)[asked]

    assert float(right.double().mean()) > 0.9


def test_a_regularized_objective_pulls_gates_to_the_identity() -> None:
    def distances(weight: float, layers: list[int] | None) -> list[float]:
        config = EssTestbedConfig(
            vocab_size=32, mixers=("WLA", "GLA"), hidden_size=16, num_attention_heads=2, beta=1.0
        )
        model = EssTestbedModel(config, seed=1)
        train(model, batches(), 20, objective=regularized(weight, layers), learning_rate=2e-2)
        with torch.no_grad():
            inputs = model.logits_and_inputs(next(batches(seed=5)).token_ids)[1]
            return [float(gate_distance(model, inputs, [layer])) for layer in (0, 1)]

    plain, both, second = distances(0.0, None), distances(8.0, None), distances(8.0, [1])

    assert both[0] < 0.8 * plain[0]
    assert both[1] < 0.8 * plain[1]
    assert second[0] > 0.8 * plain[0]
    assert second[1] < 0.8 * plain[1]


def test_operators_are_differentiable_for_distillation() -> None:
    model = EssTestbedModel(SMALL, seed=1)
    x = torch.randn(1, 12, 16)
    for mixer in model.mixers:
        mixer.operators(x, dtype=torch.float32).square().sum().backward()
        gradient = mixer.q_proj.weight.grad
        assert gradient is not None
        assert torch.isfinite(gradient).all()
        assert float(gradient.abs().max()) > 0


def test_training_says_what_is_wrong() -> None:
    model = EssTestbedModel(SMALL, seed=1)
    with pytest.raises(ValueError, match="ended after 1 of 2 steps"):
        train(model, [next(batches())], 2)
    with pytest.raises(ValueError, match="the objective is nan at step 0"):
        train(model, batches(), 2, objective=lambda model, _: math.nan * model.norm.weight.sum())


def test_ess_of_operators_whose_rank_is_known() -> None:
    length = 8
    shift = torch.zeros(length, length)
    for i in range(2, length):
        shift[i, i - 2] = 1  # A delay of two: min(2, i, L - i) numbers are carried.
    decay = torch.tensor([[0.5 ** (i - j) if j <= i else 0 for j in range(8)] for i in range(8)])

    operators = torch.stack([shift, decay, torch.zeros(length, length)])

    assert effective_state_size(operators, "tolerance:1e-3").tolist() == [
        [0, 1, 2, 2, 2, 2, 2, 1],
        [0, 1, 1, 1, 1, 1, 1, 1],
        [0] * 8,
    ]
    assert effective_state_size(shift, "tolerance:1").tolist() == [0] * 8  # A tie is not counted.
    entropies = effective_state_size(operators, "entropy")
    torch.testing.assert_close(entropies[:, 4], torch.tensor([2, 1, 0]).double())
    norms = effective_state_size(shift, "frobenius_norm")
    assert norms[4] == pytest.approx(math.sqrt(2))
    assert effective_state_size(decay, "relative:0.5")[4] == 1
    with pytest.raises(ValueError, match="causal is not computed here"):
        effective_state_size(shift, "causal")


def test_a_model_shows_operators_and_ess_of_every_layer() -> None:
    model = EssTestbedModel(SMALL, seed=1)
    layers = model.operators(torch.arange(10).repeat(2, 1))

    assert [layer.name for layer in layers] == ["000", "001"]
    assert [layer.channels for layer in layers] == [8, 8]
    for layer in layers:
        ess = layer.ess("tolerance:1e-9")
        assert ess.shape == (2, 2, 10)
        assert torch.all(ess <= layer.tss)
    assert layers[1].ess("tolerance:1e-12")[0, 0].tolist() == [0, 1, 2, 3, 4, 5, 4, 3, 2, 1]


def test_gaussian_embeddings_run_in_place_of_tokens() -> None:
    model = EssTestbedModel(SMALL, seed=1)
    logits, inputs = model.run(torch.randn(2, 7, 16))
    assert logits.shape == (2, 7, 32)
    assert [layer.operators.shape for layer in model.operators_of_inputs(inputs)] == [
        (2, 2, 7, 7),
        (2, 2, 7, 7),
    ]


def test_the_client_itself_needs_no_torch() -> None:
    script = """
import sys
sys.modules["torch"] = None
import ess_client, ess_client.cli.main
try:
    import ess_client.testbed
except ImportError as error:
    assert "ess-client[testbed]" in str(error)
else:
    raise SystemExit("the testbed came up without torch")
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
