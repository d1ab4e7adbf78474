from pathlib import Path

import pytest
import torch

from apdet.config import load_config

CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.fixture(autouse=True)
def seeded():
    """Every test draws the same random numbers, whatever ran before it."""
    torch.manual_seed(0)


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


def exit_message(call, *arguments):
    """The message with which a command line ends, ``error: ...`` and no traceback."""
    with pytest.raises(SystemExit) as caught:
        call(*arguments)
    message = str(caught.value)
    assert message.startswith("error: ")
    return message


def weights_in(path):
    return torch.load(path, weights_only=True)["model"]
