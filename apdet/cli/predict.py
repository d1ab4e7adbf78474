"""Detect objects in images with a trained model, and write pictures and predictions.

apdet predict output/model_best.pth photos                     # a folder, with those in it
apdet predict output/model_best.pth a.jpg 'more/*.png' list.txt --out found
apdet predict output/model_best.pth photos --format coco,voc,yolo,csv --no-pictures
apdet predict output/model_best.pth --images-json test.json --images-folder test --threshold 0
apdet predict output/model_best.pth photos --resume            # go on after an interruption

The exit code is 0 if all images were read, 3 if some could not be read, and 1 if nothing was done.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import closing

from detectron2.data.catalog import Metadata

from apdet.cli.errors import add_debug_option, errors_in_one_line
from apdet.cli.parser import parser_of
from apdet.config.names import naming, yaml_key
from apdet.errors import UserError
from apdet.evaluation import coco_ids
from apdet.files import naming_file
from apdet.inference import Detector
from apdet.inference.coco_set import read_coco_set
from apdet.inference.folder import check_folder
from apdet.inference.formats import FORMATS, Predictions, write_images
from apdet.inference.predict import Running, predict_images, write_failures
from apdet.inference.progress import Progress
from apdet.inference.selection import Selection, find_classes
from apdet.inference.settings import settings_of
from apdet.inference.sources import SourceImage, find_images, number_sources
from apdet.inference.summary import summarise
from apdet.signals import Stopped, StopRequest, ending_on_signals

SOME_FAILED = 3  # the exit code


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Run the command line. An error that the user can fix ends it with a message."""
    args = parse_args(argv, prog)
    with (
        ending_on_signals() as stop,
        errors_in_one_line(debug=args.debug),
        naming(_option),
        naming_file(args.out, is_guess=True),
    ):
        num_failed = predict(args, stop)
    if num_failed:
        sys.exit(SOME_FAILED)


def _option(owner: str, argument: str) -> str | None:
    is_workers = (owner, argument) == ("errors_of_workers", "num_workers")
    return "--workers" if is_workers else yaml_key(owner, argument)


def parse_args(argv: list[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """Parse and check the arguments. ``format`` becomes a list, ``threshold`` a number or None."""
    parser = _build_parser(prog)
    args = parser.parse_intermixed_args(argv)
    if bool(args.source) == bool(args.images_json):
        parser.error("name images, or a data set by --images-json")
    if args.batch < 1 or args.workers < 0 or (args.max_detections or 1) < 1:
        parser.error("--batch and --max-detections are at least 1, and --workers at least 0")
    args.format = list(dict.fromkeys(args.format.split(",")))
    for name in args.format:
        if name not in FORMATS:
            parser.error(f"--format {name}: choose among {','.join(FORMATS)}")
    try:
        args.threshold = None if args.threshold == "best" else float(args.threshold)
    except ValueError:
        args.threshold = -1.0
    if args.threshold is not None and not 0 <= args.threshold <= 1:  # nor nan
        parser.error("--threshold is best, or a number from 0 to 1")
    return args


def _build_parser(prog: str | None) -> argparse.ArgumentParser:
    parser = parser_of(__doc__, prog)
    add = parser.add_argument
    add("model", help="model_best.pth or another checkpoint of a training")
    add("source", nargs="*", help="image, folder, pattern, or .txt file with a path a line")
    add("--out", default="predictions", help="the folder to write to; default: predictions")
    add("--images-json", default="", metavar="FILE", help="data set in COCO's format; ids are kept")
    add("--images-folder", default="", metavar="DIR", help="its images; default: the file's folder")
    add("--threshold", default="best", help="lowest score: best (default; best F1), or a number")
    add("--calibrated", action="store_true", help="scores are probabilities; default threshold 0.5")
    add("--classes", default="", metavar="NAMES", help="only these, with commas between them")
    add("--max-detections", type=int, metavar="N", help="keep the N best of each image")
    add("--tta", action="store_true", help="test on several scales and mirror images; slow")
    add("--device", default="", help="cpu, cuda, ...; default: cuda, or cpu without it")
    add("--batch", type=int, default=1, metavar="N", help="images of a size at a time; default: 1")
    add("--workers", type=int, default=2, metavar="N", help="processes that read; default: 2")
    add("--bits", type=int, choices=range(9, 17), metavar="N", help="depth of 16-bit images")
    add("--no-pictures", action="store_true", help="draw no pictures, which takes time")
    add("--format", default="coco", help="coco (default), voc, yolo, csv; with commas between them")
    add("--config-file", default="", help="the model's config, if its file does not hold it")
    add("--resume", action="store_true", help="go on with the predictions in the folder")
    add_debug_option(parser)
    return parser


def predict(args: argparse.Namespace, stop: StopRequest) -> int:
    """Predict as the arguments say, and write all files.

    Returns:
        The number of images that could not be read.

    Raises:
        UserError: an argument is wrong, something cannot be read or written, or no image could be
            read.
    """
    check_folder(args.out, resume=args.resume)
    paths = find_images(args.source, left_out=args.out)
    detector = Detector(
        args.model,
        config_file=args.config_file,
        device=args.device,
        multi_scale=args.tta,
        calibrated=args.calibrated,
    )
    selection = _selection(args, detector)
    if args.images_json:
        images, category_ids = read_coco_set(
            args.images_json, args.images_folder, detector.classes, selection.classes
        )
    else:
        images = number_sources(paths)
        category_ids = coco_ids.category_ids(Metadata(thing_classes=detector.classes))
    os.makedirs(args.out, exist_ok=True)
    with closing(Progress(args.out, settings_of(vars(args), selection, images))) as progress:
        speed = _predict(args, detector, selection, images, progress, stop)
        failed_txt = write_failures(images, progress, args.out)
        if not len(progress):
            reason = progress.failed[0]
            raise UserError(
                f"no image could be read; the first is {images[0].path}: {reason}; see {failed_txt}"
            )
        predictions = Predictions(images, detector.classes, category_ids, progress.entries)
        written = write_images(predictions, args.out)
        for name in args.format:
            written += FORMATS[name](predictions, args.out)
        best = None if args.calibrated else detector.card.threshold
        print(summarise(progress, selection, best, speed))
        print(f"wrote {', '.join(written)}")
        if progress.failed:
            print(
                f"{len(progress.failed)} of {len(images)} images could not be read; see "
                f"{failed_txt}, mend them, and go on by --resume",
                file=sys.stderr,
            )
        return len(progress.failed)


def _selection(args: argparse.Namespace, detector: Detector) -> Selection:
    threshold = detector.threshold if args.threshold is None else args.threshold
    if args.threshold is None and detector.card.threshold is None:
        print(
            f"{args.model} was never evaluated, so its best threshold is not known; detections "
            f"with a score of at least {threshold} are kept (--threshold)"
        )
    return Selection(threshold, find_classes(args.classes, detector.classes), args.max_detections)


def _predict(
    args: argparse.Namespace,
    detector: Detector,
    selection: Selection,
    images: Sequence[SourceImage],
    progress: Progress,
    stop: StopRequest,
) -> float:
    running = Running(args.batch, args.workers, not args.no_pictures, args.bits)
    try:
        return predict_images(
            detector, images, progress, selection=selection, running=running, stop=stop
        )
    except Stopped as stopped:
        stopped.note = f"; {len(progress)} of {len(images)} images are done, go on by --resume"
        raise
