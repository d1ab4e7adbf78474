"""Texts that are safe to print."""


def printable(text: str) -> str:
    """Escape the characters that would change a terminal, in the way of Python's ``repr``.

    A line break stays. Surrogates, which stand for bytes of a file name that are not UTF-8, are
    escaped too.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)
