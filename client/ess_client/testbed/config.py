"""The configuration of a testbed model: config.json of its checkpoints, key by key."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MODEL_TYPE = "ess_testbed"

# The paper's names (arXiv:2504.19561, appendix D.2).
MIXERS = ("SA", "LA", "WLA", "GLA", "S6", "GLA-S6")
MLPS = ("swiglu", "gelu", "none")
NORMS = ("rms", "layer")
DEFAULT_S6_STATES = 16

# What the server takes; it refuses the rest (server/models/config_reader.h and ess_testbed.cc).
MAX_SIZE = 2**24
MAX_LAYERS = 4096
SIZES = ("vocab_size", "hidden_size", "num_attention_heads", "intermediate_size", "gate_rank")
SCALE_RANGE = (0, 1e6)
RANGES = {
    "norm_eps": (0, 1),
    "rope_theta": (1e-6, 1e12),
    "recurrence_scale": SCALE_RANGE,
    "beta": (1e-6, 1e12),
    "alpha": (1e-6, 1e12),
    "initializer_range": (0, 1e3),
    "rate_divisor": (1e-12, 1e12),
    "time_step_min": (1e-12, 1e6),
    "time_step_max": (1e-12, 1e6),
    "dropout": (0, 1),
}
FLAGS = ("tie_word_embeddings", "output_norm", "output_gate")


@dataclass(frozen=True)
class EssTestbedConfig:
    """What a model is made of. docs/testbed.md describes every key.

    ValueError names the key, its value, and what is supported: what the server supports too.
    """

    vocab_size: int
    mixers: tuple[str, ...] = ("GLA", "GLA")  # By layer; as many layers as entries.
    hidden_size: int = 128
    num_attention_heads: int = 8
    state_size: int | None = None  # None: hidden_size / num_attention_heads; S6: 16.
    mlp: str = "swiglu"
    intermediate_size: int | None = None  # None: 4 hidden_size.
    norm: str = "rms"
    norm_eps: float = 1e-5
    tie_word_embeddings: bool = False

    rope_theta: float = 10000.0  # SA, LA
    attention_scale: float | None = None  # SA. None: 1 / sqrt(head_dim).
    recurrence_scale: float = 1.0  # All but SA: multiplies T.
    gate_rank: int = 16  # GLA, GLA-S6
    beta: float = 16.0  # WLA, GLA: gates are sigmoids to the power 1 / beta.
    alpha: float = 1000.0  # GLA-S6: its rates are 1 / alpha, ..., N / alpha.
    output_norm: bool = True  # All but SA: an RMS norm of every head's output.
    output_gate: bool = False

    # What a new model starts from; a trained one no longer depends on it.
    initializer_range: float = 0.02
    rate_divisor: float = 1.0  # S6: rates start at 1 / rate_divisor, ..., N / rate_divisor.
    time_step_min: float = 1e-3  # S6
    time_step_max: float = 1e-1  # S6
    dropout: float = 0.0  # In training only.

    def __post_init__(self) -> None:
        if not isinstance(self.mixers, (list, tuple)):
            raise ValueError(f"mixers is {self.mixers!r}; expected a list of strings")
        object.__setattr__(self, "mixers", tuple(self.mixers))
        _check_size("hidden_size", self.hidden_size)
        if self.intermediate_size is None:
            if 4 * self.hidden_size > MAX_SIZE:
                raise ValueError(
                    f"hidden_size is {self.hidden_size}; supported: 4 * hidden_size "
                    f"up to {MAX_SIZE}"
                )
            object.__setattr__(self, "intermediate_size", 4 * self.hidden_size)
        self._check_choices()
        self._check_values()
        self._check_sizes()

    @property
    def num_hidden_layers(self) -> int:
        return len(self.mixers)

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def inner_size(self) -> int:
        """The width of the feed-forward."""
        assert self.intermediate_size is not None
        return self.intermediate_size

    def states(self, mixer: str) -> int:
        """N of a recurrence; the width of a query of SA."""
        if mixer == "SA":
            return self.head_dim
        if self.state_size is not None:
            return self.state_size
        return DEFAULT_S6_STATES if mixer == "S6" else self.head_dim

    def scale(self, mixer: str) -> float:
        """What multiplies the scores of SA, and T of the others."""
        if mixer != "SA":
            return self.recurrence_scale
        return self.head_dim**-0.5 if self.attention_scale is None else self.attention_scale

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json."""
        values = dataclasses.asdict(self)
        return {
            "model_type": MODEL_TYPE,
            "num_hidden_layers": self.num_hidden_layers,
            **values,
            "mixers": list(self.mixers),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EssTestbedConfig:
        """Reads the content of config.json, where null is the default.

        ValueError names a key it does not know, or whose value makes no model.
        """
        if values.get("model_type", MODEL_TYPE) != MODEL_TYPE:
            raise ValueError(f"model_type is {values['model_type']!r}; expected {MODEL_TYPE!r}")
        known = {field.name for field in dataclasses.fields(cls)}
        derived = ("model_type", "num_hidden_layers")
        given = {k: v for k, v in values.items() if k not in derived and v is not None}
        if "vocab_size" not in given:
            raise ValueError("vocab_size is missing")
        unknown = sorted(set(given) - known)
        if unknown:
            raise ValueError(
                f"unknown keys {', '.join(unknown)}; known: {', '.join(sorted(known))}"
            )
        config = cls(**given)
        layers = values.get("num_hidden_layers", config.num_hidden_layers)
        if layers != config.num_hidden_layers:
            raise ValueError(f"num_hidden_layers is {layers}, but mixers has {len(config.mixers)}")
        return config

    def _check_choices(self) -> None:
        for mixer in self.mixers:
            if mixer not in MIXERS:
                raise ValueError(f"mixers has {mixer!r}; supported: {', '.join(MIXERS)}")
        for key, supported in (("mlp", MLPS), ("norm", NORMS)):
            if getattr(self, key) not in supported:
                found = getattr(self, key)
                raise ValueError(f"{key} is {found!r}; supported: {', '.join(supported)}")

    def _check_values(self) -> None:
        for key in SIZES:
            _check_size(key, getattr(self, key))
        if self.state_size is not None:
            _check_size("state_size", self.state_size)
        for key, limits in RANGES.items():
            _check_number(key, getattr(self, key), limits)
        if self.attention_scale is not None:
            _check_number("attention_scale", self.attention_scale, SCALE_RANGE)
        for key in FLAGS:
            if not isinstance(getattr(self, key), bool):
                raise ValueError(f"{key} is {getattr(self, key)!r}; expected true or false")

    def _check_sizes(self) -> None:
        if not 1 <= len(self.mixers) <= MAX_LAYERS:
            raise ValueError(f"mixers has {len(self.mixers)} entries; supported: 1 to {MAX_LAYERS}")
        if self.time_step_max < self.time_step_min:
            raise ValueError(
                f"time_step_max is {self.time_step_max}, below time_step_min = {self.time_step_min}"
            )
        if self.hidden_size % self.num_attention_heads != 0:
            raise ValueError(
                f"hidden_size is {self.hidden_size}, not a multiple of "
                f"num_attention_heads = {self.num_attention_heads}"
            )
        if self.state_size is not None and self.state_size * self.num_attention_heads > MAX_SIZE:
            raise ValueError(
                f"state_size is {self.state_size}; supported: num_attention_heads * state_size "
                f"up to {MAX_SIZE}"
            )
        for mixer in {"SA", "LA"} & set(self.mixers):
            if self.states(mixer) % 2 != 0:
                given = self.state_size is not None and mixer != "SA"
                raise ValueError(
                    f"{'state_size' if given else 'hidden_size / num_attention_heads'} is "
                    f"{self.states(mixer)}, but queries of {mixer} rotate in pairs"
                )


def _check_size(key: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{key} is {value!r}; expected an integer")
    if not 1 <= value <= MAX_SIZE:
        raise ValueError(f"{key} is {value}; supported: 1 to {MAX_SIZE}")


def _check_number(key: str, value: object, limits: tuple[float, float]) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError(f"{key} is {value!r}; expected a number")
    low, high = limits
    if not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"{key} is {value}; supported: {low:g} to {high:g}")
