"""The training of configs/digits/faster_rcnn_ap.yaml as a LazyConfig."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.model_zoo import get_config
from detectron2.modeling.box_regression import Box2BoxTransform

from apdet.modeling import ClsLoss, RankingOutputLayers, RankingROIHeads

from .digits_retinanet_ap import (  # noqa: F401  these parts stay the same
    dataloader,
    datasets,
    lr_multiplier,
    optimizer,
    train,
)
from .digits_retinanet_ap import model as _retinanet

# Detectron2's Mask R-CNN without its masks, on the small backbone of RetinaNet.
model = get_config("common/models/mask_rcnn_fpn.py").model
model.backbone = _retinanet.backbone
model.backbone.bottom_up.out_features = ["res2", "res3", "res4", "res5"]
model.update(pixel_mean=_retinanet.pixel_mean, pixel_std=_retinanet.pixel_std)

model.proposal_generator.in_features = ["p2", "p3", "p4", "p5"]
model.proposal_generator.head.in_channels = 64
model.proposal_generator.post_nms_topk = [2000, 1000]
model.proposal_generator.anchor_generator.update(
    sizes=[[20], [36], [60], [100]], strides=[4, 8, 16, 32]
)

_heads = model.roi_heads
_heads._target_ = RankingROIHeads
for _key in ("mask_in_features", "mask_pooler", "mask_head"):
    del _heads[_key]
# All positives are used. Negatives fill the rest of the 256 RoIs.
_heads.update(num_classes=10, batch_size_per_image=256, positive_fraction=1.0)
_heads.box_in_features = ["p2", "p3"]
_heads.box_pooler.update(scales=[1 / 4, 1 / 8], output_size=5, sampling_ratio=1)
_heads.box_head.input_shape = L(ShapeSpec)(channels=64, height=5, width=5)
_heads.box_head.fc_dims = [256, 256]
_heads.box_predictor = L(RankingOutputLayers)(
    input_shape=L(ShapeSpec)(channels=256),
    cls_loss=L(ClsLoss)(loss="ap_loss", num_classes="${...num_classes}"),
    box2box_transform=L(Box2BoxTransform)(weights=[10.0, 10.0, 5.0, 5.0]),
    test_score_thresh=0.01,
    # Detectron2 divides the box loss by the number of RoIs, but not the AP-loss.
    loss_weight={"loss_box_reg": 4.0},
)

# From scratch, more iterations help more than larger batches.
dataloader.train.total_batch_size = 4
optimizer.lr = 0.075
lr_multiplier.update(warmup_factor=1 / 1000, warmup_length=200 / 1000)
train.update(max_iter=1000, eval_period=500, output_dir="output/lazy/digits_faster_rcnn_ap")
train.checkpointer.period = 500
