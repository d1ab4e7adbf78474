"""Chooses which detections of an image are kept."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.structures import Instances

from apdet.errors import UserError


@dataclass(frozen=True)
class Selection:
    """Which detections are kept.

    Attributes:
        threshold: the lowest score.
        classes: the numbers of the classes.
        max_detections: how many of an image, the best ones; None: no limit.
    """

    threshold: float
    classes: Sequence[int]
    max_detections: int | None = None

    def of_classes(self, found: Instances) -> Instances:
        """The detections of the classes, with any score."""
        return found[torch.isin(found.pred_classes, torch.tensor(self.classes))]

    def apply(self, found: Instances) -> Instances:
        """The detections that are kept.

        Args:
            found: all detections of an image, in descending order of their scores.
        """
        kept = self.of_classes(found)
        return kept[kept.scores >= self.threshold][: self.max_detections]


def find_classes(names: str, class_names: Sequence[str]) -> list[int]:
    """Find classes by their names.

    Args:
        names: the names, with commas between them; empty: all classes.
        class_names: the classes of the model.

    Returns:
        The numbers of the classes, in ascending order.

    Raises:
        UserError: there is no such class; the message has similar names.
    """
    if not names:
        return list(range(len(class_names)))
    # The name of a class may itself hold a comma.
    asked_for = [names] if names in class_names else [name.strip() for name in names.split(",")]
    numbers = set()
    for name in filter(None, asked_for):
        if name not in class_names:
            folded = {known.casefold(): known for known in class_names}
            near = difflib.get_close_matches(name.casefold(), folded, n=3)
            close = [folded[key] for key in near]
            hint = f"did you mean {' or '.join(close)}?" if close else "choose among "
            raise UserError(
                f"--classes names {name!r}, which the model does not know; {hint}"
                + ("" if close else ", ".join(class_names))
            )
        numbers.add(class_names.index(name))
    if not numbers:
        raise UserError("--classes names no class; give names with commas between them")
    return sorted(numbers)
