"""Reads truth values as annotation tools write them."""

_VALUES = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_NUMBERS: dict[object, bool] = {1: True, 0: False}  # True and 1.0 are the same keys


def parse_truth(value: object) -> bool | None:
    """Read a truth value: true or false, 1 or 0, or one of these as text; nothing means false.

    Returns:
        The value; None if it is neither true nor false.
    """
    if value is None:
        return False
    if type(value) in (bool, int, float):
        return _NUMBERS.get(value)
    text = value.strip().casefold() if isinstance(value, str) else "?"
    # "Unspecified" is VOC's word for what an annotator left open.
    return _VALUES.get(text.removesuffix(".0"), False if text in ("", "unspecified") else None)
