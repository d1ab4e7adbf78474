import json
import statistics
import sys
from pathlib import Path

import pytest
from conftest import CONFIGS
from tabulate import tabulate

from apdet.data.digits import CLASSES, write_digits

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import compare_losses
from compare_losses import Outcome, Run, Variant

CONFIG = str(CONFIGS / "digits" / "retinanet_ap.yaml")


@pytest.fixture
def small(cfg, tmp_path):
    """The path of a config that trains in seconds."""
    write_digits(tmp_path / "digits", num_train=8, num_test=4, size=64, seed=0)
    cfg.merge_from_list(["SOLVER.MAX_ITER", 4, "TEST.EVAL_PERIOD", 2, "SOLVER.BASE_LR", 0.01])
    for entry in cfg.DATASETS.REGISTER:
        entry.update(root=str(tmp_path / "digits"), classes=CLASSES)
    path = tmp_path / "small.yaml"
    path.write_text(cfg.dump())
    return str(path)


def test_losses_are_trained_with_every_seed_once_and_failures_are_shown(small, tmp_path, capsys):
    arguments = ["--config-file", small, "--losses", "ohem_loss", "--seeds", "2", "--jobs", "2"]
    arguments += ["--variant", "broken: DATASETS.TRAIN \"('nowhere',)\""]
    arguments += ["--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="some trainings failed"):
        compare_losses.main(arguments)
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "comparison.json").read_text())
    ohem, broken = report["losses"]
    for seed in (1, 2):
        folder = tmp_path / "out" / "ohem_loss" / "lr_0.01" / f"seed_{seed}"
        results = json.loads((folder / "results.json").read_text())["results"]
        assert ohem["AP"][seed - 1] == results["bbox"]["AP"]
        assert f"SEED: {seed}\n" in (folder / "config.yaml").read_text()
        assert "NAME: ohem_loss" in (folder / "config.yaml").read_text()
        assert ohem["curves"][seed - 1][0] == [1, 4]  # the last one is after the last step
    assert (broken["failed"], broken["AP"]) == (2, [])
    assert "broken, lr 0.01, seed 1: failed, see " in printed
    log = tmp_path / "out" / "broken" / "lr_0.01" / "seed_1" / "comparison.log"
    assert "nowhere" in log.read_text()
    assert (tmp_path / "out" / "comparison.png").read_bytes().startswith(b"\x89PNG")

    before = (folder / "metrics.json").read_text()
    compare_losses.main([arg for arg in arguments if "broken" not in arg and arg != "--variant"])
    assert (folder / "metrics.json").read_text() == before
    assert "to go" not in capsys.readouterr().out
    with pytest.raises(SystemExit, match="holds a training with other settings"):
        compare_losses.main([*arguments, "SOLVER.MAX_ITER", "5"])


def outcome(ap, seconds=60.0):
    metrics = {"AP": ap, "AP50": ap + 20, "AP75": ap + 1}
    return Outcome(metrics, ([9, 19], [ap / 2, ap]), seconds)


def test_the_best_learning_rate_is_that_of_the_highest_ap_failures_aside():
    ap, focal = Variant("ap", ()), Variant("focal", ())
    outcomes = {
        Run(ap, 0.1, 1): outcome(30.0),
        Run(ap, 0.3, 1): outcome(40.0),
        Run(ap, 0.9, 1): Outcome({}, ([], []), None),
        Run(focal, 0.1, 1): outcome(50.0),
        Run(focal, 0.3, 1): outcome(float("nan")),
    }
    assert compare_losses.best_base_lr(ap, outcomes) == 0.3
    assert compare_losses.best_base_lr(focal, outcomes) == 0.1


def test_the_table_has_mean_and_deviation_over_seeds():
    ap = Variant("ap", ())
    values = {1: 40.0, 2: 43.0, 3: 46.0}
    outcomes = {Run(ap, 0.3, seed): outcome(x, 60.0 * seed) for seed, x in values.items()}
    outcomes[Run(ap, 0.1, 1)] = outcome(20.0)
    row = compare_losses.summarise(ap, 0.3, outcomes)
    assert row["AP"] == list(values.values())
    assert row["AP_of_seed_1_by_base_lr"] == {0.3: 40.0, 0.1: 20.0}
    deviation = statistics.stdev(values.values())
    expected = tabulate(
        [["ap", "0.3", f"43.0 ± {deviation:.1f}", "63.0 ± 3.0", "44.0 ± 3.0", "2.0"]],
        ["Training loss", "lr", "AP", "AP50", "AP75", "min"],
        tablefmt="github",
        disable_numparse=True,
    )
    assert compare_losses.table([row]) == expected


def test_a_dry_run_lists_commands_and_writes_nothing(tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--config-file", CONFIG, "--base-lrs", "0.1,0.3", "--losses", "ap_loss"]
    arguments += ["--variant", "d: MODEL.CLS_LOSS.KWARGS.delta 0.5", "--dry-run"]
    compare_losses.main([*arguments, "--out", str(out), "TEST.EVAL_PERIOD", "7"])
    *commands, total = capsys.readouterr().out.splitlines()
    assert len(commands) == 4
    assert all(
        command.startswith("python tools/train_net.py --config-file") for command in commands
    )
    assert total == "4 trainings, and 4 more with other seeds"
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--losses", "aploss"], "--losses aploss: choose among ap_loss,"),
        (["--base-lrs", "fast"], "--base-lrs fast: give numbers with commas"),
        (["--seeds", "0"], "--seeds and --jobs are at least 1"),
    ],
)
def test_wrong_arguments_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit):
        compare_losses.main(["--config-file", CONFIG, *arguments])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variant", "d: MODEL.CLS_LOSS.KWARGS.delta 0"], "delta must be > 0, got 0"),
        (["--variant", "d: MODEL.CLS_LOSS.DELTA 1"], "unknown config key MODEL.CLS_LOSS.DELTA"),
        (["--losses", "ap_loss", "--variant", "ap_loss: SEED 1"], "have the same name: ap_loss"),
    ],
)
def test_wrong_variants_are_named_before_anything_is_trained(arguments, message):
    with pytest.raises(SystemExit, match=message):
        compare_losses.main(["--config-file", CONFIG, *arguments])
