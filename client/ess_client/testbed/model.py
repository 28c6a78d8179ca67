"""The model: blocks of a mixer and a feed-forward, both after a norm and added to the residual.

A checkpoint is a folder with config.json and model.safetensors, which the server loads as it is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from ess_client.testbed.config import EssTestbedConfig
from ess_client.testbed.ess import effective_state_size
from ess_client.testbed.initialization import initialize
from ess_client.testbed.mixers import Mixer, make_mixer

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class LayerOperators:
    """One layer's operators for a batch of prompts of equal length."""

    name: str  # As the server calls it: "000".
    operators: Tensor  # float64 [B, H, L, L]
    tss: Tensor  # int64 [L]
    channels: int  # How many channels share each operator.

    def ess(self, measure: str = "tolerance:1e-3") -> Tensor:
        """float64 [B, H, L], by an SVD at every position."""
        return effective_state_size(self.operators, measure)


class FeedForward(nn.Module):
    """swiglu: down(silu(gate x) * up x); gelu: down(gelu(up x))."""

    def __init__(self, config: EssTestbedConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.inner_size
        gated = config.mlp == "swiglu"
        self.gate_proj = nn.Linear(width, inner, bias=False) if gated else None
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        up = self.up_proj(x)
        if self.gate_proj is None:
            inner = functional.gelu(up)
        else:
            inner = functional.silu(self.gate_proj(x)) * up
        down: Tensor = self.down_proj(inner)
        return down


class Block(nn.Module):
    """One layer."""

    mixer: Mixer

    def __init__(self, config: EssTestbedConfig, kind: str) -> None:
        super().__init__()
        self.mixer_norm = _make_norm(config)
        self.mixer = make_mixer(config, kind)
        self.mlp_norm = None if config.mlp == "none" else _make_norm(config)
        self.mlp = None if config.mlp == "none" else FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """hidden [B, L, D] => what follows it, and what the mixer saw."""
        x = self.mixer_norm(hidden)
        hidden = hidden + self.dropout(self.mixer(x))
        if self.mlp is not None and self.mlp_norm is not None:
            hidden = hidden + self.dropout(self.mlp(self.mlp_norm(hidden)))
        return hidden, x


class EssTestbedModel(nn.Module):
    """token_ids int64 [B, L] => logits [B, L, V]."""

    def __init__(self, config: EssTestbedConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, kind) for kind in config.mixers)
        self.norm = _make_norm(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight
        initialize(self, config, seed)

    @property
    def mixers(self) -> list[Mixer]:
        """The mixers, by layer."""
        return [layer.mixer for layer in self.layers if isinstance(layer, Block)]

    def forward(self, token_ids: Tensor) -> Tensor:
        return self.logits_and_inputs(token_ids)[0]

    def logits_and_inputs(self, token_ids: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits, and what the mixer of each layer saw: [B, L, D]."""
        return self.run(self.embed_tokens(token_ids))

    def run(self, embeddings: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The same from embeddings [B, L, D], such as Gaussian noise."""
        inputs = []
        hidden = embeddings
        for layer in self.layers:
            hidden, x = layer(hidden)
            inputs.append(x)
        return self.lm_head(self.norm(hidden)), inputs

    @torch.no_grad()
    def operators(self, token_ids: Tensor) -> list[LayerOperators]:
        """Every layer's operators, formed in float64 from the features in the model's dtype."""
        return self.operators_of_inputs(self.logits_and_inputs(token_ids)[1])

    @torch.no_grad()
    def operators_of_inputs(self, inputs: list[Tensor]) -> list[LayerOperators]:
        """The same from what the mixers saw."""
        return [
            LayerOperators(
                name=f"{layer:03}",
                operators=mixer.operators(x),
                tss=mixer.tss(x.shape[1]),
                channels=mixer.channels,
            )
            for layer, (mixer, x) in enumerate(zip(self.mixers, inputs, strict=True))
        ]

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes config.json and model.safetensors; makes the folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        if self.config.tie_word_embeddings:
            del tensors["lm_head.weight"]
        save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        (folder / CONFIG_FILE).write_text(json.dumps(self.config.to_dict(), indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> EssTestbedModel:
        """Reads what save_pretrained wrote."""
        folder = Path(folder)
        config = EssTestbedConfig.from_dict(json.loads((folder / CONFIG_FILE).read_text()))
        model = cls(config)
        tensors = load_file(folder / WEIGHTS_FILE)
        if config.tie_word_embeddings:
            tensors["lm_head.weight"] = tensors["embed_tokens.weight"]
        model.load_state_dict(tensors)
        return model


def _make_norm(config: EssTestbedConfig) -> nn.Module:
    kind = nn.RMSNorm if config.norm == "rms" else nn.LayerNorm
    return kind(config.hidden_size, eps=config.norm_eps)
