"""`apdet train`: train, evaluate or check the detector that a config describes."""

import argparse
import logging
import sys
from typing import Any

import torch
from detectron2.engine import default_argument_parser
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger

from apdet.cli.errors import add_debug_option, errors_in_one_line
from apdet.cli.processes import add_process_arguments, check_process_arguments
from apdet.config import read_config
from apdet.config.names import naming
from apdet.config.plan import TrainingPlan
from apdet.config.read import Config
from apdet.config.record import write_config
from apdet.engine import Trainer
from apdet.engine.agreement import check_agreement
from apdet.engine.connecting import check_device
from apdet.engine.dry_run import dry_run
from apdet.engine.evaluation import evaluate_checkpoint
from apdet.engine.launch import ending_rank_on_signals, launch_processes, run_in_world
from apdet.engine.log_file import set_up_log
from apdet.engine.output_folder import check_output_dir, owning
from apdet.engine.world import World
from apdet.files import naming_file
from apdet.modeling.named_loss import allow_custom_code
from apdet.signals import StopRequest

DESCRIPTION = "Train, evaluate or check the detector of a config in YAML or Python (LazyConfig)."
EXAMPLES = """\
{prog} --config-file digits/retinanet_ap.yaml     # a config that comes with apdet
{prog} --config-file F --resume                   # continue from the last checkpoint
{prog} --config-file F --eval-only MODEL.WEIGHTS output/model_final.pth
{prog} --config-file F --eval-only --resume TEST.AUG.ENABLED True    # several scales
{prog} --config-file F --dry-run                  # check everything, write nothing
{prog} --config-file F SOLVER.BASE_LR 0.005       # override any key
{prog} --config-file F.py optimizer.lr=0.005      # the same for a Python config
{prog} --config-file F --num-gpus 8               # the GPUs share each batch
{prog} --config-file F --device cpu --num-processes 2

A Python config is run as code: use only files that you trust.
"""


def main(argv: list[str] | None = None, prog: str | None = None, *, suffix: str = "") -> None:
    """Run the command line.

    Args:
        argv: the arguments; None: those of the process.
        prog: the name of the command in its help.
        suffix: ".py" to accept only Python configs; empty: every config is accepted.
    """
    args = parse_args(argv, prog)
    if suffix and not args.config_file.endswith(suffix):
        sys.exit(
            f"error: {args.config_file}: not a Python config; tools/train_net.py takes YAML configs"
        )
    with errors_in_one_line(debug=args.debug):
        world = check_process_arguments(args)
        on_cpu = args.device == "cpu" or not torch.cuda.is_available()
        if args.dry_run:
            _dry_run_in_one_process(args, world)
        elif world:
            run_in_world(run, (args,), world, on_cpu=on_cpu, timeout=args.connect_timeout)
        else:
            launch_processes(
                run,
                (args,),
                num_processes=max(args.num_processes, args.num_gpus),
                on_cpu=on_cpu,
                num_machines=args.num_machines,
                machine_rank=args.machine_rank,
                dist_url=args.dist_url,
                timeout=args.connect_timeout,
            )


def parse_args(argv: list[str] | None, prog: str | None) -> argparse.Namespace:
    """Parse and check the arguments."""
    prog = prog or "apdet train"
    parser = default_argument_parser(epilog=EXAMPLES.format(prog=prog))
    parser.prog, parser.description = prog, DESCRIPTION
    parser.add_argument(
        "--device", default="", help="cpu, cuda, ...; default: the config's, or cpu without CUDA"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check config, data, model and weights; write nothing",
    )
    parser.add_argument(
        "--allow-custom-code",
        action="store_true",
        help="allow package.module:function as MODEL.CLS_LOSS.NAME, which runs the module",
    )
    add_debug_option(parser)
    add_process_arguments(parser)
    args = parser.parse_args(argv)
    if not args.config_file:
        parser.error("--config-file is needed, e.g. digits/retinanet_ap.yaml")
    return args


def _dry_run_in_one_process(args: argparse.Namespace, world: World | None) -> None:
    """Make the dry run in this process, or in the first one of torchrun or srun."""
    if world is None:
        args.world_size = max(args.num_processes, args.num_gpus) * args.num_machines
        run(args)
    elif world.rank == 0:
        args.world_size = world.size
        run(args)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train, evaluate or check in this process, as the arguments say."""
    with ending_rank_on_signals() as stop, errors_in_one_line(debug=args.debug):
        return _run(args, stop)


def _run(args: argparse.Namespace, stop: StopRequest) -> dict[str, Any]:
    """Read the config, and call the engine. A dry run writes nothing.

    Raises:
        UserError: the config or its data sets cannot be read, or the output folder cannot be used.
    """
    if args.allow_custom_code or args.config_file.endswith(".py"):  # needed in each process
        allow_custom_code()
    config = read_config(args.config_file, args.opts, device=args.device)
    args.config_file, folder = config.path, config.output_dir
    with naming(config.key_of), naming_file(folder, is_guess=True):
        check_output_dir(folder, create=not args.dry_run)
        if args.dry_run:
            plan = _set_up_dry_run(config, args)
            return dry_run(plan, resume=args.resume, eval_only=args.eval_only)
        if args.eval_only:
            # The file of this name in the folder itself is the record of the training.
            plan = _set_up(config, args, record=f"{folder}/inference/config.yaml")
            check_agreement(plan, training=False)
            return evaluate_checkpoint(plan, resume=args.resume)
        with owning(folder, may_hold_a_run=args.resume) as resume:
            plan = _set_up(config, args, record=f"{folder}/config.yaml")
            check_agreement(plan)
            trainer = Trainer(plan, stop=stop)
            trainer.resume_or_load(resume=resume)
            return trainer.train()


def _set_up(config: Config, args: argparse.Namespace, *, record: str) -> TrainingPlan:
    """Open the log, read the data sets, set the seed, and write the config to a file.

    Detectron2's ``default_setup`` would write an evaluation's config over that of the training.
    """
    set_up_log(config.output_dir)
    plan = config.plan()
    logger = logging.getLogger("apdet")
    logger.info("Device: %s", plan.device)
    check_device(plan.device)
    logger.info("Environment:\n%s", collect_env_info())
    logger.info("Command line arguments: %s", args)
    if comm.is_main_process():
        write_config(plan.config, record)
        logger.info("The config is written to %s", record)
    seed_all_rng(plan.seed + comm.get_rank() if plan.seed >= 0 else None)
    torch.backends.cudnn.benchmark = plan.cudnn_benchmark and not args.eval_only
    return plan


def _set_up_dry_run(config: Config, args: argparse.Namespace) -> TrainingPlan:
    setup_logger(None, name="apdet", distributed_rank=comm.get_rank())
    # The plan is that of the training, whose number of processes may scale it.
    plan = config.plan(num_processes=args.world_size)
    logging.getLogger("apdet").info("Device: %s", plan.device)
    if plan.seed >= 0:
        seed_all_rng(plan.seed)
    return plan
