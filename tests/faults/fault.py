"""Combining faults."""

from collections.abc import Callable

from faults.setup import Setup

Fault = Callable[[Setup], None]


def both(*faults: Fault) -> Fault:
    """Several faults, one after the other."""

    def fault(setup: Setup) -> None:
        for each in faults:
            each(setup)

    return fault


def set_keys(**keys: object) -> Fault:
    """Set keys of the config. Two underscores stand for a dot."""

    def fault(setup: Setup) -> None:
        for key, value in keys.items():
            setup.set(key.replace("__", "."), value)

    return fault
