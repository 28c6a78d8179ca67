"""The calls, as scripts that Client and AsyncClient bind (_binding). Their parameters and texts are
those of the methods; `settings` is the client's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Literal

from ess_client import _requests
from ess_client._operator_stream import OperatorsAssembler, OperatorsResult, operator_requests
from ess_client._proto.ess.v1 import models_pb2, server_pb2
from ess_client._steps import Call, Script
from ess_client._stream import ProfileAssembler, Progress
from ess_client.estimate import Estimate, estimate_from_message
from ess_client.measures import parse_measures
from ess_client.models import ModelInfo, ServerInfo, model_from_message, server_from_message
from ess_client.operators import Operator
from ess_client.profile import Profile
from ess_client.selection import IndexSpec, LayerSpec
from ess_client.settings import QUERY_SECONDS, WORK_SECONDS, Settings


def profile(
    settings: Settings,
    /,
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
) -> Script[Profile]:
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
    progress: called with a Progress whenever an operator is complete for a prompt; from 0 again
      when the connection broke and the call is tried once more.

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
    made: Profile = yield Call(
        "Profile",
        request,
        settings.deadline(timeout, WORK_SECONDS),
        losses=1,
        collect=lambda: ProfileAssembler(request, progress),
    )
    return made


def estimate(
    settings: Settings,
    /,
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
) -> Script[Estimate]:
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
    deadline = settings.deadline(timeout, WORK_SECONDS)
    response = yield Call("EstimateProfile", request, deadline, losses=1)
    return estimate_from_message(response)


def profile_operators(
    settings: Settings,
    /,
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
) -> Script[OperatorsResult]:
    """ESS of an operator the caller brings, dense or in factors (ess_client.operators).

    Its leading dimensions stay: result.ess is (measure, batch_0, ..., position). The other
    arguments are those of `profile`; an element of the leading dimensions takes the place of a
    head, with one channel. progress: called with a Progress as values come in.
    """
    messages = partial(
        operator_requests,
        operator,
        parse_measures(measures),
        _requests.options_message(horizon, certify, reduce),
        positions,
        priority,
    )
    messages()  # Refuses what is wrong before the call.
    made: OperatorsResult = yield Call(
        "ProfileOperators",
        messages,
        settings.deadline(timeout, WORK_SECONDS),
        losses=1,
        collect=lambda: OperatorsAssembler(progress),
    )
    return made


def models(settings: Settings, /, *, timeout: float | None = None) -> Script[list[ModelInfo]]:
    """The models the server knows, by name, without their layers."""
    deadline = settings.deadline(timeout, QUERY_SECONDS)
    response = yield Call("ListModels", models_pb2.ListModelsRequest(), deadline)
    return [model_from_message(message) for message in response.models]


def model(settings: Settings, /, name: str, *, timeout: float | None = None) -> Script[ModelInfo]:
    """One model. Raises NotFound."""
    deadline = settings.deadline(timeout, QUERY_SECONDS)
    response = yield Call("GetModel", models_pb2.GetModelRequest(name=name), deadline)
    return model_from_message(response)


def load_model(
    settings: Settings,
    /,
    name: str,
    *,
    random_init: int | Mapping[str, int] | None = None,
    dtype: str | None = None,
    alias: str | None = None,
    device: str | None = None,
    pinned: bool = False,
    reload: bool = False,
    timeout: float | None = None,
) -> Script[ModelInfo]:
    """Loads a model and returns when it is resident.

    random_init: a seed, for weights drawn from the architecture's initialisation. dtype:
    "float32" (default) or "as_stored". alias: another served name. pinned: never evicted to
    make room. reload: reads a loaded model again and puts it in the place of the old one, which
    serves on if that fails. Raises AlreadyExists for a loaded name with other options.
    """
    options = _requests.model_options(random_init, dtype, alias, device, pinned)
    request = models_pb2.LoadModelRequest(name=name, options=options, reload=reload)
    deadline = settings.deadline(timeout, WORK_SECONDS)
    response = yield Call("LoadModel", request, deadline, losses=1)
    return model_from_message(response)


def unload_model(settings: Settings, /, name: str, *, timeout: float | None = None) -> Script[int]:
    """Unloads a model, after the requests that use it; returns the bytes given back."""
    request = models_pb2.UnloadModelRequest(name=name)
    deadline = settings.deadline(timeout, WORK_SECONDS)
    response = yield Call("UnloadModel", request, deadline, losses=0)
    return int(response.released_bytes)


def server_info(settings: Settings, /, *, timeout: float | None = None) -> Script[ServerInfo]:
    """Version, device and limits of the server."""
    deadline = settings.deadline(timeout, QUERY_SECONDS)
    response = yield Call("GetServerInfo", server_pb2.GetServerInfoRequest(), deadline)
    return server_from_message(response)
