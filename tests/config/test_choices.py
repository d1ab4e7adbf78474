"""Names in a config: those of registries, and those that Detectron2 compares with."""

import inspect

import pytest
from conftest import CONFIGS
from detectron2.config import get_cfg
from detectron2.data import build as data_build
from detectron2.layers import get_norm
from detectron2.modeling import build_anchor_generator, build_backbone
from detectron2.modeling.backbone.fpn import FPN
from detectron2.solver import build as solver_build

from apdet.config import load_config
from apdet.config.choices import CHOICES, REGISTRIES, check_yaml_choices
from apdet.config.nodes import select
from apdet.errors import UserError


@pytest.fixture
def cfg():
    return load_config(CONFIGS / "digits" / "retinanet_ap.yaml")


def test_the_defaults_of_detectron2_and_all_shipped_configs_pass():
    check_yaml_choices(get_cfg())
    for path in CONFIGS.rglob("*.yaml"):
        check_yaml_choices(load_config(path))


@pytest.mark.parametrize("key", [*REGISTRIES, *CHOICES])
def test_a_mistyped_name_is_told_with_what_is_meant(cfg, key):
    right = select(cfg, key)
    wrong = right * 10 if isinstance(right, int) else f"{right}x"
    with pytest.raises(UserError) as error:
        check_yaml_choices(load_config_with(cfg, key, wrong))
    assert str(error.value).startswith(f"{key} is {wrong!r}; ")
    assert str(right) in str(error.value)


def load_config_with(cfg, key, value):
    cfg = cfg.clone()
    cfg.merge_from_list([key, value])
    return cfg


@pytest.mark.parametrize(
    ("key", "module"),
    [
        ("DATALOADER.SAMPLER_TRAIN", data_build),
        ("SOLVER.LR_SCHEDULER_NAME", solver_build),
    ],
)
def test_detectron2_compares_with_each_of_the_names(key, module):
    source = inspect.getsource(module)
    for name in CHOICES[key]:
        assert f'"{name}"' in source


def test_detectron2_has_each_of_the_norms():
    for name in CHOICES["MODEL.FPN.NORM"]:
        get_norm(name, 32)


def test_detectron2_builds_each_depth_and_fuses_in_each_way(cfg):
    for depth in CHOICES["MODEL.RESNETS.DEPTH"]:
        narrow = ["MODEL.RESNETS.RES2_OUT_CHANNELS", 64 if depth < 50 else 256]
        cfg.merge_from_list(["MODEL.RESNETS.DEPTH", depth, *narrow])
        assert isinstance(build_backbone(cfg), FPN)
    for way in CHOICES["MODEL.FPN.FUSE_TYPE"]:
        cfg.merge_from_list(["MODEL.FPN.FUSE_TYPE", way])
        shapes = build_backbone(cfg).output_shape()
    build_anchor_generator(cfg, [shapes[name] for name in cfg.MODEL.RETINANET.IN_FEATURES])
