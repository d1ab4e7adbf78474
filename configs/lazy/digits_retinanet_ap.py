"""The training of configs/digits/retinanet_ap.yaml as a LazyConfig, where any part can be changed.

python tools/lazyconfig_train_net.py --config-file configs/lazy/digits_retinanet_ap.py
"""

import detectron2.data.transforms as T  # noqa: N812
from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader, get_detection_dataset_dicts
from detectron2.layers import ShapeSpec
from detectron2.model_zoo import get_config
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import FPN, BasicStem, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.resnet import BottleneckBlock
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler
from omegaconf import OmegaConf

from apdet.data.builtin import datasets_root
from apdet.data.mapper import BoxMapper
from apdet.data.training import resumable_train_loader, training_dicts
from apdet.evaluation import build_evaluator
from apdet.modeling import ClsLoss, OverlapMatcher, RankingRetinaNet, RankingRetinaNetHead

_digits = str(datasets_root() / "digits")

# These data sets are registered first. The keys are those of DATASETS in YAML.
datasets = {
    "register": [
        {"name": "digits_train", "format": "voc", "root": _digits, "split": "train"},
        {"name": "digits_test", "format": "voc", "root": _digits, "split": "test"},
    ],
    "train": ["digits_train"],
    "val": [],  # chooses model_best.pth; empty: the test sets do
    "test": ["digits_test"],
}

model = L(RankingRetinaNet)(
    backbone=L(FPN)(
        # ResNet-50 with a quarter of the channels.
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=32, norm="BN"),
            stages=[
                L(ResNet.make_stage)(
                    block_class=BottleneckBlock,
                    num_blocks=num_blocks,
                    stride_per_block=[stride] + [1] * (num_blocks - 1),
                    in_channels=in_channels,
                    bottleneck_channels=width,
                    out_channels=4 * width,
                    stride_in_1x1=False,
                    norm="BN",
                )
                for num_blocks, stride, in_channels, width in [
                    (3, 1, 32, 16),
                    (4, 2, 64, 32),
                    (6, 2, 128, 64),
                    (3, 2, 256, 128),
                ]
            ],
            out_features=["res3", "res4", "res5"],
        ),
        in_features="${.bottom_up.out_features}",
        out_channels=64,
        norm="BN",
        top_block=L(LastLevelMaxPool)(),
    ),
    head=L(RankingRetinaNetHead)(
        input_shape=[L(ShapeSpec)(channels="${....backbone.out_channels}") for _ in range(3)],
        # K. For a loss over classes and background, such as ohem_loss, it must be K + 1.
        num_logits="${..num_classes}",
        num_anchors=6,
        conv_dims=["${...backbone.out_channels}", "${...backbone.out_channels}"],
        norm="BN",
        bbox_pred_init_std=0.001,
    ),
    head_in_features=["p3", "p4", "p5"],
    # Two sizes per level and three aspect ratios, centred in their cell.
    anchor_generator=L(DefaultAnchorGenerator)(
        sizes=[[20, 28], [40, 56], [80, 112]],
        aspect_ratios=[[0.5, 1.0, 2.0]],
        strides=[8, 16, 32],
        offset=0.5,
    ),
    box2box_transform=L(Box2BoxTransform)(weights=[10.0, 10.0, 5.0, 5.0]),
    anchor_matcher=L(OverlapMatcher)(
        thresholds=[0.4, 0.5], labels=[0, -1, 1], allow_low_quality_matches=True
    ),
    num_classes=10,
    # kwargs are the hyper-parameters of the loss, such as {"delta": 0.5}.
    cls_loss=L(ClsLoss)(loss="ap_loss", kwargs={}, num_classes="${..num_classes}"),
    smooth_l1_beta=1.0,
    # The authors divide the gradient of the box loss by 4 |P|.
    box_reg_loss_weight=0.25,
    test_score_thresh_per_level=[0.01, 0.01, 0.0],
    pixel_mean=[103.53, 116.28, 123.675],
    pixel_std=[57.375, 57.12, 58.395],
)

dataloader = OmegaConf.create(flags={"allow_objects": True})
dataloader.train = L(resumable_train_loader)(
    dataset=L(training_dicts)(names="${datasets.train}"),
    mapper=L(BoxMapper)(
        is_train=True, augmentations=[L(T.Resize)(shape=[128, 128])], image_format="BGR"
    ),
    total_batch_size=8,
    aspect_ratio_grouping=False,
    num_workers=0,
    seed="${train.seed}",
    start_iter=0,  # set when a training is resumed
)
dataloader.test = L(build_detection_test_loader)(
    dataset=L(get_detection_dataset_dicts)(names="${datasets.test.0}", filter_empty=False),
    mapper=L(BoxMapper)(
        is_train=False,
        augmentations=[L(T.ResizeShortestEdge)(short_edge_length=128, max_size=128)],
        image_format="BGR",
    ),
    num_workers=0,
)
dataloader.evaluator = L(build_evaluator)(
    dataset_name="${datasets.test.0}",  # stands for each test and validation set in turn
    output_folder="${train.output_dir}/inference/${datasets.test.0}",
)

optimizer = get_config("common/optim.py").SGD
# For 8 images. With train.reference_batch_size = 8 it is scaled with total_batch_size.
optimizer.lr = 0.15

lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.0),
    warmup_factor=1 / 3,
    warmup_length=100 / 1200,
)

train = get_config("common/train.py").train
train.output_dir = "output/lazy/digits_retinanet_ap"
train.max_iter = 1200
train.eval_period = 300
train.checkpointer.period = 300
train.seed = 1
# Without clipping, the first gradients are too large for this learning rate. The keys are those of
# SOLVER.CLIP_GRADIENTS in YAML.
train.clip_gradients = {"clip_type": "norm", "clip_value": 1.0}
