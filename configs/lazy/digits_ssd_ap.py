"""The training of configs/digits/ssd_ap.yaml as a LazyConfig: RetinaNet with other parts."""

import detectron2.data.transforms as T  # noqa: N812
from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec

from apdet.modeling import SSD, SSDVGG16, DefaultBoxGenerator, OverlapMatcher, SSDHead

from .digits_retinanet_ap import (  # noqa: F401  these parts stay the same
    dataloader,
    datasets,
    lr_multiplier,
    model,
    optimizer,
    train,
)

# VGG-16 with a quarter of the channels. BatchNorm makes training from scratch possible.
_channels = {"conv4_3": 128, "conv7": 256, "conv8_2": 128, "conv9_2": 64}

model._target_ = SSD
model.backbone = L(SSDVGG16)(in_channels=3, out_features=list(_channels), width=0.25, norm="BN")
model.head_in_features = list(_channels)
model.head = L(SSDHead)(
    input_shape=[L(ShapeSpec)(channels=channels) for channels in _channels.values()],
    num_anchors=[4, 4, 4, 4],
    num_logits="${..num_classes}",
    bbox_pred_init_std=0.001,
)
model.anchor_generator = L(DefaultBoxGenerator)(
    sizes=[[20, 36], [36, 60], [60, 90], [90, 120]],
    aspect_ratios=[[2]],
    strides=[8, 16, 32, 64],
    offset=0.5,
)
# An anchor is positive if its IoU is at least 0.5, and negative otherwise.
model.anchor_matcher = L(OverlapMatcher)(
    thresholds=[0.5], labels=[0, 1], allow_low_quality_matches=True
)
model.update(test_score_thresh=0.01, test_score_thresh_per_level=[])

dataloader.test.mapper.augmentations = [L(T.Resize)(shape=[128, 128])]
optimizer.lr = 0.03  # at RetinaNet's 0.15, ranking losses spread the scores widely
train.output_dir = "output/lazy/digits_ssd_ap"
