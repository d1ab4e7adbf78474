import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles import ap_by_algorithm_1, sigmoid_step
from sklearn.metrics import average_precision_score

from apdet.losses import ap_loss


def loss_and_grad(logits, targets, **kwargs):
    logits = logits.detach().clone().requires_grad_()
    loss = ap_loss(logits, targets, **kwargs)
    (grad,) = torch.autograd.grad(loss, logits)
    return loss.detach(), grad


def random_ranking(num_pos, num_neg, num_ignored=0, dtype=torch.float64):
    targets = torch.tensor([1] * num_pos + [0] * num_neg + [-1] * num_ignored)
    targets = targets[torch.randperm(len(targets))]
    return (2 * torch.randn(len(targets), dtype=torch.float64)).to(dtype), targets


@pytest.mark.parametrize("interpolate", [True, False])
@pytest.mark.parametrize("delta", [1e-3, 0.25, 1.0, 4.0])
@pytest.mark.parametrize("counts", [(1, 1, 0), (1, 40, 3), (7, 50, 9), (99, 300, 20), (30, 1, 0)])
def test_is_algorithm_1_of_the_paper(counts, delta, interpolate):
    logits, targets = random_ranking(*counts)
    loss, grad = loss_and_grad(logits, targets, delta=delta, interpolate=interpolate)
    expected_loss, expected_grad = ap_by_algorithm_1(logits, targets, delta, interpolate)
    torch.testing.assert_close(loss, expected_loss, rtol=0, atol=1e-12)
    torch.testing.assert_close(grad, expected_grad, rtol=0, atol=1e-12)


scores = st.floats(-50, 50, width=32) | st.sampled_from([-1.0, 0.0, 1.0, 2.0])  # ties and corners


@settings(max_examples=200, deadline=None)
@given(data=st.data(), size=st.integers(1, 30), delta=st.sampled_from([0.01, 0.5, 1.0, 3.0]))
def test_is_algorithm_1_with_ties_and_scores_at_the_corners(data, size, delta):
    logits = torch.from_numpy(data.draw(hnp.arrays("float32", size, elements=scores))).double()
    targets = torch.from_numpy(data.draw(hnp.arrays("int8", size, elements=st.integers(-1, 1))))
    loss, grad = loss_and_grad(logits, targets, delta=delta)
    expected_loss, expected_grad = ap_by_algorithm_1(logits, targets, delta)
    torch.testing.assert_close(loss, expected_loss, rtol=0, atol=1e-12)
    torch.testing.assert_close(grad, expected_grad, rtol=0, atol=1e-12)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    num_scores=st.integers(1, 10_000),
    share_pos=st.floats(0, 0.05),
    spread=st.sampled_from([0.1, 3.0, 100.0, 1e4]),
    delta=st.sampled_from([0.1, 1.0, 10.0]),
    seed=st.integers(0, 2**31),
)
def test_is_algorithm_1_in_float32_at_any_size(backend, num_scores, share_pos, spread, delta, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(num_scores, generator=generator)
    targets = (torch.rand(num_scores, generator=generator) < share_pos).int()
    loss, grad = loss_and_grad(logits, targets, delta=delta)
    expected_loss, expected_grad = ap_by_algorithm_1(logits, targets, delta)
    torch.testing.assert_close(loss.double(), expected_loss, rtol=0, atol=1e-6)
    largest = expected_grad.abs().max().item()
    torch.testing.assert_close(grad.double(), expected_grad, rtol=0, atol=1e-6 * largest + 1e-300)


@pytest.mark.parametrize("interpolate", [True, False])
@pytest.mark.parametrize("k", [0.25, 0.5, 2.0])
def test_the_sigmoid_step_is_algorithm_1_to_its_stated_error(k, interpolate):
    logits, targets = random_ranking(40, 2000, 20)
    loss, grad = loss_and_grad(logits, targets, step="sigmoid", k=k, interpolate=interpolate)
    expected_loss, expected_grad = ap_by_algorithm_1(
        logits, targets, interpolate=interpolate, step=lambda x: sigmoid_step(x, k)
    )
    # H is off by 1e-4 at most, so rank- is by 1e-4 |N|, and an error by as much over the rank.
    torch.testing.assert_close(loss, expected_loss, rtol=2e-3, atol=0)
    torch.testing.assert_close(grad, expected_grad, rtol=0, atol=2e-3 * expected_grad.abs().max())
    assert abs(grad.sum()) < 1e-14


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_lower_precision_costs_only_the_rounding_of_the_result(dtype):
    logits, targets = random_ranking(60, 5000, 100, dtype)
    loss, grad = loss_and_grad(logits, targets)
    expected_loss, expected_grad = ap_by_algorithm_1(logits, targets)
    assert loss.dtype == torch.float32
    assert grad.dtype == dtype
    torch.testing.assert_close(loss.double(), expected_loss, rtol=0, atol=1e-7)
    error = (grad.double() - expected_grad).abs().max() / expected_grad.abs().max()
    assert error <= torch.finfo(dtype).eps


def test_more_scores_than_float16_can_count_do_not_overflow():
    logits = torch.zeros(80_001, dtype=torch.float16)
    targets = torch.zeros(80_001, dtype=torch.int8)
    targets[0] = 1
    loss, grad = loss_and_grad(logits, targets)
    # All tied: 80,000 negatives stand half above the one positive.
    torch.testing.assert_close(loss, torch.tensor(40_000 / 40_001))
    assert grad[0] < -0.99
    assert (grad[1:] > 0).all()


@pytest.mark.parametrize("interpolate", [True, False])
def test_gradients_sum_to_zero(interpolate):
    _, grad = loss_and_grad(*random_ranking(20, 300), interpolate=interpolate)
    assert abs(grad.sum()) < 1e-14
    assert grad.abs().sum() > 0.1


def test_adding_a_constant_to_all_scores_changes_nothing():
    logits, targets = random_ranking(20, 300)
    loss, grad = loss_and_grad(logits, targets)
    shifted_loss, shifted_grad = loss_and_grad(logits + 123.25, targets)
    torch.testing.assert_close(shifted_loss, loss, rtol=0, atol=1e-11)
    torch.testing.assert_close(shifted_grad, grad, rtol=0, atol=1e-11)


def test_ignored_entries_change_nothing_and_get_exactly_zero():
    logits, targets = random_ranking(10, 100, 50)
    loss, grad = loss_and_grad(logits, targets)
    assert not grad[targets == -1].any()
    kept = targets >= 0
    kept_loss, kept_grad = loss_and_grad(logits[kept], targets[kept])
    torch.testing.assert_close(kept_loss, loss)
    torch.testing.assert_close(kept_grad, grad[kept])


@pytest.mark.parametrize(
    "targets", [[], [0, 0, 0], [-1, -1], [1, 1], [1, -1]], ids=lambda targets: f"targets{targets}"
)
def test_without_positives_or_negatives_the_loss_is_a_zero_that_backpropagates(targets):
    logits = torch.randn(len(targets))
    loss, grad = loss_and_grad(logits, torch.tensor(targets))
    assert loss == 0
    assert loss.shape == ()
    assert not grad.any()


def test_the_self_term_counts_one():
    # Three positives and a negative, all tied: rank+ = 1 + 2/2 and rank- = 1/2.
    loss, grad = loss_and_grad(torch.zeros(4), torch.tensor([1, 1, 1, 0]))
    torch.testing.assert_close(loss, torch.tensor(0.5 / 2.5))
    torch.testing.assert_close(grad, torch.tensor([-1 / 15, -1 / 15, -1 / 15, 3 / 15]))


def test_a_perfect_ranking_has_no_loss_and_the_worst_has_its_closed_form():
    perfect, _ = loss_and_grad(torch.tensor([9.0, 8.0, 0.0, -1.0]), torch.tensor([1, 1, 0, 0]))
    assert perfect == 0
    # Two positives below three negatives: precisions 1/4 and 2/5.
    worst, _ = loss_and_grad(
        torch.tensor([-20.0, -10.0, 0.0, 10.0, 20.0]),
        torch.tensor([1, 1, 0, 0, 0]),
        interpolate=False,
    )
    torch.testing.assert_close(worst, torch.tensor(1 - (1 / 4 + 2 / 5) / 2))


def test_a_vanishing_step_gives_scikit_learns_average_precision():
    logits, targets = random_ranking(50, 500)
    loss, _ = loss_and_grad(logits, targets, delta=1e-9, interpolate=False)
    expected = 1 - average_precision_score(targets.numpy(), logits.numpy())
    torch.testing.assert_close(loss.item(), expected, rtol=0, atol=1e-9)


def test_interpolation_never_raises_the_loss():
    logits, targets = random_ranking(50, 500)
    interpolated, _ = loss_and_grad(logits, targets)
    plain, _ = loss_and_grad(logits, targets, interpolate=False)
    assert interpolated < plain


def test_an_error_that_is_made_up_for_further_down_costs_nothing():
    # Best first: - + + +, of precisions 1/2, 2/3 and 3/4, and 3/4 throughout when interpolated.
    logits, targets = torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([0, 1, 1, 1])
    loss, grad = loss_and_grad(logits, targets, delta=0.1)
    torch.testing.assert_close(loss, torch.tensor(1 / 4))
    torch.testing.assert_close(grad, torch.tensor([1 / 4, -1 / 12, -1 / 12, -1 / 12]))
    plain, _ = loss_and_grad(logits, targets, delta=0.1, interpolate=False)
    torch.testing.assert_close(plain, torch.tensor(1 - (1 / 2 + 2 / 3 + 3 / 4) / 3))


def test_gradients_of_the_positives_sum_to_minus_the_loss():
    logits, targets = random_ranking(20, 300)
    loss, grad = loss_and_grad(logits, targets)
    torch.testing.assert_close(grad[targets == 1].sum(), -loss)


def test_shape_and_memory_layout_do_not_matter():
    logits, targets = random_ranking(20, 280)
    loss, grad = loss_and_grad(logits, targets)
    strided = logits.view(10, 30).t().contiguous().t()
    assert not strided.is_contiguous()
    strided_loss, strided_grad = loss_and_grad(strided, targets.view(10, 30))
    torch.testing.assert_close(strided_loss, loss)
    torch.testing.assert_close(strided_grad, grad.view(10, 30))


def test_a_factor_on_the_loss_scales_the_gradient():
    logits, targets = random_ranking(5, 50)
    _, grad = loss_and_grad(logits, targets)
    logits.requires_grad_()
    (8 * ap_loss(logits, targets)).backward()
    torch.testing.assert_close(logits.grad, 8 * grad)


def test_a_loss_scale_keeps_a_gradient_that_float16_alone_would_lose():
    logits = torch.zeros(200_000, dtype=torch.float16, requires_grad=True)
    targets = torch.zeros(200_000, dtype=torch.int8)
    targets[:100] = 1
    (65536 * ap_loss(logits, targets)).backward()
    expected = 65536 * (99_950 / 100_000.5) / 199_900  # rank- over (rank+ + rank-), shared out
    torch.testing.assert_close(logits.grad[-1].item(), expected, rtol=2e-3, atol=0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([float("nan"), 0, float("nan")], "2 of 3 logits are NaN and 0 are infinite"),
        ([float("inf"), 0, 0], "0 of 3 logits are NaN and 1 are infinite"),
    ],
)
def test_scores_that_are_not_finite_are_counted_in_an_error(bad, message):
    with pytest.raises(FloatingPointError, match=message):
        ap_loss(torch.tensor(bad), torch.tensor([1, 0, 0]))


def test_wrong_arguments_are_named():
    logits, targets = torch.zeros(3), torch.tensor([1, 0, 0])
    with pytest.raises(ValueError, match=r"logits \(3,\) and targets \(2,\) differ"):
        ap_loss(logits, targets[:2])
    with pytest.raises(ValueError, match="delta must be > 0, got 0"):
        ap_loss(logits, targets, delta=0)
    with pytest.raises(ValueError, match=r"targets lie in \{-1, 0, 1\}, got 7"):
        ap_loss(logits, torch.tensor([7, 0, 0]))
