"""Gaussian prompts: where the embeddings enter the model, against transformers' `inputs_embeds`."""

from __future__ import annotations

import pathlib
from typing import Any

import model_parity
import numpy as np
import pytest
import torch
import transformers

PROMPTS = {"count": 2, "length": 33, "seed": 5}
SIZES: dict[str, Any] = {"vocab_size": 67, "hidden_size": 32, "num_hidden_layers": 2}
ATTENTION: dict[str, Any] = {**SIZES, "num_attention_heads": 4, "intermediate_size": 48}
CASES: dict[str, dict[str, Any]] = {
    "llama": ATTENTION,
    "gemma": {**ATTENTION, "head_dim": 8, "num_key_value_heads": 2},
    "gpt2": {**ATTENTION, "n_positions": 40},
    "falcon": {**ATTENTION, "ffn_hidden_size": 48},
    "mamba": {**SIZES, "state_size": 8},
    "mamba2": {**SIZES, "state_size": 8, "num_heads": 4, "head_dim": 16, "n_groups": 2},
}


@pytest.mark.parametrize("model_type", CASES)
def test_gaussian_embeddings_stand_in_for_those_of_tokens(
    model_type: str, tmp_path: pathlib.Path
) -> None:
    config = transformers.AutoConfig.for_model(model_type, **CASES[model_type])
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    model_parity.random_weights(model.eval(), seed=3)
    model.save_pretrained(tmp_path)

    ours = model_parity.run_ours(tmp_path, PROMPTS, tolerances=())

    # transformers takes inputs_embeds as what comes out of the embedding, which scales in Gemma.
    scale = config.hidden_size**0.5 if model_type == "gemma" else 1
    for index in range(PROMPTS["count"]):
        embeddings = ours[f"prompt.{index}.embeddings"]
        assert abs(np.sqrt(np.mean(embeddings**2)) - 1) < 0.1
        with torch.no_grad():
            inputs = torch.from_numpy(embeddings)[None] * scale
            public = model(inputs_embeds=inputs, use_cache=False).logits[0].numpy()
        difference = model_parity.relative_difference(ours[f"prompt.{index}.logits"], public)
        assert difference <= model_parity.MAX_RELATIVE_DIFFERENCE
