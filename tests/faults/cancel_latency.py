"""How long a server works on after a caller has left, at random moments of large requests.

    python -m tests.faults.cancel_latency --cancels 50

The demo model with one prompt of 1024 tokens, and operators of that length. The time is the
server's own, ess_cancel_latency_seconds: from when it learns of the cancel to the end of the work.
Exit code 0 when none took longer than MOST_SECONDS.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

from ess_client import Cancelled, Client, Convolution, DenseOperator, DiagonalRecurrence
from tests.end_to_end.server_process import ROOT, ServerProcess, wait_for

from .fault_server import total

MOST_SECONDS = 0.25
TOKENS = 1024
# A cancel comes at a random moment of this long, or of the whole call where that is shorter.
WINDOW_SECONDS = 2.0
MEASURES = {
    "tolerance, entropy": ["tolerance:1e-3", "entropy"],
    "norms": ["relative:1e-3", "head_relative:1e-2", "spectral_norm"],
    "SVDs": ["singular_values:4"],
}


def calls(model):
    """Name -> a function that runs the call with a client."""
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, 1000, TOKENS).tolist()
    operators = {
        "dense": DenseOperator(np.tril(rng.standard_normal((12, TOKENS, TOKENS)) / TOKENS)),
        "recurrence": DiagonalRecurrence(
            rng.uniform(0.9, 1, (256, TOKENS, 16)),
            rng.standard_normal((256, TOKENS, 16)),
            rng.standard_normal((256, TOKENS, 16)),
        ),
        "convolution": Convolution(rng.standard_normal((256, TOKENS))),
    }
    named = {}
    for name, measures in MEASURES.items():
        named[f"profile, {name}"] = lambda client, measures=measures: client.profile(
            model, token_ids=[tokens], measures=measures
        )
        for kind, operator in operators.items():
            named[f"{kind}, {name}"] = lambda client, operator=operator, measures=measures: (
                client.profile_operators(operator, measures=measures)
            )
    return named


def latency_of_cancel(server, run, seconds) -> float | None:
    """Of one call, cancelled so long after its turn has come; None when it had ended."""
    turns = total(server.metrics(), "ess_queue_wait_seconds_count")
    before = server.metrics()
    client = Client(server.address, timeout=600)

    def until_cancelled():
        try:
            run(client)
        except (Cancelled, ValueError):  # Closed.
            return

    thread = threading.Thread(target=until_cancelled)
    thread.start()
    wait_for(lambda: total(server.metrics(), "ess_queue_wait_seconds_count") > turns, 60)
    time.sleep(seconds)
    client.close()
    thread.join()
    wait_for(lambda: total(server.metrics(), "ess_requests_in_flight") == 0, 600)
    after = server.metrics()
    count, summed = (
        total(after, name) - total(before, name)
        for name in ("ess_cancel_latency_seconds_count", "ess_cancel_latency_seconds_sum")
    )
    return summed if count else None


def measure(server, model, cancels, seed) -> bool:
    """Prints a line for each call. Whether all cancels were quick enough."""
    rng = random.Random(seed)
    quick = True
    print(f"{'call':<34}{'cancels':>8}{'p50 ms':>9}{'p90 ms':>9}{'max ms':>9}")
    for name, run in calls(model).items():
        latencies = []
        window = WINDOW_SECONDS
        for _ in range(cancels):
            latency = latency_of_cancel(server, run, rng.random() * window)
            if latency is None:
                window /= 2
            else:
                latencies.append(latency)
        latencies.sort()
        if not latencies:
            print(f"{name:<34}{0:>8}")
            continue
        quick = quick and latencies[-1] <= MOST_SECONDS
        parts = (latencies[int(part * (len(latencies) - 1))] * 1e3 for part in (0.5, 0.9, 1))
        print(f"{name:<34}{len(latencies):>8}" + "".join(f"{ms:>9.1f}" for ms in parts), flush=True)
    return quick


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cancels", type=int, default=50, help="of each call")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    script = [sys.executable, ROOT / "tools" / "make_demo_model"]
    folder = subprocess.run(script, check=True, capture_output=True, text=True).stdout.strip()
    root, model = folder.rsplit("/", 1)
    with tempfile.NamedTemporaryFile("w", suffix=".textproto") as config:
        config.write("max_reference_work: 1e18")
        config.flush()
        flags = (f"--config={config.name}", f"--model_root={root}", f"--preload={model}")
        with ServerProcess(*flags) as server:
            quick = measure(server, model, arguments.cancels, arguments.seed)
    return 0 if quick else 1


if __name__ == "__main__":
    sys.exit(main())
