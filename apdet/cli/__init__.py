"""The command `apdet`, with one short module for each subcommand."""

import argparse
import importlib
import os
import sys
import warnings

from apdet import __version__
from apdet.platforms import require_posix
from apdet.signals import ending_imports_on_signals, ending_on_signals

# {module of a subcommand: its help}. A module is imported only when its subcommand is called.
COMMANDS = {
    "train": "train, evaluate or check a detector",
    "predict": "detect objects in images with a trained model",
    "compare": "train a detector with several losses or settings, and compare them",
    "calibrate": "find the threshold and the calibration of a model on other data",
    "export": "write a model without what only its training needs",
    "convert": "convert ImageNet weights of torchvision, timm or Keras",
}

# How warnings of torch begin about calls of Detectron2, fvcore and apdet, which no user can mend.
_TO_HIDE = (
    "torch.meshgrid",
    "`torch.jit.script` is deprecated",
    "`broadcast_buffers` is deprecated",  # the new argument is not in all versions of torch
)


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
    run_command(args.command, args.arguments, prog=f"apdet {args.command}")


def run_command(
    name: str, argv: list[str] | None = None, *, prog: str | None = None, **options: object
) -> None:
    """Import and call a subcommand. A signal ends it with one line, also during the imports.

    Args:
        name: one of `COMMANDS`.
        argv: its arguments; None: those of the process.
        prog: the name of the program in its help; None: that of the process.
        options: further arguments of its function ``main``.

    Raises:
        SystemExit: the command failed, or this is Windows.
    """
    try:
        require_posix()
    except ImportError as error:
        sys.exit(f"error: {error}")
    _hide_warnings_of_torch()
    with ending_on_signals():
        with ending_imports_on_signals():
            command = importlib.import_module(f"apdet.cli.{name}")
        command.main(argv, prog=prog, **options)


def _hide_warnings_of_torch() -> None:
    """Hide what `_TO_HIDE` lists, in this process and in those that it starts."""
    for message in _TO_HIDE:
        warnings.filterwarnings("ignore", message)
    given = os.environ.get("PYTHONWARNINGS")
    filters = [f"ignore:{message}" for message in _TO_HIDE]
    os.environ["PYTHONWARNINGS"] = ",".join([given, *filters] if given else filters)
