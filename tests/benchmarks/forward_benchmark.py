"""Forward pass with every operator captured: ours against transformers, float32 eager.

First the demo model, then each architecture that transformers has, with random weights in a small
real size (hidden size 512, 4 layers). Rounds alternate between the two, on the same threads, so
that a busy machine slows both. Prints the fastest round of each, because other work only ever adds
time, and the ratio: above 1, ours is faster.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

# With it transformers' hybrids ask for kernels that need a GPU.
sys.modules["fla"] = None  # type: ignore[assignment]

import torch  # noqa: E402
import transformers  # noqa: E402

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

SIZE = {
    "vocab_size": 8192,
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 512}
LATENT = {
    "num_key_value_heads": 8,
    "q_lora_rank": 256,
    "kv_lora_rank": 128,
    "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 32,
    "v_head_dim": 64,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 512,
    "first_k_dense_replace": 1,
}
STATE_SPACE = {"mamba_d_state": 64, "mamba_n_heads": 16, "mamba_d_head": 64, "mamba_n_groups": 1}
LINEAR = {
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 8,
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 64,
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
}
# What differs from SIZE.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bamba": {**STATE_SPACE, "attn_layer_indices": [2]},
    "deepseek_v2": {**LATENT, "n_group": 2, "topk_group": 1},
    "deepseek_v3": {**LATENT, "n_group": 2, "topk_group": 1},
    "falcon": {"num_kv_heads": 4, "new_decoder_architecture": True},
    "falcon_h1": {**STATE_SPACE, "mamba_d_ssm": 1024},
    "falcon_mamba": {"state_size": 16, "intermediate_size": 1024},
    "gemma": {"head_dim": 64},
    "gemma2": {"head_dim": 64, "sliding_window": 128},
    "gemma3_text": {"head_dim": 64, "sliding_window": 128},
    "gpt2": {"n_embd": 512, "n_layer": 4, "n_head": 8},
    "gpt_neox": {},
    "granitemoehybrid": {
        **STATE_SPACE,
        "num_local_experts": 0,
        "shared_intermediate_size": 1536,
        "layer_types": ["mamba", "mamba", "attention", "mamba"],
    },
    "jamba": {"num_experts": 4, "attn_layer_period": 4, "attn_layer_offset": 2},
    "lfm2": {"layer_types": ["conv", "conv", "full_attention", "conv"]},
    "llama": {},
    "mamba": {"state_size": 16, "intermediate_size": 1024},
    "mamba2": {
        "state_size": 64,
        "num_heads": 16,
        "head_dim": 64,
        "n_groups": 1,
        "intermediate_size": 1024,
    },
    "mistral": {"sliding_window": 128},
    "mixtral": {"num_local_experts": 8, "num_experts_per_tok": 2},
    "phi": {},
    "phi3": {"pad_token_id": 0},
    "qwen2": {},
    "qwen3": {"head_dim": 64},
    "qwen3_5_text": {**LINEAR, "head_dim": 64},
    "qwen3_moe": {**EXPERTS, "head_dim": 64},
    "qwen3_next": {**LINEAR, **EXPERTS, "head_dim": 64, "shared_expert_intermediate_size": 512},
}


def demo_model() -> pathlib.Path:
    cache = os.environ.get("ESS_CACHE_DIR") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"),
        "ess-profiler",
    )
    return pathlib.Path(cache) / "models" / "smollm2-135m"


def random_model(model_type: str) -> Any:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type, **{**SIZE, **ARCHITECTURES[model_type]})
    return transformers.AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager"
    ).eval()


class OurForward:
    """The program forward_timer, which waits for its turn."""

    def __init__(self, folder: pathlib.Path, length: int, threads: int):
        program = REPOSITORY / "build" / "bin" / "forward_timer"
        self.process = subprocess.Popen(
            [str(program), str(folder), str(length), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> OurForward:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def run(self, what: str) -> float:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def race(
    label: str, public: Any, folder: pathlib.Path, what: str, arguments: argparse.Namespace
) -> None:
    """One row: `what` is "logits" or "operators", which leaves the output head out."""
    size = public.config.vocab_size
    token_ids = torch.tensor([[i * 7919 % size for i in range(arguments.length)]])
    module = public if what == "logits" else public.base_model
    # Attention maps are what a public model can hand out; it has no way to ask a recurrence.
    options = {} if "mamba" in public.config.model_type else {"output_attentions": True}

    def run_public() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            module(token_ids, use_cache=False, **options)
        return time.perf_counter() - start

    with OurForward(folder, arguments.length, arguments.threads) as ours:
        ours.run(what), run_public()  # Warm-up.
        rounds = [(ours.run(what), run_public()) for _ in range(arguments.rounds)]
    mine = min(mine for mine, _ in rounds)
    theirs = min(other for _, other in rounds)
    print(
        f"{label:32} {mine * 1e3:7.0f} ms {theirs * 1e3:7.0f} ms {theirs / mine:6.2f}x", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="architectures, or demo; default: all")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    unknown = set(arguments.names) - {"demo", *ARCHITECTURES}
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: not among demo, {', '.join(ARCHITECTURES)}")
    names = arguments.names or ["demo", *ARCHITECTURES]

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(arguments.threads)
    print(
        f"forward pass, {arguments.length} tokens, {arguments.threads} threads, every operator "
        f"captured, fastest of {arguments.rounds} alternating rounds"
    )
    print(f"{'':32} {'ours':>10} {'public':>10} {'ratio':>7}")
    for name in names:
        if name == "demo":
            public = transformers.AutoModelForCausalLM.from_pretrained(
                demo_model(), dtype=torch.float32, attn_implementation="eager"
            ).eval()
            race("smollm2-135m, with logits", public, demo_model(), "logits", arguments)
            race("smollm2-135m, operators only", public, demo_model(), "operators", arguments)
            continue
        public = random_model(name)
        with tempfile.TemporaryDirectory() as folder:
            public.save_pretrained(folder)
            race(f"{name}, with logits", public, pathlib.Path(folder), "logits", arguments)
            race(f"{name}, operators only", public, pathlib.Path(folder), "operators", arguments)


if __name__ == "__main__":
    main()
