"""What users of 0.1 have still works: checkpoints, configs and losses; see tests/artefacts_0_1."""

import builtins
import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from conftest import weights_in
from detectron2.config import LazyConfig, instantiate

from apdet.cli.train import main
from apdet.modeling import named_loss

ARTEFACTS = Path(__file__).parents[1] / "artefacts_0_1"
EXPECTED = json.loads((ARTEFACTS / "expected.json").read_text())
# The config and the checkpoint of each training.
TRAININGS = {
    "retinanet_ghm": ("retinanet_ghm.yaml", "model_0000085.pth"),
    "ssd_ap": ("ssd_ap_lazy.py", "model_0000155.pth"),
}
# Rounding differs from machine to machine, and grows over the iterations of a training.
ROUNDING = {"rtol": 1e-3, "atol": 1e-4}


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """Undo what Python configs and custom code leave behind."""
    monkeypatch.setattr(builtins, "__import__", builtins.__import__)
    monkeypatch.setattr(named_loss, "_custom_code_is_allowed", False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(ARTEFACTS)  # where custom_losses.py is found
    yield
    sys.modules.pop("custom_losses", None)


def checkpoint_of(name):
    return ARTEFACTS / name / TRAININGS[name][1]


def train(config, *arguments, output, weights=""):
    """Call the command with a config of 0.1, a checkpoint to start from, and keys to set."""
    keys = (
        [f"train.output_dir={output}", f"train.init_checkpoint={weights}"]
        if config.endswith(".py")
        else ["OUTPUT_DIR", output, "MODEL.WEIGHTS", weights]
    )
    main(["--config-file", config, *map(str, [*arguments, *keys])])


def results_in(folder):
    results = json.loads((folder / "results.json").read_text())["results"]
    return {name: value for part in results.values() for name, value in part.items()}


def last_in(folder, key):
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    return [line[key] for line in lines if key in line][-1]


def weights_as_in_0_1(path):
    """The weights by their names of 0.1; only the state of a loss has another name since."""
    return {
        re.sub(r"^cls_loss\..*moving_counts$", "cls_loss.moving_counts", key): weight
        for key, weight in weights_in(path).items()
    }


def checksum(weights):
    digest = hashlib.sha256()
    for key in sorted(weights):
        digest.update(key.encode())
        digest.update(weights[key].contiguous().numpy().tobytes())
    return digest.hexdigest()


def is_the_machine_that_recorded():
    """Whether rounding is that of the machine on which 0.1 gave its results."""
    cpuinfo = Path("/proc/cpuinfo")
    models = [
        line.partition(":")[2].strip()
        for line in (cpuinfo.read_text().splitlines() if cpuinfo.exists() else [])
        if line.startswith("model name")
    ]
    recorded = EXPECTED["recorded_with"]
    return [torch.__version__, *models[:1]] == [recorded["torch"], recorded["cpu"]]


def assert_measures(results, expected):
    for name, value in expected.items():
        # If rounding swaps two of the few detections, an AP changes by a step.
        assert results[name] == pytest.approx(value, abs=1.0), name


@pytest.mark.parametrize("name", TRAININGS)
def test_a_checkpoint_evaluates_as_it_did(name, tmp_path):
    train(TRAININGS[name][0], "--eval-only", weights=checkpoint_of(name), output=tmp_path)
    assert_measures(results_in(tmp_path), EXPECTED[name]["evaluated"])


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_is_resumed_as_it_was(name, tmp_path):
    checkpoint, expected = checkpoint_of(name), EXPECTED[name]["resumed"]
    shutil.copy(checkpoint, tmp_path)
    (tmp_path / "last_checkpoint").write_text(checkpoint.name)
    train(TRAININGS[name][0], "--resume", output=tmp_path)

    assert last_in(tmp_path, "total_loss") == pytest.approx(expected["total_loss"], rel=1e-3)
    start, weights = weights_in(checkpoint), weights_as_in_0_1(tmp_path / "model_final.pth")
    assert max((weights[key] - start[key]).abs().max() for key in expected["weights"]) > 1e-3
    for key, values in expected["weights"].items():
        ours = weights[key].flatten()
        torch.testing.assert_close(ours, torch.tensor(values), **ROUNDING, msg=key)
    assert_measures(results_in(tmp_path), expected["results"])
    if is_the_machine_that_recorded():
        assert checksum(weights) == expected["sha256"]


@pytest.mark.parametrize("loss", EXPECTED["custom_losses"])
def test_a_loss_that_names_what_it_wants_is_given_it(loss, tmp_path):
    expected = EXPECTED["custom_losses"][loss]
    train(
        "retinanet_ghm.yaml", "--allow-custom-code", "MODEL.CLS_LOSS.NAME", f"custom_losses:{loss}",
        "SOLVER.REFERENCE_BATCH_SIZE", 4, "SOLVER.MAX_ITER", 1,
        # The checkpoint has the moving counts of 30 bins, this loss has 5 bins.
        "MODEL.ALLOW_WEIGHT_MISMATCH", loss == "rare_scores_loss",
        weights=checkpoint_of("retinanet_ghm"), output=tmp_path,
    )  # fmt: skip
    assert last_in(tmp_path, "loss_cls") == pytest.approx(expected["loss_cls"], rel=1e-4)
    weights = weights_as_in_0_1(tmp_path / "model_final.pth")
    bias = torch.tensor(expected["bias"])
    torch.testing.assert_close(weights["head.cls_score.bias"], bias, **ROUNDING)
    if "moving_counts" in expected:
        counts = torch.tensor(expected["moving_counts"])
        torch.testing.assert_close(weights["cls_loss.moving_counts"], counts, **ROUNDING)


def test_the_config_that_a_training_wrote_evaluates_its_checkpoint(tmp_path):
    name = "retinanet_ghm"
    train(f"{name}/config.yaml", "--eval-only", weights=checkpoint_of(name), output=tmp_path)
    assert_measures(results_in(tmp_path), EXPECTED[name]["evaluated"])


def test_the_python_config_that_a_training_wrote_builds_the_model_of_the_checkpoint():
    cfg = LazyConfig.load(str(ARTEFACTS / "ssd_ap" / "config.yaml"))
    model, weights = instantiate(cfg.model), weights_in(checkpoint_of("ssd_ap"))
    model.load_state_dict(weights)
    # By the path that the class had.
    cfg.model.backbone._target_ = "apdet.modeling.vgg.SSDVGG16"
    again = instantiate(cfg.model)
    assert type(again.backbone) is type(model.backbone)
    again.load_state_dict(weights)
