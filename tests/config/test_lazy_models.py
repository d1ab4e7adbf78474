"""Each Python config in configs/lazy and its YAML config describe the same training."""

from collections.abc import Sequence

import pytest
import torch
from conftest import CONFIGS
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from apdet.config import load_config, scale_to_batch_size
from apdet.data.mapper import BoxMapper

CASCADE = """MODEL.ROI_HEADS.NAME RankingCascadeROIHeads MODEL.PROPOSAL_GENERATOR.NAME RankingRPN
MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG True"""
# The YAML config that each Python config corresponds to, and what is overridden in it.
CONFIGS_IN_YAML = {
    "retinanet": ("retinanet_ap.yaml", []),
    "ssd": ("ssd_ap.yaml", []),
    "fcos": ("fcos_ap.yaml", []),
    "faster_rcnn": ("faster_rcnn_ap.yaml", []),
    "cascade_rcnn": ("faster_rcnn_ap.yaml", CASCADE.split()),
}
# YAML builds a part of these models twice, so it draws other random numbers.
REDRAWN = ["faster_rcnn", "cascade_rcnn"]


def batch():
    def image(boxes, classes):
        instances = Instances((128, 128))
        instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32))
        instances.gt_classes = torch.tensor(classes)
        return {"image": torch.randint(0, 256, (3, 128, 128)).float(), "instances": instances}

    return [image([[8, 9, 36, 40], [50, 40, 100, 110]], [0, 7]), image([[60, 5, 90, 50]], [3])]


def seeded(function, *arguments):
    torch.manual_seed(5)
    return function(*arguments)


def settings(module):
    """Numbers, texts and lists among the attributes of a module; omegaconf's lists are lists."""
    public = {key: value for key, value in vars(module).items() if not key.startswith("_")}
    values = {k: str(list(v)) if isinstance(v, Sequence) else v for k, v in public.items()}
    values = {k: v for k, v in values.items() if isinstance(v, int | float | str)}
    return {k: v for k, v in values.items() if " object at 0x" not in str(v)}


def load_lazy(name):
    return LazyConfig.load(str(CONFIGS / "lazy" / f"digits_{name}_ap.py"))


def load_yaml(name):
    config, overrides = CONFIGS_IN_YAML[name]
    overrides = ["MODEL.DEVICE", "cpu", "MODEL.RETINANET.NUM_CLASSES", "10", *overrides]
    overrides += ["MODEL.ROI_HEADS.NUM_CLASSES", "10"]
    return load_config(CONFIGS / "digits" / config, overrides)


def test_all_python_configs_are_compared():
    files = {path.stem for path in (CONFIGS / "lazy").glob("*.py")}
    assert files == {f"digits_{name}_ap" for name in CONFIGS_IN_YAML}


@pytest.mark.parametrize("name", CONFIGS_IN_YAML)
def test_lazy_and_yaml_have_the_same_data_and_schedule(name, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", "/elsewhere")
    lazy, cfg = load_lazy(name), scale_to_batch_size(load_yaml(name))
    assert [entry.root for entry in lazy.datasets.register] == ["/elsewhere/digits"] * 2
    assert lazy.datasets.train == list(cfg.DATASETS.TRAIN)
    assert lazy.datasets.test == list(cfg.DATASETS.TEST)
    for is_train in (True, False):
        loader = lazy.dataloader.train if is_train else lazy.dataloader.test
        mapper, expected = instantiate(loader.mapper), BoxMapper(cfg, is_train)
        assert settings(mapper) == settings(expected)
        assert str(mapper.augmentations) == str(expected.augmentations)
    solver, train = cfg.SOLVER, lazy.train
    assert lazy.dataloader.train.total_batch_size == solver.IMS_PER_BATCH
    assert lazy.optimizer.lr == solver.BASE_LR
    assert lazy.optimizer.momentum == solver.MOMENTUM
    assert lazy.optimizer.weight_decay == solver.WEIGHT_DECAY
    assert train.max_iter == solver.MAX_ITER
    assert train.checkpointer.period == solver.CHECKPOINT_PERIOD
    assert train.eval_period == cfg.TEST.EVAL_PERIOD
    assert train.clip_gradients.clip_type == solver.CLIP_GRADIENTS.CLIP_TYPE
    assert train.clip_gradients.clip_value == solver.CLIP_GRADIENTS.CLIP_VALUE
    assert train.seed == cfg.SEED
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    expected = build_lr_scheduler(cfg, optimizer)._multiplier
    multiplier = instantiate(lazy.lr_multiplier)
    for where in (0.0, 0.05, 0.1, 0.3, 0.9):
        assert multiplier(where) == pytest.approx(expected(where), rel=1e-5)


@pytest.mark.parametrize("name", CONFIGS_IN_YAML)
def test_lazy_and_yaml_build_the_same_model(name):
    cfg, lazy = load_yaml(name), load_lazy(name)
    expected, model = seeded(build_model, cfg), seeded(instantiate, lazy.model)
    assert type(model) is type(expected)
    assert str(model) == str(expected)
    for ours, theirs in zip(model.modules(), expected.modules(), strict=True):
        assert settings(ours) == settings(theirs)
    if name in REDRAWN:
        model.load_state_dict(expected.state_dict())
    weights = model.state_dict()
    assert list(weights) == list(expected.state_dict())
    torch.testing.assert_close(weights, expected.state_dict(), rtol=0, atol=0)

    inputs = batch()
    with EventStorage():
        losses, expected_losses = (seeded(m.train(), inputs) for m in (model, expected))
    assert len(expected_losses) >= 2
    assert all(loss > 0 for loss in expected_losses.values())
    torch.testing.assert_close(losses, expected_losses, rtol=0, atol=0)

    with torch.no_grad():
        found, expected_found = (m.eval()(inputs)[0]["instances"] for m in (model, expected))
    assert len(expected_found) > 10
    torch.testing.assert_close(found.scores, expected_found.scores, rtol=0, atol=0)
    boxes, expected_boxes = found.pred_boxes.tensor, expected_found.pred_boxes.tensor
    torch.testing.assert_close(boxes, expected_boxes, rtol=0, atol=0)
