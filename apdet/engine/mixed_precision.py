"""Training steps in mixed precision, on any device."""

import time

import torch
from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer, SimpleTrainer
from torch import nn

from apdet.errors import UserError

_PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def build_stepper(cfg: CfgNode, model: nn.Module, data_loader, optimizer) -> SimpleTrainer:
    """What runs a training step, as ``SOLVER.AMP`` has it.

    Raises:
        UserError: ``SOLVER.AMP.PRECISION`` is neither "float16" nor "bfloat16".
    """
    if not cfg.SOLVER.AMP.ENABLED:
        return SimpleTrainer(model, data_loader, optimizer)
    name = cfg.SOLVER.AMP.PRECISION
    if name not in _PRECISIONS:
        raise UserError(f"SOLVER.AMP.PRECISION is {name!r}; choose one of {list(_PRECISIONS)}")
    device = torch.device(cfg.MODEL.DEVICE).type
    return AutocastTrainer(
        model, data_loader, optimizer, device=device, precision=_PRECISIONS[name]
    )


class AutocastTrainer(AMPTrainer):
    """Detectron2's mixed-precision step on any device, and without a loss scale in bfloat16."""

    def __init__(self, model, data_loader, optimizer, *, device: str, precision: torch.dtype):
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
        # A training begun in another precision has no loss scale to go on with.
        scale = state_dict.get("grad_scaler") or self.grad_scaler.state_dict()
        super().load_state_dict({**state_dict, "grad_scaler": scale})
