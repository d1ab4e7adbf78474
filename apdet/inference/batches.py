"""Puts images of equal size into batches."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

_MAX_BATCHES_WAITING = 4  # so much is held in memory if all images differ in size


def batches_of_equal(
    items: Iterable[Item], key: Callable[[Item], Hashable], batch_size: int
) -> Iterator[list[Item]]:
    """Put items with the same key into batches, such as images of the same size.

    A batch of images of several sizes would be padded, which changes the scores a little. Without
    the items of the first batches, the other batches are the same: an interrupted run can go on.

    Args:
        items: the items.
        key: tells which items may share a batch.
        batch_size: the number of items in a batch, at most.

    Yields:
        Batches. Each item is in one of them.
    """
    waiting: dict[Hashable, list[Item]] = {}
    for item in items:
        batch = waiting.setdefault(key(item), [])
        batch.append(item)
        if len(batch) == batch_size:
            yield waiting.pop(key(item))
        elif sum(map(len, waiting.values())) >= _MAX_BATCHES_WAITING * batch_size:
            yield waiting.pop(next(iter(waiting)))  # the one that has waited for longest
    yield from waiting.values()
