"""An SSD with the AP-loss as a Python config of 0.1: module paths and keys are those of 0.1.

Its VGG-16 has 1/64 of the channels, so that a checkpoint is small.
"""

import os

import detectron2.data.transforms as T  # noqa: N812
from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader, get_detection_dataset_dicts
from detectron2.layers import ShapeSpec
from detectron2.model_zoo import get_config
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler
from omegaconf import OmegaConf

from apdet.data.mapper import BoxMapper
from apdet.data.training import resumable_train_loader, training_dicts
from apdet.evaluation import build_evaluator
from apdet.modeling.cls_loss import ClsLoss
from apdet.modeling.matcher import OverlapMatcher
from apdet.modeling.ssd import SSD, DefaultBoxGenerator, SSDHead
from apdet.modeling.vgg import SSDVGG16

_digits = os.path.join(os.path.dirname(os.path.abspath(__file__)), "digits")

datasets = {
    "register": [
        {
            "name": "digits_train",
            "format": "voc",
            "root": _digits,
            "split": "train",
            "classes": [str(digit) for digit in range(10)],
        },
    ],
    "train": ["digits_train"],
    "test": ["digits_train"],
}

model = L(SSD)(
    backbone=L(SSDVGG16)(in_channels=3, out_features=["conv4_3", "conv7"], width=1 / 64, norm="BN"),
    head=L(SSDHead)(
        input_shape=[L(ShapeSpec)(channels=8), L(ShapeSpec)(channels=16)],
        num_anchors=[4, 4],
        num_logits="${..num_classes}",
        bbox_pred_init_std=0.001,
    ),
    head_in_features=["conv4_3", "conv7"],
    anchor_generator=L(DefaultBoxGenerator)(
        sizes=[[16, 24], [28, 40]], aspect_ratios=[[1.5]], strides=[8, 16], offset=0.5
    ),
    box2box_transform=L(Box2BoxTransform)(weights=[10.0, 10.0, 5.0, 5.0]),
    anchor_matcher=L(OverlapMatcher)(
        thresholds=[0.5], labels=[0, 1], allow_low_quality_matches=True
    ),
    num_classes=10,
    cls_loss=L(ClsLoss)(loss="ap_loss", kwargs={"delta": 0.5}, num_classes="${..num_classes}"),
    smooth_l1_beta=1.0,
    box_reg_loss_weight=0.25,
    test_score_thresh=0.01,
    pixel_mean=[103.53, 116.28, 123.675],
    pixel_std=[57.375, 57.12, 58.395],
)

dataloader = OmegaConf.create(flags={"allow_objects": True})
dataloader.train = L(resumable_train_loader)(
    dataset=L(training_dicts)(names="${datasets.train}"),
    mapper=L(BoxMapper)(
        is_train=True, augmentations=[L(T.Resize)(shape=[64, 64])], image_format="BGR"
    ),
    total_batch_size=4,
    aspect_ratio_grouping=False,
    num_workers=0,
    seed="${train.seed}",
    start_iter=0,
)
dataloader.test = L(build_detection_test_loader)(
    dataset=L(get_detection_dataset_dicts)(names="${datasets.test.0}", filter_empty=False),
    mapper=L(BoxMapper)(
        is_train=False,
        augmentations=[L(T.ResizeShortestEdge)(short_edge_length=64, max_size=64)],
        image_format="BGR",
    ),
    num_workers=0,
)
dataloader.evaluator = L(build_evaluator)(
    dataset_name="${datasets.test.0}",
    output_folder="${train.output_dir}/inference/${datasets.test.0}",
)

optimizer = get_config("common/optim.py").SGD
optimizer.lr = 0.2

lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.3),
    warmup_factor=1 / 3,
    warmup_length=0.2,
)

train = get_config("common/train.py").train
train.device = "cpu"
train.output_dir = "output/ssd_ap"
train.max_iter = 160
train.eval_period = 0
train.checkpointer.period = 156
train.seed = 1
train.clip_gradients = {"clip_type": "norm", "clip_value": 1.0}
