"""What a profile would cost, as the server estimates it before running."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ess_client._proto.ess.v1 import profiler_pb2


@dataclass(frozen=True)
class Estimate:
    """Answer of `Client.estimate`; printing it shows it in some lines.

    peak_bytes: upper bound of the server's memory, beside the weights. seconds: of the stages
    together, without waiting for others. routes[operator class][measure]: how it would be computed.
    response_bytes: of all answers. tokens: of all prompts.
    """

    peak_bytes: int
    seconds: float
    stages: Mapping[str, float]
    routes: Mapping[str, Mapping[str, str]]
    response_bytes: int
    tokens: int

    def __str__(self) -> str:
        stages = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in self.stages.items())
        lines = [
            f"{self.tokens} tokens: about {self.seconds:.3g} s ({stages})",
            f"  memory: at most {_mebibytes(self.peak_bytes)} beside the weights",
            f"  answer: {_mebibytes(self.response_bytes)}",
        ]
        lines += [
            f"  {operator_class}, {measure}: {route}"
            for operator_class, measures in self.routes.items()
            for measure, route in measures.items()
        ]
        return "\n".join(lines)


def estimate_from_message(message: profiler_pb2.EstimateProfileResponse) -> Estimate:
    routes: dict[str, dict[str, str]] = {}
    for route in message.routes:
        measure = message.measure_names[route.measure]
        routes.setdefault(route.operator_class, {})[measure] = route.route
    return Estimate(
        peak_bytes=message.peak_bytes,
        seconds=message.seconds,
        stages={stage.stage: stage.seconds for stage in message.stages},
        routes=routes,
        response_bytes=message.response_bytes,
        tokens=message.token_count,
    )


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
