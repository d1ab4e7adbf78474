import pytest
import torch
from oracles import pairwise_loss
from sklearn.metrics import roc_auc_score

from apdet.losses import auc_loss


def random_ranking(num_pos, num_neg):
    targets = torch.tensor([1] * num_pos + [0] * num_neg + [-1] * 7)
    return 2 * torch.randn(len(targets), dtype=torch.float64), targets


@pytest.mark.parametrize("delta", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("counts", [(1, 1), (3, 40), (50, 300)])
def test_is_eq_7(counts, delta):
    logits, targets = random_ranking(*counts)
    logits.requires_grad_()
    loss = auc_loss(logits, targets, delta=delta)
    (grad,) = torch.autograd.grad(loss, logits)
    expected_loss, expected_grad = pairwise_loss(
        logits, targets, lambda rank_neg, num_neg: rank_neg / num_neg, delta
    )
    torch.testing.assert_close(loss.detach(), expected_loss)
    torch.testing.assert_close(grad, expected_grad)


def test_a_vanishing_step_gives_scikit_learns_area_under_the_curve():
    logits, targets = random_ranking(50, 500)
    known = targets >= 0
    expected = 1 - roc_auc_score(targets[known].numpy(), logits[known].numpy())
    torch.testing.assert_close(auc_loss(logits, targets, delta=1e-9).item(), expected)
