r"""Train one detector with several losses under the same budget, and compare their AP.

apdet compare --config-file configs/digits/retinanet_ap.yaml --seeds 3
apdet compare --config-file F --losses ap_loss,focal_loss --base-lrs 0.05,0.15,0.3
apdet compare --config-file F --losses ap_loss \
    --variant "delta 0.25: MODEL.CLS_LOSS.KWARGS.delta 0.25" \
    --variant "not interpolated: MODEL.CLS_LOSS.KWARGS.interpolate False"
apdet compare --config-file F --dry-run SOLVER.MAX_ITER 300   # list the trainings

Each loss is trained with every learning rate on the first seed, and with the best learning rate on
the other seeds. A variant is a name and the config keys that it sets; it is treated like a loss.
The command prints mean and standard deviation over the seeds in the layout of Table 2 of the
AP-loss paper (arXiv:2008.07294). It writes comparison.json and comparison.png (AP over iterations,
as in Figure 6) to --out. If it is called again, it does not repeat finished trainings, and it
resumes interrupted ones.
"""

import argparse
import math
import shlex
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from apdet import losses
from apdet.cli.errors import add_debug_option, errors_in_one_line
from apdet.config import load_config
from apdet.config.names import naming, yaml_key
from apdet.engine.comparison import Comparison, Outcome, Run, Variant, best_base_lr, summarise
from apdet.errors import UserError
from apdet.files import naming_file
from apdet.modeling.cls_loss import ClsLoss
from apdet.modeling.named_loss import allow_custom_code
from apdet.report.comparison import comparison_table, plot_comparison
from apdet.report.results import write_json
from apdet.signals import ending_on_signals


def main(argv: list[str] | None = None, prog: str | None = None) -> None:
    """Run the command line. An error that the user can fix ends it with a message."""
    args = parse_args(argv, prog)
    with (
        ending_on_signals(),
        errors_in_one_line(debug=args.debug),
        naming(yaml_key),
        naming_file(args.out, is_guess=True),
    ):
        compare(args)


def parse_args(argv: list[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """Parse and check the arguments. ``losses`` and ``base_lrs`` become lists."""
    parser = _build_parser(prog)
    args = parser.parse_args(argv)
    if args.seeds < 1 or args.jobs < 1:
        parser.error("--seeds and --jobs are at least 1")
    try:
        lrs = [float(lr) for lr in args.base_lrs.split(",")] if args.base_lrs else []
    except ValueError:
        lrs = [math.nan]
    if not all(0 < lr < math.inf for lr in lrs) or len(set(lrs)) < len(lrs):
        parser.error(
            f"--base-lrs {args.base_lrs}: give different numbers above 0 with commas, e.g. "
            "0.05,0.15,0.3"
        )
    args.base_lrs = lrs
    if args.losses is None:
        args.losses = "" if args.variant else ",".join(losses.LOSSES)
    args.losses = [name for name in args.losses.split(",") if name]
    for name in args.losses:
        if name not in losses.LOSSES:
            parser.error(f"--losses {name}: choose among {','.join(losses.LOSSES)}")
    args.out = args.out or Path("output/compare") / Path(args.config_file).stem
    return args


def _build_parser(prog: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="YAML, without MODEL.CLS_LOSS.KWARGS")
    parser.add_argument("--losses", help="comma-separated; default: all, or none with --variant")
    parser.add_argument(
        "--variant", action="append", default=[], metavar="'NAME: KEY VALUE ...'", help="see above"
    )
    parser.add_argument("--base-lrs", help="comma-separated; default: SOLVER.BASE_LR of the config")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds; default: 3")
    parser.add_argument("--jobs", type=int, default=1, help="parallel trainings; default: 1")
    parser.add_argument("--out", type=Path, help="default: output/compare/<name of the config>")
    parser.add_argument("--dry-run", action="store_true", help="list the trainings of seed 1")
    parser.add_argument(
        "--allow-custom-code",
        action="store_true",
        help="allow package.module:function as MODEL.CLS_LOSS.NAME",
    )
    add_debug_option(parser)
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs for all trainings")
    return parser


def compare(args: argparse.Namespace) -> None:
    """Run the trainings, print the table, and write the files.

    Raises:
        UserError: a setting is wrong, or a training failed.
    """
    variants = read_variants(args)
    base_lrs = args.base_lrs or [load_config(args.config_file, args.opts).SOLVER.BASE_LR]
    first = [Run(variant, base_lr, 1) for variant in variants for base_lr in base_lrs]
    num_more = len(variants) * (args.seeds - 1)
    if args.dry_run:
        for run in first:
            print("apdet train", shlex.join(train_arguments(args, run)))
        print(f"{len(first)} trainings, and {num_more} more with other seeds")
        return
    comparison = Comparison(args.out, partial(train_arguments, args))
    outcomes = _train(comparison, first, jobs=args.jobs, num_later=num_more)
    best = {variant: best_base_lr(variant, outcomes) for variant in variants}
    more = [Run(v, best[v], seed) for seed in range(2, args.seeds + 1) for v in variants]
    outcomes |= _train(comparison, more, jobs=args.jobs)
    rows = [summarise(variant, best[variant], outcomes) for variant in variants]
    print(comparison_table(rows))
    json_file, png_file = args.out / "comparison.json", args.out / "comparison.png"
    write_json(json_file, {"config": args.config_file, "opts": args.opts, "losses": rows})
    plot_comparison(rows, png_file)
    print(f"wrote {json_file} and {png_file}")
    if any(row["failed"] for row in rows):
        raise UserError("some trainings failed; see above")


def read_variants(args: argparse.Namespace) -> list[Variant]:
    """List the losses and variants to compare, and check the config and the loss of each.

    Raises:
        UserError: a setting is wrong, or two variants have the same name or folder.
    """
    variants = [Variant(name, ("MODEL.CLS_LOSS.NAME", name)) for name in args.losses]
    variants += [_read_variant(text) for text in args.variant]
    if len({variant.folder_name for variant in variants}) < len(variants):
        names = ", ".join(variant.name for variant in variants)
        raise UserError(f"two losses or variants have the same name or folder: {names}")
    if args.allow_custom_code:
        allow_custom_code()
    for variant in variants:
        ClsLoss(load_config(args.config_file, [*args.opts, *variant.overrides]), num_classes=1)
    return variants


def _read_variant(text: str) -> Variant:
    name, colon, overrides = text.partition(":")
    try:
        variant = Variant(name.strip(), tuple(shlex.split(overrides)))
    except ValueError as error:  # quotation marks that are not closed
        raise UserError(f"--variant {text!r}: {error}") from error
    if not colon or not variant.folder_name.strip("._"):
        raise UserError(f"--variant {text!r}: give it as 'NAME: KEY VALUE ...'")
    return variant


def train_arguments(args: argparse.Namespace, run: Run) -> list[str]:
    """The arguments of ``apdet train`` for a run."""
    return [
        *("--config-file", args.config_file, "--resume"),
        *["--allow-custom-code"] * args.allow_custom_code,
        *(*args.opts, *run.variant.overrides),
        *("SOLVER.BASE_LR", f"{run.base_lr:g}", "SEED", str(run.seed)),
        *("OUTPUT_DIR", str(run.folder(args.out))),
    ]


def _train(
    comparison: Comparison, runs: Sequence[Run], *, jobs: int, num_later: int = 0
) -> dict[Run, Outcome]:
    """Run trainings, and print each outcome with the time left.

    Args:
        comparison: runs the trainings.
        runs: the trainings to run now.
        jobs: number of trainings to run at the same time.
        num_later: number of trainings that will follow these, for the estimate of the time left.
    """
    outcomes: dict[Run, Outcome] = {}
    start, num_trained = time.monotonic(), 0
    for run, outcome in comparison.train(runs, jobs=jobs):
        outcomes[run] = outcome
        num_trained += not outcome.finished_before
        message = f"{run}: {_describe(outcome, comparison.log_file(run))}"
        if num_trained:
            num_left = len(runs) - len(outcomes) + num_later
            minutes_each = (time.monotonic() - start) / num_trained / 60
            message += f"; {num_left} to go, about {num_left * minutes_each:.0f} min"
        print(message, flush=True)
    return outcomes


def _describe(outcome: Outcome, log_file: Path) -> str:
    if not outcome.metrics:
        return f"failed, see {log_file}"
    time_taken = "" if outcome.seconds is None else f" in {outcome.seconds:.0f} s"
    return f"AP {outcome.metrics['AP']:.1f}{time_taken}"
