"""Compares the names of classes: names that differ only in case or spaces may mean the same."""

import logging
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from apdet.errors import UserError

logger = logging.getLogger(__name__)


def normalise(name: str) -> str:
    """Leave out what often differs in names of one class: case, spaces, hyphens, underscores.

    A letter with an accent may be one character or two in Unicode, so they are made one.
    """
    return re.sub(r"[\s_-]", "", unicodedata.normalize("NFKC", name).casefold())


class ClassNumbers:
    """The numbers of classes, by name."""

    def __init__(self, class_names: Sequence[str]):
        """Number the classes in their order.

        Raises:
            UserError: a name has control characters, which could change a terminal or a table.
        """
        for name in class_names:
            if any(unicodedata.category(character) == "Cc" for character in name):
                raise UserError(f"the class {name!r} has control characters in its name; rename it")
        self.class_names = list(class_names)
        self._numbers = {name: k for k, name in enumerate(class_names)}
        count = Counter(map(normalise, class_names))
        self._similar = {
            normalise(name): k for name, k in self._numbers.items() if count[normalise(name)] == 1
        }

    def find(self, name: str) -> int | None:
        """The number of the class with this name, or else of the only class with a similar name.

        Returns:
            None if there is no such class.
        """
        number = self._numbers.get(name)
        return self._similar.get(normalise(name)) if number is None else number


def warn_of_similar_names(num_boxes: Mapping[str, int], name: str) -> None:
    """Warn if classes have names that differ only in case, spaces, hyphens or underscores.

    Args:
        num_boxes: {name of a class: its number of boxes}.
        name: the name of the data set.
    """
    groups = defaultdict(list)
    for class_name in num_boxes:
        groups[normalise(class_name)].append(class_name)
    for group in groups.values():
        if len(group) > 1:
            counts = ", ".join(f"{c!r} ({num_boxes[c]} boxes)" for c in group)
            logger.warning(
                f"{name}: the names of the classes {counts} are almost the same, but they count as "
                "different classes; if they are one class, list it in `classes: [...]`"
            )


def warn_of_empty_classes(num_boxes: Mapping[str, int], name: str) -> None:
    """Warn if classes have no box to learn from.

    Args:
        num_boxes: {name of a class: its number of boxes}.
        name: the names of the data sets.
    """
    empty = [class_name for class_name, count in num_boxes.items() if not count]
    if empty:
        logger.warning(
            f"{name}: no box of {', '.join(empty)}, so the detector cannot learn "
            f"{'this class' if len(empty) == 1 else 'these classes'}"
        )
