"""Forward pass with every attention map captured: ours against transformers, float32 eager.

Rounds alternate between the two, on the same threads, so that a busy machine slows both. Prints the
fastest round of each, because other work only ever adds time, and the ratio: above 1, ours is
faster.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import time
from collections.abc import Callable

import torch
import transformers

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def default_model() -> pathlib.Path:
    cache = os.environ.get("ESS_CACHE_DIR") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"),
        "ess-profiler",
    )
    return pathlib.Path(cache) / "models" / "smollm2-135m"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, default=default_model())
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    public = transformers.AutoModelForCausalLM.from_pretrained(
        arguments.model, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    token_ids = torch.tensor(
        [[i * 7919 % public.config.vocab_size for i in range(arguments.length)]]
    )
    timer = subprocess.Popen(
        [
            str(REPOSITORY / "build" / "bin" / "forward_timer"),
            str(arguments.model),
            str(arguments.length),
            str(arguments.threads),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert timer.stdin is not None and timer.stdout is not None

    def run_ours(what: str) -> float:
        assert timer.stdin is not None and timer.stdout is not None
        timer.stdin.write(what + "\n")
        timer.stdin.flush()
        return float(timer.stdout.readline())

    def run_public(model: torch.nn.Module) -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            model(token_ids, output_attentions=True, use_cache=False)
        return time.perf_counter() - start

    pairs: dict[str, tuple[Callable[[], float], Callable[[], float]]] = {
        "with logits": (lambda: run_ours("logits"), lambda: run_public(public)),
        "operators only": (
            lambda: run_ours("operators"),
            lambda: run_public(public.model),
        ),
    }
    print(
        f"forward pass, {arguments.model.name}, {arguments.length} tokens, "
        f"{arguments.threads} threads, fastest of {arguments.rounds} alternating rounds"
    )
    print(f"{'':16} {'ours':>9} {'public':>9} {'ratio':>7}")
    for name, (ours, theirs) in pairs.items():
        ours(), theirs()  # Warm-up.
        rounds = [(ours(), theirs()) for _ in range(arguments.rounds)]
        ours_seconds = min(mine for mine, _ in rounds)
        public_seconds = min(other for _, other in rounds)
        print(
            f"{name:16} {ours_seconds * 1e3:6.0f} ms {public_seconds * 1e3:6.0f} ms "
            f"{public_seconds / ours_seconds:6.2f}x"
        )
    timer.stdin.close()
    timer.wait()


if __name__ == "__main__":
    main()
