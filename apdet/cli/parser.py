"""Makes the parser of a command from the docstring of its module."""

import argparse


def parser_of(docstring: str | None, prog: str | None) -> argparse.ArgumentParser:
    """Make a parser whose help begins with the first paragraph and ends with the others.

    Args:
        docstring: that of the module of the command.
        prog: the name of the program in its help; None: that of the process.
    """
    description, _, epilog = (docstring or "").partition("\n\n")
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
