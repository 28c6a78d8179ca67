"""What the server says about itself and its models, as plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ess_client._proto.ess.v1 import measures_pb2, models_pb2, server_pb2


@dataclass(frozen=True)
class StateSize:
    """State a layer could hold (TSS): 0 at position 0, else min(position, cap) or `constant`.

    cap: None for full attention (TSS is the position), w - 1 for a window of w positions.
    constant: state size of a recurrence; then cap is unused.
    """

    cap: int | None = None
    constant: int | None = None

    def at(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """TSS at each position."""
        if self.constant is not None:
            sizes = np.where(positions == 0, 0, self.constant)
        else:
            sizes = positions if self.cap is None else np.minimum(positions, self.cap)
        return sizes.astype(np.int32)


@dataclass(frozen=True)
class LayerInfo:
    """One mixing operator of a model. channels[h]: channels that share head h's operator."""

    name: str
    layer_index: int
    operator_class: str
    head_count: int
    channels: tuple[int, ...]
    state_size: StateSize


@dataclass(frozen=True)
class ModelInfo:
    """A model of the server. `layers` and the sizes are known while it is "ready"."""

    name: str
    state: str  # "cold", "loading", "ready", "unloading", "failed"
    reason: str
    architecture: str
    device: str
    dtype: str
    weight_bytes: int
    parameters: int
    vocabulary_size: int
    max_positions: int
    hidden_size: int
    layers: tuple[LayerInfo, ...]
    has_tokenizer: bool
    weight_digest: str
    random_init: int | None = None  # The seed of its weights; None for those of a checkpoint.


@dataclass(frozen=True)
class ServerInfo:
    """Version and limits of a server."""

    version: str
    commit: str
    torch_version: str
    grpc_version: str
    device: str
    threads: int
    architectures: tuple[str, ...]
    default_measures: tuple[str, ...]
    max_prompt_tokens: int
    max_prompts: int
    max_reference_work: float
    max_result_bytes: int
    max_operator_bytes: int
    max_operator_length: int
    max_operator_batch: int
    max_message_bytes: int
    metrics_measure: str
    uptime_seconds: float


def state_size_from_message(message: measures_pb2.StateSize) -> StateSize:
    kind = message.WhichOneof("kind")
    if kind == "constant":
        return StateSize(constant=message.constant)
    return StateSize(cap=message.growing_up_to if kind == "growing_up_to" else None)


def layer_from_message(message: models_pb2.MixingOperator) -> LayerInfo:
    channels = tuple(message.channels)
    if len(channels) == 1:
        channels *= message.head_count
    return LayerInfo(
        name=message.name,
        layer_index=message.layer_index,
        operator_class=message.operator_class,
        head_count=message.head_count,
        channels=channels,
        state_size=state_size_from_message(message.state_size),
    )


def random_seed(message: models_pb2.Model) -> int | None:
    options = message.options
    return options.random_init.seed if options.HasField("random_init") else None


def model_from_message(message: models_pb2.Model) -> ModelInfo:
    state = models_pb2.ModelState.Name(message.state).removeprefix("MODEL_STATE_").lower()
    return ModelInfo(
        name=message.name,
        state=state,
        reason=message.reason,
        architecture=message.architecture,
        device=message.device,
        dtype=message.dtype,
        weight_bytes=message.weight_bytes,
        parameters=message.parameters,
        vocabulary_size=message.vocabulary_size,
        max_positions=message.max_positions,
        hidden_size=message.hidden_size,
        layers=tuple(layer_from_message(layer) for layer in message.layers),
        has_tokenizer=message.has_tokenizer,
        weight_digest=message.weight_digest,
        random_init=random_seed(message),
    )


def server_from_message(message: server_pb2.ServerInfo) -> ServerInfo:
    return ServerInfo(
        version=message.version,
        commit=message.commit,
        torch_version=message.torch_version,
        grpc_version=message.grpc_version,
        device=message.device,
        threads=message.threads,
        architectures=tuple(message.architectures),
        default_measures=tuple(message.default_measures),
        max_prompt_tokens=message.max_prompt_tokens,
        max_prompts=message.max_prompts,
        max_reference_work=message.max_reference_work,
        max_result_bytes=message.max_result_bytes,
        max_operator_bytes=message.max_operator_bytes,
        max_operator_length=message.max_operator_length,
        max_operator_batch=message.max_operator_batch,
        max_message_bytes=message.max_message_bytes,
        metrics_measure=message.metrics_measure,
        uptime_seconds=message.uptime_seconds,
    )
