import os
import subprocess
import sys

import pytest
import torch
from oracles import piecewise_step

from apdet.losses import ap_loss
from apdet.losses.ranking.binning import backends
from apdet.losses.ranking.binning.compiled import CompiledScores
from apdet.losses.ranking.binning.grid import Grid
from apdet.losses.ranking.binning.gridded import GriddedScores
from apdet.losses.ranking.binning.search import SearchedScores
from apdet.losses.ranking.rank_sums import Windows
from apdet.losses.ranking.steps import piecewise_step as fast_step


def loss_and_grad(logits, targets, **kwargs):
    logits = logits.detach().clone().requires_grad_()
    loss = ap_loss(logits, targets, **kwargs)
    (grad,) = torch.autograd.grad(loss, logits)
    return loss.detach(), grad


def detector_scores(num_scores, num_pos, dtype=torch.float32, spread=1.0):
    logits = spread * torch.randn(num_scores) - 4.6
    targets = torch.zeros(num_scores, dtype=torch.int8)
    targets[torch.randperm(num_scores)[:num_pos]] = 1
    targets[torch.randperm(num_scores)[: num_scores // 50]] = -1
    logits[targets == 1] += 0.5
    return logits.to(dtype), targets


def ap_in_chunks(logits, targets, delta=1.0):
    """The AP-loss from dense steps, some positives at a time, in float64."""
    s = logits.double()
    grad = torch.zeros_like(s)
    neg = s[targets == 0]
    pos, order = s[targets == 1].sort()
    max_precision, errors, grad_neg = s.new_zeros(()), [], torch.zeros_like(neg)
    for chunk in pos.split(4):
        rank_pos = piecewise_step(pos - chunk[:, None], delta).sum(1) + 0.5
        above = piecewise_step(neg - chunk[:, None], delta)
        rank_neg = above.sum(1)
        precision = (rank_pos / (rank_pos + rank_neg)).cummax(0).values.maximum(max_precision)
        max_precision = precision[-1]
        grad_neg += ((1 - precision) / rank_neg.clamp(min=1e-30)) @ above
        errors.append(1 - precision)
    errors = torch.cat(errors)
    grad[(targets == 1).nonzero()[:, 0][order]] = -errors
    grad[targets == 0] = grad_neg
    return errors.mean(), grad / len(pos)


@pytest.mark.parametrize(
    ("dtype", "num_scores"),
    [
        (torch.float32, 2_000_000),
        (torch.float16, 200_000),
        (torch.bfloat16, 200_000),
        (torch.float64, 200_000),
    ],
)
def test_many_scores_are_ranked_exactly(backend, dtype, num_scores):
    logits, targets = detector_scores(num_scores, 50, dtype)
    loss, grad = loss_and_grad(logits, targets)
    expected_loss, expected_grad = ap_in_chunks(logits, targets)
    torch.testing.assert_close(loss.double(), expected_loss, rtol=0, atol=1e-7)
    error = (grad.double() - expected_grad).abs().max() / expected_grad.abs().max()
    assert error <= max(torch.finfo(dtype).eps, 1e-9)


@pytest.mark.parametrize("spread", [0.0, 1e-6, 30.0, 1e4])
@pytest.mark.parametrize("num_pos", [1, 3, 2000])
def test_all_backends_agree(monkeypatch, num_pos, spread):
    logits, targets = detector_scores(300_000, num_pos, torch.float64, spread)
    monkeypatch.setattr(backends, "MIN_SCORES_FOR_GRID", 1 << 62)
    expected_loss, expected_grad = loss_and_grad(logits, targets)
    monkeypatch.setattr(backends, "MIN_SCORES_FOR_GRID", 0)
    for setting in ("0", "1"):
        monkeypatch.setenv("APDET_NATIVE", setting)
        loss, grad = loss_and_grad(logits, targets)
        torch.testing.assert_close(loss, expected_loss, rtol=0, atol=1e-9)
        error = (grad - expected_grad).abs().max() / expected_grad.abs().max()
        assert error < 1e-9


def test_scores_below_all_windows_count_nowhere(backend):
    logits, targets = detector_scores(300_000, 20)
    logits[targets == 1] += 100  # a hundredth of a percent of the scores lies above any window
    logits[:30] = 200
    logits[30:60] = logits[targets == 1].min() - 1.0  # exactly at the first corner
    loss, grad = loss_and_grad(logits, targets)
    expected_loss, expected_grad = ap_in_chunks(logits, targets)
    torch.testing.assert_close(loss.double(), expected_loss, rtol=0, atol=1e-7)
    torch.testing.assert_close(grad.double(), expected_grad, rtol=1e-6, atol=1e-12)
    assert not grad[(logits < 90) & (targets == 0)].any()


@pytest.mark.parametrize("num_edges", [2, 3000, 100_000])
def test_scores_beyond_all_edges_are_never_searched_for(num_edges):
    for shift in (0.0, 0.1, -4.6, 1e4 / 3, -1e6):
        edges = (torch.randn(num_edges, dtype=torch.float64) + shift).sort().values
        beyond = torch.tensor([edges[0].item() - 0.1, edges[-1].item() + 0.1]).double()
        assert Grid.over(edges, 8).share_beside_edge(beyond) == 0
        assert Grid.over(edges, 8).share_beside_edge(edges) == 1


@pytest.mark.parametrize("backend", [GriddedScores, CompiledScores])
def test_scores_that_nearly_all_lie_beside_an_edge_are_searched_for(backend):
    # One positive far off makes the cells so wide that a single one holds all other scores.
    scores = torch.randn(10_000)
    pos = torch.cat([torch.randn(20), torch.tensor([1e9])]).double()
    windows = Windows(pos.sort().values, fast_step(1.0))
    binned, plain = (
        backend(scores, Grid.over(windows.edges, 8)),
        SearchedScores(scores, windows.edges),
    )
    torch.testing.assert_close(
        windows.rank_sums(binned.histogram()), windows.rank_sums(plain.histogram())
    )
    lines = windows.gradient_lines(torch.rand(21, dtype=torch.float64))
    out = [x.evaluate(lines, torch.empty_like(scores)) for x in (binned, plain)]
    torch.testing.assert_close(*out)


@pytest.mark.parametrize("backend", [SearchedScores, GriddedScores, CompiledScores])
def test_lines_can_be_read_off_without_counting_first(backend):
    scores = torch.randn(1000, dtype=torch.float64)
    pos = torch.randn(5, dtype=torch.float64)
    windows = Windows(pos, fast_step(0.5))
    binned = backend(
        scores, windows.edges if backend is SearchedScores else Grid.over(windows.edges, 8)
    )
    lines = windows.gradient_lines(torch.ones(5, dtype=torch.float64))
    read = binned.evaluate(lines, torch.empty_like(scores))
    torch.testing.assert_close(read, piecewise_step(scores - pos[:, None], 0.5).sum(0))


def test_the_same_input_gives_the_same_bits(backend):
    logits, targets = detector_scores(400_000, 500)
    loss, grad = loss_and_grad(logits, targets)
    for _ in range(3):
        again, grad_again = loss_and_grad(logits, targets)
        assert torch.equal(again, loss)
        assert torch.equal(grad_again, grad)


def test_logits_and_targets_are_left_as_they_were(backend):
    logits, targets = detector_scores(5000, 20, torch.float64)
    before = logits.clone(), targets.clone()
    loss_and_grad(logits, targets)
    torch.testing.assert_close((logits, targets), before, rtol=0, atol=0)


def test_numba_is_used_where_it_is_and_can_be_switched_off(monkeypatch):
    scores, edges = (
        torch.full((backends.MIN_SCORES_FOR_GRID,), 0.5),
        torch.tensor([0.0, 1.0]).double(),
    )
    monkeypatch.delenv("APDET_NATIVE", raising=False)
    assert isinstance(backends.bin_scores(scores, edges), CompiledScores)
    monkeypatch.setenv("APDET_NATIVE", "0")
    assert isinstance(backends.bin_scores(scores, edges), GriddedScores)
    assert isinstance(backends.bin_scores(scores[1:], edges), SearchedScores)
    # Where all scores lie beside an edge, a grid helps nobody.
    assert isinstance(backends.bin_scores(scores - 0.5, edges), SearchedScores)


@pytest.mark.parametrize("kind", ["missing", "broken"])
def test_without_a_numba_that_works_the_losses_run_in_plain_torch(tmp_path, kind):
    hide = "sys.modules['numba'] = None"
    if kind == "broken":
        (tmp_path / "numba.py").write_text("raise ImportError('numba needs an older numpy')")
        hide = f"sys.path.insert(0, {str(tmp_path)!r})"
    code = f"""
import sys
{hide}
import torch
from apdet.losses import ap_loss
from apdet.losses.ranking.binning import numba_backend
assert not numba_backend.is_available()
logits = torch.randn(100_000, requires_grad=True)
ap_loss(logits, (torch.rand(100_000) < 1e-3).int()).backward()
assert logits.grad.abs().sum() > 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("numba needs an older numpy" in done.stderr) == (kind == "broken")


@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_number_of_torchs_threads_stays_as_it_is(threads):
    code = """
import torch
from apdet.losses import ap_loss
logits = torch.randn(1_000_000, requires_grad=True)
print(torch.get_num_threads())
ap_loss(logits, (torch.rand(1_000_000) < 1e-3).to(torch.int8)).backward()
print(torch.get_num_threads())
"""
    env = os.environ | {"OMP_NUM_THREADS": threads, "APDET_NATIVE": "1"}
    output = subprocess.check_output([sys.executable, "-c", code], env=env, text=True)
    assert output.split() == [threads, threads]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the peak of a process")
@pytest.mark.parametrize("use_numba", ["0", "1"])
def test_extra_memory_is_at_most_that_of_focal_loss(use_numba):
    # In a process of its own, since compiled code and caches of other tests would count.
    code = """
import ctypes, sys
from pathlib import Path
import torch
from apdet.losses import ap_loss
from fvcore.nn import sigmoid_focal_loss

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])

def backward(size):
    logits = torch.randn(size).requires_grad_()
    targets = torch.zeros(size, dtype=torch.int8)
    targets[:1000] = 1
    if sys.argv[1] == "focal":
        targets = targets.to(logits.dtype)
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # memory that is free must not count as in use
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is in use now
    before = peak()
    if sys.argv[1] == "focal":
        sigmoid_focal_loss(logits, targets, alpha=0.25, gamma=2, reduction="sum").backward()
    else:
        ap_loss(logits, targets).backward()
    return peak() - before

backward(100_000)  # what is loaded or compiled at the first call does not count
print(backward(4_000_000))
"""
    used = [
        int(
            subprocess.check_output(
                [sys.executable, "-c", code, loss], env=os.environ | {"APDET_NATIVE": use_numba}
            )
        )
        for loss in ("ap", "focal")
    ]
    # Focal loss keeps its gradient and some temporaries; so the peak was measured.
    assert used[1] > 2 * 4 * 4_000_000 / 1024
    assert used[0] <= used[1]
