import pytest
import torch

from apdet.losses.ranking.entries import find_entries
from apdet.losses.ranking.nonzero import (
    as_words,
    nonzero,
    nonzero_words,
    nonzero_words_of_known_number,
)


@pytest.fixture(params=["0", "1"], autouse=True)
def numba(request, monkeypatch):
    monkeypatch.setenv("APDET_NATIVE", request.param)


def assert_found(targets):
    logits = torch.randn(targets.shape)
    entries = find_entries(logits, targets, group=None)
    positive, ignored = (targets > 0).flatten(), (targets < 0).flatten()
    assert torch.equal(entries.scores, logits.flatten())
    assert torch.equal(entries.pos_index, positive.nonzero()[:, 0])
    assert torch.equal(entries.ignored_index, ignored.nonzero()[:, 0])
    assert entries.num_pos == [positive.sum()]
    assert entries.num_neg == (targets == 0).sum()


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 119, 120, 121, 5003])
@pytest.mark.parametrize(("share_pos", "share_ignored"), [(0, 0), (0.01, 0.02), (0.5, 0.5), (1, 0)])
def test_the_entries_are_those_that_their_targets_say(size, share_pos, share_ignored):
    draw = torch.rand(size)
    targets = (draw < share_pos).to(torch.int8)
    targets[draw > 1 - share_ignored] = -1
    assert_found(targets)


dtypes = pytest.mark.parametrize(
    "dtype", [torch.int8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64]
)


@dtypes
def test_targets_may_have_any_dtype_shape_and_layout(dtype):
    targets = torch.randint(-1, 2, (40, 31)).to(dtype)
    assert_found(targets)
    assert_found(targets.t())
    assert_found(targets.flatten()[3:])  # which starts in the middle of a word
    assert_found(targets.flatten()[5::3])


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_targets_without_a_sign_ignore_nothing(dtype):
    assert_found((torch.rand(1000) < 0.1).to(dtype))


@dtypes
def test_any_negative_target_is_ignored(dtype):
    targets = torch.tensor([1, 0, -100, -1, -2, 0, 1, -128] * 20).to(dtype)
    assert_found(targets)


@pytest.mark.parametrize("bad", [2.0, 300.0, float("nan"), float("inf")])
def test_a_target_above_1_is_refused(bad):
    targets = torch.tensor([1.0, 0, -1, bad, -7])
    with pytest.raises(ValueError, match=rf"targets lie in \{{-1, 0, 1\}}, got {bad:g}"):
        find_entries(torch.randn(5), targets, group=None)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool])
def test_nonzero_is_torchs_own(dtype):
    x = (torch.rand(1003) < 0.05).to(dtype)
    for view in (x, x[1:], x[:5], x[:0]):
        assert torch.equal(nonzero(view), view.nonzero()[:, 0])


@pytest.mark.parametrize("share", [0.0, 0.01, 1.0])
def test_words_are_found_without_waiting_for_their_number(share):
    words = as_words((torch.rand(8000) < share).to(torch.int8))
    expected = words.nonzero()[:, 0]
    assert torch.equal(nonzero_words(words), expected)
    assert torch.equal(nonzero_words_of_known_number(words, len(expected)), expected)
