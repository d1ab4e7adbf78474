"""The benchmark tools, on few scores: what they time is right, and they write what they say."""

import json
import sys
from pathlib import Path

import pytest
import torch

from apdet.losses import ap_loss

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import benchmark_losses  # noqa: E402
import benchmark_training  # noqa: E402


@pytest.mark.parametrize("phase", ["early", "late"])
def test_the_loop_is_the_ap_loss(phase):
    logits, targets = benchmark_losses.make_scores(5000, 60, phase, "cpu")
    loop, _ = benchmark_losses.loop_of_algorithm_1(logits, targets, num_rows=60)
    logits.requires_grad_()
    ap_loss(logits, targets).backward()
    torch.testing.assert_close(loop, logits.grad, rtol=1e-4, atol=1e-8)


def test_sizes_are_those_of_the_batches_they_stand_for():
    # Levels of 64, 32, 16, 8 and 4 cells a side; and of 100, 50, 25, 13 and 7.
    assert benchmark_losses.SIZES["voc"].num_scores() == 5456 * 6 * 20 * 8
    assert benchmark_losses.SIZES["coco"].num_scores() == 13343 * 6 * 80 * 8


def test_a_benchmark_of_losses_writes_its_rows_and_its_plot(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("APDET_NATIVE", "1")  # the benchmark sets it; it shall not stay so
    monkeypatch.setattr(torch, "compile", lambda function: function)
    monkeypatch.setitem(benchmark_losses.SIZES, "voc", benchmark_losses.Size(64, 2, 1))
    arguments = ["--sizes", "voc", "--positives", "20", "--sweep", "5", "20", "--repeats", "1"]
    benchmark_losses.main([*arguments, "--out", str(tmp_path / "out")])
    results = json.loads((tmp_path / "out" / "losses.json").read_text())
    named = {(row["loss"], row["phase"]) for row in results["cases"]}
    for loss in ("focal, fvcore", "ap_loss", "ap_loss, numba", "pnp_loss", "auc_loss"):
        assert {(loss, "early"), (loss, "late")} <= named
    assert {row["num_positives"] for row in results["sweep"]} == {5, 20}
    for row in results["cases"]:
        assert row["seconds"] > 0
        assert (row["over_focal"] == 1) == (row["loss"] == "focal, fvcore")
    assert (tmp_path / "out" / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert "time over eager focal" in capsys.readouterr().out


def test_a_benchmark_of_training_compares_iterations(cfg, tmp_path, capsys):
    path = tmp_path / "small.yaml"
    path.write_text(cfg.dump())
    arguments = ["--config-file", str(path), "--images", "1", "--side", "64", "--repeats", "1"]
    benchmark_training.main([*arguments, "--losses", "ap_loss", "--out", str(tmp_path / "out")])
    rows = json.loads((tmp_path / "out" / "training.json").read_text())["losses"]
    assert [row["loss"] for row in rows] == ["focal_loss", "ap_loss"]
    assert rows[0]["over_focal"] == 1
    assert rows[1]["over_focal"] == pytest.approx(rows[1]["seconds"] / rows[0]["seconds"])
    assert "ap_loss" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("tool", [benchmark_losses, benchmark_training])
def test_a_device_that_is_not_there_is_named(tool, capsys):
    with pytest.raises(SystemExit):
        tool.parse_args(["--device", "cuda"])
    assert "torch sees no CUDA device" in capsys.readouterr().err
