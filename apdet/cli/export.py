"""Write a trained model for use, without what only its training needs.

apdet export model_best.pth                        # writes model_best_weights.pth
apdet export model_best.pth --out cells.pth

The file holds weights, classes, config, thresholds and calibration, and not the state of the
optimizer. `apdet predict` and apdet.inference.Detector take it.
"""

import argparse
import os

import torch

from apdet.checkpoint.card import CARD
from apdet.checkpoint.weights_file import read_whole
from apdet.cli.convert import check_out
from apdet.cli.errors import add_debug_option, errors_in_one_line
from apdet.cli.parser import parser_of
from apdet.files import whole_file


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    args = _parse_args(argv, prog)
    with errors_in_one_line(debug=args.debug):
        out = args.out or f"{os.path.splitext(args.model)[0]}_weights.pth"
        content = read_whole(args.model)
        check_out(out, source=args.model, overwrite=args.overwrite)
        kept = {key: content[key] for key in ("model", "classes", CARD) if key in content}
        with whole_file(out) as file:
            torch.save(kept, file)
        before, after = (os.path.getsize(path) / 2**20 for path in (args.model, out))
        print(f"wrote {out}: {after:.1f} MiB, {1 - after / before:.0%} smaller than {args.model}")


def _parse_args(argv: list[str] | None, prog: str | None) -> argparse.Namespace:
    parser = parser_of(__doc__, prog)
    parser.add_argument("model", help="a checkpoint of a training")
    parser.add_argument("--format", choices=["weights"], default="weights", help="default: weights")
    parser.add_argument("--out", default="", help="the file to write; default: MODEL_weights.pth")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    add_debug_option(parser)
    return parser.parse_args(argv)
