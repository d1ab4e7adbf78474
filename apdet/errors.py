"""The error that is the user's to mend."""


class UserError(ValueError):
    """Wrong input from outside: its message names the file, the key or the shape, and the remedy.

    `tools/train_net.py` prints it without a traceback; any other exception is a defect of apdet.
    """
