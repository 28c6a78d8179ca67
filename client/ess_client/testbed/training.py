"""A plain training loop, and objectives for it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import torch
from torch import Tensor
from torch.nn import functional

from ess_client.testbed.model import EssTestbedModel
from ess_client.testbed.tasks import Batch

# What is made small: of a model and a batch, a scalar with a gradient.
Objective = Callable[[EssTestbedModel, Batch], Tensor]


def cross_entropy(model: EssTestbedModel, batch: Batch) -> Tensor:
    """Mean over the positions with a label."""
    return _label_loss(model(batch.token_ids), batch.labels)


def regularized(weight: float, layers: Collection[int] | None = None) -> Objective:
    """cross_entropy + weight * gate_distance, which keeps products of gates from vanishing.

    Source: the paper's appendix A. `layers`: those whose gates are held; None: all that have any.
    """

    def objective(model: EssTestbedModel, batch: Batch) -> Tensor:
        logits, inputs = model.logits_and_inputs(batch.token_ids)
        loss = _label_loss(logits, batch.labels)
        return loss + weight * gate_distance(model, inputs, layers)

    return objective


def gate_distance(
    model: EssTestbedModel, inputs: list[Tensor], layers: Collection[int] | None = None
) -> Tensor:
    """||A_t - I||_F, mean over prompts, heads and positions, summed over layers.

    `inputs`: what the mixers saw, as logits_and_inputs gives it.
    """
    distance = torch.zeros((), device=inputs[0].device)
    for layer, (mixer, x) in enumerate(zip(model.mixers, inputs, strict=True)):
        gates = mixer.gates(x) if layers is None or layer in layers else None
        if gates is not None:
            distance = distance + torch.linalg.vector_norm(gates - 1, dim=-1).mean()
    return distance


def train(
    model: EssTestbedModel,
    batches: Iterable[Batch],
    steps: int,
    *,
    objective: Objective = cross_entropy,
    learning_rate: float = 2e-3,
    weight_decay: float = 0.1,
    max_gradient_norm: float | None = 1.0,
    after_step: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Takes `steps` steps of AdamW, one batch each, and returns the objective of every step.

    The defaults are the paper's, but for the bound on the gradient. Leaves the model in eval mode.
    `after_step` is called with the number of steps taken and the objective. ValueError when the
    batches end early or the objective is not finite.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    device = next(model.parameters()).device
    losses: list[float] = []
    model.train()
    for step, batch in zip(range(steps), batches, strict=False):
        loss = objective(model, Batch(*(tensor.to(device) for tensor in batch)))
        if not torch.isfinite(loss):
            raise ValueError(f"the objective is {loss.item()} at step {step}")
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        if max_gradient_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_gradient_norm)
        optimizer.step()
        losses.append(loss.item())
        if after_step is not None:
            after_step(step + 1, losses[-1])
    model.eval()
    if len(losses) < steps:
        raise ValueError(f"the batches ended after {len(losses)} of {steps} steps")
    return losses


def _label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
