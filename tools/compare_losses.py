#!/usr/bin/env python
r"""Train one detector with several losses under the same budget, and compare their AP.

python tools/compare_losses.py --config-file configs/digits/retinanet_ap.yaml --seeds 3
python tools/compare_losses.py --config-file F --losses ap_loss,focal_loss --base-lrs 0.05,0.15,0.3
python tools/compare_losses.py --config-file F --losses ap_loss \
    --variant "delta 0.25: MODEL.CLS_LOSS.KWARGS.delta 0.25" \
    --variant "not interpolated: MODEL.CLS_LOSS.KWARGS.interpolate False"
python tools/compare_losses.py --config-file F --dry-run SOLVER.MAX_ITER 300   # lists the trainings

Each loss (or variant: a name and the keys it sets) is trained with every learning rate on the first
seed, and with the best of them on the other seeds. Prints the layout of Table 2 of the AP-loss
paper (arXiv:2008.07294), mean and standard deviation over the seeds, and writes comparison.json and
comparison.png (AP over iterations, Figure 6) to --out. Called again it goes on: what is finished is
not trained again, what was interrupted is resumed.
"""

import argparse
import json
import math
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from tabulate import tabulate

from apdet import losses
from apdet.config import load_config
from apdet.errors import UserError
from apdet.modeling.cls_loss import ClsLoss
from apdet.modeling.named_loss import allow_custom_code
from apdet.report.curves import read_curves

TRAIN_NET = Path(__file__).resolve().parent / "train_net.py"
METRICS = ("AP", "AP50", "AP75")


class Variant(NamedTuple):
    """What is compared: a name, and the keys and values of the config that it sets."""

    name: str
    overrides: tuple[str, ...]


class Run(NamedTuple):
    """A training."""

    variant: Variant
    base_lr: float
    seed: int

    def folder(self, out: Path) -> Path:
        name = "".join(c if c.isalnum() or c in "._-" else "_" for c in self.variant.name)
        return out / name / f"lr_{self.base_lr:g}" / f"seed_{self.seed}"

    def __str__(self) -> str:
        return f"{self.variant.name}, lr {self.base_lr:g}, seed {self.seed}"


class Outcome(NamedTuple):
    """What came of a training; without metrics if it failed."""

    metrics: dict[str, float]  # in percent
    curve: tuple[list[int], list[float]]  # iterations, and the AP there
    seconds: float | None  # None if it was resumed


class Comparison:
    """Trains what is not trained yet, and knows what came of it."""

    def __init__(self, config_file: str, opts: list[str], out: Path, flags: Sequence[str] = ()):
        """Args: the config, keys and flags that all trainings share, and where all is kept."""
        self.config_file, self.opts, self.out, self.flags = config_file, opts, out, flags

    def command(self, run: Run) -> list[str]:
        """The arguments of train_net.py, also good to be typed."""
        return [
            *("--config-file", self.config_file, "--resume", *self.flags),
            *(*self.opts, *run.variant.overrides),
            *("SOLVER.BASE_LR", f"{run.base_lr:g}", "SEED", str(run.seed)),
            *("OUTPUT_DIR", str(run.folder(self.out))),
        ]

    def train(self, runs: Iterable[Run], jobs: int, num_later: int) -> dict[Run, Outcome]:
        """Train, ``jobs`` at a time; ``num_later`` more trainings follow, for the time left."""
        outcomes, runs = {}, list(runs)
        start, trained = time.monotonic(), 0
        with ThreadPoolExecutor(jobs) as pool, _cancelling(pool):
            futures = {pool.submit(self._train, run): run for run in runs}
            for future in as_completed(futures):
                run, (outcome, was_there) = futures[future], future.result()
                outcomes[run] = outcome
                trained += not was_there
                left = len(runs) - len(outcomes) + num_later
                each = (time.monotonic() - start) / max(trained, 1)
                print(
                    f"{run}: {describe(outcome, self.log(run))}"
                    + (f"; {left} to go, about {left * each / 60:.0f} min" if trained else ""),
                    flush=True,
                )
        return outcomes

    def log(self, run: Run) -> Path:
        return run.folder(self.out) / "comparison.log"

    def _train(self, run: Run) -> tuple[Outcome, bool]:
        folder, command = run.folder(self.out), self.command(run)
        folder.mkdir(parents=True, exist_ok=True)
        state_file = folder / "comparison.json"
        state = json.loads(state_file.read_text()) if state_file.is_file() else {}
        if state.get("command", command) != command:
            raise UserError(
                f"{folder} holds a training with other settings; name another --out, or remove it"
            )
        if "seconds" in state:
            return read_outcome(folder, state["seconds"]), True
        is_resumed = bool(state)
        state = {"command": command}
        state_file.write_text(json.dumps(state))
        start = time.monotonic()
        with open(self.log(run), "a") as log:
            done = subprocess.run(
                [sys.executable, TRAIN_NET, *command], stdout=log, stderr=log, check=False
            )
        if done.returncode < 0:  # by a signal: to be resumed
            raise UserError(f"{run} was killed (signal {-done.returncode}); call again to go on")
        seconds = None if is_resumed else time.monotonic() - start
        outcome = read_outcome(folder, seconds)
        if outcome.metrics:  # else it is tried once more when the tool is called again
            state_file.write_text(json.dumps({**state, "seconds": seconds}))
        return outcome, False


@contextmanager
def _cancelling(pool: ThreadPoolExecutor) -> Iterator[None]:
    """Start nothing more after an error or Ctrl-C."""
    try:
        yield
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def read_outcome(folder: Path, seconds: float | None) -> Outcome:
    """What `train_net.py` left in its OUTPUT_DIR; of several test sets the first."""
    try:
        report = json.loads((folder / "results.json").read_text())
        results = report["results"]
        results = results if "bbox" in results else results[report["test_sets"][0]]
        metrics = {name: results["bbox"][name] for name in METRICS}
        curves = read_curves(folder / "metrics.json")
    except (OSError, KeyError, ValueError):
        return Outcome({}, ([], []), seconds)
    metrics = {name: math.nan if value is None else value for name, value in metrics.items()}
    keys = [key for key in curves if key == "bbox/AP" or key.endswith("/bbox/AP")]
    return Outcome(metrics, curves[keys[0]] if keys else ([], []), seconds)


def describe(outcome: Outcome, log: Path) -> str:
    if not outcome.metrics:
        return f"failed, see {log}"
    took = "" if outcome.seconds is None else f" in {outcome.seconds:.0f} s"
    return f"AP {outcome.metrics['AP']:.1f}{took}"


def best_base_lr(variant: Variant, outcomes: dict[Run, Outcome]) -> float:
    """The learning rate with the highest AP, failures aside."""

    def ap(run: Run) -> float:
        ap = outcomes[run].metrics.get("AP", math.nan)
        return -math.inf if math.isnan(ap) else ap

    return max((run for run in outcomes if run.variant == variant), key=ap).base_lr


def summarise(variant: Variant, base_lr: float, outcomes: dict[Run, Outcome]) -> dict:
    """A row of the table: at this learning rate, the metrics and curves of all seeds."""
    mine = {run: outcome for run, outcome in outcomes.items() if run.variant == variant}
    at_lr = [mine[run] for run in sorted(mine, key=lambda run: run.seed) if run.base_lr == base_lr]
    done = [outcome for outcome in at_lr if outcome.metrics]
    return {
        "loss": variant.name,
        "base_lr": base_lr,
        "failed": len(at_lr) - len(done),
        **{name: [outcome.metrics[name] for outcome in done] for name in METRICS},
        "seconds": [outcome.seconds for outcome in done],
        "curves": [outcome.curve for outcome in done],
        "AP_of_seed_1_by_base_lr": {
            run.base_lr: mine[run].metrics.get("AP") for run in mine if run.seed == 1
        },
    }


def mean_and_deviation(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.1f}" if values else "failed"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def table(rows: list[dict]) -> str:
    """The layout of Table 2, with the learning rate and the minutes of a training."""
    cells = []
    for row in rows:
        minutes = [seconds / 60 for seconds in row["seconds"] if seconds is not None]
        cells.append(
            [
                row["loss"],
                f"{row['base_lr']:g}",
                *(mean_and_deviation(row[name]) for name in METRICS),
                f"{statistics.mean(minutes):.1f}" if minutes else "",
            ]
        )
    headers = ["Training loss", "lr", *METRICS, "min"]
    return tabulate(cells, headers, tablefmt="github", disable_numparse=True)


def plot(rows: list[dict], path: Path) -> None:
    """AP over iterations: the mean over the seeds, and a band of one standard deviation."""
    figure = Figure(figsize=(7, 4.8), dpi=100, layout="constrained")
    axes = figure.subplots()
    for row in rows:
        if not row["curves"]:
            continue
        iterations = row["curves"][0][0]
        aps = np.array([values for x, values in row["curves"] if x == iterations])
        mean, deviation = aps.mean(0), aps.std(0, ddof=1) if len(aps) > 1 else 0
        label = f"{row['loss']}, lr {row['base_lr']:g}"
        (line,) = axes.plot(iterations, mean, marker="o", markersize=4, label=label)
        axes.fill_between(
            iterations, mean - deviation, mean + deviation, color=line.get_color(), alpha=0.15
        )
    axes.set(xlabel="iteration", ylabel="AP (%)", title="AP on the test set")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(frameon=False)
    figure.savefig(path)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="sets no CLS_LOSS.KWARGS of its own")
    parser.add_argument(
        "--losses", default=None, help="names with commas; default: all, or none with --variant"
    )
    parser.add_argument(
        "--variant", action="append", default=[], metavar="'NAME: KEY VALUE ...'", help="see above"
    )
    parser.add_argument("--base-lrs", help="with commas; default: SOLVER.BASE_LR of the config")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 1 on; default: 3")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time; default: 1")
    parser.add_argument("--out", type=Path, help="default: output/compare/<name of the config>")
    parser.add_argument("--dry-run", action="store_true", help="list the trainings of seed 1")
    parser.add_argument(
        "--allow-custom-code", action="store_true", help="as that of train_net.py, for a --variant"
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs for all trainings")
    args = parser.parse_args(argv)
    if args.seeds < 1 or args.jobs < 1:
        parser.error("--seeds and --jobs are at least 1")
    try:
        args.base_lrs = [float(lr) for lr in args.base_lrs.split(",")] if args.base_lrs else None
    except ValueError:
        parser.error(f"--base-lrs {args.base_lrs}: give numbers with commas, e.g. 0.05,0.15,0.3")
    if args.losses is None:
        args.losses = "" if args.variant else ",".join(losses.__all__)
    args.losses = [name for name in args.losses.split(",") if name]
    for name in args.losses:
        if name not in losses.__all__:
            parser.error(f"--losses {name}: choose among {','.join(losses.__all__)}")
    args.out = args.out or Path("output/compare") / Path(args.config_file).stem
    return args


def variants_of(args: argparse.Namespace) -> list[Variant]:
    """The losses and variants, each with a config and a loss that are right."""
    variants = [Variant(name, ("MODEL.CLS_LOSS.NAME", name)) for name in args.losses]
    for text in args.variant:
        name, _, overrides = text.partition(":")
        variants.append(Variant(name.strip(), tuple(shlex.split(overrides))))
    names = [variant.name for variant in variants]
    if len(set(names)) < len(names):
        raise UserError(f"two losses or variants have the same name: {', '.join(names)}")
    if args.allow_custom_code:
        allow_custom_code()
    for variant in variants:
        ClsLoss(load_config(args.config_file, [*args.opts, *variant.overrides]), num_classes=1)
    return variants


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    try:
        variants = variants_of(args)
        cfg = load_config(args.config_file, args.opts)
        base_lrs = args.base_lrs or [cfg.SOLVER.BASE_LR]
        flags = ["--allow-custom-code"] if args.allow_custom_code else []
        comparison = Comparison(args.config_file, args.opts, args.out, flags)
        first = [Run(variant, lr, 1) for variant in variants for lr in base_lrs]
        num_more = len(variants) * (args.seeds - 1)
        if args.dry_run:
            for run in first:
                print("python tools/train_net.py", shlex.join(comparison.command(run)))
            print(f"{len(first)} trainings, and {num_more} more with other seeds")
            return
        outcomes = comparison.train(first, args.jobs, num_more)
        best = {variant: best_base_lr(variant, outcomes) for variant in variants}
        more = [Run(v, best[v], seed) for seed in range(2, args.seeds + 1) for v in variants]
        outcomes |= comparison.train(more, args.jobs, 0)
    except UserError as error:
        sys.exit(f"error: {error}")
    rows = [summarise(variant, best[variant], outcomes) for variant in variants]
    print(table(rows))
    report = {"config": args.config_file, "opts": args.opts, "losses": rows}
    (args.out / "comparison.json").write_text(json.dumps(report, indent=2) + "\n")
    plot(rows, args.out / "comparison.png")
    print(f"wrote {args.out / 'comparison.json'} and {args.out / 'comparison.png'}")
    if any(row["failed"] for row in rows):
        sys.exit("error: some trainings failed; see above")


if __name__ == "__main__":
    main()
