"""Training steps in mixed precision, on any device."""

import time
from collections.abc import Iterable

import torch
from detectron2.engine import AMPTrainer, SimpleTrainer
from torch import nn

from apdet.errors import ArgumentError

_PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def build_stepper(
    model: nn.Module,
    data_loader: Iterable,
    optimizer: torch.optim.Optimizer,
    *,
    precision: str = "",
    device: str = "cpu",
) -> SimpleTrainer:
    """Build the object that makes the training steps, Detectron2's or ours.

    Args:
        model: maps a batch to its losses. It must be on ``device``.
        data_loader: the batches.
        optimizer: the optimizer of the model.
        precision: "float16" or "bfloat16" for mixed precision; empty: float32.
        device: the device of the model, such as "cuda".

    Raises:
        ArgumentError: an unknown ``precision``.
    """
    if not precision:
        return SimpleTrainer(model, data_loader, optimizer)
    if precision not in _PRECISIONS:
        raise ArgumentError(
            "build_stepper",
            "{precision} is {value!r}; choose one of {choices}",
            value=precision,
            choices=list(_PRECISIONS),
        )
    return AutocastTrainer(
        model,
        data_loader,
        optimizer,
        device=torch.device(device).type,
        precision=_PRECISIONS[precision],
    )


class AutocastTrainer(AMPTrainer):
    """Detectron2's mixed-precision step, but on any device. In bfloat16 it scales no loss."""

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable,
        optimizer: torch.optim.Optimizer,
        *,
        device: str,
        precision: torch.dtype,
    ):
        scaler = torch.amp.GradScaler(device, enabled=precision == torch.float16)
        super().__init__(model, data_loader, optimizer, grad_scaler=scaler, precision=precision)
        self.device = device

    def run_step(self) -> None:
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        with torch.autocast(self.device, dtype=self.precision):
            losses = self.model(data)
        self.optimizer.zero_grad()
        self.grad_scaler.scale(sum(losses.values())).backward()
        self.after_backward()
        self._write_metrics(losses, data_time)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def load_state_dict(self, state_dict: dict) -> None:
        # A checkpoint of a training in another precision has no loss scale.
        scale = state_dict.get("grad_scaler") or self.grad_scaler.state_dict()
        super().load_state_dict({**state_dict, "grad_scaler": scale})
