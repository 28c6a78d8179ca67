#!/usr/bin/env python3
"""The service around the engine, on the demo model: how long a load takes and how much memory it
keeps, when the first layer's answer arrives, and how much memory a profile of 1024 tokens takes
beside the weights; and the same work through ModelInfer (Open Inference Protocol) and through
Profile.

Prints one table; the figures are ratios and differences within one run. Needs build/bin/ess_server
and the demo model (tools/make_demo_model).
"""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from ess_client import Client  # noqa: E402
from tests.end_to_end.server_process import ServerProcess  # noqa: E402

MODEL = "smollm2-135m"
LIMIT_LOAD_SECONDS = 0.5
LIMIT_LOAD_BYTES = 1.1  # Of the weights.
LIMIT_FIRST = 0.10
LIMIT_BYTES = 1 << 30
LIMIT_INFER = 1.1  # Of the time of Profile.
INFER_ROUNDS = 21


def resident_bytes(pid: int, field: str) -> int:
    """VmRSS: now. VmHWM: the kernel's own high-water mark. RssAnon: without mapped files."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def fastest_load(server: ServerProcess, client: Client) -> tuple[float, float]:
    """Of several loads, files in the page cache: (seconds, bytes of memory / bytes of weights)."""
    seconds, shares = [], []
    for _ in range(5):
        before = resident_bytes(server.process.pid, "VmRSS")
        start = time.perf_counter()
        weights = client.load_model(MODEL).weight_bytes
        seconds.append(time.perf_counter() - start)
        shares.append((resident_bytes(server.process.pid, "VmRSS") - before) / weights)
        client.unload_model(MODEL)
    return min(seconds), max(shares)


def first_layer_share(client: Client, length: int) -> tuple[float, float]:
    """(share of the time until the first layer's answer, seconds of the whole profile)."""
    ids = np.random.default_rng(length).integers(10, 40000, length).tolist()
    arrivals: list[float] = []
    start = time.perf_counter()
    client.profile(MODEL, token_ids=[ids], progress=lambda _: arrivals.append(time.perf_counter()))
    end = time.perf_counter()
    return (arrivals[0] - start) / (end - start), end - start


def infer_share(server: ServerProcess, client: Client, prompts: int, length: int) -> float:
    """Time of ModelInfer over that of Profile for the same work: the medians of each, in turns."""
    tokens = np.random.default_rng(length).integers(10, 40000, (prompts, length))
    measures = ["tolerance:1e-3", "entropy"]
    inputs = [triton.InferInput("TOKENS", tokens.shape, "INT64")]
    inputs[0].set_data_from_numpy(tokens.astype(np.int64))
    with triton.InferenceServerClient(server.address) as peer:

        def infer() -> np.ndarray:
            result = peer.infer(MODEL, inputs, parameters={"measures": ",".join(measures)})
            return result.as_numpy("ESS")

        def profile() -> np.ndarray:
            answer = client.profile(MODEL, token_ids=tokens.tolist(), measures=measures)
            return answer.ess.transpose("prompt", "measure", "layer", "head", "position").values

        assert infer().tobytes() == np.ascontiguousarray(profile()).tobytes()
        seconds: dict[str, list[float]] = {"infer": [], "profile": []}
        ways = [("infer", infer), ("profile", profile)]
        for _ in range(INFER_ROUNDS):
            for name, way in ways:
                start = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - start)
            ways.reverse()
    return float(np.median(seconds["infer"]) / np.median(seconds["profile"]))


def main() -> None:
    folder = subprocess.run(
        [sys.executable, ROOT / "tools" / "make_demo_model"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    with (
        ServerProcess(f"--model_root={Path(folder).parent}") as server,
        Client(server.address, timeout=1200) as client,
    ):
        load_seconds, load_share = fastest_load(server, client)
        client.profile(MODEL, token_ids=[[1] * 64])  # Threads and allocators are warm.
        rows = []
        for length in (256, 512, 1024):
            share, seconds = first_layer_share(client, length)
            rows.append((length, share, seconds))
        weights = client.model(MODEL).weight_bytes
        beside = resident_bytes(server.process.pid, "VmHWM") - weights
        sizes = ((1, 64), (4, 64), (1, 256))
        shares = [infer_share(server, client, prompts, length) for prompts, length in sizes]

    met = load_seconds < LIMIT_LOAD_SECONDS and load_share < LIMIT_LOAD_BYTES
    print(
        f"load, tokenizer included, fastest of 5: {load_seconds:.2f} s "
        f"(limit {LIMIT_LOAD_SECONDS} s); "
        f"memory grows by at most {load_share:.2f}x the weights (limit {LIMIT_LOAD_BYTES}x)  "
        f"{'ok' if met else 'OVER THE LIMIT'}"
    )
    print("tokens  seconds  first layer's answer (share of the time; limit 10 %)")
    for length, share, seconds in rows:
        verdict = "ok" if share < LIMIT_FIRST else "OVER THE LIMIT"
        print(f"{length:6d}  {seconds:7.2f}  {share:6.1%}  {verdict}")
    verdict = "ok" if beside < LIMIT_BYTES else "OVER THE LIMIT"
    print(
        f"peak resident memory up to 1024 tokens: weights {weights / 2**20:.0f} MiB "
        f"+ {beside / 2**20:.0f} MiB (limit + 1024 MiB)  {verdict}"
    )
    print(f"ModelInfer / Profile, the same work, medians of {INFER_ROUNDS} (limit {LIMIT_INFER}x)")
    for (prompts, length), share in zip(sizes, shares, strict=True):
        verdict = "ok" if share < LIMIT_INFER else "OVER THE LIMIT"
        print(f"{prompts} x {length:4d} tokens  {share:.2f}x  {verdict}")


if __name__ == "__main__":
    main()
