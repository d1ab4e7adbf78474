"""Counts the flaws of annotations, so that nothing is mended or left out without a word."""

import logging

logger = logging.getLogger(__name__)


class Flaws:
    """The flaws that were found while data were read, by kind."""

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = {}
        self._hints: dict[str, str] = {}

    def add(self, kind: str, place: str) -> None:
        """Count a flaw.

        Args:
            kind: what is wrong and what was done about it, in the plural: "boxes are empty ...".
            place: the file, and the annotation in it if the file has several.
        """
        self._places.setdefault(kind, []).append(place)

    def count(self, kind: str) -> int:
        """The number of flaws of a kind."""
        return len(self._places.get(kind, []))

    def explain(self, kind: str, hint: str) -> None:
        """Add a possible cause to the warning about a kind."""
        self._hints[kind] = hint

    def log(self, name: str) -> None:
        """Log one warning for each kind, with the number of flaws and the first place.

        Args:
            name: the file or the data set.
        """
        for kind, places in self._places.items():
            hint = self._hints.get(kind)
            logger.warning(
                f"{name}: {len(places)} {kind}; the first is in {places[0]}"
                + (f". {hint}" if hint else "")
            )
