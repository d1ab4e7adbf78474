"""GHM-C: entries with a common gradient norm get a smaller weight (arXiv:1811.05181)."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from apdet.losses.checks import check_scores
from apdet.losses.interface import keeps_state_of


def ghm_loss(logits: Tensor, targets: Tensor, *, bins: int = 30) -> Tensor:
    """Binary cross entropy, each entry divided by the gradient density around it.

    Li et al., "Gradient Harmonized Single-stage Detector", AAAI 2019, arXiv:1811.05181. With the
    gradient norm g_i = |sigmoid(x_i) - p_i| and M unit regions that divide [0, 1]:

        GD_i = M R_b(i)                  b(i) the region of g_i, R_b the number of entries in b
        loss = sum_i CE(x_i, p_i) / GD_i

    This is the paper's GHM-C with its unit region approximation. The paper and this function divide
    by M; the authors' code divides by the number of regions that are not empty. The paper also has
    a moving average. `GHMLoss` keeps it as a state, and detectors use `GHMLoss`.

    Args:
        logits: (*) float, before the sigmoid.
        targets: (*) any dtype, of the same shape. 1 positive, 0 negative, -1 ignored.
        bins: M, the number of unit regions.

    Returns:
        () float32 (float64 for float64 logits).

    Raises:
        ValueError: the shapes differ, a target is above 1, or ``bins`` is below 1.
        FloatingPointError: a logit is NaN or infinite.
    """
    return averaged_ghm_loss(logits, targets, _no_counts(bins, logits.device))[0]


def averaged_ghm_loss(
    logits: Tensor, targets: Tensor, moving_counts: Tensor, *, momentum: float = 0.75
) -> tuple[Tensor, Tensor]:
    """`ghm_loss` with a moving average S_b of the counts in place of the counts R_b.

        S_b <- momentum S_b + (1 - momentum) R_b

    The average starts from the first count that is not 0.

    Args:
        logits: (*) float, before the sigmoid.
        targets: (*) any dtype, of the same shape. 1 positive, 0 negative, -1 ignored.
        moving_counts: (M,) float. The previous S_b; 0 where nothing has been counted yet.
        momentum: weight of the previous average, in [0, 1).

    Returns:
        The loss, () float32 (float64 for float64 logits), and the new S_b, (M,).

    Raises:
        ValueError: the shapes differ, a target is above 1, or ``momentum`` is out of range.
        FloatingPointError: a logit is NaN or infinite.
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}")
    check_scores(logits, targets)
    valid = targets >= 0
    dtype = torch.promote_types(logits.dtype, torch.float32)
    logits, targets = logits[valid].to(dtype), targets[valid].to(dtype)
    with torch.no_grad():
        bins = len(moving_counts)
        norm = (logits.sigmoid() - targets).abs()
        region = (norm * bins).long().clamp(max=bins - 1)
        counts = torch.bincount(region, minlength=bins).to(dtype)
        mean = momentum * moving_counts + (1 - momentum) * counts
        counts = torch.where(moving_counts > 0, mean, counts)
        density = bins * counts[region].to(dtype)
    with torch.autocast(logits.device.type, enabled=False):
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (losses / density).sum(), counts


@keeps_state_of(ghm_loss)
class GHMLoss(nn.Module):
    """`averaged_ghm_loss` with its moving average as a buffer, so that checkpoints hold it."""

    moving_counts: Tensor

    def __init__(self, bins: int = 30, momentum: float = 0.75):
        """Start with all counts at 0.

        Args:
            bins: M, the number of unit regions.
            momentum: weight of the previous average, in [0, 1).
        """
        super().__init__()
        self.momentum = momentum
        self.register_buffer("moving_counts", _no_counts(bins))

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Update the moving average, and compute the loss with it; arguments as in `ghm_loss`."""
        loss, counts = averaged_ghm_loss(
            logits, targets, self.moving_counts, momentum=self.momentum
        )
        self.moving_counts.copy_(counts)
        return loss


def _no_counts(bins: int, device: torch.device | None = None) -> Tensor:
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    return torch.zeros(bins, device=device)
