import torch
from torchvision.ops import sigmoid_focal_loss

from apdet.losses import focal_loss


def test_is_torchvisions_over_the_entries_that_are_not_ignored():
    logits, targets = torch.randn(4, 50), torch.randint(-1, 2, (4, 50))
    valid = targets >= 0
    expected = sigmoid_focal_loss(
        logits[valid], targets[valid].float(), alpha=0.3, gamma=1.5, reduction="sum"
    )
    loss = focal_loss(logits, targets, alpha=0.3, gamma=1.5)
    torch.testing.assert_close(loss, expected / (targets > 0).sum())
    loss = focal_loss(logits, targets, alpha=0.3, gamma=1.5, normalizer=7.0)
    torch.testing.assert_close(loss, expected / 7)


def test_ignored_entries_get_no_gradient():
    logits, targets = torch.randn(100, requires_grad=True), torch.randint(-1, 2, (100,))
    focal_loss(logits, targets).backward()
    assert not logits.grad[targets == -1].any()
    assert logits.grad[targets >= 0].all()


def test_without_positives_it_is_the_sum_over_negatives():
    logits, targets = torch.randn(100), torch.zeros(100)
    expected = sigmoid_focal_loss(logits, targets, reduction="sum")
    torch.testing.assert_close(focal_loss(logits, targets), expected)
