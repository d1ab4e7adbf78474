import math

import pytest
import torch

from apdet.losses import dr_loss


def hard_mean(probabilities, scale):
    weights = [math.exp(p / scale) for p in probabilities]
    return sum(w * p for w, p in zip(weights, probabilities, strict=True)) / sum(weights)


def loss_by_definition(logits, targets, *, pos_lambda, neg_lambda, margin, smoothness, tau):
    pairs = list(zip(logits.sigmoid().tolist(), targets.tolist(), strict=True))
    pos, neg = ([p for p, t in pairs if t == target] for target in (1, 0))
    gap = hard_mean(neg, neg_lambda) - hard_mean(pos, -pos_lambda)
    return tau * math.log(1 + math.exp(smoothness * (gap + margin))) / smoothness


@pytest.mark.parametrize(
    "kwargs",
    [
        # The defaults, as the paper has them.
        {
            "pos_lambda": 1.0,
            "neg_lambda": 0.1 / math.log(3.5),
            "margin": 0.5,
            "smoothness": 6.0,
            "tau": 4.0,
        },
        {"pos_lambda": 0.2, "neg_lambda": 0.5, "margin": 0.1, "smoothness": 2.0, "tau": 1.0},
    ],
    ids=["defaults", "others"],
)
def test_it_ranks_the_expected_probabilities_of_the_hard(kwargs):
    logits, targets = 2 * torch.randn(300, dtype=torch.float64), torch.randint(-1, 2, (300,))
    expected = loss_by_definition(logits, targets, **kwargs)
    assert dr_loss(logits, targets, **kwargs).item() == pytest.approx(expected, rel=1e-12)
    is_default = kwargs["tau"] == 4.0
    assert (dr_loss(logits, targets).item() == pytest.approx(expected)) == is_default


def test_its_gradient_is_its_derivative():
    logits = torch.randn(20, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(-1, 2, (20,))
    assert torch.autograd.gradcheck(lambda x: dr_loss(x, targets), logits)


@pytest.mark.parametrize(
    ("targets", "pos_mean", "neg_mean"),
    [([0, 0], 1.0, 0.5), ([1, 1], 0.5, 0.0), ([-1, -1], 1.0, 0.0), ([], 1.0, 0.0)],
    ids=str,
)
def test_missing_positives_are_1_and_missing_negatives_0(targets, pos_mean, neg_mean):
    logits = torch.zeros(len(targets), requires_grad=True)
    loss = dr_loss(logits, torch.tensor(targets))
    loss.backward()
    expected = 4 / 6 * math.log(1 + math.exp(6 * (neg_mean - pos_mean + 0.5)))
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", ["pos_lambda", "neg_lambda", "smoothness"])
def test_what_must_be_positive_is_named(name):
    with pytest.raises(ValueError, match=f"{name} must be > 0, got 0"):
        dr_loss(torch.zeros(2), torch.zeros(2), **{name: 0})


def test_a_million_scores_in_float32_are_as_exact_as_in_float64():
    logits = 2 * torch.randn(1_000_000) - 4
    targets = (torch.rand(len(logits)) < 1e-3).int()
    losses, gradients = [], []
    for dtype in (torch.float32, torch.float64):
        scores = logits.to(dtype).requires_grad_()
        loss = dr_loss(scores, targets)
        (gradient,) = torch.autograd.grad(loss, scores)
        assert loss.dtype == dtype
        losses.append(loss.item())
        gradients.append(gradient.double())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    largest = gradients[1].abs().max()
    torch.testing.assert_close(gradients[0] / largest, gradients[1] / largest, rtol=0, atol=1e-6)
