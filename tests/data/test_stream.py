import random
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apdet.data.stream import ResumableSampler, StreamDataset, derived_seed
from apdet.data.training import resumable_train_loader


def stream(count, groups=(0,) * 7, *, seed=3, **kwargs):
    return list(islice(ResumableSampler(groups, seed=seed, **{"batch_size": 1, **kwargs}), count))


def test_each_epoch_holds_every_image_once():
    positions, indices = zip(*stream(21), strict=True)
    assert positions == tuple(range(21))
    for epoch in (indices[:7], indices[7:14], indices[14:]):
        assert sorted(epoch) == list(range(7))
    assert indices[:7] != indices[7:14]


def test_another_seed_is_another_order():
    assert stream(30, seed=3) != stream(30, seed=4)


@given(
    groups=st.lists(st.integers(0, 2), min_size=1, max_size=8),
    batch_size=st.integers(1, 4),
    start_iter=st.integers(0, 6),
)
def test_batches_are_of_one_group_and_a_later_start_goes_on_with_them(
    groups, batch_size, start_iter
):
    drawn = stream(20 * batch_size, groups, batch_size=batch_size)
    batches = [drawn[i : i + batch_size] for i in range(0, len(drawn), batch_size)]
    for batch in batches:
        assert len({groups[index] for _, index in batch}) == 1
        assert batch == sorted(batch)
    later = stream(5 * batch_size, groups, batch_size=batch_size, start_iter=start_iter)
    assert later == drawn[start_iter * batch_size :][: len(later)]
    # Images wait for their batch, but each position of the stream is used once.
    positions = [position for position, _ in drawn]
    assert len(set(positions)) == len(positions)
    assert max(positions) < len(positions) + 3 * (batch_size - 1)


def draw(image):
    """A mapper that draws from all there is to draw from."""
    numbers = [random.random(), np.random.rand(), torch.rand(()).item()]
    return {**image, "drawn": numbers}


def test_what_is_drawn_is_the_positions_whatever_was_drawn_before():
    images = StreamDataset([{"name": "a"}, {"name": "b"}], draw, seed=1)
    first = images[5, 0]
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    assert images[5, 0] == first
    assert torch.rand(3).equal(expected)  # the model draws as if no image had been
    assert images[5, 1] == {"name": "b", "drawn": first["drawn"]}
    others = [images[6, 0], StreamDataset([{"name": "a"}], draw, seed=2)[5, 0]]
    for other in others:
        assert not set(other["drawn"]) & set(first["drawn"])


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_batches_are_the_same_from_any_iteration_on_and_with_any_workers(num_workers):
    sizes = [(20, 10), (10, 20), (30, 10), (10, 10), (40, 10)]
    dataset = [{"name": i, "width": w, "height": h} for i, (w, h) in enumerate(sizes)]

    def batches(start, count, **kwargs):
        loader = resumable_train_loader(
            dataset, mapper=draw, total_batch_size=2, seed=5, start_iter=start, **kwargs
        )
        return list(islice(loader, count))

    expected = batches(0, 8)
    assert batches(3, 5, num_workers=num_workers) == expected[3:]
    for batch in expected:
        assert len({image["width"] > image["height"] for image in batch}) == 1
    mixed = batches(0, 8, aspect_ratio_grouping=False)
    assert any(len({i["width"] > i["height"] for i in batch}) == 2 for batch in mixed)


def test_images_and_steps_have_seeds_of_their_own():
    steps = {derived_seed(3, step, rank) for step in range(50) for rank in range(4)}
    positions = {derived_seed(3, position, -1) for position in range(200)}
    assert len(steps | positions) == 400
    assert derived_seed(-1, 0) != derived_seed(0, 0)


def test_a_loader_draws_nothing_from_the_models_random_numbers():
    dataset = [{"width": 1, "height": 1}]
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    loader = resumable_train_loader(dataset, mapper=draw, total_batch_size=1, seed=5)
    next(iter(loader))
    assert torch.rand(3).equal(expected)
