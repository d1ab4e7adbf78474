"""The command `apdet`, with one short module for each subcommand."""

import argparse
import importlib

from apdet import __version__

# {module of a subcommand: its help}. A module is imported only when its subcommand is called.
COMMANDS = {
    "train": "train, evaluate or check a detector",
    "compare": "train a detector with several losses or settings, and compare them",
    "convert": "convert ImageNet weights of torchvision, timm or Keras",
}


def main(argv: list[str] | None = None) -> None:
    """Call the subcommand that ``argv`` names, with the remaining arguments."""
    commands = "\n".join(f"  {name:10} {help_}" for name, help_ in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="apdet",
        description="Object detectors trained by ranking.",
        epilog=f"commands:\n{commands}\n\n`apdet COMMAND --help` shows the options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"apdet {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="see below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="arguments of the command")
    args = parser.parse_args(argv)
    module = importlib.import_module(f"apdet.cli.{args.command}")
    module.main(args.arguments, prog=f"apdet {args.command}")
