"""What a new model's tensors are drawn from. The server draws from the same distributions when it
makes a model from config.json alone (random_init)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ess_client.testbed.config import EssTestbedConfig


def initialize(module: nn.Module, config: EssTestbedConfig, seed: int) -> None:
    """Fills every parameter, by name. Drawn on the CPU: the same on every device.

    | tensor                                   | distribution                                    |
    |------------------------------------------|-------------------------------------------------|
    | embed_tokens, lm_head, *_proj .weight    | normal, mean 0, deviation initializer_range     |
    | norm .weight; .bias                      | 1; 0                                            |
    | WLA's A                                  | 0: every gate is 2^(-1 / beta)                  |
    | S6's A                                   | 1 / rate_divisor, ..., N / rate_divisor         |
    | S6's dt_proj.bias                        | x with softplus(x) log-uniform in               |
    |                                          | [time_step_min, time_step_max]                  |
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(_initial(name, parameter.shape, config, generator))


def _initial(
    name: str, shape: torch.Size, config: EssTestbedConfig, generator: torch.Generator
) -> Tensor:
    if "norm." in name:
        return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
    if name.endswith(".A"):
        if len(shape) == 2:  # WLA's, by head.
            return torch.zeros(shape)
        return torch.arange(1, shape[0] + 1) / config.rate_divisor
    if name.endswith("dt_proj.bias"):
        low, high = math.log(config.time_step_min), math.log(config.time_step_max)
        steps = (low + (high - low) * torch.rand(shape, generator=generator)).exp()
        return steps + torch.log(-torch.expm1(-steps))  # The inverse of softplus.
    return config.initializer_range * torch.randn(shape, generator=generator)
