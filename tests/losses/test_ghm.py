import math

import pytest
import torch

from apdet.losses import ghm_loss
from apdet.losses.ghm import GHMLoss, averaged_ghm_loss


def loss_by_definition(logits, targets, bins, counts=None):
    """The equations, entry by entry; ``counts`` instead of those of this batch."""
    pairs = [(x, t) for x, t in zip(logits.tolist(), targets.tolist(), strict=True) if t >= 0]
    regions, losses = [], []
    for x, target in pairs:
        p = 1 / (1 + math.exp(-x))
        regions.append(min(int(abs(p - target) * bins), bins - 1))
        losses.append(-math.log(p if target else 1 - p))
    if counts is None:
        counts = [regions.count(b) for b in range(bins)]
    return sum(loss / (bins * counts[b]) for loss, b in zip(losses, regions, strict=True))


def random_batch(size=300):
    return 2 * torch.randn(size, dtype=torch.float64), torch.randint(-1, 2, (size,))


@pytest.mark.parametrize("bins", [1, 10, 30])
def test_each_entry_is_divided_by_the_density_of_its_gradient_norm(bins):
    logits, targets = random_batch()
    loss = ghm_loss(logits, targets, bins=bins)
    assert loss.item() == pytest.approx(loss_by_definition(logits, targets, bins), rel=1e-12)


def test_the_density_is_a_moving_average_that_starts_from_the_first_count():
    module, bins = GHMLoss(bins=10, momentum=0.75).double(), 10
    expected = [0.0] * bins
    for _ in range(4):
        logits, targets = random_batch(40)
        loss = module(logits, targets)
        norm = (logits.sigmoid() - targets).abs()[targets >= 0]
        counts = torch.histc(norm, bins, min=0, max=1).tolist()
        expected = [
            0.75 * mean + 0.25 * count if mean else count
            for mean, count in zip(expected, counts, strict=True)
        ]
        torch.testing.assert_close(module.moving_counts.tolist(), expected)
        assert loss.item() == pytest.approx(loss_by_definition(logits, targets, bins, expected))


def test_the_average_is_returned_and_the_former_one_left_as_it_was():
    logits, targets = random_batch()
    before = torch.rand(30)
    moving = before.clone()
    _, counts = averaged_ghm_loss(logits, targets, moving)
    assert torch.equal(moving, before)
    module = GHMLoss()
    module.moving_counts.copy_(before)
    module(logits, targets)
    torch.testing.assert_close(module.moving_counts.double(), counts)


def test_copies_of_an_easy_example_add_nothing():
    logits, targets = torch.tensor([-4.0, 1.0]), torch.tensor([0, 1])
    once = ghm_loss(logits, targets)
    crowd = ghm_loss(logits[[0] * 1000 + [1]], targets[[0] * 1000 + [1]])
    torch.testing.assert_close(crowd, once)


@pytest.mark.parametrize("targets", [[], [-1, -1]], ids=str)
def test_without_entries_the_loss_is_a_zero_that_backpropagates(targets):
    logits = torch.randn(len(targets), requires_grad=True)
    module = GHMLoss()
    for loss in (ghm_loss, module):
        value = loss(logits, torch.tensor(targets))
        value.backward()
        assert value == 0
        assert not logits.grad.any()
    assert not module.moving_counts.any()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"bins": 0}, "bins must be at least 1, got 0"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
    ],
)
def test_what_does_not_fit_is_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        GHMLoss(**kwargs)(torch.zeros(2), torch.zeros(2))


def test_no_region_at_all_is_refused():
    with pytest.raises(ValueError, match="bins must be at least 1, got 0"):
        ghm_loss(torch.zeros(2), torch.zeros(2), bins=0)
