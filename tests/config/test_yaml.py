import pytest
import torch
from conftest import CONFIGS
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

import apdet.modeling  # noqa: F401
from apdet.config import add_apdet_config, load_config, scale_to_batch_size
from apdet.errors import UserError
from apdet.modeling.cls_loss import cls_loss_name

LEAVES = sorted(path for path in CONFIGS.glob("*/*.yaml") if not path.name.startswith("Base-"))
TWO_STAGE = [path for path in LEAVES if "rcnn" in path.stem]
DENSE = [path for path in LEAVES if path not in TWO_STAGE]

# Of a cell of each level; six anywhere else.
NUM_ANCHORS = {
    "ssd300": [4, 6, 6, 6, 4, 4],
    "ssd512": [4, 6, 6, 6, 6, 4, 4],
    "digits/ssd": [4, 4, 4, 4],
    "fcos": [1] * 5,
    "digits/fcos": [1] * 3,
}


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", DENSE, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_config_of_a_dense_detector_builds_a_model_that_makes_a_step(path):
    # The whole VGG-16 would take most of the test's time.
    cfg = load_config(path, ["MODEL.DEVICE", "cpu", "MODEL.VGG.WIDTH", "0.125"])
    model = build_model(cfg).train()
    kind = path.stem.partition("_")[0]
    num_levels = len(cfg.MODEL.RETINANET.IN_FEATURES)
    expected = NUM_ANCHORS.get(f"{path.parent.name}/{kind}", NUM_ANCHORS.get(kind))
    assert model.anchor_generator.num_anchors == (expected or [6] * num_levels)
    assert f"output/{path.parent.name}/{path.stem}" == cfg.OUTPUT_DIR
    assert f"{path.stem.rpartition('_')[2]}_loss" == cfg.MODEL.CLS_LOSS.NAME

    optimizer = build_optimizer(cfg, model)
    side = 300 if kind.startswith("ssd") else 64
    instances = Instances((side, side))
    instances.gt_boxes = Boxes(torch.tensor([[5.0, 5, 50, 55]]))
    instances.gt_classes = torch.tensor([1])
    image = torch.randint(0, 256, (3, side, side)).float()
    before = {name: parameter.clone() for name, parameter in model.head.state_dict().items()}
    losses = model([{"image": image, "instances": instances}])
    sum(losses.values()).backward()
    optimizer.step()
    assert all(loss.isfinite() for loss in losses.values())
    after = model.head.state_dict()
    assert all(parameter.isfinite().all() for parameter in after.values())
    assert any((after[name] != before[name]).any() for name in after)


@pytest.mark.parametrize("path", TWO_STAGE, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_config_of_a_two_stage_detector_builds_a_model_that_makes_a_step(path):
    cfg = load_config(path, ["MODEL.DEVICE", "cpu", "MODEL.ROI_BOX_HEAD.FC_DIM", "64"])
    model = build_model(cfg).train()
    *names, loss = path.stem.split("_")
    assert f"output/{path.parent.name}/{path.stem}" == cfg.OUTPUT_DIR
    assert cls_loss_name(model) == {"ap": "ap_loss", "ce": "Detectron2's own loss"}[loss]
    assert model.roi_heads.positive_fraction == {"ap": 1.0, "ce": 0.25}[loss]
    assert hasattr(model.roi_heads, "mask_head") == (names[0] == "mask")
    assert hasattr(model.roi_heads, "num_cascade_stages") == (names[0] == "cascade")
    assert model.proposal_generator.anchor_generator.num_anchors[0] == 3
    if names[-1].isdigit():
        num_rois = int(names[-1])
        assert model.roi_heads.batch_size_per_image == num_rois
        assert model.proposal_generator.post_nms_topk[True] >= num_rois

    instances = Instances((64, 64))
    instances.gt_boxes = Boxes(torch.tensor([[5.0, 5, 50, 55]]))
    instances.gt_classes = torch.tensor([1])
    instances.gt_masks = BitMasks(torch.ones(1, 64, 64, dtype=torch.bool))
    before = [weight.clone() for weight in model.roi_heads.parameters()]
    with EventStorage():
        losses = model([{"image": torch.rand(3, 64, 64) * 255, "instances": instances}])
    sum(losses.values()).backward()
    build_optimizer(cfg, model).step()
    assert all(loss.isfinite() for loss in losses.values())
    after = list(model.roi_heads.parameters())
    assert all(weight.isfinite().all() for weight in after)
    assert any((a != b).any() for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize(
    ("folder", "num_images", "epochs"),
    [
        ("VOC", 16_551, (160, 110, 140)),
        ("VOC12", 21_503, (160, 110, 140)),
        ("COCO", 117_266, (100, 60, 80)),
    ],
)
def test_the_schedules_are_the_papers_in_epochs(folder, num_images, epochs):
    for path in (path for path in DENSE if path.parent.name == folder):
        solver = load_config(path).SOLVER
        iterations = [solver.MAX_ITER, *solver.STEPS]
        actual = [i * solver.IMS_PER_BATCH / num_images for i in iterations]
        assert actual == pytest.approx(epochs, abs=1e-3)
        assert (solver.BASE_LR, solver.IMS_PER_BATCH) == (0.001, 16)


def test_anything_but_plain_yaml_is_refused_before_it_runs(tmp_path):
    witness = tmp_path / "witness"
    attack = f"!!python/object/apply:os.mkdir [{witness}]"
    evil = write(tmp_path / "evil.yaml", f"OUTPUT_DIR: {attack}\n")
    heir = write(tmp_path / "heir.yaml", "_BASE_: evil.yaml\n")
    for path in (evil, heir):
        with pytest.raises(UserError, match=r"evil\.yaml: not a safe YAML file"):
            load_config(path)
    assert not witness.exists()


def test_code_on_the_command_line_is_just_a_string(tmp_path):
    path = write(tmp_path / "c.yaml", "SEED: 1\n")
    cfg = load_config(path, ["OUTPUT_DIR", "__import__('os').getcwd()"])
    assert cfg.OUTPUT_DIR == "__import__('os').getcwd()"


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (
            "SOLVER: {BASE_LRR: 1.0}",
            [],
            r"c\.yaml: unknown config key SOLVER\.BASE_LRR; did you mean",
        ),
        ("SEED: 1", ["SOLVER.BASE_LRR", "1"], r"unknown config key .*BASE_LRR"),
        ("SEED: 1", ["SEED"], "pairs of KEY VALUE, got 'SEED'"),
        ("SEED: many", [], r"c\.yaml: .*SEED"),
        ("SEED: [1", [], r"c\.yaml: not a safe YAML file"),
        ("- SEED", [], r"c\.yaml: a config file must hold a mapping"),
        ("DATASETS: null", [], r"c\.yaml: DATASETS is empty; give a mapping"),
        ("", [], r"c\.yaml: a config file must hold a mapping"),
        ("_BASE_: gone.yaml", [], r"_BASE_ 'gone\.yaml': no such config file"),
    ],
)
def test_a_config_in_error_is_named_with_its_key(tmp_path, text, overrides, message):
    with pytest.raises(UserError, match=message):
        load_config(write(tmp_path / "c.yaml", text), overrides)


def test_paths_of_data_sets_start_from_the_file_that_names_them(tmp_path):
    write(
        tmp_path / "base" / "base.yaml",
        "DATASETS: {REGISTER: [{name: a, format: coco, json: ../a.json, images: /data/a}]}",
    )
    leaf = write(tmp_path / "leaf" / "leaf.yaml", "_BASE_: ../base/base.yaml")
    (entry,) = load_config(leaf).DATASETS.REGISTER
    assert entry == {
        "name": "a",
        "format": "coco",
        "json": str(tmp_path / "base" / ".." / "a.json"),
        "images": "/data/a",
    }


def test_keywords_of_the_loss_can_be_set_on_the_command_line(tmp_path):
    path = write(tmp_path / "c.yaml", "SEED: 1")
    cfg = load_config(path, ["MODEL.CLS_LOSS.KWARGS.delta", "0.5"])
    assert cfg.MODEL.CLS_LOSS.KWARGS.delta == 0.5


def test_the_schedule_follows_the_batch_size():
    cfg = load_config(CONFIGS / "VOC" / "retinanet_R50_512_ap.yaml", ["SOLVER.IMS_PER_BATCH", "4"])
    scaled = scale_to_batch_size(cfg)
    assert pytest.approx(0.00025) == scaled.SOLVER.BASE_LR
    assert scaled.SOLVER.MAX_ITER == 4 * cfg.SOLVER.MAX_ITER
    assert tuple(4 * step for step in cfg.SOLVER.STEPS) == scaled.SOLVER.STEPS
    assert scaled.TEST.EVAL_PERIOD == 4 * cfg.TEST.EVAL_PERIOD
    assert scale_to_batch_size(scaled) == scaled
    assert cfg.SOLVER.BASE_LR == 0.001


def test_without_our_keys_touched_the_defaults_are_detectron2s():
    ours, theirs = get_cfg(), get_cfg()
    add_apdet_config(ours)

    def check(theirs, ours):
        for key, value in theirs.items():
            if isinstance(value, dict):
                check(value, ours[key])
            else:
                assert ours[key] == value

    check(theirs, ours)
