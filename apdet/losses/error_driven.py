"""What losses with an error-driven update share: checked input, and a gradient set by hand."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _AttachGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: Tensor, loss: Tensor, grad: Tensor) -> Tensor:
        ctx.save_for_backward(grad)
        ctx.dtype = logits.dtype
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss: Tensor):
        (grad,) = ctx.saved_tensors
        # Scaled before it is rounded: a loss scale keeps small float16 gradients alive.
        return (grad_loss * grad).to(ctx.dtype), None, None


def attach_gradient(logits: Tensor, loss: Tensor, grad: Tensor) -> Tensor:
    """Make ``grad`` the derivative of ``loss`` with respect to ``logits``.

    An error-driven update is not the derivative of the loss that is reported, so autograd is told.

    Args:
        logits: (*) float. The scores that the loss was computed from.
        loss: () float. Its value.
        grad: (*) float. The update, of the shape of ``logits``; it may have another dtype.

    Returns:
        () of the dtype of ``loss``. It can be differentiated once.
    """
    return _AttachGradient.apply(logits, loss, grad)


def check_scores(logits: Tensor, targets: Tensor) -> None:
    """Refuse scores and targets that no loss can be computed from.

    Raises:
        ValueError: shapes that differ, or a target above 1.
        FloatingPointError: scores that are NaN or infinite; the message counts them.
    """
    if logits.shape != targets.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} differ")
    if not torch.isfinite(logits).all():
        num_nan, num_inf = int(torch.isnan(logits).sum()), int(torch.isinf(logits).sum())
        raise FloatingPointError(
            f"{num_nan} of {logits.numel()} logits are NaN and {num_inf} are infinite: "
            "training has diverged (try a lower learning rate) or the input is not finite"
        )
    if (targets > 1).any():
        raise ValueError(f"targets lie in {{-1, 0, 1}}, got {targets.max().item()}")
