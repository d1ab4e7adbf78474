import math

import pytest
import torch

from apdet.losses import ohem_loss


def cross_entropy(logits, label):
    return math.log(sum(math.exp(x) for x in logits)) - logits[label]


def loss_by_definition(logits, labels, ratio):
    """Each image's positives, and its negatives with the largest loss, one by one."""
    background, total, num_pos = logits.shape[-1] - 1, 0.0, 0
    for image, image_labels in zip(logits.tolist(), labels.tolist(), strict=True):
        pairs = list(zip(image, image_labels, strict=True))
        pos = [cross_entropy(x, label) for x, label in pairs if 0 <= label < background]
        neg = sorted(cross_entropy(x, label) for x, label in pairs if label == background)
        total += sum(pos) + sum(neg[len(neg) - min(len(neg), int(ratio * len(pos))) :])
        num_pos += len(pos)
    return total / max(num_pos, 1)


@pytest.mark.parametrize("ratio", [1, 3, 1000])
def test_is_the_cross_entropy_of_positives_and_the_hardest_negatives(ratio):
    logits = torch.randn(4, 60, 5, dtype=torch.float64)
    labels = torch.randint(-1, 30, (4, 60)).clamp(max=4)
    labels[2] = labels[2].clamp(min=4)  # an image without an object
    loss = ohem_loss(logits, labels, neg_pos_ratio=ratio)
    assert loss.item() == pytest.approx(loss_by_definition(logits, labels, ratio), rel=1e-12)
    normalized = ohem_loss(logits, labels, neg_pos_ratio=ratio, normalizer=1.0)
    num_pos = ((labels >= 0) & (labels < 4)).sum()
    torch.testing.assert_close(normalized, loss * num_pos)


def test_easy_negatives_and_ignored_entries_get_no_gradient():
    logits = torch.tensor([[5.0, 0.0], [0.0, 0.0], [0.0, 5.0], [9.0, 0.0]], requires_grad=True)
    labels = torch.tensor([0, 1, 1, -1])
    ohem_loss(logits, labels, neg_pos_ratio=1).backward()
    assert logits.grad.any(1).tolist() == [True, True, False, False]


@pytest.mark.parametrize("labels", [[1, 1], [-1, -1], []], ids=str)
def test_without_positives_the_loss_is_a_zero_that_backpropagates(labels):
    logits = torch.randn(len(labels), 2, requires_grad=True)
    loss = ohem_loss(logits, torch.tensor(labels, dtype=torch.int64))
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


def test_half_precision_costs_only_the_rounding_of_the_scores():
    logits = (20 * torch.randn(2, 5000, 3)).half()
    labels = torch.randint(0, 3, (2, 5000))
    loss = ohem_loss(logits, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), ohem_loss(logits.double(), labels), rtol=1e-5, atol=0)


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"\(2, 3\) must have the shape of labels \(3,\)"):
        ohem_loss(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="labels lie in -1 to 2, got 3"):
        ohem_loss(torch.zeros(2, 3), torch.tensor([0, 3]))
    with pytest.raises(FloatingPointError, match="1 of 6 logits are NaN"):
        ohem_loss(torch.tensor([[0, 0, torch.nan], [0, 0, 0]]), torch.tensor([0, 1]))
