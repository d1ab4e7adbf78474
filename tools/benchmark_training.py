#!/usr/bin/env python
"""Measure the time of a training iteration with each loss: forward, backward, optimizer step.

python tools/benchmark_training.py       # RetinaNet-R50, 512 x 512, 2 images, on the CPU
python tools/benchmark_training.py --device cuda --images 8
python tools/benchmark_training.py --config-file F --losses ap_loss focal_loss

Images and boxes are random, so no data set is needed. In each turn, every loss runs one iteration
on the same batch. A ratio to focal loss is the median over the turns. Writes training.json to
--out.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.structures import Boxes, Instances
from tabulate import tabulate
from torch import nn

from apdet import losses
from apdet.config import load_config
from apdet.losses.ranking.binning import numba_backend
from apdet.modeling.cls_loss import ClsLoss

ROOT = Path(__file__).resolve().parent.parent
FOCAL = "focal_loss"


def random_batch(num_images: int, side: int, num_classes: int, num_boxes: int) -> list[dict]:
    """Make a batch of square images with ``num_boxes`` boxes each, in Detectron2's format."""
    torch.manual_seed(0)
    batch = []
    for _ in range(num_images):
        corner = torch.rand(num_boxes, 2) * 0.6 * side
        extent = (0.1 + 0.3 * torch.rand(num_boxes, 2)) * side
        instances = Instances((side, side))
        instances.gt_boxes = Boxes(torch.cat([corner, corner + extent], dim=1))
        instances.gt_classes = torch.randint(num_classes, (num_boxes,))
        image = torch.randint(256, (3, side, side), dtype=torch.uint8)
        batch.append({"image": image, "instances": instances})
    return batch


def seconds_of_iteration(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: list[dict]
) -> float:
    on_cuda = model.device.type == "cuda"
    if on_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    optimizer.zero_grad()
    sum(model(batch).values()).backward()
    optimizer.step()
    if on_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(cfg: CfgNode, names: list[str], batch: list[dict], repeats: int) -> list[dict]:
    """Time each loss, and return a row for each.

    Losses with the same number of logits share a model. Its weights hardly change, because the
    learning rate is 1e-9.
    """
    cfg = cfg.clone()
    cfg.SOLVER.BASE_LR = 1e-9
    cls_losses, models = {}, {}
    for name in names:
        cfg.MODEL.CLS_LOSS.NAME = name
        cls_losses[name] = ClsLoss(cfg, num_classes=cfg.MODEL.RETINANET.NUM_CLASSES)
        cls_losses[name].to(cfg.MODEL.DEVICE)
        if cls_losses[name].num_logits not in models:
            model = build_model(cfg).train()
            optimizer = build_optimizer(cfg, model)
            models[cls_losses[name].num_logits] = (model, optimizer)
    times = {name: [] for name in names}
    for turn in range(repeats + 1):
        for name, cls_loss in cls_losses.items():
            model, optimizer = models[cls_loss.num_logits]
            model.cls_loss = cls_loss
            seconds = seconds_of_iteration(model, optimizer, batch)
            if turn > 0:  # the first turn warms up
                times[name].append(seconds)
            print(f"{turn:3}/{repeats} {name:16} {seconds:.3f} s", flush=True)
    return [
        {
            "loss": name,
            "seconds": statistics.median(times[name]),
            "over_focal": statistics.median(
                [mine / focal for mine, focal in zip(times[name], times[FOCAL], strict=True)]
            ),
        }
        for name in names
    ]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default=ROOT / "configs/VOC/retinanet_R50_512_ap.yaml")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--losses", nargs="*", choices=losses.LOSSES, default=losses.LOSSES)
    parser.add_argument("--images", type=int, default=2, help="images in a batch; default: 2")
    parser.add_argument("--side", type=int, default=512, help="pixels per side; default: 512")
    parser.add_argument("--boxes", type=int, default=5, help="boxes in an image; default: 5")
    parser.add_argument("--repeats", type=int, default=9, help="default: 9")
    parser.add_argument("--out", type=Path, default=Path("output/benchmark"), metavar="FOLDER")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs of the config")
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda, but torch sees no CUDA device here")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = load_config(args.config_file, args.opts)
    cfg.MODEL.DEVICE = args.device
    names = [FOCAL, *(name for name in args.losses if name != FOCAL)]
    batch = random_batch(args.images, args.side, cfg.MODEL.RETINANET.NUM_CLASSES, args.boxes)
    rows = measure(cfg, names, batch, args.repeats)

    print(tabulate(rows, headers="keys", floatfmt=".3f"))
    args.out.mkdir(parents=True, exist_ok=True)
    machine = {
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "numba": numba_backend.is_available(),
        "config": str(args.config_file),
        "images": args.images,
        "side": args.side,
    }
    path = args.out / "training.json"
    path.write_text(json.dumps({"machine": machine, "losses": rows}, indent=2) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
