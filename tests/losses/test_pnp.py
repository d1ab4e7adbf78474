import pytest
import torch
from oracles import pairwise_loss
from scipy.integrate import quad

from apdet.losses import pnp_loss

# The paper's losses; autograd derives their updates. Of I_u the update is the paper's.
LOSSES = {
    "O": lambda r, _: r,
    "I_u": lambda r, _: (1 + r) * torch.log(1 + r) - r,
    "I_b": lambda r, _: (2.5 * r - torch.log(1 + 2.5 * r)) / 2.5**2,
    "D_s": lambda r, _: torch.log(1 + r),
    "D_q": lambda r, _: 1 - 1 / (1 + r) ** 1.5,
}


@pytest.mark.parametrize("counts", [(1, 1), (3, 40), (30, 300)])
@pytest.mark.parametrize("variant", LOSSES)
def test_each_variant_is_the_papers(variant, counts):
    targets = torch.tensor([1] * counts[0] + [0] * counts[1] + [-1] * 7)
    logits = (2 * torch.randn(len(targets), dtype=torch.float64)).requires_grad_()
    loss = pnp_loss(logits, targets, variant=variant, b=2.5, alpha=1.5, delta=0.5)
    (grad,) = torch.autograd.grad(loss, logits)
    expected_loss, expected_grad = pairwise_loss(logits, targets, LOSSES[variant], 0.5)
    torch.testing.assert_close(loss.detach(), expected_loss)
    torch.testing.assert_close(grad, expected_grad)


@pytest.mark.parametrize("rank_neg", [0.5, 3.0, 40.0])
def test_i_u_is_the_integral_of_eq_6(rank_neg):
    # One positive, tied with twice as many negatives as its rank.
    targets = torch.tensor([1] + [0] * int(2 * rank_neg))
    loss = pnp_loss(torch.zeros(len(targets), dtype=torch.float64), targets, variant="I_u")
    expected, _ = quad(lambda r: torch.tensor(r).double().log1p().item(), 0, rank_neg)
    torch.testing.assert_close(loss.item(), expected)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"variant": "D"}, "variant must be one of .*'D_q'.*, got 'D'"),
        ({"b": 0}, "b must be > 0, got 0"),
        ({"alpha": 0.5}, "alpha must be >= 1, got 0.5"),
    ],
)
def test_a_hyper_parameter_out_of_range_is_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        pnp_loss(torch.zeros(2), torch.tensor([1, 0]), **kwargs)
