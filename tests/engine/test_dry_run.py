"""The dry run reads the training set once, and shows the schedule of the training's processes."""

import json

import pytest
from conftest import CONFIGS
from detectron2.data import DatasetCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.utils.env import seed_all_rng

from apdet.config import read_config
from apdet.data import training_images
from apdet.engine import Trainer
from apdet.engine.dry_run import dry_run
from apdet.errors import UserError


@pytest.fixture
def num_reads(monkeypatch):
    """Counts how often data sets are read in full."""
    reads = []
    read = training_images.get_detection_dataset_dicts
    monkeypatch.setattr(
        training_images,
        "get_detection_dataset_dicts",
        lambda *args, **kwargs: reads.append(args) or read(*args, **kwargs),
    )
    training_images._load.cache_clear()
    return reads


def test_a_dry_run_of_a_yaml_config_reads_the_training_set_once(config, num_reads):
    dry_run(read_config(config).plan())
    assert len(num_reads) == 1


def test_loading_the_dicts_and_batches_of_a_python_config_reads_the_training_set_once(
    digits, num_reads, monkeypatch
):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(digits))
    example = CONFIGS / "lazy" / "digits_retinanet_ap.py"
    plan = read_config(example, ["datasets.test=[]"], device="cpu").plan()
    dicts = plan.load_train_dicts()
    for start_iter in (0, 3):
        plan.build_train_loader(seed=1, start_iter=start_iter)
    assert len(dicts) == 12
    assert len(num_reads) == 1


def test_a_dry_run_shows_the_schedule_of_the_number_of_processes_of_the_training(config):
    overrides = ["SOLVER.REFERENCE_BATCH_SIZE", "0", "SOLVER.REFERENCE_WORLD_SIZE", "1"]
    summary = dry_run(read_config(config, overrides).plan(num_processes=3))
    assert summary["iterations"].startswith("2 of 6 images")  # 6 of 2 images for one process
    assert summary["learning rate"] == "0.003"


def test_a_dry_run_resumes_and_evaluates_as_the_training_does(config, output, capsys):
    with pytest.raises(UserError, match=r"--eval-only needs MODEL\.WEIGHTS"):
        dry_run(read_config(config).plan(), eval_only=True)
    plan = read_config(config).plan()
    Trainer(plan).train()
    before = files_in(output)
    assert "finished iterations" not in dry_run(plan)
    assert dry_run(plan, resume=True)["finished iterations"] == "6"
    summary = dry_run(plan, resume=True, eval_only=True)
    assert "training images" not in summary
    assert summary["first images of digits_test"].endswith("detections")
    assert files_in(output) == before


def files_in(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_the_first_step_of_a_dry_run_is_that_of_the_training(config, output):
    seed_all_rng(3)  # the initial weights
    losses = dry_run(read_config(config, ["SEED", "3"]).plan())
    seed_all_rng(3)
    Trainer(read_config(config, ["SEED", "3", "SOLVER.MAX_ITER", "1"]).plan()).train()
    lines = map(json.loads, (output / "metrics.json").read_text().splitlines())
    trained = {key: value for line in lines for key, value in line.items()}
    for name in ("loss_cls", "loss_box_reg", "total_loss"):
        assert losses[name] == f"{trained[name]:.4f}"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "()"], "MIN_SIZES"),
        (["SOLVER.BASE_LR", "nan"], "SOLVER.BASE_LR"),
    ],
)
def test_a_dry_run_finds_what_would_stop_the_training(config, overrides, message):
    with pytest.raises(UserError, match=message):
        dry_run(read_config(config, overrides).plan())


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_dry_run_reads_images_from_all_over_the_data_sets(config, digits, split):
    names = (digits / "digits" / "ImageSets" / "Main" / f"{split}.txt").read_text().split()
    path = digits / "digits" / "JPEGImages" / f"{names[-1]}.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])  # its header is whole
    try:
        with pytest.raises(UserError, match=names[-1]):
            dry_run(read_config(config).plan())
    finally:
        path.write_bytes(whole)


def test_a_dry_run_evaluates_a_few_images_and_leaves_nothing_in_the_catalogs(config, monkeypatch):
    measured = []
    evaluate = COCOEvaluator.evaluate
    monkeypatch.setattr(
        COCOEvaluator,
        "evaluate",
        lambda self: measured.append(evaluate(self)) or measured[-1],
    )
    plan = read_config(config).plan()
    before = set(DatasetCatalog.list())
    summary = dry_run(plan)
    assert len(summary["first images of digits_test"].split(", ")) == 4
    assert "AP" in measured[0]["bbox"]
    assert set(DatasetCatalog.list()) == before
