"""What holds for every ranking loss."""

from functools import partial

import pytest
import torch

from apdet.losses import ap_loss, auc_loss, pnp_loss
from apdet.losses.pnp import VARIANTS

RANKING_LOSSES = {
    "ap": ap_loss,
    "ap, not interpolated": partial(ap_loss, interpolate=False),
    "auc": auc_loss,
    **{f"pnp {variant}": partial(pnp_loss, variant=variant) for variant in VARIANTS},
}
# With either step.
LOSSES = {
    f"{name}, {step}": partial(loss, step=step)
    for name, loss in RANKING_LOSSES.items()
    for step in ("piecewise", "sigmoid")
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def loss_and_grad(loss, logits, targets):
    logits = logits.detach().clone().requires_grad_()
    value = loss(logits, targets)
    (grad,) = torch.autograd.grad(value, logits)
    return value.detach(), grad


def random_ranking(dtype=torch.float64):
    targets = torch.tensor([1] * 20 + [0] * 600 + [-1] * 30)[torch.randperm(650)]
    return (2 * torch.randn(650, dtype=torch.float64)).to(dtype), targets


@pytest.mark.parametrize("loss", RANKING_LOSSES.values(), ids=RANKING_LOSSES)
def test_the_width_of_the_other_step_is_refused(loss):
    logits, targets = random_ranking()
    for delta in (None, 1.0):
        with pytest.raises(ValueError, match=r"k=0\.5 is a width of the sigmoid step"):
            loss(logits, targets, delta=delta, k=0.5)
    for k in (None, 0.5):
        with pytest.raises(ValueError, match=r"delta=0\.1 is a width of the piecewise step"):
            loss(logits, targets, step="sigmoid", delta=0.1, k=k)


@every_loss
def test_gradients_sum_to_zero_and_push_apart(loss):
    logits, targets = random_ranking()
    value, grad = loss_and_grad(loss, logits, targets)
    assert value > 0
    assert abs(grad.sum()) <= 1e-13 * grad.abs().sum()
    assert (grad[targets == 1] <= 0).all()
    assert (grad[targets == 0] >= 0).all()
    assert not grad[targets == -1].any()


@every_loss
def test_adding_a_constant_to_all_scores_changes_nothing(loss):
    logits, targets = random_ranking()
    value, grad = loss_and_grad(loss, logits, targets)
    shifted = loss_and_grad(loss, logits + 123.25, targets)
    torch.testing.assert_close(shifted, (value, grad), rtol=1e-9, atol=1e-12)


@every_loss
@pytest.mark.parametrize("targets", [[], [0, 0, 0], [-1, -1], [1, 1], [1, -1]], ids=str)
def test_without_positives_or_negatives_the_loss_is_a_zero_that_backpropagates(loss, targets):
    value, grad = loss_and_grad(loss, torch.randn(len(targets)), torch.tensor(targets))
    assert value == 0
    assert not grad.any()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_lower_precision_costs_only_the_rounding_of_the_result(loss, dtype):
    logits, targets = random_ranking(dtype)
    value, grad = loss_and_grad(loss, logits, targets)
    expected_value, expected_grad = loss_and_grad(loss, logits.double(), targets)
    assert (value.dtype, grad.dtype) == (torch.float32, dtype)
    torch.testing.assert_close(value.double(), expected_value, rtol=1e-6, atol=0)
    error = (grad.double() - expected_grad).abs().max() / expected_grad.abs().max()
    assert error <= torch.finfo(dtype).eps


@every_loss
def test_a_perfect_ranking_has_no_loss_and_no_gradient(loss):
    logits = torch.tensor([50.0, 40.0, -40.0, -50.0])
    value, grad = loss_and_grad(loss, logits, torch.tensor([1, 1, 0, 0]))
    assert value == 0
    assert not grad.any()


@every_loss
def test_autocast_changes_nothing(loss):
    logits, targets = random_ranking(torch.float32)
    expected = loss_and_grad(loss, logits, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(loss_and_grad(loss, logits, targets), expected, rtol=0, atol=0)


@every_loss
def test_a_compiled_model_around_it_trains_as_the_model_itself(loss):
    torch.compiler.reset()
    model = torch.nn.Linear(5, 3)
    inputs, targets = torch.randn(100, 5), torch.randint(-1, 2, (100, 3))

    def forward(x):
        return loss(model(x).tanh(), targets)

    gradients = []
    for function in (forward, torch.compile(forward, backend="aot_eager")):
        model.zero_grad()
        function(inputs).backward()
        gradients.append(model.weight.grad.clone())
    torch.testing.assert_close(*gradients)


@every_loss
@pytest.mark.parametrize(
    "targets",
    [
        torch.tensor([1.0, 0, -1, 0]),
        torch.tensor([1, 0, -1, 0]),
        torch.tensor([1, 0, -1, 0]).half(),
    ],
    ids=lambda targets: str(targets.dtype),
)
def test_targets_may_have_any_dtype(loss, targets):
    logits = torch.tensor([0.3, 0.2, 5.0, 1.0])
    torch.testing.assert_close(loss(logits, targets), loss(logits, targets.to(torch.int8)))


@every_loss
def test_logits_that_were_overwritten_before_backward_are_noticed(loss):
    logits = torch.randn(50, requires_grad=True) * 1.0
    value = loss(logits, torch.randint(-1, 2, (50,)))
    logits.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()
