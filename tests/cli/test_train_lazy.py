"""`apdet train` with a Python config from end to end, on a few small images of digits."""

import builtins
import json
import sys
from pathlib import Path

import pytest
import torch
from conftest import CONFIGS, exit_message, weights_in
from detectron2.config import LazyConfig

from apdet.cli.train import main
from apdet.config import read_config
from apdet.config.lazy import build, load_lazy_config
from apdet.data.digits import CLASSES, write_digits
from apdet.engine import Trainer
from apdet.inference import Detector
from apdet.modeling import named_loss

EXAMPLE = str(CONFIGS / "lazy" / "digits_retinanet_ap.py")

SMALL = """
from detectron2.config import LazyConfig

datasets, model, dataloader, optimizer, lr_multiplier, train = LazyConfig.load(
    {example!r}, ("datasets", "model", "dataloader", "optimizer", "lr_multiplier", "train")
)
for entry in datasets["register"]:
    entry.update(root={root!r}, classes={classes})
dataloader.train.mapper.augmentations[0].shape = [64, 64]
dataloader.train.total_batch_size = 2
dataloader.test.mapper.augmentations[0].update(short_edge_length=64, max_size=64)
optimizer.lr = 0.01
train.update(output_dir={output!r}, device="cpu", max_iter=12, eval_period=0)
train.checkpointer.period = 6
"""

# The same in YAML. Of 12 iterations 1 is for the warm-up, as 100 of 1200 in the example; and its
# factor has all digits, for rounding grows in training.
SMALL_YAML = """
_BASE_: {example}
MODEL: {{DEVICE: cpu}}
DATASETS:
  REGISTER:
    - {{name: digits_train, format: voc, root: {root}, split: train, classes: {classes}}}
    - {{name: digits_test, format: voc, root: {root}, split: test}}
INPUT: {{FIXED_SIZE_TRAIN: [64, 64], MIN_SIZE_TEST: 64, MAX_SIZE_TEST: 64}}
SOLVER:
  IMS_PER_BATCH: 2
  REFERENCE_BATCH_SIZE: 2
  BASE_LR: 0.01
  MAX_ITER: 12
  WARMUP_ITERS: 1
  WARMUP_FACTOR: 0.3333333333333333
TEST: {{EVAL_PERIOD: 0}}
OUTPUT_DIR: {output}
"""


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """Detectron2 leaves its way of importing in place when a config fails, and we our trust."""
    monkeypatch.setattr(builtins, "__import__", builtins.__import__)
    monkeypatch.setattr(named_loss, "_custom_code_is_allowed", False)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "digits"
    write_digits(folder, num_train=12, num_test=4, size=64, seed=0)
    return str(folder)


@pytest.fixture
def output(tmp_path):
    return tmp_path / "output"


@pytest.fixture
def write_config(digits, tmp_path):
    def write(template, example, output, name):
        path, classes = tmp_path / name, list(CLASSES)
        text = template.format(example=example, root=digits, classes=classes, output=str(output))
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def config(write_config, output):
    return write_config(SMALL, EXAMPLE, output, "small.py")


def run(config, *arguments):
    main(["--config-file", config, *map(str, arguments)], suffix=".py")


def error_of(config, *arguments):
    return exit_message(run, config, *arguments)


def results_in(folder):
    return json.loads((folder / "results.json").read_text())["results"]


def test_it_trains_without_a_test_set(config, output):
    run(config, "datasets.test=[]", "train.max_iter=2")
    assert (output / "model_final.pth").exists()
    assert LazyConfig.load(str(output / "config.yaml")).dataloader.test is None


def test_a_validation_set_takes_the_place_of_the_test_set(config, output):
    run(config, "datasets.test=[]", "datasets.val=[digits_test]", "train.max_iter=2")
    assert "digits_test" in (output / "config.yaml").read_text()
    assert "bbox" in results_in(output)


def test_the_model_file_alone_finds_what_the_evaluation_found(config, output, digits):
    run(config, "train.max_iter=2")
    found = output / "inference" / "digits_test" / "coco_instances_results.json"
    expected = [entry["score"] for entry in json.loads(found.read_text()) if entry["image_id"] == 1]
    names = (Path(digits) / "ImageSets" / "Main" / "test.txt").read_text().split()
    detector = Detector(output / "model_final.pth", device="cpu")
    detections = detector(f"{digits}/JPEGImages/{names[0]}.jpg", threshold=0)
    assert detections.scores.tolist() == sorted(expected, reverse=True)
    assert len(expected) > 0


def test_it_trains_as_the_yaml_config_does_and_resumes_and_evaluates(
    config, write_config, output, tmp_path
):
    run(config)
    final, results = weights_in(output / "model_final.pth"), results_in(output)
    assert {"bbox", "voc"} == results.keys()
    for name in ("curves.png", "detections.png", "config.yaml", "model_best.pth"):
        assert (output / name).stat().st_size > 0, name

    elsewhere = tmp_path / "yaml"
    base = CONFIGS / "digits" / "retinanet_ap.yaml"
    main(["--config-file", write_config(SMALL_YAML, base, elsewhere, "small.yaml")])
    expected, middle = weights_in(elsewhere / "model_final.pth"), output / "model_0000005.pth"
    moved = (final["head.cls_score.bias"] - weights_in(middle)["head.cls_score.bias"]).abs().max()
    assert moved > 1e-3
    torch.testing.assert_close(final, expected, rtol=0, atol=0)

    # As if it had been interrupted half-way.
    (output / "model_final.pth").unlink()
    (output / "last_checkpoint").write_text(middle.name)
    run(config, "--resume")
    torch.testing.assert_close(weights_in(output / "model_final.pth"), final, rtol=0, atol=0)

    (output / "results.json").unlink()
    run(config, "--eval-only", "--resume")
    assert results_in(output) == results
    weights = f"train.init_checkpoint={output / 'model_final.pth'}"
    run(config, "--eval-only", weights, f"train.output_dir={tmp_path / 'eval'}")
    assert results_in(tmp_path / "eval") == results

    message = error_of(config)
    assert f"train.output_dir {output} holds a training already: go on with it" in message
    assert "or set train.output_dir to another folder" in message


def test_two_processes_train_as_those_of_the_yaml_config(
    config, write_config, output, tmp_path, monkeypatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # run() sets it; it shall not stay so
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run(config, "--num-processes", 2)
    elsewhere = tmp_path / "yaml"
    base = CONFIGS / "digits" / "retinanet_ap.yaml"
    yaml = write_config(SMALL_YAML, base, elsewhere, "small.yaml")
    main(["--config-file", yaml, "--device", "cpu", "--num-processes", "2"])
    final, expected = (weights_in(d / "model_final.pth") for d in (output, elsewhere))
    torch.testing.assert_close(final, expected, rtol=0, atol=0)
    assert results_in(output) == results_in(elsewhere)


def test_a_dry_run_trains_what_is_overridden_and_writes_nothing(config, output, capsys):
    run(config, "--dry-run", "model.cls_loss.kwargs.delta=0.01")
    sharp = capsys.readouterr().out
    run(config, "--dry-run", "model.cls_loss.loss=focal_loss", "model.cls_loss.kwargs={gamma: 0.}")
    focal = capsys.readouterr().out
    rows = [
        {line.split()[0]: line.split()[-1] for line in text.splitlines() if line.startswith("loss")}
        for text in (sharp, focal)
    ]
    assert rows[0].keys() == rows[1].keys() == {"loss_cls", "loss_box_reg"}
    assert rows[0]["loss_cls"] != rows[1]["loss_cls"]
    for row in (
        "RankingRetinaNet on cpu",
        "12 of digits_train",
        "504 (p3 384, p4 96, p5 24)",
        "12 of 2 images (2.0 epochs)",
        "first images of digits_test",
        "peak memory",
    ):
        assert row in focal
    assert not output.exists()


def test_a_loss_of_ones_own_is_called_by_its_name(config, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loss = "def half(logits, targets):\n    return logits.sum() * 0 + 0.5\n"
    (tmp_path / "losses_of_a_test.py").write_text(loss)
    run(config, "--dry-run", "model.cls_loss.loss='losses_of_a_test:half'")
    assert "0.5000" in capsys.readouterr().out


def test_a_config_survives_being_saved_as_yaml(tmp_path):
    cfg = load_lazy_config(EXAMPLE, ["model.cls_loss.kwargs.delta=0.25"])
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]  # and no pickle
    words = (tmp_path / "config.yaml").read_text().split()
    # A class by its name; an object that was pickled would be "!!python/object".
    tags = {word for word in words if word.startswith("!!")}
    assert tags == {"!!python/name:detectron2.modeling.backbone.resnet.BottleneckBlock"}

    again = LazyConfig.load(str(tmp_path / "config.yaml"))
    assert again.train == cfg.train
    loaded, model = build(again, "model").train(), build(cfg, "model").train()
    assert "delta=0.25" in str(model.cls_loss)
    assert str(loaded) == str(model)
    loaded.load_state_dict(model.state_dict())
    image = {"image": torch.randint(0, 256, (3, 64, 64)).float()}
    with torch.no_grad():
        found, expected = (m.eval()([image])[0]["instances"] for m in (loaded, model))
    assert len(expected) > 10
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=0)


def test_gradients_are_clipped_as_train_says(config):
    def largest_step(*overrides):
        plan = read_config(config, ["optimizer.lr=1", *overrides]).plan()
        weight = torch.nn.Linear(4, 4, bias=False)
        optimizer = plan.build_optimizer(weight)
        before = weight.weight.detach().clone()
        weight.weight.grad = torch.full((4, 4), 100.0)
        optimizer.step()
        return (weight.weight - before).abs().max().item()

    assert largest_step() == pytest.approx(1 / 4, abs=1e-3)  # the norm of 16 equal entries is 1
    by_value = ["train.clip_gradients.clip_type=value", "train.clip_gradients.clip_value=0.5"]
    assert largest_step(*by_value) == pytest.approx(0.5, abs=1e-3)
    in_capitals = "train.clip_gradients={clip_type: value, CLIP_VALUE: 0.25}"  # as 0.1 took them
    assert largest_step("train.clip_gradients=null", in_capitals) == pytest.approx(0.25, abs=1e-3)
    assert largest_step("train.clip_gradients=null") == pytest.approx(100, abs=1e-3)


def test_the_learning_rate_and_the_schedule_follow_the_batch_size(config):
    overrides = ["train.reference_batch_size=8", "train.eval_period=4", "optimizer.lr=0.1"]
    plan = read_config(config, overrides).plan()  # batches of 2
    schedule = plan.schedule
    assert schedule.base_lr == pytest.approx(0.025)
    assert (schedule.max_iter, schedule.eval_period, schedule.checkpoint_period) == (48, 16, 24)
    optimizer = plan.build_optimizer(torch.nn.Linear(2, 2))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.025)
    # What is written to config.yaml is what is trained with, and is not scaled again.
    written = plan.config
    assert (written.train.max_iter, written.optimizer.lr) == (48, pytest.approx(0.025))
    assert written.train.reference_batch_size == 2


def test_several_scales_are_tested_after_the_training(config, output):
    testing = "train.multi_scale_testing={sizes: [64, 96], max_size: 128, flip: true}"
    run(config, testing, "train.max_iter=2")
    results = results_in(output)
    assert {"bbox", "voc", "bbox_TTA", "voc_TTA"} == results.keys()
    single, several = (
        json.loads((output / name / "digits_test" / "coco_instances_results.json").read_text())
        for name in ("inference", "inference_TTA")
    )
    assert single != several
    # A single scale, which is that of ordinary testing, finds the same.
    one = "train.multi_scale_testing={sizes: [64], max_size: 64, flip: false}"
    run(config, "--eval-only", "--resume", one)
    again = json.loads(
        (output / "inference_TTA" / "digits_test" / "coco_instances_results.json").read_text()
    )
    assert again == single


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.max_itr=3"], "the config has no train.max_itr; did you mean train.max_iter?"),
        (["modle.num_classes=3"], "the config has no modle.num_classes"),
        (["train.max_iter"], "'train.max_iter' cannot be read as key=value"),
        (["train.max_iter=many"], "train.max_iter is 'many'; give a number"),
        (["model.gamma=3"], "model cannot be built: TypeError: .*'gamma'"),
        (["model.num_classes=3"], "num_classes=3, but the data sets have 10"),
        (["model.cls_loss.loss=ap"], "cls_loss.loss is 'ap'; choose one of"),
        (["model.cls_loss.kwargs.gamma=2"], "cls_loss.kwargs has 'gamma'; ap_loss takes"),
        (["train.clip_gradients.value=2"], "the config has no train.clip_gradients.value"),
        (["train.clip_gradients={value: 2}"], "train.clip_gradients has value; it takes"),
        (
            ["train.multi_scale_testing={flip: true}"],
            "multi_scale_testing is .*; give sizes and max",
        ),
        (
            ["train.multi_scale_testing=true"],
            "multi_scale_testing is True; give sizes and max_size",
        ),
        (["train.amp={enabled: true, precision: half}"], "train.amp.precision is 'half'"),
        (["train.init_checkpoint=gone.pth"], "gone.pth: no such checkpoint; see train.init_check"),
        (["train.output_dir=/dev/null/output"], "train.output_dir /dev/null/output cannot be"),
        (["datasets.train=[digits_trian]"], "datasets.train names 'digits_trian'"),
        (["--eval-only"], "--eval-only needs train.init_checkpoint, or --resume"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_the_user_can_mend_ends_with_an_error_that_names_it(config, overrides, message):
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        run(config, *overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "config.py: no such config file"),
        ("model = dict(\n", "SyntaxError: '\\(' was never closed .*line 1"),
        ("import os\n1 / 0\n", "config.py, line 2: ZeroDivisionError: division by zero"),
        ("model = dict()\ntrain = dict()\n", "lacks optimizer.params, lr_multiplier, datasets"),
    ],
    ids=["missing", "syntax", "failing", "incomplete"],
)
def test_a_config_file_that_cannot_be_used_is_named(tmp_path, text, message):
    path = tmp_path / "config.py"
    if text:
        path.write_text(text)
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        run(str(path))


def test_yaml_is_not_loaded_since_it_might_run_code(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(f"!!python/object/apply:os.mkdir [{tmp_path}/witness]")
    message = error_of(str(path))
    assert "config.yaml: not a Python config; tools/train_net.py takes YAML configs" in message
    assert not (tmp_path / "witness").exists()


def test_a_diverging_training_names_the_iteration_and_keeps_a_good_checkpoint(config, output):
    message = error_of(
        config, "optimizer.lr=1e30", "lr_multiplier.warmup_factor=1", "train.checkpointer.period=1"
    )
    assert "iteration " in message
    assert "Try a lower optimizer.lr" in message
    last = output / (output / "last_checkpoint").read_text() if any(output.glob("*.pth")) else None
    assert last is None or all(w.isfinite().all() for w in weights_in(last).values())
    assert (str(last) if last else "none yet") in message


def test_help_says_that_a_config_is_code(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "A Python config is run as code: use only files" in capsys.readouterr().out


def test_a_learning_rate_that_is_given_on_a_resume_takes_effect(config):
    run(config, "train.max_iter=2", "optimizer.lr=0.01")
    trainer = Trainer(read_config(config, ["train.max_iter=4", "optimizer.lr=0.002"]).plan())
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 2
    groups = trainer.optimizer.param_groups
    assert {group["initial_lr"] for group in groups} == {0.002}
    factor = trainer.plan.build_lr_scheduler(trainer.optimizer)(2 / 4)
    assert [group["lr"] for group in groups] == [pytest.approx(0.002 * factor)] * len(groups)
    assert all("momentum_buffer" in state for state in trainer.optimizer.state.values())
