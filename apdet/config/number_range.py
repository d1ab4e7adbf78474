"""A range of numbers that a key of a config may hold."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """A range of numbers, with its limits.

    Attributes:
        low: the least number.
        high: the greatest number.
        above: whether ``low`` itself is left out.
        below: whether ``high`` itself is left out.
        whole: whether only whole numbers are in the range.
        or_none: whether None is allowed, too.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    whole: bool = False
    or_none: bool = False

    def __contains__(self, value: object) -> bool:
        if value is None:
            return self.or_none
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        if not math.isfinite(value) or (self.whole and value != int(value)):
            return False
        if (self.above and value == self.low) or (self.below and value == self.high):
            return False
        return self.low <= value <= self.high

    def __str__(self) -> str:
        limits = []
        if self.low > -math.inf:
            limits.append(f"above {self.low:g}" if self.above else f"of at least {self.low:g}")
        if self.high < math.inf:
            limits.append(f"{'below' if self.below else 'of at most'} {self.high:.16g}")
        kind = "a whole number" if self.whole else "a number"
        return " ".join([kind, " and ".join(limits)]).strip() + " or None" * self.or_none
