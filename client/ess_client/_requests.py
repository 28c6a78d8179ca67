"""Request messages from what a caller writes. What cannot be right is refused before the call."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ess_client._proto.ess.v1 import measures_pb2, models_pb2, priority_pb2, profiler_pb2
from ess_client.errors import InvalidArgument
from ess_client.measures import Measure
from ess_client.selection import IndexSpec, LayerSpec, Range, parse_indices, parse_layers

MAX_MESSAGE_BYTES = 1 << 20
PromptSpec = str | Mapping[str, Any]
_REDUCTIONS = {
    "heads": measures_pb2.REDUCTION_HEADS,
    "positions": measures_pb2.REDUCTION_POSITIONS,
}
_DTYPES = {
    "float32": models_pb2.WEIGHT_DTYPE_FLOAT32,
    "as_stored": models_pb2.WEIGHT_DTYPE_AS_STORED,
}


def measure_message(measure: Measure) -> measures_pb2.Measure:
    message = measures_pb2.Measure()
    if measure.threshold is not None:
        setattr(message, measure.kind, measure.threshold)
    elif measure.count is not None:
        message.singular_values = measure.count
    else:
        getattr(message, measure.kind).SetInParent()
    return message


def measure_from_message(message: measures_pb2.Measure) -> Measure:
    kind = message.WhichOneof("kind")
    if kind is None:
        raise InvalidArgument("a measure without a kind")
    value = getattr(message, kind)
    if kind == "singular_values":
        return Measure(kind, count=value)
    return Measure(kind, threshold=value) if isinstance(value, float) else Measure(kind)


def options_message(
    horizon: int | None, certify: bool, reduce: str | None
) -> measures_pb2.MeasureOptions:
    options = measures_pb2.MeasureOptions(certify=certify)
    if horizon is not None:
        options.horizon = _integer(horizon, "horizon", 1, 2**63 - 1)
    if reduce is not None:
        if reduce not in _REDUCTIONS:
            raise InvalidArgument(f'reduce={reduce!r}; it is "heads" or "positions"')
        options.reduction = _REDUCTIONS[reduce]
    return options


def options_from_message(message: measures_pb2.MeasureOptions) -> dict[str, Any]:
    """horizon, certify and reduce as a caller writes them; what is not asked for is left out."""
    options: dict[str, Any] = {}
    if message.HasField("horizon"):
        options["horizon"] = message.horizon
    if message.certify:
        options["certify"] = True
    for name, value in _REDUCTIONS.items():
        if message.reduction == value:
            options["reduce"] = name
    return options


def index_message(spec: IndexSpec, field: str) -> measures_pb2.IndexSelection:
    return measures_pb2.IndexSelection(ranges=_range_messages(parse_indices(spec, field)))


def layer_message(spec: LayerSpec) -> measures_pb2.LayerSelection:
    ranges, names = parse_layers(spec)
    return measures_pb2.LayerSelection(ranges=_range_messages(ranges), names=names)


def ranges_from_message(message: measures_pb2.IndexSelection) -> list[Range]:
    return [Range(r.first, r.last, max(r.stride, 1)) for r in message.ranges]


def profile_request(
    model: str,
    prompts: str | Iterable[PromptSpec] | None,
    token_ids: Iterable[Iterable[int]] | None,
    gaussian: Mapping[str, int] | None,
    measures: Sequence[Measure],
    layers: LayerSpec,
    heads: IndexSpec,
    positions: IndexSpec,
    options: measures_pb2.MeasureOptions,
    add_special_tokens: bool | None,
    priority: str = "normal",
) -> profiler_pb2.ProfileRequest:
    """Exactly one of prompts, token_ids and gaussian must be given."""
    only_given(prompts=prompts, token_ids=token_ids, gaussian=gaussian)
    request = profiler_pb2.ProfileRequest(
        model=model,
        measures=[measure_message(measure) for measure in measures],
        options=options,
        layers=layer_message(layers),
        heads=index_message(heads, "heads"),
        positions=index_message(positions, "positions"),
        add_special_tokens=add_special_tokens,
        priority=priority_value(priority),
    )
    if gaussian is not None:
        request.gaussian.CopyFrom(_gaussian_message(gaussian))
    else:
        specs = prompt_specs(prompts, token_ids)
        request.prompts.extend(_prompt_message(spec, index) for index, spec in enumerate(specs))
    if request.ByteSize() > MAX_MESSAGE_BYTES:
        raise InvalidArgument(
            f"the request has {request.ByteSize()} bytes; the limit is {MAX_MESSAGE_BYTES}: "
            "send fewer prompts in a call"
        )
    return request


def priority_value(priority: str) -> priority_pb2.Priority:
    """The message's enumeration value of "normal" or "low"."""
    values = {"normal": priority_pb2.PRIORITY_NORMAL, "low": priority_pb2.PRIORITY_LOW}
    if priority not in values:
        raise InvalidArgument(f"priority is {priority!r}; it must be one of {', '.join(values)}")
    return values[priority]


def model_options(
    random_init: int | Mapping[str, int] | None = None,
    dtype: str | None = None,
    alias: str | None = None,
    device: str | None = None,
    pinned: bool = False,
) -> models_pb2.ModelOptions | None:
    """Load options. random_init: a seed, or {"seed": 0}. dtype: "float32" or "as_stored".

    None when nothing is asked for: then the server's own options for the model hold.
    """
    if not (alias or device or pinned or dtype is not None or random_init is not None):
        return None
    if dtype is not None and dtype not in _DTYPES:
        raise InvalidArgument(f"dtype '{dtype}'; it is float32 or as_stored")
    options = models_pb2.ModelOptions(alias=alias, device=device, pinned=pinned)
    if dtype is not None:
        options.dtype = _DTYPES[dtype]
    if random_init is not None:
        seed = random_init.get("seed", 0) if isinstance(random_init, Mapping) else random_init
        options.random_init.seed = _integer(seed, "random_init seed", 0, 2**64 - 1)
        options.random_init.SetInParent()
    return options


def prompt_fields(spec: PromptSpec, index: int) -> dict[str, Any]:
    """`id` where there is one, and `text` or `token_ids`, as plain values."""
    fields = {"text": spec} if isinstance(spec, str) else spec
    name = f"prompt {fields.get('id') or index}"
    unknown = sorted(set(fields) - {"id", "text", "token_ids"})
    if unknown:
        raise InvalidArgument(f"{name} has a field '{unknown[0]}'; id, text and token_ids exist")
    if ("text" in fields) == ("token_ids" in fields):
        raise InvalidArgument(f"{name} needs text or token_ids, and not both")
    plain: dict[str, Any] = {}
    if fields.get("id") not in (None, ""):
        plain["id"] = str(fields["id"])
    if "token_ids" in fields:
        plain["token_ids"] = [
            _integer(i, f"{name}: token_ids", -(2**63), 2**63 - 1) for i in fields["token_ids"]
        ]
        return plain
    text = fields["text"]
    if not isinstance(text, str):
        raise InvalidArgument(f"{name}: text is no string but {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(f"{name}: text is not valid Unicode (a lone surrogate)") from None
    return plain | {"text": text}


def prompt_specs(
    prompts: str | Iterable[PromptSpec] | None, token_ids: Iterable[Iterable[int]] | None
) -> Iterable[PromptSpec]:
    """One of the two ways to write prompts, as the other."""
    if token_ids is not None:
        return ({"token_ids": ids} for ids in token_ids)
    return [prompts] if isinstance(prompts, (str, Mapping)) else prompts or []


def only_given(**choices: object) -> str:
    """The name of the only one that is not None. Raises InvalidArgument."""
    given = [name for name, value in choices.items() if value is not None]
    if len(given) != 1:
        *names, last = choices
        found = " and ".join(given) or "none"
        raise InvalidArgument(f"give one of {', '.join(names)} and {last}; found {found}")
    return given[0]


def _prompt_message(spec: PromptSpec, index: int) -> profiler_pb2.Prompt:
    fields = prompt_fields(spec, index)
    prompt = profiler_pb2.Prompt(id=fields.get("id", ""))
    if "text" in fields:
        prompt.text = fields["text"]
    else:
        prompt.token_ids.ids.extend(fields["token_ids"])
        prompt.token_ids.SetInParent()
    return prompt


def _gaussian_message(fields: Mapping[str, int]) -> profiler_pb2.GaussianInput:
    unknown = sorted(set(fields) - {"count", "length", "seed"})
    if unknown:
        raise InvalidArgument(f"gaussian has a field '{unknown[0]}'; count, length and seed exist")
    return profiler_pb2.GaussianInput(
        count=_integer(fields.get("count", 1), "gaussian count", 1, 2**31 - 1),
        length=_integer(fields.get("length", 0), "gaussian length", 1, 2**63 - 1),
        seed=_integer(fields.get("seed", 0), "gaussian seed", 0, 2**64 - 1),
    )


def gaussian_from_message(message: profiler_pb2.GaussianInput) -> dict[str, int]:
    return {"count": message.count, "length": message.length, "seed": message.seed}


def _range_messages(ranges: Iterable[Range]) -> list[measures_pb2.IndexRange]:
    return [measures_pb2.IndexRange(first=r.first, last=r.last, stride=r.stride) for r in ranges]


def _integer(value: object, field: str, low: int, high: int) -> int:
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidArgument(f"{field} is {value!r}, not an integer") from None
    if not low <= number <= high:
        raise InvalidArgument(f"{field} is {number}; it lies between {low} and {high}")
    return number
