"""Client: the calls of an ESS Profiler server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal

import grpc

from ess_client import _requests
from ess_client._operator_stream import OperatorsAssembler, OperatorsResult, operator_requests
from ess_client._proto.ess.v1 import models_pb2, profiler_pb2_grpc, server_pb2
from ess_client._stream import ProfileAssembler, Progress
from ess_client.errors import InvalidArgument, error_from_rpc
from ess_client.estimate import Estimate, estimate_from_message
from ess_client.measures import parse_measures
from ess_client.models import ModelInfo, ServerInfo, model_from_message, server_from_message
from ess_client.operators import Operator
from ess_client.profile import Profile
from ess_client.selection import IndexSpec, LayerSpec

DEFAULT_ADDRESS = "127.0.0.1:8001"
WORK_SECONDS = 600.0  # Profiles, loading and unloading.
QUERY_SECONDS = 30.0  # Everything else.


class Client:
    """A connection to one server, HOST:PORT. Thread-safe. Close it, or use it in a `with`.

    Every call takes `timeout` in seconds. Where it is None the constructor's holds, and where that
    is None: 600 s for profiles, loading and unloading, 30 s for the rest. Out of time, the call
    raises DeadlineExceeded and the server stops the work. Proxies of the environment are not used.

    client_id: whom the server takes turns with, where several share an address, such as the jobs of
    a node. Default: the address.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        timeout: float | None = None,
        *,
        client_id: str | None = None,
    ) -> None:
        self.address = address
        self._timeout = timeout
        self._metadata = [("ess-client-id", client_id)] if client_id else None
        self._channel = grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)])
        self._stub: Any = profiler_pb2_grpc.EssProfilerStub(self._channel)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and the calls still running on it."""
        self._channel.close()

    def profile(
        self,
        model: str,
        prompts: str | Iterable[_requests.PromptSpec] | None = None,
        *,
        token_ids: Iterable[Iterable[int]] | None = None,
        gaussian: Mapping[str, int] | None = None,
        measures: str | Iterable[str] | None = None,
        layers: LayerSpec = None,
        heads: IndexSpec = None,
        positions: IndexSpec = None,
        horizon: int | None = None,
        certify: bool = False,
        reduce: Literal["heads", "positions"] | None = None,
        add_special_tokens: bool | None = None,
        priority: Literal["normal", "low"] = "normal",
        timeout: float | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> Profile:
        """Runs prompts through a model and returns the ESS of its operators at every position.

        prompts: strings, or mappings with `text` or `token_ids` and an optional `id` (default: the
          ordinal). Instead: token_ids, one list per prompt; or gaussian={"count", "length",
          "seed"}, prompts of standard normal embeddings.
        measures: "tolerance:1e-3", "entropy", ...; None: the server's defaults.
        layers: model layer indices or operator names. heads, positions: model indices. Integers,
          lists, or strings of ranges and strides ("0,4-7", "0-511:8"); None: all.
        horizon: cuts H_i to T[i:i+horizon, :i]. certify: uncertain counts are recomputed by SVD,
          and profile.certain says which values are certain.
        reduce: the server sends means over "heads", weighted by their channels, or over "positions"
          from 1 on; the profile then lacks that dimension.
        priority: "low" waits for the normal requests of all callers.
        progress: called with a Progress whenever an operator is complete for a prompt.

        Raises InvalidArgument, NotFound, FailedPrecondition, ResourceExhausted, DeadlineExceeded,
        Unavailable, ... (ess_client.errors).
        """
        request = _requests.profile_request(
            model,
            prompts,
            token_ids,
            gaussian,
            parse_measures(measures),
            layers,
            heads,
            positions,
            _requests.options_message(horizon, certify, reduce),
            add_special_tokens,
            priority,
        )
        assembler = ProfileAssembler(request, progress)
        with self._errors():
            call = self._stub.Profile(
                request, timeout=self._seconds(timeout, WORK_SECONDS), metadata=self._metadata
            )
            try:
                for response in call:
                    assembler.add(response)
            finally:
                call.cancel()  # Stops the server when we leave early; no effect on an ended call.
        return assembler.take()

    def estimate(
        self,
        model: str,
        prompts: str | Iterable[_requests.PromptSpec] | None = None,
        *,
        token_ids: Iterable[Iterable[int]] | None = None,
        gaussian: Mapping[str, int] | None = None,
        measures: str | Iterable[str] | None = None,
        layers: LayerSpec = None,
        heads: IndexSpec = None,
        positions: IndexSpec = None,
        horizon: int | None = None,
        certify: bool = False,
        reduce: Literal["heads", "positions"] | None = None,
        add_special_tokens: bool | None = None,
        timeout: float | None = None,
    ) -> Estimate:
        """What `profile` with these arguments would cost. It is checked as `profile` checks it, and
        not run; a cold model is loaded, since its layers decide."""
        request = _requests.profile_request(
            model,
            prompts,
            token_ids,
            gaussian,
            parse_measures(measures),
            layers,
            heads,
            positions,
            _requests.options_message(horizon, certify, reduce),
            add_special_tokens,
        )
        with self._errors():
            response = self._stub.EstimateProfile(
                request, timeout=self._seconds(timeout, WORK_SECONDS)
            )
        return estimate_from_message(response)

    def profile_operators(
        self,
        operator: Operator,
        *,
        measures: str | Iterable[str] | None = None,
        positions: IndexSpec = None,
        horizon: int | None = None,
        certify: bool = False,
        reduce: Literal["heads", "positions"] | None = None,
        priority: Literal["normal", "low"] = "normal",
        timeout: float | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> OperatorsResult:
        """ESS of an operator the caller brings, dense or in factors (ess_client.operators).

        Its leading dimensions stay: result.ess is (measure, batch_0, ..., position). The other
        arguments are those of `profile`; an element of the leading dimensions takes the place of a
        head, with one channel. progress: called with a Progress as values come in.
        """
        messages = operator_requests(
            operator,
            parse_measures(measures),
            _requests.options_message(horizon, certify, reduce),
            positions,
            priority,
        )
        assembler = OperatorsAssembler(progress)
        with self._errors():
            call = self._stub.ProfileOperators(
                messages, timeout=self._seconds(timeout, WORK_SECONDS), metadata=self._metadata
            )
            try:
                for response in call:
                    assembler.add(response)
            finally:
                call.cancel()
        return assembler.take()

    def models(self, *, timeout: float | None = None) -> list[ModelInfo]:
        """The models the server knows, by name, without their layers."""
        with self._errors():
            response = self._stub.ListModels(
                models_pb2.ListModelsRequest(), timeout=self._seconds(timeout, QUERY_SECONDS)
            )
        return [model_from_message(message) for message in response.models]

    def model(self, name: str, *, timeout: float | None = None) -> ModelInfo:
        """One model. Raises NotFound."""
        with self._errors():
            response = self._stub.GetModel(
                models_pb2.GetModelRequest(name=name),
                timeout=self._seconds(timeout, QUERY_SECONDS),
            )
        return model_from_message(response)

    def load_model(
        self,
        name: str,
        *,
        random_init: int | Mapping[str, int] | None = None,
        dtype: str | None = None,
        alias: str | None = None,
        device: str | None = None,
        pinned: bool = False,
        reload: bool = False,
        timeout: float | None = None,
    ) -> ModelInfo:
        """Loads a model and returns when it is resident.

        random_init: a seed, for weights drawn from the architecture's initialisation. dtype:
        "float32" (default) or "as_stored". alias: another served name. pinned: never evicted to
        make room. reload: reads a loaded model again and puts it in the place of the old one, which
        serves on if that fails. Raises AlreadyExists for a loaded name with other options.
        """
        options = _requests.model_options(random_init, dtype, alias, device, pinned)
        with self._errors():
            response = self._stub.LoadModel(
                models_pb2.LoadModelRequest(name=name, options=options, reload=reload),
                timeout=self._seconds(timeout, WORK_SECONDS),
            )
        return model_from_message(response)

    def unload_model(self, name: str, *, timeout: float | None = None) -> int:
        """Unloads a model, after the requests that use it; returns the bytes given back."""
        with self._errors():
            response = self._stub.UnloadModel(
                models_pb2.UnloadModelRequest(name=name),
                timeout=self._seconds(timeout, WORK_SECONDS),
            )
        return int(response.released_bytes)

    def server_info(self, *, timeout: float | None = None) -> ServerInfo:
        """Version, device and limits of the server."""
        with self._errors():
            response = self._stub.GetServerInfo(
                server_pb2.GetServerInfoRequest(), timeout=self._seconds(timeout, QUERY_SECONDS)
            )
        return server_from_message(response)

    def _seconds(self, timeout: float | None, default: float) -> float:
        seconds = next(s for s in (timeout, self._timeout, default) if s is not None)
        if not seconds > 0:
            raise InvalidArgument(f"timeout is {seconds}; it must be above 0")
        return seconds

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise error_from_rpc(error, self.address) from None
