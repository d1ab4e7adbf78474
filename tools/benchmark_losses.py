#!/usr/bin/env python
"""Time and peak memory of every loss, forward and backward, on the scores of a whole batch.

python tools/benchmark_losses.py                          # both sizes, both phases, the sweep
python tools/benchmark_losses.py --sizes voc --repeats 3  # quicker
python tools/benchmark_losses.py --device cuda

Each repetition runs all losses in turn, and a ratio is the median of the ratios within repetitions,
so that it holds when the machine's speed drifts. Writes losses.json and losses.png to --out.
"""

import argparse
import ctypes
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from fvcore.nn.focal_loss import sigmoid_focal_loss
from tabulate import tabulate
from torch import Tensor

from apdet import losses
from apdet.losses.ranking.binning import numba_backend as native

FOCAL = "focal, fvcore"
FOCAL_COMPILED = "focal, fvcore, torch.compile"
LOOP = "AP, loop of Algorithm 1"
# What the loop takes for a positive does not depend on how many there are.
LOOP_SAMPLE = 10
# Mean and standard deviation of the scores: those RetinaNet starts from, and those that
# configs/digits/retinanet_ap.yaml ends its training with.
EARLY = {"negatives": (math.log(0.01 / 0.99), 0.3), "positives": (math.log(0.01 / 0.99), 0.3)}
LATE = {"negatives": (-5.85, 1.1), "positives": (0.0, 1.0)}
PHASES = {"early": EARLY, "late": LATE}


class Size(NamedTuple):
    """A batch of images, with the levels and the 6 anchors a cell of the AP-loss paper."""

    side: int
    num_classes: int
    num_images: int = 8

    def num_scores(self) -> int:
        cells = sum(math.ceil(self.side / stride) ** 2 for stride in (8, 16, 32, 64, 128))
        return cells * 6 * self.num_classes * self.num_images


SIZES = {"voc": Size(512, 20), "coco": Size(800, 80)}


class Contestant(NamedTuple):
    """A loss, and how it is called."""

    loss: Callable[[Tensor, Tensor], Tensor]
    targets_dtype: torch.dtype = torch.int8
    native: bool = False  # whether it may use numba


def contestants(device: str) -> dict[str, Contestant]:
    """All losses of scores but the loop, the yardstick first."""
    focal = partial(sigmoid_focal_loss, alpha=0.25, gamma=2.0, reduction="sum")
    found = {
        FOCAL: Contestant(focal, torch.float32),
        FOCAL_COMPILED: Contestant(torch.compile(focal), torch.float32),
    }
    for name in [name for name in losses.__all__ if name not in losses.SOFTMAX]:
        found[name] = Contestant(getattr(losses, name))
    found["ap_loss, sigmoid step"] = Contestant(partial(losses.ap_loss, step="sigmoid"))
    if device == "cpu" and native.is_available():
        for name, contestant in list(found.items()):
            if name.partition(",")[0] in ("ap_loss", "auc_loss", "pnp_loss"):
                found[f"{name}, numba"] = contestant._replace(native=True)
    return found


def make_scores(num_scores: int, num_pos: int, phase: str, device: str) -> tuple[Tensor, Tensor]:
    """Scores (N,) as at the beginning of a training or at its end, and which are positive."""
    generator = torch.Generator().manual_seed(0)

    def normal(size: int, mean: float, std: float) -> Tensor:
        return mean + std * torch.randn(size, generator=generator)

    logits = normal(num_scores, *PHASES[phase]["negatives"])
    positives = torch.randperm(num_scores, generator=generator)[:num_pos]
    logits[positives] = normal(num_pos, *PHASES[phase]["positives"])
    targets = torch.zeros(num_scores, dtype=torch.int8)
    targets[positives] = 1
    return logits.to(device), targets.to(device)


def loop_of_algorithm_1(logits: Tensor, targets: Tensor, num_rows: int) -> tuple[Tensor, float]:
    """Algorithm 1 of arXiv:2008.07294, positive by positive, as its authors run it.

    Negatives that stand below all windows are left out first (Section 3.4.4). Each positive then
    takes a row of differences, and all rows take equally long, so it is enough to time some.

    Args:
        logits: (N,) float32.
        targets: (N,) int8.
        num_rows: how many positives are done, evenly spaced.

    Returns:
        (N,) the gradient, if all positives are done, and the seconds that all would take.
    """
    synchronize(logits.device)
    start = time.perf_counter()
    grad = torch.zeros_like(logits)
    pos, order = logits[targets == 1].sort()
    relevant = (targets == 0) & (logits >= pos[0] - 1)
    neg = logits[relevant]
    grad_pos, grad_neg = torch.zeros_like(pos), torch.zeros_like(neg)
    synchronize(logits.device)
    prepared = time.perf_counter()
    max_precision = 0.0
    for i in torch.linspace(0, len(pos) - 1, num_rows).long():
        above = ((neg - pos[i]) / 2 + 0.5).clamp_(0, 1)
        rank_pos = ((pos - pos[i]) / 2 + 0.5).clamp_(0, 1).sum() + 0.5
        row = above / (rank_pos + above.sum())
        precision = rank_pos / (rank_pos + above.sum())
        if precision < max_precision:
            row *= (1 - max_precision) / (1 - precision)
        else:
            max_precision = precision
        grad_neg += row
        grad_pos[order[i]] = -row.sum()
    synchronize(logits.device)
    rows = time.perf_counter() - prepared
    grad[targets == 1], grad[relevant] = grad_pos / len(pos), grad_neg / len(pos)
    synchronize(logits.device)
    others = time.perf_counter() - start - rows
    return grad, others + rows * len(pos) / num_rows


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


class Meter:
    """Runs a loss forward and backward, for its seconds or for its extra peak memory."""

    def __init__(self, contestant: Contestant, logits: Tensor, targets: Tensor):
        self.contestant = contestant
        self.logits = logits.detach().requires_grad_()
        self.targets = targets.to(contestant.targets_dtype)

    def run(self) -> None:
        os.environ["APDET_NATIVE"] = str(int(self.contestant.native))
        self.logits.grad = None
        self.contestant.loss(self.logits, self.targets).backward()
        synchronize(self.logits.device)

    def seconds(self) -> float:
        self.logits.grad = None
        synchronize(self.logits.device)
        start = time.perf_counter()
        self.run()
        return time.perf_counter() - start

    def peak_bytes(self) -> int:
        """Memory that is taken beyond what was held before, the gradient included."""
        self.logits.grad = None
        before = reset_peak(self.logits.device)
        self.run()
        return read_peak(self.logits.device) - before


def reset_peak(device: torch.device) -> int:
    """Forget the peak memory; returns the bytes held now. Off CUDA it needs Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is free already is not held
    Path("/proc/self/clear_refs").write_text("5")
    return read_peak(device)


def read_peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def measure(
    names: dict[str, Contestant], size: str, phase: str, num_pos: int, repeats: int, device: str
) -> list[dict]:
    """Measure losses in turn on the same scores, a row each; the first is the yardstick."""
    num_scores = SIZES[size].num_scores()
    logits, targets = make_scores(num_scores, num_pos, phase, device)
    meters = {name: Meter(contestant, logits, targets) for name, contestant in names.items()}
    for meter in meters.values():
        meter.run()
        meter.run()
    times = [{name: meter.seconds() for name, meter in meters.items()} for _ in range(repeats)]
    rows = []
    for name, meter in meters.items():
        ratios = [row[name] / row[FOCAL] for row in times]
        seconds = [row[name] for row in times]
        rows.append(
            {
                "size": size,
                "phase": phase,
                "num_scores": num_scores,
                "num_positives": num_pos,
                "loss": name,
                "seconds": statistics.median(seconds),
                "seconds_min": min(seconds),
                "seconds_max": max(seconds),
                "over_focal": statistics.median(ratios),
                "over_compiled_focal": statistics.median(
                    [row[name] / row[FOCAL_COMPILED] for row in times]
                ),
                "extra_bytes": meter.peak_bytes(),
            }
        )
        print_row(rows[-1])
    return rows


def measure_loop(row: dict, device: str) -> dict:
    """The row of the loop on the scores of ``row``, the yardstick's."""
    logits, targets = make_scores(row["num_scores"], row["num_positives"], row["phase"], device)
    num_rows = min(LOOP_SAMPLE, row["num_positives"])
    _, seconds = loop_of_algorithm_1(logits, targets, num_rows)
    loop = {
        **row,
        "loss": LOOP,
        "seconds": seconds,
        "seconds_min": seconds,
        "seconds_max": seconds,
        "over_focal": seconds / row["seconds"],
        "over_compiled_focal": None,
        "extra_bytes": None,
        "extrapolated_from_rows": num_rows,
    }
    print_row(loop)
    return loop


def print_row(row: dict) -> None:
    extra = "" if row["extra_bytes"] is None else f"{row['extra_bytes'] / 2**20:8.0f} MiB"
    print(
        f"{row['size']:5} {row['phase']:6} P={row['num_positives']:<6} {row['loss']:32} "
        f"{1000 * row['seconds']:10.1f} ms {row['over_focal']:8.2f} x focal {extra}",
        flush=True,
    )


def print_table(rows: list[dict]) -> None:
    """Ratios to eager focal loss: a line a loss, a column a case."""
    cases = list(dict.fromkeys((r["size"], r["phase"], r["num_positives"]) for r in rows))
    ratio = {(r["loss"], r["size"], r["phase"], r["num_positives"]): r["over_focal"] for r in rows}
    table = [
        [name, *(ratio.get((name, *case)) for case in cases)]
        for name in dict.fromkeys(r["loss"] for r in rows)
    ]
    headers = ["time over eager focal", *(f"{s} {p}\nP={n:,}" for s, p, n in cases)]
    print(tabulate(table, headers, floatfmt=".2f", missingval=""))


def plot(rows: list[dict], sweep: list[dict], path: Path) -> None:
    """Memory and time of each loss (Figures 9 and 11 of the paper), and time over positives."""
    figure, axes = plt.subplots(1, 3, figsize=(19, 5.5), layout="constrained")
    case = (rows[0]["size"], rows[0]["phase"], rows[0]["num_positives"])
    bars = [r for r in rows if (r["size"], r["phase"], r["num_positives"]) == case]
    bars = [r for r in bars if r["extra_bytes"] is not None][::-1]
    names = [r["loss"] for r in bars]
    axes[0].barh(names, [r["extra_bytes"] / 2**20 for r in bars])
    axes[0].set(xlabel="extra peak memory, MiB", title=f"{case[0]}, {case[1]}, P = {case[2]:,}")
    axes[1].barh(names, [1000 * r["seconds"] for r in bars])
    axes[1].set(xlabel="forward and backward, ms", title=f"{case[0]}, {case[1]}, P = {case[2]:,}")
    axes[1].set_yticklabels([])
    for name in dict.fromkeys(r["loss"] for r in sweep):
        line = sorted((r["num_positives"], 1000 * r["seconds"]) for r in sweep if r["loss"] == name)
        axes[2].plot(*zip(*line, strict=True), marker="o", label=name)
    axes[2].set(xscale="log", yscale="log", xlabel="positives", ylabel="ms", title="sweep")
    axes[2].grid(alpha=0.3)
    if sweep:
        axes[2].set_title(f"{sweep[0]['size']}, {sweep[0]['phase']}")
        axes[2].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=list(SIZES))
    parser.add_argument("--phases", nargs="*", choices=PHASES, default=list(PHASES))
    parser.add_argument("--positives", type=int, default=1000, help="default: 1000")
    parser.add_argument(
        "--sweep",
        type=int,
        nargs="*",
        default=[100, 300, 1000, 5000, 20000],
        help="numbers of positives of the sweep, at the first size and phase",
    )
    parser.add_argument("--repeats", type=int, default=9, help="default: 9")
    parser.add_argument("--out", type=Path, default=Path("output/benchmark"), metavar="FOLDER")
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda, but torch sees no CUDA device here")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    found = contestants(args.device)
    rows = []
    for size in args.sizes:
        for phase in args.phases:
            rows += measure(found, size, phase, args.positives, args.repeats, args.device)
            rows.append(measure_loop(rows[-len(found)], args.device))
    swept = {
        name: found[name]
        for name in (FOCAL, FOCAL_COMPILED, "ap_loss", "ap_loss, numba")
        if name in found
    }
    sweep = []
    for num_pos in args.sweep:
        size, phase = args.sizes[0], args.phases[0]
        sweep += measure(swept, size, phase, num_pos, args.repeats, args.device)
        sweep.append(measure_loop(sweep[-len(swept)], args.device))

    print_table(rows)
    print_table(sweep)
    args.out.mkdir(parents=True, exist_ok=True)
    machine = {
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "repeats": args.repeats,
    }
    results = {"machine": machine, "cases": rows, "sweep": sweep}
    (args.out / "losses.json").write_text(json.dumps(results, indent=2) + "\n")
    plot(rows, sweep, args.out / "losses.png")
    print(f"wrote {args.out / 'losses.json'} and {args.out / 'losses.png'}")


if __name__ == "__main__":
    main()
