"""The paper's own sequence mixers as a small PyTorch model that trains and that the server loads.

Needs PyTorch, an optional dependency: pip install "client/[testbed]". How to train, save and
profile: docs/testbed.md.

from ess_client.testbed import EssTestbedConfig, EssTestbedModel, mqar_batches, train
model = EssTestbedModel(EssTestbedConfig(vocab_size=256, mixers=("GLA", "SA")), seed=0)
train(model, mqar_batches(vocab_size=256, length=64, pairs=8, batch_size=32, seed=1), steps=100)
model.save_pretrained("models/gla-sa")
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError(
        'ess_client.testbed needs PyTorch: pip install "ess-client[testbed]"'
    ) from error

from ess_client.testbed.config import MIXERS, EssTestbedConfig
from ess_client.testbed.ess import effective_state_size, singular_values
from ess_client.testbed.initialization import initialize
from ess_client.testbed.model import EssTestbedModel, LayerOperators
from ess_client.testbed.tasks import Batch, mqar_batches
from ess_client.testbed.training import Objective, cross_entropy, gate_distance, regularized, train

__all__ = [
    "MIXERS",
    "Batch",
    "EssTestbedConfig",
    "EssTestbedModel",
    "LayerOperators",
    "Objective",
    "cross_entropy",
    "effective_state_size",
    "gate_distance",
    "initialize",
    "mqar_batches",
    "regularized",
    "singular_values",
    "train",
]
