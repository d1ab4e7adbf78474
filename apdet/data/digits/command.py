"""The command line that writes the `digits` data set."""

import argparse
import sys

from apdet.data.digits.writing import write_digits
from apdet.errors import UserError

DESCRIPTION = """Write `digits`, handwritten digits over photographs, in VOC's and COCO's formats.

example: %(prog)s --out datasets/digits --train 2000 --test 200 --size 128
"""


def main(argv: list[str] | None = None, *, prog: str | None = None) -> None:
    """Run the command line.

    Args:
        argv: the arguments; None: those of this process.
        prog: the name of the command in its help; None: the name of the script.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", required=True, help="folder to write to")
    parser.add_argument("--train", type=int, default=2000, help="number of training images (2000)")
    parser.add_argument("--test", type=int, default=200, help="number of test images (200)")
    parser.add_argument("--size", type=int, default=128, help="side of the images, in pixels (128)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers (0)")
    args = parser.parse_args(argv)
    try:
        write_digits(args.out, args.train, args.test, args.size, args.seed)
    except UserError as error:
        sys.exit(f"error: {error}")
