"""Where the few entries that are not zero are."""

import torch
from torch import Tensor

from apdet.losses.ranking.binning import numba_backend as native


def nonzero(x: Tensor) -> Tensor:
    """Indices, (m,) int64 ascending, of the entries of ``x`` (n,) that are not 0.

    Of bytes it looks at eight at a time, since nearly all are 0.
    """
    size = len(x) // 8 * 8
    if x.element_size() != 1 or not x.is_contiguous() or x.storage_offset() % 8 or size == 0:
        return x.nonzero().squeeze(1)
    words = _nonzero_words(x[:size].view(torch.int64))
    candidates = (8 * words[:, None] + torch.arange(8, device=x.device)).flatten()
    candidates = torch.cat([candidates, torch.arange(size, len(x), device=x.device)])
    return candidates[x[candidates] != 0]


def _nonzero_words(words: Tensor) -> Tensor:
    if words.device.type != "cpu" or not native.is_available():
        return words.nonzero().squeeze(1)
    found = torch.empty_like(words)
    return found[: native.kernels().nonzero(words.numpy(), found.numpy())]
