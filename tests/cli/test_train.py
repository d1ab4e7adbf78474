"""`tools/train_net.py` from end to end, on a few small images of digits."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import torch
import yaml
from conftest import CONFIGS, SMALL, exit_message, weights_in
from detectron2.modeling import build_model

from apdet.cli.train import main
from apdet.config import load_config
from apdet.data.digits import CLASSES

ROOT = Path(__file__).parents[2]


def train(config, *arguments):
    return main(["--config-file", config, *map(str, arguments)])


def error_of(config, *arguments):
    return exit_message(train, config, *arguments)


def test_a_training_leaves_its_results_and_pictures(config, output):
    train(config, "SOLVER.MAX_ITER", 20, "TEST.EVAL_PERIOD", 10)
    for name in [
        "curves.png",
        "detections.png",
        "model_final.pth",
        "model_best.pth",
        "config.yaml",
    ]:
        assert (output / name).stat().st_size > 0, name
    results = json.loads((output / "results.json").read_text())["results"]
    assert {"AP", "AP50", "AP75", "APs", "AP-3"} <= set(results["bbox"])
    assert {"mAP50_area", "mAP50_11point"} <= set(results["voc"])
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    logged = {key for line in lines for key in line}
    assert {"loss_cls", "loss_box_reg", "lr", "bbox/AP", "ranking/AP"} <= logged
    assert {"ranking/num_positives", "ranking/num_relevant_negatives"} <= logged
    assert (output / "log.txt").read_text().count(" ranking: AP ") == 1  # every 20th iteration


def test_evaluating_the_final_checkpoint_gives_the_results_of_the_training(
    config, output, tmp_path
):
    train(config)
    trained = json.loads((output / "results.json").read_text())["results"]
    final, elsewhere = output / "model_final.pth", tmp_path / "eval"
    train(config, "--eval-only", "MODEL.WEIGHTS", final, "OUTPUT_DIR", elsewhere)
    assert json.loads((elsewhere / "results.json").read_text())["results"] == trained


def test_the_same_data_in_cocos_format_trains_and_measures_the_same(config, output, tmp_path):
    train(config)
    entries = [
        f"{{'name': 'coco_digits_{split}', 'format': 'coco', 'images': '{images}',"
        f" 'json': '{images.parent}/coco_{split}.json'}}"
        for images in [Path(config).parent / "digits" / "JPEGImages"]
        for split in ("train", "test")
    ]
    elsewhere = tmp_path / "coco"
    train(
        config, "OUTPUT_DIR", elsewhere, "DATASETS.REGISTER", f"[{', '.join(entries)}]",
        "DATASETS.TRAIN", "('coco_digits_train',)", "DATASETS.TEST", "('coco_digits_test',)",
    )  # fmt: skip
    voc, coco = (
        json.loads((d / "results.json").read_text())["results"] for d in (output, elsewhere)
    )
    assert coco["bbox"] == voc["bbox"]
    assert "voc" not in coco


def test_killed_and_resumed_it_ends_with_the_weights_of_an_uninterrupted_training(
    config, output, tmp_path
):
    straight = tmp_path / "straight"
    augmented = ["INPUT.SSD_AUGMENTATION", "True", "INPUT.RANDOM_FLIP", "horizontal"]
    train(config, "OUTPUT_DIR", straight, *augmented, "SOLVER.MAX_ITER", 12)

    command = [sys.executable, str(ROOT / "tools" / "train_net.py"), "--config-file", config]
    # Checkpoints so often that the kill may well hit one being written.
    often = [*augmented, "SOLVER.CHECKPOINT_PERIOD", "1", "SOLVER.MAX_ITER", "12"]
    process = subprocess.Popen([*command, *often], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (output / "model_0000003.pth").exists():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (output / "model_final.pth").exists()

    train(config, "--resume", *often)
    resumed, expected = (weights_in(d / "model_final.pth") for d in (output, straight))
    torch.testing.assert_close(resumed, expected, rtol=0, atol=0)


def test_an_evaluation_leaves_the_record_of_the_training(config, output):
    train(config, "SOLVER.BASE_LR", 0.002)
    trained = (output / "config.yaml").read_text()
    train(config, "--eval-only", "--resume", "TEST.DETECTIONS_PER_IMAGE", 7)
    assert (output / "config.yaml").read_text() == trained
    evaluated = yaml.safe_load((output / "inference" / "config.yaml").read_text())
    assert evaluated["TEST"]["DETECTIONS_PER_IMAGE"] == 7


def test_a_finished_training_is_not_overwritten(config, output):
    train(config)
    before = (output / "model_final.pth").stat().st_mtime_ns
    assert "holds a training already: go on with it by --resume" in error_of(config)
    train(config, "--resume")  # evaluates, and trains no further
    assert (output / "model_final.pth").stat().st_mtime_ns == before


def test_a_diverging_training_names_the_iteration_and_keeps_a_good_checkpoint(config, output):
    message = error_of(config, "SOLVER.BASE_LR", 1e30, "SOLVER.WARMUP_ITERS", 0)
    assert "iteration " in message
    assert "SOLVER.BASE_LR" in message
    last = output / (output / "last_checkpoint").read_text() if any(output.glob("*.pth")) else None
    assert last is None or all(w.isfinite().all() for w in weights_in(last).values())
    assert (str(last) if last else "none yet") in message


def test_weights_that_turn_nan_end_the_training_before_they_are_saved(config, output, monkeypatch):
    from apdet.engine.trainer import Trainer

    run_step = Trainer.run_step

    def poisoned_step(self):
        run_step(self)
        if self.iter == 3:
            with torch.no_grad():
                next(self.model.parameters()).fill_(float("nan"))

    monkeypatch.setattr(Trainer, "run_step", poisoned_step)
    message = error_of(config)
    assert "iteration 3: " in message
    assert "weights are NaN or infinite" in message
    assert (output / "last_checkpoint").read_text() == "model_0000001.pth"
    assert all(w.isfinite().all() for w in weights_in(output / "model_0000001.pth").values())


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_it_trains_in_mixed_precision_on_the_cpu(config, output, precision):
    # Steps enough for float16's loss scale to come down to where gradients are finite.
    arguments = ["SOLVER.MAX_ITER", 16, "SOLVER.AMP.ENABLED", True]
    train(config, *arguments, "SOLVER.AMP.PRECISION", precision)
    first, last = (weights_in(output / f"model_{name}.pth") for name in ("0000001", "final"))
    bias = "head.cls_score.bias"
    assert last[bias].dtype == torch.float32
    assert last[bias].isfinite().all()
    assert not torch.equal(first[bias], last[bias])


def test_the_precision_may_change_when_a_training_is_resumed(config, output):
    train(config, "SOLVER.MAX_ITER", 2)
    mixed = ["--resume", "SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION"]
    for number, settings in enumerate(([*mixed, "bfloat16"], [*mixed, "float16"], ["--resume"])):
        train(config, *settings, "SOLVER.MAX_ITER", 4 + 2 * number)
        assert (output / f"model_000000{3 + 2 * number}.pth").exists()


def test_a_dry_run_says_what_a_training_would_be_and_writes_nothing(config, output, capsys):
    train(config, "--dry-run")
    summary = capsys.readouterr().out
    for text in (
        "RankingRetinaNet on cpu",
        "12 of digits_train",
        "504 (p3 384, p4 96, p5 24)",
        "6 of 2 images (1.0 epochs)",
        "loss_cls",
        "peak memory",
        "nothing was written",
    ):
        assert text in summary
    assert not output.exists()


def test_an_image_that_is_cut_short_is_named(config, digits, output, tmp_path):
    image = sorted((digits / "digits" / "JPEGImages").glob("*.jpg"))[0]
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    try:
        assert image.name in error_of(config)
    finally:
        image.write_bytes(whole)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MODEL.CLS_LOSS.NAME", "ap"], "MODEL.CLS_LOSS.NAME is 'ap'; choose one of"),
        (["MODEL.CLS_LOSS.KWARGS.gamma", "2"], "KWARGS has 'gamma'; ap_loss takes"),
        (["SOLVER.LR", "1"], "unknown config key"),
        (["MODEL.WEIGHTS", "gone.pth"], "gone.pth: no such checkpoint"),
        (["--eval-only"], "--eval-only needs MODEL.WEIGHTS"),
        (["OUTPUT_DIR", "/dev/null/output"], "OUTPUT_DIR /dev/null/output cannot be written to"),
        (["SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.PRECISION", "half"], "PRECISION is 'half'"),
        (["DATASETS.TRAIN", "('digits_trian',)"], "digits_trian"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_the_user_can_mend_ends_with_an_error_that_names_it(config, arguments, message):
    assert message in error_of(config, *arguments)


def test_a_checkpoint_of_another_class_count_lists_the_weights(config, output, tmp_path):
    train(config, "SOLVER.MAX_ITER", 1)
    other = tmp_path / "other"
    message = error_of(
        config, "MODEL.WEIGHTS", output / "model_final.pth", "OUTPUT_DIR", other,
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "[[1.0]]",
    )  # fmt: skip
    assert "head.cls_score.weight: (60, 16, 3, 3) there, (20, 16, 3, 3) here" in message
    assert "MODEL.ALLOW_WEIGHT_MISMATCH" in message


def test_a_config_that_is_written_to_the_output_can_be_trained_from(config, output, tmp_path):
    train(config, "SOLVER.MAX_ITER", 1)
    written = output / "config.yaml"
    assert os.path.isabs(yaml.safe_load(written.read_text())["DATASETS"]["REGISTER"][0]["root"])
    train(str(written), "OUTPUT_DIR", tmp_path / "again")
    first, again = (weights_in(d / "model_final.pth") for d in (output, tmp_path / "again"))
    torch.testing.assert_close(first, again, rtol=0, atol=0)


# Without chance in the images, so that batches can be compared.
NO_AUGMENTATION = ["INPUT.RANDOM_FLIP", "none", "INPUT.SSD_AUGMENTATION", False]


def losses_in(output):
    lines = map(json.loads, (output / "metrics.json").read_text().splitlines())
    return [line["total_loss"] for line in lines if "total_loss" in line]


def test_two_processes_train_as_one_on_the_joined_batch(config, output, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # train() sets it; it shall not stay so
    options = [*NO_AUGMENTATION, "SOLVER.IMS_PER_BATCH", 4, "SOLVER.REFERENCE_BATCH_SIZE", 4]
    options += ["SOLVER.MAX_ITER", 5, "SOLVER.BASE_LR", 0.05, "SEED", 3, "SOLVER.WARMUP_ITERS", 0]
    options += ["MODEL.CLS_LOSS.GLOBAL_RANKING", True, "MODEL.RESNETS.NORM", "FrozenBN"]
    options += ["MODEL.FPN.NORM", "", "MODEL.RETINANET.NORM", ""]
    train(config, *options, "OUTPUT_DIR", output / "one")
    train(config, "--device", "cpu", "--num-processes", 2, *options, "OUTPUT_DIR", output / "two")
    one, two = (weights_in(output / run / "model_final.pth") for run in ("one", "two"))
    start = weights_in(output / "one" / "model_0000001.pth")
    assert any((one[name] - start[name]).abs().max() > 1e-3 for name in one)
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=1e-6)
    results = [json.loads((output / run / "results.json").read_text()) for run in ("one", "two")]
    assert results[0].keys() == results[1].keys()


def test_an_error_in_several_processes_is_told_once_without_a_traceback(config, output):
    command = [sys.executable, ROOT / "tools" / "train_net.py", "--config-file", config]
    command += ["--device", "cpu", "--num-processes", "2", "SOLVER.IMS_PER_BATCH", "3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("error: SOLVER.IMS_PER_BATCH is 3, which 2 processes cannot") == 1
    assert "Traceback" not in done.stderr


TWO_MACHINES = ["--num-machines", 2, "--dist-url", "tcp://localhost:50000"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-gpus", "64"], "--num-gpus 64, but torch sees .*--num-processes N"),
        (["--device", "cuda", "--num-processes", "2"], "--num-processes is for --device cpu"),
        (["--num-machines", "2"], "--num-machines needs --dist-url"),
        (["--num-processes", "-1"], "--num-processes -1: give a number from 1 on"),
        (["--num-gpus", "0"], "--num-gpus 0: give a number from 1 on"),
        (["--num-machines", "0"], "--num-machines 0: give a number from 1 on"),
        ([*TWO_MACHINES, "--machine-rank", "7"], "machines from 0 to 1"),
        ([*TWO_MACHINES, "--machine-rank", "-1"], "machines from 0 to 1"),
        (["--machine-rank", "1"], "--machine-rank 1, but --num-machines is 1"),
        (["--dist-url", "foo://host:1"], "--dist-url is 'foo://host:1'; give tcp://"),
        (["--dist-url", "tcp://host"], "with a port from 1 to 65535"),
        (["--dist-url", "tcp://host:70000"], "with a port from 1 to 65535"),
        (["--connect-timeout", "0"], "--connect-timeout 0: give a number above 0"),
    ],
)
def test_processes_that_cannot_be_are_refused(config, arguments, message):
    assert re.search(message, exit_message(train, config, *arguments))


TTA = ["TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", "(64, 96)"]


def test_several_scales_are_for_the_last_evaluation_and_stand_beside_the_single_one(
    config, output, tmp_path
):
    train(config, *TTA, "TEST.EVAL_PERIOD", 3)
    results = json.loads((output / "results.json").read_text())["results"]
    assert {"bbox", "voc", "bbox_TTA", "voc_TTA"} == results.keys()
    assert results["bbox_TTA"].keys() == results["bbox"].keys()
    evaluated = [
        {key for key in ("bbox/AP", "bbox_TTA/AP") if key in line}
        for line in map(json.loads, (output / "metrics.json").read_text().splitlines())
    ]
    assert [keys for keys in evaluated if keys] == [{"bbox/AP"}, {"bbox/AP", "bbox_TTA/AP"}]

    final, elsewhere = output / "model_final.pth", tmp_path / "eval"
    train(config, "--eval-only", "MODEL.WEIGHTS", final, "OUTPUT_DIR", elsewhere, *TTA)
    assert json.loads((elsewhere / "results.json").read_text())["results"] == results
    single, several = (
        json.loads((elsewhere / name / "digits_test" / "coco_instances_results.json").read_text())
        for name in ("inference", "inference_TTA")
    )
    assert single != several


def test_one_scale_of_the_config_gives_the_results_without_tta(config, output):
    train(config, *TTA, "TEST.AUG.MIN_SIZES", "(64,)", "TEST.AUG.FLIP", False)
    single, several = (
        (output / name / "digits_test" / "coco_instances_results.json").read_text()
        for name in ("inference", "inference_TTA")
    )
    assert json.loads(single)
    assert single == several


def test_scales_that_are_missing_are_told_before_the_training(config, output):
    assert "TEST.AUG.MIN_SIZES is []" in error_of(config, *TTA, "TEST.AUG.MIN_SIZES", "()")
    assert not (output / "metrics.json").exists()


def test_evaluating_on_the_test_set_of_voc_2012_names_the_archive_to_submit(
    config, output, tmp_path, monkeypatch
):
    root = tmp_path / "data" / "VOC2012"
    (root / "ImageSets" / "Main").mkdir(parents=True)
    shutil.copytree(Path(config).parent / "digits" / "JPEGImages", root / "JPEGImages")
    ids = sorted(path.stem for path in (root / "JPEGImages").iterdir())[:3]
    (root / "ImageSets" / "Main" / "test.txt").write_text("\n".join(ids))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    weights = tmp_path / "weights.pth"
    model = build_model(load_config(config, ["MODEL.RETINANET.NUM_CLASSES", "20"]))
    torch.save({"model": model.state_dict()}, weights)

    train(
        config, "--eval-only", "MODEL.WEIGHTS", weights, "DATASETS.REGISTER", "[]",
        "DATASETS.TRAIN", "()", "DATASETS.TEST", "('voc_2012_test',)",
    )  # fmt: skip

    folder = output / "inference" / "voc_2012_test"
    archive = folder / "results_VOC2012_test.tar.gz"
    assert f"Submit {archive}" in (output / "log.txt").read_text()
    with tarfile.open(archive) as files:
        lines = [line for name in files for line in files.extractfile(name).read().splitlines()]
        assert len(files.getnames()) == 20
    predictions = json.loads((folder / "coco_instances_results.json").read_text())
    assert len(lines) == len(predictions) > 0
    assert {line.split()[0].decode() for line in lines} <= set(ids)


@pytest.mark.parametrize("by_key", [False, True])
def test_fine_tuning_takes_over_the_classes_that_both_data_sets_have(
    config, digits, output, tmp_path, by_key
):
    train(config)
    old, tuned = torch.load(output / "model_final.pth", weights_only=True), tmp_path / "tuned"
    assert old["classes"] == list(CLASSES)
    start = tmp_path / "start.pth"
    torch.save({"model": old["model"]} if by_key else old, start)

    # What follows is in the other order, has a class more, and learns nothing.
    classes = [*reversed(CLASSES), "ten"]
    other = digits / "other.yaml"
    other.write_text(SMALL.format(configs=CONFIGS, output=tuned, classes=classes))
    options = ["MODEL.WEIGHTS", start, "SOLVER.BASE_LR", 1e-30]
    options += ["MODEL.WEIGHTS_CLASSES", list(CLASSES)] if by_key else []
    train(str(other), "--dry-run", *options)
    for run, iterations in ([], 1), (["--resume"], 2):
        train(str(other), *run, *options, "SOLVER.MAX_ITER", iterations)
        new = weights_in(tuned / "model_final.pth")
        for name in ("head.cls_score.weight", "head.cls_score.bias"):
            theirs, ours = old["model"][name].unflatten(0, (6, 10)), new[name].unflatten(0, (6, 11))
            torch.testing.assert_close(ours[:, :10], theirs.flip(1), rtol=0, atol=0)
    train(str(other), "--eval-only", "--resume", *options)  # loads them as they are
    message = error_of(str(other), "--dry-run", "MODEL.WEIGHTS_CLASSES", "digits_tain")
    assert "MODEL.WEIGHTS_CLASSES is 'digits_tain', which is no data set" in message
