"""A small detector that has learnt its training images by heart."""

import json

import pytest
from conftest import CONFIGS, SMALL

from apdet.cli.train import main
from apdet.data.digits import CLASSES, write_digits

LEARN = """SOLVER.MAX_ITER 80 SOLVER.BASE_LR 0.1 SOLVER.WARMUP_ITERS 10 SOLVER.IMS_PER_BATCH 4
    SOLVER.REFERENCE_BATCH_SIZE 0 SOLVER.CHECKPOINT_PERIOD 1000 SEED 1
    DATASETS.TEST ('digits_train',)"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of a training, with its data in the folder "digits" beside it."""
    folder = tmp_path_factory.mktemp("inference")
    write_digits(folder / "digits", num_train=12, num_test=4, size=64, seed=0)
    config = folder / "small.yaml"
    config.write_text(SMALL.format(configs=CONFIGS, output=folder / "output", classes=CLASSES))
    main(["--config-file", str(config), *LEARN.split()])
    return folder / "output"


@pytest.fixture(scope="session")
def images(trained):
    """The images of the evaluation."""
    names = (trained.parent / "digits" / "ImageSets" / "Main" / "train.txt").read_text().split()
    return [trained.parent / "digits" / "JPEGImages" / f"{name}.jpg" for name in names]


@pytest.fixture(scope="session")
def evaluated(trained):
    """The detections of the evaluation, in COCO's format."""
    path = trained / "inference" / "digits_train" / "coco_instances_results.json"
    return json.loads(path.read_text())
