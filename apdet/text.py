"""Texts that are safe to print."""


def printable(text: str) -> str:
    """Escape the characters that would change a terminal, in the way of Python's ``repr``.

    A line break stays. Surrogates, which stand for bytes of a file name that are not UTF-8, are
    escaped too.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def one_line(text: str, *, max_length: int = 2000) -> str:
    """Make a text a printable line. If it is too long, its middle is left out.

    Args:
        text: the text.
        max_length: about the number of characters that are kept.
    """
    line = printable(" ".join(text.split("\n")))
    half = max_length // 2
    return line if len(line) <= max_length else f"{line[:half]} ... {line[-half:]}"
