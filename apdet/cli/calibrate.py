"""Find the best threshold and the calibration of a trained model on other data.

apdet calibrate model_best.pth --config-file F --out calibrated.pth
apdet calibrate model_best.pth --config-file F --out calibrated.pth DATASETS.VAL "('cells',)"

The data are DATASETS.VAL of the config, or else DATASETS.TEST. A training has calibrated its model
on the same data sets already; this is for data that differ from them.
"""

import argparse

from detectron2.utils.logger import setup_logger

from apdet.cli.convert import check_out
from apdet.cli.errors import add_debug_option, errors_in_one_line
from apdet.cli.parser import parser_of
from apdet.config import read_config
from apdet.config.names import naming
from apdet.engine.calibrating import calibrate
from apdet.files import check_regular_file


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    args = _parse_args(argv, prog)
    with errors_in_one_line(debug=args.debug):
        check_regular_file(args.model)
        check_out(args.out, source=args.model, overwrite=args.overwrite)
        for name in ("apdet", "detectron2"):
            setup_logger(None, name=name)
        config = read_config(args.config_file, args.opts, device=args.device)
        with naming(config.key_of):
            card = calibrate(config.plan(), args.model, args.out)
        print(f"best threshold on {card.evaluated_on}: {card.threshold:.3f}")
        before, after = (
            card.metrics.get(f"calibration/D-ECE{what}") for what in (" of scores", "")
        )
        if before is not None and after is not None:
            print(f"calibration error, D-ECE: {before:.4f} of scores, {after:.4f} of probabilities")
        print(f"wrote {args.out}")


def _parse_args(argv: list[str] | None, prog: str | None) -> argparse.Namespace:
    parser = parser_of(__doc__, prog)
    parser.add_argument("model", help="a checkpoint of a training")
    parser.add_argument("--config-file", required=True, help="a config with the data sets")
    parser.add_argument("--out", required=True, help="the model file to write: a .pth file")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--device", default="", help="cpu, cuda, ...; default: the config's")
    add_debug_option(parser)
    parser.add_argument("opts", nargs="*", help="KEY VALUE pairs, as of `train`")
    return parser.parse_intermixed_args(argv)
