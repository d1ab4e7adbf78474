#!/usr/bin/env python
"""Measure time and peak memory of every loss, forward and backward, on the scores of a batch.

python tools/benchmark_losses.py                          # both sizes, both phases, the sweep
python tools/benchmark_losses.py --sizes voc --repeats 3  # quicker
python tools/benchmark_losses.py --device cuda

Each repetition runs all losses in turn. A ratio is the median over the repetitions, so that slow
changes in the speed of the machine do not matter. Writes losses.json and losses.png to --out.
"""

import argparse
import ctypes
import json
import math
import os
import statistics
import sys
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
from apdet.losses.interface import interface_of
from apdet.losses.ranking.binning import numba_backend

FOCAL = "focal, fvcore"
FOCAL_COMPILED = "focal, fvcore, torch.compile"
LOOP = "AP, loop of Algorithm 1"
# The loop takes the same time for each positive, so it is timed on this number of positives.
LOOP_SAMPLE = 10
# Mean and standard deviation of the scores: at the start of a training of RetinaNet, and at the end
# of a training with configs/digits/retinanet_ap.yaml.
EARLY = {"negatives": (math.log(0.01 / 0.99), 0.3), "positives": (math.log(0.01 / 0.99), 0.3)}
LATE = {"negatives": (-5.85, 1.1), "positives": (0.0, 1.0)}
PHASES = {"early": EARLY, "late": LATE}


class Size(NamedTuple):
    """A batch of images with the levels of the AP-loss paper, and its 6 anchors in each cell."""

    side: int
    num_classes: int
    num_images: int = 8

    def num_scores(self) -> int:
        cells = sum(math.ceil(self.side / stride) ** 2 for stride in (8, 16, 32, 64, 128))
        return cells * 6 * self.num_classes * self.num_images


SIZES = {"voc": Size(512, 20), "coco": Size(800, 80), "tiny": Size(64, 2, num_images=1)}


class Contestant(NamedTuple):
    """A loss, the dtype of its targets, and whether numba may be used."""

    loss: Callable[[Tensor, Tensor], Tensor]
    targets_dtype: torch.dtype = torch.int8
    use_numba: bool = False


def contestants(device: str, with_compiled_focal: bool) -> dict[str, Contestant]:
    """All losses over sigmoids except the loop. Eager focal loss, the reference, comes first."""
    focal = partial(sigmoid_focal_loss, alpha=0.25, gamma=2.0, reduction="sum")
    found = {FOCAL: Contestant(focal, torch.float32)}
    if with_compiled_focal:
        found[FOCAL_COMPILED] = Contestant(torch.compile(focal), torch.float32)
    for name in losses.LOSSES:
        if not interface_of(getattr(losses, name)).softmax:
            found[name] = Contestant(getattr(losses, name))
    found["ap_loss, sigmoid step"] = Contestant(partial(losses.ap_loss, step="sigmoid"))
    if device == "cpu" and numba_backend.is_available():
        for name, contestant in list(found.items()):
            if name.partition(",")[0] in ("ap_loss", "auc_loss", "pnp_loss"):
                found[f"{name}, numba"] = contestant._replace(use_numba=True)
    return found


def make_scores(num_scores: int, num_pos: int, phase: str, device: str) -> tuple[Tensor, Tensor]:
    """Make scores (N,) like at the start or the end of a training, and their targets (N,)."""
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
    """Run Algorithm 1 of arXiv:2008.07294 in a loop over positives, like its authors.

    Negatives below all windows are left out first (Section 3.4.4). Then each positive has a row of
    differences. All rows take the same time, so it is enough to time some of them.

    Args:
        logits: (N,) float32.
        targets: (N,) int8.
        num_rows: number of positives to process, evenly spaced.

    Returns:
        (N,) the gradient, which is complete only if all positives are processed, and the seconds
        for all positives.
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
    """Runs a loss forward and backward, and measures its time or its extra peak memory."""

    def __init__(self, contestant: Contestant, logits: Tensor, targets: Tensor):
        self.contestant = contestant
        self.logits = logits.detach().requires_grad_()
        self.targets = targets.to(contestant.targets_dtype)

    def run(self) -> None:
        os.environ["APDET_NATIVE"] = str(int(self.contestant.use_numba))
        self.logits.grad = None
        self.contestant.loss(self.logits, self.targets).backward()
        synchronize(self.logits.device)

    def seconds(self) -> float:
        self.logits.grad = None
        synchronize(self.logits.device)
        start = time.perf_counter()
        self.run()
        return time.perf_counter() - start

    def peak_bytes(self) -> int | None:
        """Run the loss, and return the memory that it needs in addition, with the gradient.

        None: it cannot be measured, as on the CPU of another system than Linux.
        """
        if self.logits.device.type != "cuda" and sys.platform != "linux":
            return None
        self.logits.grad = None
        before = reset_peak(self.logits.device)
        self.run()
        return read_peak(self.logits.device) - before


def reset_peak(device: torch.device) -> int:
    """Reset the peak memory, and return the bytes in use. On the CPU this needs Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # memory that is free must not count as in use
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
    """Measure losses in turn on the same scores, and return a row for each."""
    num_scores = SIZES[size].num_scores()
    logits, targets = make_scores(num_scores, num_pos, phase, device)
    meters = {name: Meter(contestant, logits, targets) for name, contestant in names.items()}
    for meter in meters.values():
        meter.run()
        meter.run()
    times = [{name: meter.seconds() for name, meter in meters.items()} for _ in range(repeats)]
    rows = []
    for name, meter in meters.items():
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
                "over_focal": median_ratio(times, name, FOCAL),
                "over_compiled_focal": median_ratio(times, name, FOCAL_COMPILED),
                "extra_bytes": meter.peak_bytes(),
            }
        )
        print_row(rows[-1])
    return rows


def median_ratio(times: list[dict[str, float]], name: str, other: str) -> float | None:
    """The median ratio of the times of two losses; None if the other one was not run."""
    if other not in times[0]:
        return None
    return statistics.median([row[name] / row[other] for row in times])


def measure_loop(row: dict, device: str) -> dict:
    """Measure the loop on the same scores as ``row`` of eager focal loss."""
    logits, targets = make_scores(row["num_scores"], row["num_positives"], row["phase"], device)
    num_rows = min(LOOP_SAMPLE, row["num_positives"])
    grad, seconds = loop_of_algorithm_1(logits, targets, num_rows)
    difference = None
    if num_rows == row["num_positives"]:
        logits.requires_grad_()
        losses.ap_loss(logits, targets).backward()
        difference = (grad - logits.grad).abs().max().item() / grad.abs().max().item()
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
        # Largest difference of the gradients, relative to the largest entry. None: not all rows.
        "difference_from_ap_loss": difference,
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
    """Print ratios to eager focal loss, with a line for each loss and a column for each case."""
    cases = list(dict.fromkeys((r["size"], r["phase"], r["num_positives"]) for r in rows))
    ratio = {(r["loss"], r["size"], r["phase"], r["num_positives"]): r["over_focal"] for r in rows}
    table = [
        [name, *(ratio.get((name, *case)) for case in cases)]
        for name in dict.fromkeys(r["loss"] for r in rows)
    ]
    headers = ["time over eager focal", *(f"{s} {p}\nP={n:,}" for s, p, n in cases)]
    print(tabulate(table, headers, floatfmt=".2f", missingval=""))


def plot(rows: list[dict], sweep: list[dict], path: Path) -> None:
    """Draw memory and time of each loss (Figures 9 and 11 of the paper), and time by positives."""
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
    sizes = ", ".join(f"{name}: {size.num_scores():,}" for name, size in SIZES.items())
    parser.add_argument(
        "--sizes",
        nargs="*",
        choices=SIZES,
        default=["voc", "coco"],
        help=f"default: voc coco; numbers of scores are {sizes}",
    )
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
    parser.add_argument(
        "--no-compile", action="store_true", help="leave out focal loss with torch.compile"
    )
    parser.add_argument("--out", type=Path, default=Path("output/benchmark"), metavar="FOLDER")
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda, but torch sees no CUDA device here")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    found = contestants(args.device, with_compiled_focal=not args.no_compile)
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
