"""Finds and moves the rows of classes in the weights of a checkpoint."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from apdet.modeling.contract import ClassLayer


@dataclass(frozen=True)
class ClassWeight:
    """A weight with rows for each class, in a model and in a checkpoint.

    Attributes:
        key: its name.
        layer: the layer of the model.
        num_anchors: A.
        own: (A L R, ...) the weight in the model, with A anchors, L classes and R rows per class.
            The background counts as one more class, if there is one.
        other: (A M R, ...) the weight in the checkpoint, with M classes.
        fits: whether the rows of ``other`` fit the number of classes of the checkpoint.
        other_has_background: whether M counts a background.
    """

    key: str
    layer: ClassLayer
    num_anchors: int
    own: Tensor
    other: Tensor
    fits: bool
    other_has_background: bool

    def with_rows(self, matches: Mapping[int, int]) -> Tensor:
        """Copy ``own``, and take the rows of shared classes and the background from ``other``.

        Args:
            matches: {class of the model: class of the checkpoint} of shared classes.
        """
        merged = self.own.detach().cpu().clone()
        rows = self.other[self._rows(self.other, matches.values())]
        merged[self._rows(self.own, matches)] = rows.to(merged)
        return merged

    def order(self, matches: Mapping[int, int]) -> Tensor:
        """(A L R,) int64: the row of ``other`` for each row of ``own``, if all classes match."""
        order = torch.empty(len(self.own), dtype=torch.int64)
        order[self._rows(self.own, matches)] = self._rows(self.other, matches.values())
        return order

    def _rows(self, weight: Tensor, classes: Iterable[int]) -> Tensor:
        rows = torch.arange(len(weight)).view(self.num_anchors, -1, self.layer.rows_per_class)
        background = [-1] if self.layer.has_background else []
        return rows[:, [*classes, *background]].flatten()


def find_class_weights(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    layers: Sequence[ClassLayer],
    *,
    num_own_classes: int,
    num_other_classes: int,
) -> list[ClassWeight]:
    """Find the weights with rows for each class that fit the model except for these rows.

    Args:
        model: the model that is about to load ``weights``.
        weights: {name: weight} of the checkpoint.
        layers: the layers of the model with rows for each class.
        num_own_classes: number of classes of the model.
        num_other_classes: number of classes of the checkpoint.
    """
    found = []
    for key, own in model.state_dict().items():
        layer = next((layer for layer in layers if key.startswith(f"{layer.name}.")), None)
        if layer is None or key not in weights:
            continue
        if weights[key].dim() != own.dim() or weights[key].shape[1:] != own.shape[1:]:
            continue
        num_anchors = len(own) // (num_own_classes + layer.has_background) // layer.rows_per_class
        rows_per_class = num_anchors * layer.rows_per_class
        has_background = len(weights[key]) == (num_other_classes + 1) * rows_per_class
        fits = has_background or len(weights[key]) == num_other_classes * rows_per_class
        found.append(ClassWeight(key, layer, num_anchors, own, weights[key], fits, has_background))
    return found
