#!/usr/bin/env python
"""Check that apdet works on a machine with CUDA: exact results, repeatable results, and speed.

python tools/check_gpu.py                    # all checks, then the tables of both benchmarks
python tools/check_gpu.py --no-benchmarks    # a few minutes less
python tools/check_gpu.py --device cpu       # the checks that need no GPU

The checks: every loss agrees with float64; the ranking losses give the same bits twice; the loss
path waits for the device once; half precision gives finite results; in a short training on digits
with mixed precision the loss falls, and the training resumes; two GPUs train like one, if there are
two. The exit code is 1 if a check fails.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from tabulate import tabulate

from apdet import losses
from apdet.modeling.cls_loss import ClsLoss

TOOLS = Path(__file__).resolve().parent
RANKING = ("ap_loss", "auc_loss", "pnp_loss")
NUM_IMAGES, NUM_ANCHORS, NUM_CLASSES = 4, 20_000, 20


class DoesNotApplyError(Exception):
    """A check does not apply to this machine."""


def labels(device: str) -> torch.Tensor:
    """Make labels (N, R) int64: mostly background, some positives, some ignored."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(NUM_IMAGES, NUM_ANCHORS, generator=generator)
    classes = torch.randint(NUM_CLASSES, drawn.shape, generator=generator)
    gt_labels = torch.full_like(classes, NUM_CLASSES)
    gt_labels[drawn < 0.01] = -1
    return torch.where(drawn < 0.003, classes, gt_labels).to(device)


def loss_and_gradient(name: str, device: str, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Compute a loss, (), and its gradient with respect to the logits, on random logits."""
    cls_loss = ClsLoss(loss=name, num_classes=NUM_CLASSES).to(device)
    generator = torch.Generator().manual_seed(1)
    shape = (NUM_IMAGES, NUM_ANCHORS, cls_loss.num_logits)
    logits = 2 * torch.randn(shape, generator=generator) - 4
    logits = logits.half().to(device, dtype).requires_grad_()  # numbers that every dtype can hold
    loss = cls_loss([logits], labels(device))["loss_cls"]
    loss.backward()
    assert logits.grad is not None
    return loss.detach(), logits.grad


def every_loss_agrees_with_float64(device: str) -> str:
    worst = 0.0
    for name in losses.LOSSES:
        loss, gradient = loss_and_gradient(name, device, torch.float32)
        expected, expected_gradient = loss_and_gradient(name, "cpu", torch.float64)
        errors = (
            (loss.cpu() - expected).abs() / expected.abs(),
            (gradient.cpu() - expected_gradient).abs().max() / expected_gradient.abs().max(),
        )
        worst = max(worst, *(error.item() for error in errors))
        assert worst < 1e-5, f"{name}: relative error {worst:.1e}"
    return f"{len(losses.LOSSES)} losses, largest relative error {worst:.1e}"


def ranking_losses_give_the_same_bits_twice(device: str) -> str:
    torch.use_deterministic_algorithms(True)
    try:
        for name in RANKING:
            first, second = (loss_and_gradient(name, device, torch.float32) for _ in range(2))
            assert all(map(torch.equal, first, second)), name
    finally:
        torch.use_deterministic_algorithms(False)
    return ", ".join(RANKING)


def the_loss_path_waits_once(device: str) -> str:
    if device == "cpu":
        raise DoesNotApplyError(
            "nothing to wait for on the CPU; a test counts the calls that would wait"
        )
    counts = {}
    for name in RANKING:
        cls_loss = ClsLoss(loss=name, num_classes=NUM_CLASSES).to(device)
        logits = torch.randn(NUM_IMAGES, NUM_ANCHORS, NUM_CLASSES, device=device) - 4
        gt_labels = labels(device)
        for _ in range(2):  # the first call fills caches
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")
                try:
                    cls_loss([logits.requires_grad_()], gt_labels)["loss_cls"].backward()
                finally:
                    torch.cuda.set_sync_debug_mode("default")
        counts[name] = sum("synchroniz" in str(warning.message) for warning in caught)
    assert set(counts.values()) == {1}, counts
    return "1 wait, forward and backward"


def half_precision_stays_finite(device: str) -> str:
    for name in losses.LOSSES:
        for dtype in (torch.float16, torch.bfloat16):
            loss, gradient = loss_and_gradient(name, device, dtype)
            assert loss.isfinite(), (name, dtype)
            assert gradient.isfinite().all(), (name, dtype)
    return f"{len(losses.LOSSES)} losses in float16 and bfloat16"


def a_training_in_mixed_precision_goes_down_and_resumes(device: str) -> str:
    precision = "bfloat16" if device == "cpu" else "float16"
    with tempfile.TemporaryDirectory() as folder:
        options = ["SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.PRECISION", precision]
        options += ["TEST.EVAL_PERIOD", "0", "SOLVER.WARMUP_ITERS", "10"]
        train(folder, "--device", device, *options, "SOLVER.MAX_ITER", "60")
        train(folder, "--device", device, "--resume", *options, "SOLVER.MAX_ITER", "80")
        totals = losses_of(folder)
    assert len(totals) >= 4, totals
    assert totals[-1] < 0.9 * totals[0], totals
    return f"{precision}: total loss {totals[0]:.3f}, then {totals[-1]:.3f}"


def two_gpus_train_as_one(device: str) -> str:
    if torch.cuda.device_count() < 2 or device == "cpu":
        raise DoesNotApplyError(f"it needs two GPUs, and torch sees {torch.cuda.device_count()}")
    totals = []
    for num_gpus in ("1", "2"):
        with tempfile.TemporaryDirectory() as folder:
            options = ["MODEL.CLS_LOSS.GLOBAL_RANKING", "True", "MODEL.RESNETS.NORM", "FrozenBN"]
            options += ["MODEL.FPN.NORM", "", "MODEL.RETINANET.NORM", "", "TEST.EVAL_PERIOD", "0"]
            train(folder, "--num-gpus", num_gpus, *options, "SOLVER.MAX_ITER", "20")
            totals.append(losses_of(folder)[-1])
    assert abs(totals[0] - totals[1]) < 1e-2 * totals[0], totals
    return f"total loss {totals[0]:.4f} on one, {totals[1]:.4f} on two (NCCL, one ranking)"


def train(folder: str, *arguments: str) -> None:
    """Train RetinaNet with the AP-loss on a few digits, in ``folder``."""
    data = Path(folder, "datasets", "digits")
    options = ["--out", data, "--train", "64", "--test", "8"]
    run([sys.executable, "-m", "apdet.data.digits", *options], folder)
    command = [sys.executable, "-m", "apdet.cli", "train", "--config-file"]
    run([*command, "digits/retinanet_ap.yaml", *arguments, "OUTPUT_DIR", "output"], folder)


def run(command: list, folder: str) -> None:
    env = {key: value for key, value in os.environ.items() if key != "DETECTRON2_DATASETS"}
    env["PYTHONPATH"] = os.pathsep.join([str(TOOLS.parent), env.get("PYTHONPATH", "")])
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def losses_of(folder: str) -> list[float]:
    lines = Path(folder, "output", "metrics.json").read_text().splitlines()
    return [line["total_loss"] for line in map(json.loads, lines) if "total_loss" in line]


CHECKS: list[Callable[[str], str]] = [
    every_loss_agrees_with_float64,
    ranking_losses_give_the_same_bits_twice,
    the_loss_path_waits_once,
    half_precision_stays_finite,
    a_training_in_mixed_precision_goes_down_and_resumes,
    two_gpus_train_as_one,
]


def result_of(check: Callable[[str], str], device: str) -> tuple[str, str]:
    """Run a check, and return "ok", "FAILED" or "not here", and a text."""
    try:
        return "ok", check(device)
    except DoesNotApplyError as reason:
        return "not here", str(reason)
    except Exception as error:
        traceback.print_exc()
        return "FAILED", f"{type(error).__name__}: {error}".splitlines()[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--no-benchmarks", action="store_true", help="leave out the two tables")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device here; --device cpu checks what it can without one")
    # cuBLAS repeats its results only with a workspace of fixed size.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    gpu = torch.cuda.get_device_name() if args.device == "cuda" else "no GPU"
    print(f"torch {torch.__version__}, {gpu}", flush=True)
    rows = []
    for check in CHECKS:
        verdict, text = result_of(check, args.device)
        rows.append((check.__name__.replace("_", " "), verdict, text))
        print(*rows[-1], sep=": ", flush=True)
    print("\n" + tabulate(rows, headers=["check", "", "what was seen"]))
    if not args.no_benchmarks:
        for tool in ("benchmark_losses.py", "benchmark_training.py"):
            print(f"\n{tool}", flush=True)
            command = [sys.executable, TOOLS / tool, "--device", args.device]
            subprocess.run(command, check=True)
    if any(verdict == "FAILED" for _, verdict, _ in rows):
        sys.exit("error: some checks failed; see above")


if __name__ == "__main__":
    main()
