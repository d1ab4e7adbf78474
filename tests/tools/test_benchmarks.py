"""The benchmarks, on few scores: they time the right things and write what they say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TOOLS = Path(__file__).parent.parent.parent / "tools"


def run(tool, *arguments):
    command = [sys.executable, TOOLS / tool, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_benchmark_of_losses_writes_its_rows_and_its_plot(tmp_path):
    arguments = ["--sizes", "tiny", "--repeats", 1, "--no-compile", "--out", tmp_path / "out"]
    # The loop of Algorithm 1 is timed on 10 positives, so here on all of them.
    done = run("benchmark_losses.py", *arguments, "--positives", 10, "--sweep", 5, 20)
    assert done.returncode == 0, done.stderr
    assert "time over eager focal" in done.stdout
    assert (tmp_path / "out" / "losses.png").read_bytes().startswith(b"\x89PNG")
    results = json.loads((tmp_path / "out" / "losses.json").read_text())
    assert {row["num_positives"] for row in results["sweep"]} == {5, 20}
    named = {(row["loss"], row["phase"]) for row in results["cases"]}
    for loss in ("focal, fvcore", "ap_loss", "ap_loss, numba", "pnp_loss", "auc_loss"):
        assert {(loss, "early"), (loss, "late")} <= named
    for row in results["cases"]:
        assert row["seconds"] > 0
        assert (row["over_focal"] == 1) == (row["loss"] == "focal, fvcore")
        # Levels of 8, 4, 2, 1 and 1 cells a side, 6 anchors a cell, 2 classes.
        assert row["num_scores"] == (64 + 16 + 4 + 1 + 1) * 6 * 2
    loops = [row for row in results["cases"] if row["loss"].startswith("AP, loop")]
    assert {row["phase"] for row in loops} == {"early", "late"}
    assert all(row["difference_from_ap_loss"] < 1e-4 for row in loops)


def test_sizes_are_those_of_the_batches_they_stand_for():
    text = " ".join(run("benchmark_losses.py", "--help").stdout.split())
    # Levels of 64, 32, 16, 8 and 4 cells a side; and of 100, 50, 25, 13 and 7.
    assert f"voc: {5456 * 6 * 20 * 8:,}" in text
    assert f"coco: {13343 * 6 * 80 * 8:,}" in text


def test_a_benchmark_of_training_compares_iterations(cfg, tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(cfg.dump())
    arguments = ["--config-file", path, "--images", 1, "--side", 64, "--repeats", 1]
    arguments += ["--losses", "ap_loss", "--out", tmp_path / "out"]
    done = run("benchmark_training.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert "ap_loss" in done.stdout
    rows = json.loads((tmp_path / "out" / "training.json").read_text())["losses"]
    assert [row["loss"] for row in rows] == ["focal_loss", "ap_loss"]
    assert rows[0]["over_focal"] == 1
    assert rows[1]["over_focal"] == pytest.approx(rows[1]["seconds"] / rows[0]["seconds"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("tool", ["benchmark_losses.py", "benchmark_training.py"])
def test_a_device_that_is_not_there_is_named(tool):
    done = run(tool, "--device", "cuda")
    assert done.returncode == 2
    assert "torch sees no CUDA device" in done.stderr


@pytest.mark.parametrize("arguments", [["voc"], ["coco", "--masks"]])
def test_a_benchmark_of_data_measures_each_step_of_a_start(arguments):
    done = run("benchmark_data.py", "--images", 20, "--classes", 3, "--format", *arguments)
    assert done.returncode == 0, done.stderr
    table = done.stdout.partition("\nstep ")[2]
    steps = ("parsing", "reading annotations", "image headers", "register", "training list")
    assert all(f"\n{step}" in table for step in (*steps, "first batch"))
