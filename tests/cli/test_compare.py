import json
import shlex

import pytest
from conftest import CONFIGS

from apdet.cli import compare
from apdet.data.digits import CLASSES, write_digits

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
        compare.main(arguments)
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
    compare.main([arg for arg in arguments if "broken" not in arg and arg != "--variant"])
    assert (folder / "metrics.json").read_text() == before
    assert "to go" not in capsys.readouterr().out
    with pytest.raises(SystemExit, match="holds a training with other settings"):
        compare.main([*arguments, "SOLVER.MAX_ITER", "5"])


def test_a_dry_run_lists_commands_and_writes_nothing(tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--config-file", CONFIG, "--base-lrs", "0.1,0.3", "--losses", "ap_loss"]
    arguments += ["--variant", "d: MODEL.CLS_LOSS.KWARGS.delta 0.5", "--dry-run"]
    compare.main([*arguments, "--out", str(out), "TEST.EVAL_PERIOD", "7"])
    *commands, total = capsys.readouterr().out.splitlines()
    assert len(commands) == 4
    assert all(command.startswith("apdet train --config-file") for command in commands)
    first = f"apdet train --config-file {CONFIG} --resume TEST.EVAL_PERIOD 7"
    first += " MODEL.CLS_LOSS.NAME ap_loss SOLVER.BASE_LR 0.1 SEED 1"
    assert commands[0] == f"{first} OUTPUT_DIR {shlex.quote(f'{out}/ap_loss/lr_0.1/seed_1')}"
    assert total == "4 trainings, and 4 more with other seeds"
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--losses", "aploss"], "--losses aploss: choose among ap_loss,"),
        *[
            (["--base-lrs", lrs], f"--base-lrs {lrs}: give different numbers above 0 with commas")
            for lrs in ("fast", "nan", "0.1,inf", "0", "0.1,0.10")
        ],
        (["--seeds", "0"], "--seeds and --jobs are at least 1"),
    ],
)
def test_wrong_arguments_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit):
        compare.main(["--config-file", CONFIG, *arguments], prog="apdet compare")
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.startswith("usage: apdet compare ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variant", "d: MODEL.CLS_LOSS.KWARGS.delta 0"], "delta must be > 0, got 0"),
        (["--variant", "d: MODEL.CLS_LOSS.DELTA 1"], "unknown config key MODEL.CLS_LOSS.DELTA"),
        (["--losses", "ap_loss", "--variant", "ap_loss: SEED 1"], "name or folder: ap_loss, ap_l"),
        (["--variant", "a b: SEED 1", "--variant", "a/b: SEED 2"], "name or folder: a b, a/b"),
        (["--variant", "SOLVER.GAMMA 0.1"], "GAMMA 0.1': give it as 'NAME: KEY VALUE"),
        (["--variant", ": SEED 1"], "give it as 'NAME: KEY VALUE"),
        (["--variant", "..: SEED 1"], "give it as 'NAME: KEY VALUE"),
        (["--variant", "a: SEED '1"], "--variant .*: No closing quotation"),
        (
            ["--out", "/dev/null", "--losses", "ap_loss"],
            "^error: /dev/null.*: Not a directory",
        ),
    ],
)
def test_wrong_variants_are_named_before_anything_is_trained(arguments, message):
    with pytest.raises(SystemExit, match=message):
        compare.main(["--config-file", CONFIG, *arguments])
