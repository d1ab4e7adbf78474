#!/usr/bin/env python
"""Train, evaluate or try out the detector of a Python config (Detectron2's LazyConfig).

A Python config runs: use only those you trust.

python tools/lazyconfig_train_net.py --config-file configs/lazy/digits_retinanet_ap.py
python tools/lazyconfig_train_net.py --config-file F --resume    # go on after an interruption
python tools/lazyconfig_train_net.py --config-file F --eval-only --resume
python tools/lazyconfig_train_net.py --config-file F --dry-run   # check everything, write nothing
python tools/lazyconfig_train_net.py --config-file F train.max_iter=100 optimizer.lr=0.05
python tools/lazyconfig_train_net.py --config-file F --num-gpus 8    # they share each batch
python tools/lazyconfig_train_net.py --config-file F --num-processes 2   # without a GPU
"""

import sys
import warnings

import torch
from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger
from omegaconf import OmegaConf
from train_net import check_output_dir, launch_processes

from apdet.config.lazy import EXAMPLE, in_lazy_names, load_lazy_config
from apdet.data.register import register
from apdet.engine.lazy import evaluate, train, try_out
from apdet.errors import UserError
from apdet.modeling.named_loss import allow_custom_code

warnings.filterwarnings("ignore", message="torch.meshgrid")  # Detectron2 calls it the old way


def parse_args(argv: list[str] | None = None):
    description, _, epilog = __doc__.partition("\n\n")
    parser = default_argument_parser(epilog=epilog)
    parser.description = description
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check config, data, model and weights; write nothing",
    )
    parser.add_argument(
        "--num-processes", type=int, default=1, help="processes on the CPU that share each batch"
    )
    parser.set_defaults(dist_url="auto")  # a free port: several trainings may run side by side
    args = parser.parse_args(argv)
    if not args.config_file:
        parser.error(f"--config-file is needed, e.g. {EXAMPLE}")
    if args.num_machines > 1 and args.dist_url == "auto":
        parser.error("--num-machines needs --dist-url, e.g. tcp://<address of machine 0>:50000")
    if args.num_gpus > max(torch.cuda.device_count(), 1):
        parser.error(f"--num-gpus {args.num_gpus}, but torch sees {torch.cuda.device_count()} here")
    return args


def setup(args):
    """The config of the command line, its folder ready; and the classes of its data sets."""
    allow_custom_code()  # the config itself is such
    cfg = load_lazy_config(args.config_file, args.opts)
    if cfg.train.device == "cuda" and not torch.cuda.is_available():
        cfg.train.device = "cpu"
    goes_on = args.resume or args.eval_only or args.dry_run
    folder = cfg.train.output_dir
    check_output_dir(folder, may_hold_a_run=goes_on, create=not args.dry_run)
    log_to = None if args.dry_run else folder
    setup_logger(log_to, name="apdet", distributed_rank=comm.get_rank())
    sets = OmegaConf.to_container(cfg.datasets, resolve=True)
    classes = register(sets.get("register", []), train=sets["train"], test=sets["test"])
    if not args.dry_run:
        default_setup(cfg, args)
    elif cfg.train.seed >= 0:
        seed_all_rng(cfg.train.seed)
    return cfg, classes


def main(args):
    try:
        cfg, classes = setup(args)
        if args.dry_run:
            return try_out(cfg, classes)
        run = evaluate if args.eval_only else train
        return run(cfg, classes, resume=args.resume)
    except UserError as error:
        sys.exit(f"error: {in_lazy_names(str(error))}")


def command_line(argv: list[str] | None = None) -> None:
    launch_processes(main, parse_args(argv))


if __name__ == "__main__":
    command_line()
