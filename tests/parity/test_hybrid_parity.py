"""Models whose layers differ in what mixes, against transformers. Attention shows its maps; the
operators of the other mixers are formed in float64 from what goes into them, and checked against
what comes out of them."""

from __future__ import annotations

import importlib
import inspect
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import model_parity
import numpy as np
import public_operators
import pytest
import torch
import transformers
from hybrid_cases import CASES

RAGGED = [1, 2, 7, 33, 70]


def import_modeling(model_type: str) -> Any:
    """The public modelling code, which would take flash-linear-attention's kernels if it saw it;
    those need a GPU."""
    absent = object()
    seen = sys.modules.get("fla", absent)
    sys.modules["fla"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module(f"transformers.models.{model_type}.modeling_{model_type}")
    finally:
        del sys.modules["fla"]
        if seen is not absent:
            sys.modules["fla"] = seen  # type: ignore[assignment]


modeling_lfm2 = import_modeling("lfm2")
modeling_falcon_h1 = import_modeling("falcon_h1")
modeling_bamba = import_modeling("bamba")
modeling_granite = import_modeling("granitemoehybrid")
modeling_qwen3_next = import_modeling("qwen3_next")
modeling_qwen3_5 = import_modeling("qwen3_5")
modeling_jamba = import_modeling("jamba")


def kinds(config: Any) -> Iterator[tuple[str, str]]:
    """(name, kind) of every mixing operator, in the order of computation."""
    if config.model_type == "falcon_h1":
        for layer in range(config.num_hidden_layers):
            yield f"{layer:03}.attention", "attention"
            yield f"{layer:03}.mamba", "other"
        return
    types = config.layers_block_type if config.model_type == "jamba" else config.layer_types
    for layer, layer_type in enumerate(types):
        attends = layer_type in ("attention", "full_attention")
        yield f"{layer:03}", "attention" if attends else "other"


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The operators of the public mixers other than attention, in the order in which they run."""
    operators: list[np.ndarray] = []

    def record(
        operator: np.ndarray, inputs: torch.Tensor, outputs: torch.Tensor, gate: Any = 1.0
    ) -> None:
        """[H, L, L], from [L, H, d] to [L, H, d], which a gate multiplies."""
        expected = np.einsum("hij,jhd->ihd", operator, inputs.double().numpy()) * np.asarray(gate)
        close = np.abs(expected - outputs.numpy()).max() / np.abs(expected).max()
        assert close < 1e-4, close
        operators.append(operator)

    def plain(module: Any, name: str) -> Any:
        """A function of the public module, which is PyTorch's and no kernel's."""
        function = getattr(module, name)
        assert not inspect.getclosurevars(function).nonlocals["is_new_implementation"]
        return function

    def record_convolutions() -> None:
        convolution = plain(modeling_lfm2, "causal_conv1d_fn")
        forward = modeling_lfm2.Lfm2ShortConv.forward

        def recording(self: Any, hidden_states: torch.Tensor, **kwargs: Any) -> Any:
            gate_in, gate_out, x = self.in_proj(hidden_states)[0].chunk(3, dim=-1)
            taps = self.conv.weight.squeeze(1)
            operator = public_operators.gated_convolution_operators(gate_out, taps, gate_in)
            mixed = convolution((gate_in * x).T[None], taps)[0].T * gate_out
            record(operator, x[:, :, None], mixed[:, :, None])
            return forward(self, hidden_states, **kwargs)

        monkeypatch.setattr(modeling_lfm2.Lfm2ShortConv, "forward", recording)

    def record_heads(module: Any) -> None:
        scan = plain(module, "mamba2_chunk_scan")

        def recording(x: Any, dt: Any, A: Any, B: Any, C: Any, **kwargs: Any) -> Any:
            delta = torch.nn.functional.softplus(dt + kwargs["dt_bias"]).clamp(*kwargs["dt_limit"])
            operator = public_operators.head_operators(delta[0], A, B[0], C[0])
            y = scan(x, dt, A, B, C, **kwargs)
            record(operator, x[0], y[0] - kwargs["D"][:, None] * x[0])
            return y

        monkeypatch.setattr(module, "mamba2_chunk_scan", recording)

    def record_deltas(module: Any) -> None:
        rule = plain(module, "torch_chunk_gated_delta_rule")

        def recording(query: Any, key: Any, value: Any, g: Any, beta: Any, **kwargs: Any) -> Any:
            assert kwargs["use_qk_l2norm_in_kernel"]
            shared = value.shape[2] // key.shape[2]
            unit = [module.l2norm(x[0]).repeat_interleave(shared, dim=1) for x in (query, key)]
            scale = query.shape[-1] ** -0.5
            operator = public_operators.delta_operators(scale * unit[0], unit[1], g[0], beta[0])
            y, state = rule(query, key, value, g=g, beta=beta, **kwargs)
            record(operator, value[0], y[0])
            return y, state

        monkeypatch.setattr(module, "torch_chunk_gated_delta_rule", recording)

    def record_channels() -> None:
        scan = plain(modeling_jamba, "mamba_selective_scan")

        def recording(x: Any, dt: Any, A: Any, B: Any, C: Any, **kwargs: Any) -> Any:
            delta = torch.nn.functional.softplus(dt + kwargs["delta_bias"][:, None])
            operator = public_operators.channel_operators(delta[0], A, B[0], C[0])
            y = scan(x, dt, A, B, C, **kwargs)
            gate = torch.nn.functional.silu(kwargs["z"][0])
            mixed = y[0] - gate * kwargs["D"][:, None] * x[0]
            inputs, outputs, gates = (z.T[:, :, None] for z in (x[0], mixed, gate))
            record(operator, inputs, outputs, gates)
            return y

        monkeypatch.setattr(modeling_jamba, "mamba_selective_scan", recording)

    record_convolutions()
    for module in (modeling_falcon_h1, modeling_bamba, modeling_granite):
        record_heads(module)
    for module in (modeling_qwen3_next, modeling_qwen3_5):
        record_deltas(module)
    record_channels()
    return operators


def remember_longer(model: torch.nn.Module) -> None:
    """A delta rule that forgets at once reads single products q . k. Where one is near 0, the norm
    after it makes rounding as large as what is there, in both implementations."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("linear_attn.A_log"):
                parameter.sub_(2)


@pytest.mark.parametrize("case", CASES)
def test_hybrid_equals_transformers(
    case: str,
    tmp_path: pathlib.Path,
    record_row: Callable[[model_parity.ParityRow], None],
    recorded: list[np.ndarray],
) -> None:
    seed = 600 + list(CASES).index(case)
    base, fields = CASES[case]
    config = transformers.AutoConfig.for_model(case.split(",")[0], **{**base, **fields})
    model = transformers.AutoModelForCausalLM.from_config(config)
    model_parity.random_weights(model, seed)
    remember_longer(model)
    model.save_pretrained(tmp_path)
    prompts = model_parity.random_prompts(RAGGED, config.vocab_size, seed)

    def run(folder: pathlib.Path, prompt: list[int]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        recorded.clear()
        logits, attention = model_parity.run_public(folder, prompt)
        queues = {"attention": iter(attention), "other": iter(recorded)}
        operators = {name: next(queues[kind]) for name, kind in kinds(config)}
        assert len(operators) == len(attention) + len(recorded)
        return logits, operators

    row = model_parity.compare(case, tmp_path, prompts, run=run)

    record_row(row)
    model_parity.check(row)
