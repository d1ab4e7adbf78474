"""The dry run reads the training set once, and shows the schedule of the training's processes."""

import pytest
from conftest import CONFIGS

from apdet.config import read_config
from apdet.data import training_images
from apdet.engine.dry_run import dry_run


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
