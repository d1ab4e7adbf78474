"""RetinaNet trained with any loss of :mod:`apdet.losses`."""

from collections.abc import Callable, Sequence

import torch
from detectron2.config import configurable
from detectron2.layers import cat
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.box_regression import _dense_box_regression_loss
from detectron2.modeling.meta_arch import RetinaNet
from torch import Tensor, nn

from apdet.errors import UserError
from apdet.modeling.matcher import OverlapMatcher
from apdet.modeling.ranking import (
    build_cls_loss,
    call_cls_loss,
    log_ranking,
    positives_a_process,
    ranking_group,
    ranking_targets,
)


@META_ARCH_REGISTRY.register()
class RankingRetinaNet(RetinaNet):
    """RetinaNet (arXiv:1708.02002) with one ranking over the anchors and classes of a batch.

    With ``focal_loss`` and the normaliser "ema" it trains as Detectron2's RetinaNet does.
    """

    @configurable
    def __init__(
        self,
        *,
        cls_loss: Callable[..., Tensor],
        global_ranking: bool = False,
        box_reg_loss_weight: float = 1.0,
        box_pred_init_std: float = 0.01,
        loss_normalizer: str = "batch",
        test_score_thresh_per_level: Sequence[float] = (),
        **kwargs,
    ):
        """Build the detector.

        Args:
            cls_loss: (logits, targets) -> (), a loss of :mod:`apdet.losses`.
            global_ranking: whether several processes rank the images of all of them as one, and
                count their positives together to normalise; else each is on its own.
            box_reg_loss_weight: factor of the box loss.
            box_pred_init_std: standard deviation of the box predictor's initial weights.
            loss_normalizer: what sums over anchors are divided by: "batch", the positives of the
                batch, or "ema", Detectron2's moving average of them (kept in checkpoints).
            test_score_thresh_per_level: score thresholds, one a level; empty: the same for all.
            kwargs: those of :class:`RetinaNet`.
        """
        super().__init__(**kwargs)
        if loss_normalizer not in ("batch", "ema"):
            raise UserError(
                f"MODEL.RETINANET.LOSS_NORMALIZER is {loss_normalizer!r}; choose 'batch' or 'ema'"
            )
        thresholds, levels = list(test_score_thresh_per_level), self.head_in_features
        if thresholds and len(thresholds) != len(levels):
            raise UserError(
                f"MODEL.RETINANET.SCORE_THRESH_TEST_PER_LEVEL has {len(thresholds)} values for the "
                f"{len(levels)} levels {list(levels)}; give one a level, or none"
            )
        self.cls_loss = cls_loss
        self.global_ranking = global_ranking
        self.box_reg_loss_weight = box_reg_loss_weight
        self.test_score_thresh_per_level = thresholds
        nn.init.normal_(self.head.bbox_pred.weight, std=box_pred_init_std)
        # A buffer, so that a resumed training goes on with it. 100 is Detectron2's first value.
        ema = torch.tensor(100.0) if loss_normalizer == "ema" else None
        self.register_buffer("loss_normalizer", ema)

    @classmethod
    def from_config(cls, cfg):
        retinanet = cfg.MODEL.RETINANET
        return {
            **super().from_config(cfg),
            "anchor_matcher": OverlapMatcher(
                retinanet.IOU_THRESHOLDS, retinanet.IOU_LABELS, allow_low_quality_matches=True
            ),
            "cls_loss": build_cls_loss(cfg),
            "global_ranking": cfg.MODEL.CLS_LOSS.GLOBAL_RANKING,
            "box_reg_loss_weight": retinanet.BBOX_REG_LOSS_WEIGHT,
            "box_pred_init_std": retinanet.BBOX_PRED_INIT_STD,
            "loss_normalizer": retinanet.LOSS_NORMALIZER,
            "test_score_thresh_per_level": retinanet.SCORE_THRESH_TEST_PER_LEVEL,
        }

    def losses(self, anchors, pred_logits, gt_labels, pred_anchor_deltas, gt_boxes):
        """Arguments and keys as in :meth:`RetinaNet.losses`; one ranking spans the mini-batch."""
        gt_labels = torch.stack(gt_labels)  # (N, R)
        pos_mask = (gt_labels >= 0) & (gt_labels != self.num_classes)  # (N, R)
        group = ranking_group(self.global_ranking)
        normalizer = self._normalizer(positives_a_process(pos_mask.sum(), group))

        logits = cat(pred_logits, dim=1)  # (N, R, K)
        targets = ranking_targets(gt_labels, self.num_classes)  # (N, R, K)
        log_ranking(logits, targets)
        loss_cls = call_cls_loss(self.cls_loss, logits, targets, normalizer=normalizer, group=group)
        loss_box_reg = _dense_box_regression_loss(
            anchors,
            self.box2box_transform,
            pred_anchor_deltas,
            gt_boxes,
            pos_mask,
            box_reg_loss_type=self.box_reg_loss_type,
            smooth_l1_beta=self.smooth_l1_beta,
        )
        return {
            "loss_cls": loss_cls,
            "loss_box_reg": self.box_reg_loss_weight * loss_box_reg / normalizer,
        }

    def _normalizer(self, num_positives: Tensor) -> Tensor:
        if self.loss_normalizer is None:
            return num_positives
        self.loss_normalizer.mul_(0.9).add_(0.1 * num_positives)
        return self.loss_normalizer.clone()

    def _decode_multi_level_predictions(
        self, anchors, pred_scores, pred_deltas, score_thresh, topk_candidates, image_size
    ):
        thresholds = self.test_score_thresh_per_level or [score_thresh] * len(anchors)
        predictions = [
            self._decode_per_level_predictions(*level, topk_candidates, image_size)
            for level in zip(anchors, pred_scores, pred_deltas, thresholds, strict=True)
        ]
        return predictions[0].cat(predictions)
