from itertools import islice

import pytest

from apdet.data.sampler import ResumableSampler


def stream(start, count, seed=3):
    return list(islice(ResumableSampler(7, seed=seed, start=start), count))


@pytest.mark.parametrize("start", [0, 1, 7, 12])
def test_a_later_start_goes_on_with_the_same_stream(start):
    assert stream(start, 20) == stream(0, 40)[start : start + 20]


def test_each_epoch_holds_every_index_once():
    indices = stream(0, 21)
    for epoch in (indices[:7], indices[7:14], indices[14:]):
        assert sorted(epoch) == list(range(7))
    assert indices[:7] != indices[7:14]


def test_another_seed_is_another_order():
    assert stream(0, 30, seed=3) != stream(0, 30, seed=4)
