"""The errors that a user can fix."""

from collections.abc import Callable


class UserError(ValueError):
    """Wrong input. The message names the file, key or shape, and says what to do.

    The command line prints the message without a traceback. Any other exception is a bug of apdet.
    """


class ArgumentError(UserError):
    """A wrong argument of a function or class.

    Code below the config layer does not know config keys, so it names its own arguments. The layer
    that read the config replaces these names by config keys; see `apdet.config.names`.

        ArgumentError("ClsLoss", "{sampler} is {value!r}; choose one of {choices}", value=..., ...)

    Attributes:
        owner: the function or class whose arguments are named.
        template: the message as a format string. A field that is not in ``values`` is the name of
            an argument of ``owner``.
        values: the values of the other fields.
    """

    def __init__(self, owner: str, template: str, **values: object):
        self.owner, self.template, self.values = owner, template, values
        super().__init__(self.message(lambda owner, argument: None))

    def message(self, key_of: Callable[[str, str], str | None]) -> str:
        """The message with config keys in place of argument names.

        Args:
            key_of: (owner, argument) -> the key that the argument was read from. None keeps the
                name of the argument.
        """
        return self.template.format_map(_Fields(self.owner, self.values, key_of))


class _Fields(dict[str, object]):
    """The values of a template; any other field stands for the name of an argument."""

    def __init__(
        self, owner: str, values: dict[str, object], key_of: Callable[[str, str], str | None]
    ):
        super().__init__(values)
        self._owner, self._key_of = owner, key_of

    def __missing__(self, argument: str) -> str:
        return self._key_of(self._owner, argument) or argument
