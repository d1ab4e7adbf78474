#!/usr/bin/env python
"""Train, evaluate or try out the detector of a config file.

python tools/train_net.py --config-file configs/digits/retinanet_ap.yaml
python tools/train_net.py --config-file F --resume        # go on after an interruption
python tools/train_net.py --config-file F --eval-only MODEL.WEIGHTS output/model_final.pth
python tools/train_net.py --config-file F --eval-only --resume TEST.AUG.ENABLED True  # many scales
python tools/train_net.py --config-file F --dry-run       # check everything, write nothing
python tools/train_net.py --config-file F SOLVER.BASE_LR 0.005        # override any key
python tools/train_net.py --config-file F --num-gpus 8    # they share each batch
python tools/train_net.py --config-file F --device cpu --num-processes 2
"""

import logging
import os
import sys
import tempfile
import warnings

import torch
from detectron2.engine import default_argument_parser, default_setup, launch
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch.multiprocessing import ProcessExitedException

from apdet.checkpoint.checkpointer import Checkpointer
from apdet.config import load_config
from apdet.data.register import register_datasets
from apdet.engine.dry_run import dry_run
from apdet.engine.trainer import Trainer
from apdet.errors import UserError
from apdet.modeling.named_loss import allow_custom_code
from apdet.report import write_report

warnings.filterwarnings("ignore", message="torch.meshgrid")  # Detectron2 calls it the old way


def parse_args(argv: list[str] | None = None):
    parser = default_argument_parser(epilog=__doc__)
    parser.description = "Train, evaluate or try out the detector of a config file."
    parser.add_argument(
        "--device", default="", help="cpu, cuda, ...; default: cuda where there is one"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check config, data, model and weights; write nothing",
    )
    parser.add_argument(
        "--allow-custom-code",
        action="store_true",
        help="let MODEL.CLS_LOSS.NAME be package.module:function, which is imported and so run",
    )
    parser.add_argument(
        "--num-processes", type=int, default=1, help="processes on the CPU that share each batch"
    )
    parser.set_defaults(dist_url="auto")  # a free port: several trainings may run side by side
    args = parser.parse_args(argv)
    if not args.config_file:
        parser.error("--config-file is needed, e.g. configs/digits/retinanet_ap.yaml")
    if args.num_machines > 1 and args.dist_url == "auto":
        parser.error("--num-machines needs --dist-url, e.g. tcp://<address of machine 0>:50000")
    num_gpus = torch.cuda.device_count()
    if args.num_processes > 1:
        if args.device != "cpu" and (args.device or num_gpus):
            parser.error("--num-processes is for --device cpu; GPUs are asked for by --num-gpus")
        args.device = "cpu"
    elif args.num_gpus > max(num_gpus, 1):
        parser.error(
            f"--num-gpus {args.num_gpus}, but torch sees {num_gpus} here "
            "(for several processes on the CPU: --device cpu --num-processes N)"
        )
    return args


def setup(args):
    """The config of the command line, with its data sets registered and OUTPUT_DIR ready."""
    if args.allow_custom_code:  # in each process
        allow_custom_code()
    cfg = load_config(args.config_file, args.opts)
    if args.device:
        cfg.MODEL.DEVICE = args.device
    elif cfg.MODEL.DEVICE == "cuda" and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    goes_on = args.resume or args.eval_only or args.dry_run
    check_output_dir(cfg.OUTPUT_DIR, may_hold_a_run=goes_on, create=not args.dry_run)
    log_to = None if args.dry_run else cfg.OUTPUT_DIR
    setup_logger(log_to, name="apdet", distributed_rank=comm.get_rank())
    logging.getLogger("apdet").info("Device: %s", cfg.MODEL.DEVICE)
    register_datasets(cfg)
    cfg.freeze()
    if not args.dry_run:
        default_setup(cfg, args)
    return cfg


def check_output_dir(folder: str, *, may_hold_a_run: bool, create: bool) -> None:
    try:
        existing = os.path.abspath(folder)
        while not os.path.exists(existing):
            existing = os.path.dirname(existing)
        tempfile.TemporaryFile(dir=existing).close()
        if create:
            os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UserError(f"OUTPUT_DIR {folder} cannot be written to: {error}") from error
    if not may_hold_a_run and os.path.exists(os.path.join(folder, "last_checkpoint")):
        raise UserError(
            f"OUTPUT_DIR {folder} holds a training already: go on with it by --resume, "
            "or name another folder, OUTPUT_DIR <folder>"
        )


def evaluate(cfg, resume: bool):
    """Evaluate MODEL.WEIGHTS, or with ``resume`` the last checkpoint in OUTPUT_DIR."""
    model = Trainer.build_model(cfg)
    Checkpointer(model, cfg.OUTPUT_DIR).load_to_evaluate(cfg.MODEL.WEIGHTS, resume=resume)
    results = Trainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        results.update(Trainer.test_with_tta(cfg, model))
    if comm.is_main_process():
        paths = write_report(cfg, results)
        logging.getLogger("apdet").info("See %s", ", ".join(str(path) for path in paths))
    return results


def main(args):
    try:
        cfg = setup(args)
        if args.dry_run:
            return dry_run(cfg)
        if args.eval_only:
            return evaluate(cfg, args.resume)
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        return trainer.train()
    except UserError as error:
        sys.exit(f"error: {error}")


def command_line(argv: list[str] | None = None) -> None:
    launch_processes(main, parse_args(argv))


def launch_processes(main, args) -> None:
    """Call ``main(args)`` in as many processes as ``args`` ask for; in one for a dry run."""
    if args.num_processes > 1:
        prepare_cpu_processes(args.num_processes)
    try:
        launch(
            main,
            1 if args.dry_run else max(args.num_processes, args.num_gpus),
            num_machines=1 if args.dry_run else args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except ProcessExitedException:  # the process that failed has said why
        sys.exit(1)


def prepare_cpu_processes(num_processes: int) -> None:
    """Let the processes that are about to start use the CPU alone, and share its cores."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # else Detectron2 would have them talk by NCCL
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // num_processes, 1)))


if __name__ == "__main__":
    command_line()
