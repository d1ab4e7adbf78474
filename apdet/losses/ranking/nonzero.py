"""Finds the few nonzero entries of a tensor of bytes.

Nearly all targets are 0. So the bytes are first tested in words of eight, and then one by one in
the few nonzero words.
"""

import torch
from torch import Tensor

from apdet.losses.ranking.binning import numba_backend


def nonzero(x: Tensor) -> Tensor:
    """Find the indices, (m,) int64 ascending, of the nonzero bytes in ``x`` (n,), contiguous.

    The host waits for the device.
    """
    index = bytes_in(nonzero_words(as_words(x)), len(x))
    return index[x[index] != 0]


def as_words(x: Tensor) -> Tensor:
    """View the bytes ``x`` (n,), contiguous, as words (n // 8,) int64, without the last n % 8."""
    whole = x[: len(x) // 8 * 8]
    return (whole.clone() if whole.storage_offset() % 8 else whole).view(torch.int64)


def bytes_in(word_index: Tensor, num_bytes: int) -> Tensor:
    """List the indices of all bytes in some words, and of the bytes after the last full word.

    Args:
        word_index: (m,) int64. The indices of the words.
        num_bytes: the total number of bytes.

    Returns:
        (8 m + num_bytes % 8,) int64.
    """
    index = 8 * word_index[:, None] + torch.arange(8, device=word_index.device)
    rest = torch.arange(num_bytes // 8 * 8, num_bytes, device=word_index.device)
    return torch.cat([index.flatten(), rest])


def nonzero_words(words: Tensor) -> Tensor:
    """Find the indices, (m,) int64 ascending, of the nonzero ``words`` (w,). The host waits."""
    if not can_compile(words):
        return words.nonzero().squeeze(1)
    found = torch.empty_like(words)
    return found[: numba_backend.kernels().nonzero(words.numpy(), found.numpy())]


def nonzero_words_of_known_number(words: Tensor, number: int) -> Tensor:
    """`nonzero_words` for a known number of results, so the host does not wait for the device."""
    num_so_far = (words != 0).cumsum(0, dtype=torch.int32)
    ordinals = torch.arange(1, number + 1, dtype=torch.int32, device=words.device)
    return torch.searchsorted(num_so_far, ordinals)


def can_compile(x: Tensor) -> bool:
    """Whether compiled code can process ``x``."""
    return x.device.type == "cpu" and numba_backend.is_available()
