import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from apdet import losses

WORKER = Path(__file__).parent / "rank_in_process.py"

# How many positives and negatives each process holds.
SHARES = {
    "equal": [(5, 200), (5, 200), (5, 200)],
    "unequal": [(1, 300), (40, 10), (7, 2)],
    "one without positives": [(9, 100), (0, 100), (3, 50)],
    "one without any score": [(0, 0), (9, 100), (4, 100)],
    "positives here, negatives there": [(5, 0), (0, 80), (0, 80)],
    "no positives at all": [(0, 50), (0, 60), (0, 70)],
    "many": [(30, 50_000), (20, 40_000), (3, 60_000)],
}
LOSSES = [
    ("ap_loss", {}),
    ("ap_loss", {"interpolate": False, "step": "sigmoid"}),
    ("auc_loss", {}),
    ("pnp_loss", {"variant": "I_b"}),
]


def share(num_pos, num_neg):
    targets = torch.tensor([1] * num_pos + [0] * num_neg + [-1] * min(num_neg, 3))
    targets = targets[torch.randperm(len(targets))].to(torch.int8)
    return 2 * torch.randn(len(targets), dtype=torch.float64), targets


def rank_together(folder, world_size, cases):
    """What each process returned for each case, [process][case]."""
    torch.save(cases, folder / "cases.pt")
    processes = [
        subprocess.Popen(
            [sys.executable, WORKER, folder, str(rank), str(world_size)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for rank in range(world_size)
    ]
    try:
        assert [process.wait(timeout=100) for process in processes] == [0] * world_size
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt") for rank in range(world_size)]


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_rank_as_one_that_holds_the_whole_batch(tmp_path, world_size):
    cases = [
        (name, kwargs, [share(*counts) for counts in shares[:world_size]])
        for shares in SHARES.values()
        for name, kwargs in LOSSES
    ]
    results = rank_together(tmp_path, world_size, cases)
    for case, of_processes in zip(cases, zip(*results, strict=True), strict=True):
        name, kwargs, shares = case
        logits = torch.cat([logits for logits, _ in shares]).requires_grad_()
        targets = torch.cat([targets for _, targets in shares])
        expected_loss = getattr(losses, name)(logits, targets, **kwargs)
        (expected_grad,) = torch.autograd.grad(expected_loss, logits)
        for loss, _ in of_processes:
            torch.testing.assert_close(loss, expected_loss.detach(), rtol=1e-12, atol=1e-12)
        # Averaged over processes, as DistributedDataParallel does, it is that of the whole.
        grad = torch.cat([grad for _, grad in of_processes]) / world_size
        torch.testing.assert_close(grad, expected_grad, rtol=1e-9, atol=1e-12)


def test_a_process_whose_scores_are_not_finite_stops_all_with_its_name(tmp_path):
    good, bad = share(3, 20), share(3, 20)
    bad[0][4] = float("nan")
    cases = [("ap_loss", {}, [good, bad]), ("ap_loss", {}, [good, share(1, 5)])]
    results = rank_together(tmp_path, 2, cases)
    assert results[0][0] == "the logits or targets of process 1 are at fault"
    assert results[1][0].startswith("1 of 26 logits are NaN")
    assert results[0][1][0] == results[1][1][0] > 0  # and they can go on together
