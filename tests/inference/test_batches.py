from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from apdet.inference.batches import batches_of_equal

KEYS = st.lists(st.integers(0, 9), max_size=60)


def batches_of(keys, batch_size):
    return list(batches_of_equal(enumerate(keys), lambda item: item[1], batch_size))


@given(KEYS, st.integers(1, 5))
def test_each_item_is_in_one_batch_of_its_key(keys, batch_size):
    batches = batches_of(keys, batch_size)
    assert sorted(item for batch in batches for item in batch) == list(enumerate(keys))
    assert all(len({key for _, key in batch}) == 1 for batch in batches)
    assert all(len(batch) <= batch_size for batch in batches)


@given(KEYS, st.integers(1, 5), st.integers(0, 20))
def test_without_the_items_of_the_first_batches_the_others_are_the_same(keys, batch_size, done):
    batches = batches_of(keys, batch_size)
    finished = {item for batch in batches[:done] for item in batch}
    left = [item for item in enumerate(keys) if item not in finished]
    assert list(batches_of_equal(left, lambda item: item[1], batch_size)) == batches[done:]


def test_items_of_endlessly_many_keys_do_not_pile_up():
    items = count()
    batches = batches_of_equal(items, int, 3)
    assert [next(batches) for _ in range(100)] == [[number] for number in range(100)]
    assert next(items) < 100 + 4 * 3
