import json
import logging
import os
import signal
from pathlib import Path

import pytest
import torch
from detectron2.utils.logger import setup_logger

from apdet.config import load_config
from apdet.data.digits import CLASSES, write_digits

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"


# A shell starts a command in the background with Ctrl-C ignored, and its children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Slow tests come first, so that several processes end at about the same time."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def seeded():
    """Every test draws the same random numbers, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def own_log():
    """Every test sets up its log anew. That of an earlier test writes to a terminal now closed."""
    setup_logger.cache_clear()
    for name in ("apdet", "detectron2", "fvcore"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


@pytest.fixture
def cfg(tmp_path):
    """A RetinaNet of few weights for 64 x 64 images of three classes."""
    return load_config(
        CONFIGS / "digits" / "retinanet_ap.yaml",
        f"""MODEL.DEVICE cpu MODEL.RETINANET.NUM_CLASSES 3 MODEL.FPN.OUT_CHANNELS 16
        MODEL.RESNETS.WIDTH_PER_GROUP 8 MODEL.RESNETS.STEM_OUT_CHANNELS 8
        MODEL.RESNETS.RES2_OUT_CHANNELS 16
        INPUT.FIXED_SIZE_TRAIN (64,64) INPUT.MIN_SIZE_TEST 64 INPUT.MAX_SIZE_TEST 64
        SOLVER.IMS_PER_BATCH 2 SOLVER.REFERENCE_BATCH_SIZE 0
        OUTPUT_DIR {tmp_path}/output""".split(),
    )


# A training of seconds; to be formatted with `configs`, `classes` and `output`.
SMALL = """
_BASE_: {configs}/digits/retinanet_ap.yaml
MODEL:
  DEVICE: cpu
  FPN: {{OUT_CHANNELS: 16}}
  RESNETS: {{WIDTH_PER_GROUP: 8, STEM_OUT_CHANNELS: 8, RES2_OUT_CHANNELS: 16}}
DATASETS:
  REGISTER:
    - {{name: digits_train, format: voc, root: digits, split: train, classes: {classes}}}
    - {{name: digits_test, format: voc, root: digits, split: test}}
INPUT: {{FIXED_SIZE_TRAIN: [64, 64], MIN_SIZE_TEST: 64, MAX_SIZE_TEST: 64}}
SOLVER:
  IMS_PER_BATCH: 2
  REFERENCE_BATCH_SIZE: 2
  BASE_LR: 0.001
  MAX_ITER: 6
  CHECKPOINT_PERIOD: 2
TEST: {{EVAL_PERIOD: 0}}
OUTPUT_DIR: {output}
"""


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A folder with a few small images of digits, in its folder "digits"."""
    folder = tmp_path_factory.mktemp("data")
    write_digits(folder / "digits", num_train=12, num_test=4, size=64, seed=0)
    return folder


@pytest.fixture
def config(digits, tmp_path):
    """The path of a config whose OUTPUT_DIR is ``tmp_path / "output"``."""
    path = digits / "small.yaml"
    path.write_text(SMALL.format(configs=CONFIGS, output=tmp_path / "output", classes=CLASSES))
    return str(path)


@pytest.fixture
def output(tmp_path):
    return tmp_path / "output"


@pytest.fixture
def full_file():
    """A file that cannot be written to, because the disk is full; macOS does not have one."""
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    return "/dev/full"


def exit_message(call, *arguments):
    """The message with which a command line ends, ``error: ...`` and no traceback."""
    with pytest.raises(SystemExit) as caught:
        call(*arguments)
    message = str(caught.value)
    assert message.startswith("error: ")
    return message


def weights_in(path):
    return torch.load(path, weights_only=True)["model"]


# A training that learns its images by heart, in seconds.
LEARN = """SOLVER.MAX_ITER 80 SOLVER.BASE_LR 0.1 SOLVER.WARMUP_ITERS 10 SOLVER.IMS_PER_BATCH 4
    SOLVER.REFERENCE_BATCH_SIZE 0 SOLVER.CHECKPOINT_PERIOD 1000 SEED 1
    DATASETS.TEST ('digits_train',)"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of such a training, with its data in the folder "digits" beside it."""
    folder = tmp_path_factory.mktemp("inference")
    write_digits(folder / "digits", num_train=12, num_test=4, size=64, seed=0)
    config = folder / "small.yaml"
    config.write_text(SMALL.format(configs=CONFIGS, output=folder / "output", classes=CLASSES))
    from apdet.cli.train import main

    main(["--config-file", str(config), *LEARN.split()])
    return folder / "output"


@pytest.fixture(scope="session")
def images(trained):
    """The images on which ``trained`` was trained and evaluated."""
    names = (trained.parent / "digits" / "ImageSets" / "Main" / "train.txt").read_text().split()
    return [trained.parent / "digits" / "JPEGImages" / f"{name}.jpg" for name in names]


@pytest.fixture(scope="session")
def evaluated(trained):
    """The detections of the evaluation of ``trained``, in COCO's format."""
    path = trained / "inference" / "digits_train" / "coco_instances_results.json"
    return json.loads(path.read_text())
