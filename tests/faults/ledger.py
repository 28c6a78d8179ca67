"""What the metrics must say after calls whose end is known: a ledger, kept by their sender."""

import collections
import threading

# The metrics that the ledger knows whole: what it does not expect must not be there.
COUNTED = (
    "ess_requests_total",
    "ess_grpc_started_total",
    "ess_grpc_handled_total",
    "ess_request_duration_seconds_count",
    "ess_requests_shed_total",
    "ess_requests_cancelled_total",
    "ess_cancel_latency_seconds_count",
    "ess_queue_wait_seconds_count",
    "ess_batch_sequences_count",
    "ess_batch_sequences_sum",
    "ess_batch_tokens_count",
    "ess_batch_tokens_sum",
    "ess_tokens_total",
    "ess_profiled_sequences_total",
    "ess_profiled_positions_total",
    "ess_observations_total",
    "ess_state_utilization_ratio_count",
    "ess_model_loads_total",
    "ess_nonfinite_observations_total",
)


class Ledger:
    """Thread-safe."""

    def __init__(self):
        self._mutex = threading.Lock()
        self._counts = collections.Counter()

    def add(self, metric, amount=1, **labels):
        with self._mutex:
            self._counts[metric, tuple(sorted(labels.items()))] += amount

    def call(self, rpc, model, code):
        """A call that began and ended."""
        self.add("ess_requests_total", rpc=rpc, model=model, code=code)
        self.add("ess_grpc_started_total", rpc=rpc)
        self.add("ess_grpc_handled_total", rpc=rpc, code=code)
        self.add("ess_request_duration_seconds_count", rpc=rpc, model=model)

    def turn(self, model):
        """It had its turn in the queue."""
        self.add("ess_queue_wait_seconds_count", model=model)

    def profile(self, model, layers, lengths):
        """It ran these prompts, and observed each of these layers."""
        for metric, amount in {
            "ess_batch_sequences_count": 1,
            "ess_batch_sequences_sum": len(lengths),
            "ess_batch_tokens_count": 1,
            "ess_batch_tokens_sum": sum(lengths),
            "ess_tokens_total": sum(lengths),
            "ess_profiled_sequences_total": len(lengths),
            "ess_profiled_positions_total": sum(lengths),
        }.items():
            self.add(metric, amount, model=model)
        for layer in layers:
            self.add("ess_observations_total", len(lengths), model=model, layer=layer)
            self.add("ess_state_utilization_ratio_count", len(lengths), model=model, layer=layer)

    def differences(self, samples) -> list[str]:
        """Where the server's metrics say something else."""
        found = {key: value for key, value in samples.items() if key[0] in COUNTED and value != 0}
        keys = sorted(set(found) | set(self._counts))
        return [
            f"{name}{dict(labels)}: {found.get((name, labels), 0):g}, "
            f"the ledger has {self._counts[name, labels]}"
            for name, labels in keys
            if found.get((name, labels), 0) != self._counts[name, labels]
        ]
