"""Finds NaN and infinity in the content of a checkpoint."""

from collections.abc import Iterator, Mapping

import torch

from apdet.checkpoint.content import is_plain


def find_not_finite(content: object, name: str = "") -> Iterator[str]:
    """Yield the names of the tensors that hold a NaN or an infinity.

    Args:
        content: a tensor, or mappings, lists and tuples of tensors. Everything else is skipped, and
            so are tensors that are not plain.
        name: the name of ``content``. Names of parts are joined by dots.
    """
    if isinstance(content, torch.Tensor):
        if is_plain(content) and not torch.isfinite(content).all():
            yield name
    elif isinstance(content, Mapping | list | tuple):
        pairs = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, part in pairs:
            yield from find_not_finite(part, f"{name}.{key}" if name else str(key))
