"""The training of configs/digits/fcos_ap.yaml as a LazyConfig: RetinaNet with another head."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.meta_arch.fcos import FCOSHead

from apdet.modeling import RankingFCOS

from .digits_retinanet_ap import (  # noqa: F401  these parts stay the same
    dataloader,
    datasets,
    lr_multiplier,
    model,
    optimizer,
    train,
)

model._target_ = RankingFCOS
# FCOS has points in place of anchors, its own encoding of boxes and its own box loss.
for _key in ("anchor_generator", "box2box_transform", "anchor_matcher", "smooth_l1_beta"):
    del model[_key]
model.head = L(FCOSHead)(
    input_shape=[L(ShapeSpec)(channels="${....backbone.out_channels}") for _ in range(3)],
    num_classes="${..num_classes}",
    conv_dims=["${...backbone.out_channels}", "${...backbone.out_channels}"],
    norm="GN",
)
model.update(box_reg_loss_weight=1.0, test_score_thresh=0.01, test_score_thresh_per_level=[])

train.output_dir = "output/lazy/digits_fcos_ap"
